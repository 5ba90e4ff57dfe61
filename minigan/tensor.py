"""A Tensor: an array, and how it was made."""

from collections.abc import Callable, Iterator
from contextvars import ContextVar
from itertools import count
from typing import Any

from . import backend, guards
from .backend import Array

_birth = count(1).__next__
_recording = ContextVar("recording", default=True)  # each thread's own


class Tensor(guards.NoArray):
    """An array that remembers how it was made, so that ``grad`` can walk back from it.

    ``data`` is a NumPy or CuPy array of floats. A Tensor made by a primitive also holds ``op``, the primitive, and
    ``args``, what it was called with: ``data == op(*args).data``. It never refers to anything made later, so a graph
    has no cycles and is freed with its last Tensor. A copy, or a pickle, has no history.

    ``birth`` numbers Tensors in the order of their making: a Tensor's operands always have smaller numbers. By the same
    clock ``assigned`` is when ``data`` was last assigned to, and there is a note of when an array was written to, with
    all its views, so that ``grad`` can tell a graph whose arrays are no longer what they were. Whoever writes into the
    array itself, as by ``x.data[...] = 1``, calls ``changed(x)``. ``unrecorded`` marks a gradient whose sweep was not
    recorded, and what is made of it; ``detach`` makes a constant of it.
    """

    __slots__ = ("__weakref__", "_data", "args", "assigned", "birth", "op", "requires_grad", "unrecorded")

    def __init__(self, data: Array, requires_grad: bool = False) -> None:
        self._data, self.requires_grad, self.birth = data, requires_grad, _birth()
        self.op, self.args, self.assigned, self.unrecorded = None, (), 0, False

    @property
    def data(self) -> Array:
        return self._data

    @data.setter
    def data(self, data: Array) -> None:
        if data is self._data:  # as by x.data += 1
            changed(self)
        self._data, self.assigned = backend.as_array(data), _birth()

    shape = property(lambda x: x._data.shape)
    dtype = property(lambda x: x._data.dtype)
    ndim = property(lambda x: x._data.ndim)

    def detach(self) -> "Tensor":
        """The same array, without its history."""
        return Tensor(self._data)

    def item(self) -> float:
        """The value of a Tensor of one element as a Python float (on the GPU this waits for the device)."""
        return self._data.item()

    def __len__(self) -> int:
        return len(self._data)

    def __iter__(self) -> Iterator["Tensor"]:
        return map(self.__getitem__, range(len(self)))

    def __bool__(self) -> bool:
        return bool(self._data)

    def __reduce__(self) -> tuple:
        return Tensor, (self._data, self.requires_grad)

    def __repr__(self) -> str:
        return f"Tensor({backend.to_numpy(self)}, dtype={self.dtype}, requires_grad={self.requires_grad})"


def tensor(data: Any, requires_grad: bool = False) -> Tensor:
    """A Tensor holding a copy of ``data`` (array, Tensor, list or number) on the device in use.

    A float array keeps its dtype; anything else becomes float32. Raises TypeError for complex numbers, for half
    precision, and for what is not numbers at all.
    """
    data = backend.array_of(data)
    return Tensor(guards.real_numbers(backend.xp.array(data), keep=hasattr(data, "dtype")), requires_grad)


def changed(*tensors: Tensor) -> None:
    """Note that the arrays of ``tensors`` were written to: what was made of them before is no longer theirs."""
    for x in tensors:
        guards.note_write(x._data, _birth())


def recording(on: bool) -> guards.Switch:
    """``with recording(on):`` whether the Tensors that this thread makes inside remember how they were made."""
    return guards.Switch(_recording, on)


def no_grad() -> guards.Switch:
    """``with no_grad():`` Tensors made inside keep no history and require no gradient; or a decorator of a function."""
    return recording(False)


def primitive(*vjps: Callable[..., Tensor]) -> Callable[[Callable[..., Array]], Callable[..., Tensor]]:
    """Turn ``forward``, a function of arrays, into a function of Tensors that records how its result was made.

    The first parameters of ``forward`` are the operands: Tensors, of which it gets the arrays, or constants (arrays and
    numbers, to which no gradient flows; they are held, not copied). What follows is not differentiated: axes, shapes,
    slopes.

    For each operand there is one of ``vjps``, the vector-Jacobian products: ``vjp(g, out, *args)`` takes the gradient
    ``g`` with respect to the result ``out`` of ``op(*args)``, and returns the one with respect to that operand, in its
    dtype, and in its shape or in one that it was broadcast to.
    """

    def decorate(forward: Callable[..., Array]) -> Callable[..., Tensor]:
        compute, n = backend.kernel(forward), len(vjps)

        @guards.called_rightly(forward, n)  # all arguments come by position, defaults filled in
        def op(*args: Any) -> Tensor:
            arrays, requires_grad, unrecorded = list(args), False, False
            for i, x in enumerate(args[:n]):
                if isinstance(x, Tensor):
                    arrays[i] = x._data
                    requires_grad, unrecorded = requires_grad or x.requires_grad, unrecorded or x.unrecorded
            out = Tensor(backend.as_array(compute(*arrays)))
            if _recording.get():
                out.unrecorded = unrecorded
                if requires_grad:
                    out.op, out.args, out.requires_grad = op, args, True
            return out

        op.vjps = vjps
        return op

    return decorate
