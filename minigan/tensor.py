"""A Tensor: an array, and how it was made."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from inspect import Parameter, signature
from itertools import count
from typing import Any

import numpy

from . import backend
from .backend import Array

_birth = count().__next__
_recording = True


class Tensor:
    """An array that remembers how it was made, so that ``grad`` can walk back from it.

    ``data`` is a NumPy or CuPy array of floats. A Tensor made by a primitive also holds ``op``, the primitive, and
    ``args`` and ``static``, what it was called with: ``data == op(*args, **static).data``. It never refers to anything
    made later, so a graph has no cycles and is freed with its last Tensor.
    ``birth`` numbers Tensors in the order of their making: a Tensor's inputs always have smaller numbers.
    """

    __slots__ = ("__weakref__", "args", "birth", "data", "op", "requires_grad", "static")
    __array_ufunc__ = None  # so that `array * tensor` comes to Tensor.__rmul__ instead of NumPy,
    __array_priority__ = 1000  # and instead of CuPy

    def __init__(self, data: Array, requires_grad: bool = False) -> None:
        self.data = data
        self.requires_grad = requires_grad
        self.op = None
        self.args = ()
        self.static = {}
        self.birth = _birth()

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def dtype(self) -> numpy.dtype:
        return self.data.dtype

    @property
    def ndim(self) -> int:
        return self.data.ndim

    @property
    def inputs(self) -> list["Tensor"]:
        """The Tensors it was made from that require a gradient."""
        return [x for x in self.args if isinstance(x, Tensor) and x.requires_grad]

    def detach(self) -> "Tensor":
        """The same array, without its history."""
        return Tensor(self.data)

    def item(self) -> float:
        """The value of a Tensor of one element as a Python float (on the GPU this waits for the device)."""
        return self.data.item()

    def __len__(self) -> int:
        return len(self.data)

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
    """Whether the Tensors made inside remember how they were made."""
    global _recording
    before, _recording = _recording, on
    try:
        yield
    finally:
        _recording = before


def no_grad() -> Any:
    """``with no_grad():`` Tensors made inside keep no history and require no gradient."""
    return recording(False)


def primitive(*vjps: Callable[..., Tensor], expects: str = "an array") -> Callable[..., Callable[..., Tensor]]:
    """Turn a function of arrays into a function of Tensors that records how its result was made.

    The function's parameters without a default are its operands, given by position: Tensors, or constants (arrays and
    Python numbers, to which no gradient flows). Those with a default are static: axes, shapes, slopes.

    For each operand there is one of ``vjps``, the vector-Jacobian products: ``vjp(g, out, *operands, **static)`` takes
    the gradient ``g`` with respect to the result ``out`` and returns the one with respect to that operand, in its shape
    and dtype (or an ``ops.RowProduct`` that stands for it). ``expects`` says in an error what the operands should have
    been.
    """

    def decorate(forward: Callable[..., Array]) -> Callable[..., Tensor]:
        parameters = signature(forward).parameters.values()
        defaults = {p.name: p.default for p in parameters if p.default is not Parameter.empty}

        @wraps(forward)
        def op(*args: Any, **static: Any) -> Tensor:
            if static and not static.keys() <= defaults.keys():
                wrong = ", ".join(sorted(static.keys() - defaults.keys()))
                raise TypeError(f"{op.__name__}: got {wrong} by keyword; expected operands by position")
            args, extra = args[: len(vjps)], args[len(vjps) :]
            arrays, dtypes, differentiable = [], [], False
            for a in args:
                if isinstance(a, Tensor):
                    differentiable = differentiable or a.requires_grad
                    a = a.data
                    dtypes.append(a.dtype)
                elif isinstance(a, numpy.generic):
                    a = a.item()
                arrays.append(a)
            try:
                data = forward(*arrays, *extra, **static)
            except (ValueError, IndexError) as error:
                got = [str(getattr(a, "shape", a)) for a in arrays] + [str(a) for a in (*extra, *static.values())]
                raise type(error)(f"{op.__name__}: got {', '.join(got)}; expected {expects}") from None
            if not isinstance(data, backend.xp.ndarray):  # NumPy reduces to scalars, CuPy to arrays
                data = backend.asarray(data)
            if dtypes.count(data.dtype) < len(dtypes):
                got = " and ".join(str(getattr(a, "dtype", type(a).__name__)) for a in arrays)
                raise TypeError(f"{op.__name__}: got {got}; expected operands of one dtype, to be kept")
            out = Tensor(data)
            if differentiable and _recording:
                out.requires_grad, out.op, out.args = True, op, args
                if defaults:
                    out.static = {**defaults, **dict(zip(defaults, extra)), **static}
            return out

        op.vjps = vjps
        return op

    return decorate
