"""A Tensor: an array, and how it was made."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from inspect import signature
from itertools import count
from operator import attrgetter
from typing import Any, NoReturn

import numpy

from . import backend
from .backend import Array

_birth = count().__next__
_recording = ContextVar("recording", default=True)  # each thread's own


class Tensor:
    """An array that remembers how it was made, so that ``grad`` can walk back from it.

    ``data`` is a NumPy or CuPy array of floats. A Tensor made by a primitive also holds ``op``, the primitive, and
    ``args``, what it was called with: ``data == op(*args).data``. It never refers to anything made later, so a graph
    has no cycles and is freed with its last Tensor.

    ``birth`` numbers Tensors in the order of their making: a Tensor's operands always have smaller numbers.
    ``version`` counts how often ``data`` was assigned since; whoever writes into the array adds 1 (``Adam`` does), so
    that ``grad`` can tell a graph whose arrays are no longer what they were. A copy, or a pickle, has no history.

    ``unrecorded`` are weak references to what a gradient depends on whose sweep was not recorded, and whatever is made
    of that gradient: so ``grad`` can tell where a derivative would be missing. ``detach`` makes a constant of it.
    """

    __slots__ = (
        "__weakref__",
        "_data",
        "args",
        "birth",
        "op",
        "requires_grad",
        "unrecorded",
        "version",
        "versions_read",
    )
    __array_ufunc__ = None  # so that `array * tensor` comes to Tensor.__rmul__ instead of NumPy,
    __array_priority__ = 1000  # and instead of CuPy

    def __init__(self, data: Array, requires_grad: bool = False) -> None:
        self._data = data
        self.requires_grad = requires_grad
        self.op = None
        self.args = ()
        self.birth = _birth()
        self.version = self.versions_read = 0
        self.unrecorded = frozenset()

    def _assign(self, data: Array) -> None:
        self._data = data
        self.version += 1

    data = property(attrgetter("_data"), _assign)
    shape, dtype, ndim = (property(attrgetter(f"_data.{name}")) for name in ("shape", "dtype", "ndim"))

    @property
    def operands(self) -> list["Tensor"]:
        """The Tensors it was made from that require a gradient."""
        return [x for x in self.args if isinstance(x, Tensor) and x.requires_grad]

    @property
    def stale(self) -> bool:
        """Whether it was changed since it was made, or anything that it was made from."""
        now = sum(x.version for x in self.args if isinstance(x, Tensor))
        return self.op is not None and self.version + now != self.versions_read

    def detach(self) -> "Tensor":
        """The same array, without its history."""
        return Tensor(self.data)

    def item(self) -> float:
        """The value of a Tensor of one element as a Python float (on the GPU this waits for the device)."""
        return self.data.item()

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator["Tensor"]:
        return map(self.__getitem__, range(len(self)))

    def __bool__(self) -> bool:
        return bool(self.data)

    def __eq__(self, other: object) -> NoReturn:
        raise TypeError("== of a Tensor: compare arrays, x.data == y.data, or write x is y")

    __hash__ = object.__hash__

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("a Tensor is no array: write x.data, or minigan.backend.to_numpy(x); or a function of mg.ops")

    def __reduce__(self) -> tuple:
        return Tensor, (self.data, self.requires_grad)

    def __repr__(self) -> str:
        return f"Tensor({backend.to_numpy(self)}, dtype={self.dtype}, requires_grad={self.requires_grad})"


def tensor(data: Any, requires_grad: bool = False) -> Tensor:
    """A Tensor holding a copy of ``data`` (array, Tensor, list or number) on the device in use.

    A float array keeps its dtype; anything else becomes float32. Raises TypeError for complex numbers and for what is
    not numbers at all.
    """
    data = data.data if isinstance(data, Tensor) else data
    array = backend.xp.array(data)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"tensor: expected real numbers, got an array of dtype {array.dtype}")
    keep = array.dtype.kind == "f" and hasattr(data, "dtype")
    return Tensor(array if keep else array.astype("float32"), requires_grad)


@contextmanager
def recording(on: bool) -> Iterator[None]:
    """Whether the Tensors that this thread makes inside remember how they were made."""
    before = _recording.set(on)
    try:
        yield
    finally:
        _recording.reset(before)


def no_grad() -> Any:
    """``with no_grad():`` Tensors made inside keep no history and require no gradient."""
    return recording(False)


def primitive(*vjps: Callable[..., Tensor], expects: str = "an array") -> Callable[..., Callable[..., Tensor]]:
    """Turn ``forward``, a function of arrays, into a function of Tensors that records how its result was made.

    The first parameters of ``forward`` are the operands: Tensors, of which it gets the arrays, or constants (arrays and
    numbers, to which no gradient flows). What follows is not differentiated: axes, shapes, slopes.

    For each operand there is one of ``vjps``, the vector-Jacobian products: ``vjp(g, out, *args)`` takes the gradient
    ``g`` with respect to the result ``out`` of ``op(*args)``, and returns the one with respect to that operand, in its
    shape and dtype. ``expects`` says in an error what the operands should have been.
    """

    def decorate(forward: Callable[..., Array]) -> Callable[..., Tensor]:
        parameters = signature(forward)

        @wraps(forward)
        def op(*args: Any, **named: Any) -> Tensor:
            if named or len(args) != len(parameters.parameters):
                try:
                    bound = parameters.bind(*args, **named)
                except TypeError as error:
                    raise TypeError(f"{op.__name__}: {error}") from None
                bound.apply_defaults()
                args = bound.args
            arrays, dtypes, differentiable, unrecorded, versions = [], set(), False, (), 0
            for x in args[: len(vjps)]:
                if isinstance(x, Tensor):
                    differentiable = differentiable or x.requires_grad
                    if x.unrecorded:
                        unrecorded = {ref for ref in x.unrecorded.union(unrecorded) if ref() is not None}
                    versions += x.version
                    x = x.data
                    dtypes.add(x.dtype)
                elif isinstance(x, numpy.generic):
                    x = x.item()
                arrays.append(x)
            try:
                data = forward(*arrays, *args[len(vjps) :])
            except (ValueError, IndexError) as error:
                got = ", ".join(str(getattr(x, "shape", x)) for x in args)
                raise type(error)(f"{op.__name__}: got {got}; expected {expects}") from None
            if not isinstance(data, backend.xp.ndarray):  # NumPy reduces to scalars, CuPy to arrays
                data = backend.asarray(data)
            if dtypes and dtypes != {data.dtype}:
                got = " and ".join(str(getattr(x, "dtype", type(x).__name__)) for x in arrays)
                raise TypeError(f"{op.__name__}: got {got}; expected operands of one dtype, to be kept")
            out = Tensor(data)
            if differentiable and _recording.get():
                out.requires_grad, out.op, out.args, out.versions_read = True, op, args, versions
            if unrecorded and _recording.get():
                out.unrecorded = frozenset(unrecorded)
            return out

        op.vjps = vjps
        return op

    return decorate
