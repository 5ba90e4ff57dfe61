"""A Tensor: an array, and how it was made."""

from collections.abc import Callable, Iterator
from typing import Any, ParamSpec

from . import backend, guards
from .backend import Array

Operator = Callable[..., "Tensor"]
Parameters = ParamSpec("Parameters")


class Tensor(guards.Guarded):
    """An array that remembers how it was made, so that ``grad`` can walk back from it.

    ``data`` is a NumPy or CuPy array of floats. A Tensor that was recorded also holds ``op``, the primitive that made
    it, and ``args``, the arguments of that call: ``data == op(*args).data``. A Tensor never refers to anything made
    later, so a graph has no cycles and is freed with its last Tensor. A copy or a pickle of a Tensor has no history.

    ``birth`` numbers Tensors in the order of their making: a Tensor's operands have smaller numbers than the Tensor.

    ``data`` may be assigned to. Code that writes into the array, as ``x.data[...] = 1`` does, calls
    ``guards.changed(x)``, so that graphs made before are refused from then on.
    """

    __slots__ = ("__weakref__", "args", "birth", "op", "requires_grad")

    # ``ops`` defines these: each is a primitive.
    __add__: Operator
    __radd__: Operator
    __sub__: Operator
    __rsub__: Operator
    __mul__: Operator
    __rmul__: Operator
    __truediv__: Operator
    __rtruediv__: Operator
    __matmul__: Operator
    __rmatmul__: Operator
    __pow__: Operator
    __neg__: Operator
    __getitem__: Operator
    sum: Operator
    mean: Operator
    reshape: Operator
    T: "Tensor"

    # ``data`` is a property of Guarded, which notes when it is assigned to; to read _data is the same, and faster.

    def __init__(self, data: Array, requires_grad: bool = False) -> None:
        self._data, self.requires_grad, self.birth = data, requires_grad, guards.clock()
        self.op: Any = None
        self.args: tuple = ()
        self.assigned, self.unrecorded = 0, 0  # the guards' notes: when data was assigned to, the mark of a gradient

    shape = property(lambda x: x._data.shape)
    dtype = property(lambda x: x._data.dtype)
    ndim = property(lambda x: x._data.ndim)

    def operands(self) -> list[tuple["Tensor", Operator]]:
        """The Tensors among ``args``, each with the vjp that gives its gradient."""
        return [(x, vjp) for x, vjp in zip(self.args, self.op.vjps) if isinstance(x, Tensor)] if self.op else []

    def detach(self) -> "Tensor":
        """The same array, without its history."""
        return Tensor(self._data)

    def item(self) -> float:
        """The value of a Tensor of one element as a Python float (on the GPU this waits for the device).

        An error while an iteration is recorded, unless it is a constant: a replay would not read the value again.
        """
        return backend.checked_read(self._data).item()

    def __len__(self) -> int:
        return len(self._data)

    def __iter__(self) -> Iterator["Tensor"]:
        return map(self.__getitem__, range(len(self)))

    def __bool__(self) -> bool:
        return bool(backend.checked_read(self._data))

    def __reduce__(self) -> tuple:
        return Tensor, (self._data, self.requires_grad)

    def __repr__(self) -> str:
        return f"Tensor({backend.to_numpy(self)}, dtype={self.dtype}, requires_grad={self.requires_grad})"


def tensor(data: Any, requires_grad: bool = False) -> Tensor:
    """A Tensor holding a copy of ``data`` (array, Tensor, list or number) on the device in use.

    A float array keeps its dtype; anything else becomes float32. Raises TypeError for complex numbers, for half
    precision, and for what is not numbers at all.
    """
    data = backend.array_of(data)  # a list stays one, and has no dtype to keep
    return Tensor(guards.as_floats(backend.xp.array(data), keep_dtype=hasattr(data, "dtype")), requires_grad)


def recording(on: bool) -> guards.Switch:
    """``with recording(on):`` whether Tensors that this thread makes inside remember how they were made."""
    return guards.Switch(guards.is_recording, on)


def no_grad() -> guards.Switch:
    """``with no_grad():`` Tensors made inside keep no history and require no gradient; or a decorator of a function."""
    return recording(False)


def primitive(*vjps: Operator) -> Callable[[Callable[Parameters, Array]], Callable[Parameters, Tensor]]:
    """Turn ``forward``, a function of arrays, into a function of Tensors that records how its result was made.

    The first parameters of ``forward`` are the operands: Tensors, whose arrays ``forward`` gets, or constants (arrays
    and numbers, to which no gradient flows; they are held, not copied). The other parameters, as axes, shapes and
    slopes, are not differentiated.

    ``vjps`` has a vector-Jacobian product for each operand: ``vjp(g, out, *args)`` takes the gradient ``g`` with
    respect to the result ``out`` of ``op(*args)``, and returns the gradient with respect to that operand, in the
    operand's dtype, and in its shape or in a shape that it was broadcast to.
    """

    def decorate(forward: Callable[Parameters, Array]) -> Callable[Parameters, Tensor]:
        n = len(vjps)
        compute = backend.kernel(forward)  # forward itself; its calls are noted while an iteration is written down

        @guards.called_rightly(forward, n)  # arguments come in their places, with defaults; marks are passed on
        def op(*args: Any) -> Tensor:
            arrays = [x._data if isinstance(x, Tensor) else x for x in args[:n]]
            out = Tensor(backend.as_array(compute(*arrays, *args[n:])))  # for () NumPy gives scalars
            for x in args[:n]:
                if isinstance(x, Tensor) and x.requires_grad and guards.is_recording.get():
                    out.op, out.args, out.requires_grad = op, args, True
            return out

        op.vjps = vjps
        return op

    return decorate
