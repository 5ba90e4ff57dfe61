"""A Tensor: an array, how it was made, and when."""

from collections.abc import Callable, Iterator
from contextvars import ContextVar
from copy import deepcopy
from functools import wraps
from itertools import count
from typing import Any, NoReturn, ParamSpec

from . import backend, guards
from .backend import Array

Operator = Callable[..., "Tensor"]
Parameters = ParamSpec("Parameters")


class Tensor:
    """An array that remembers how it was made, so that ``grad`` can walk back from it.

    ``array`` is a NumPy or CuPy array of floats, held and not copied. A Tensor that was recorded also holds ``op``, the
    primitive that made it, and ``args``, the arguments of that call: ``array`` is that of ``op(*args)``. A Tensor never
    refers to anything made later, so a graph has no cycles and is freed with its last Tensor. A copy has no history.

    ``birth`` numbers Tensors in the order of their making: a Tensor's operands have smaller numbers than the Tensor.
    ``unrecorded`` is the birth of the newest gradient without a record (made without ``create_graph``) that the Tensor
    is, or was made of, or 0. ``detach`` and a pickle drop this mark; a copy keeps it.

    ``data`` is the array for all others to read, and may be assigned to. On the CPU it cannot be written to; on a GPU
    it could, but nothing would notice. (Code that writes to ``array`` says so: ``guards.note_write``.)
    """

    __slots__ = ("__weakref__", "_requires_grad", "args", "array", "assigned", "birth", "op", "unrecorded")
    clock = count(1).__next__  # numbers births, and writes to arrays
    __array_ufunc__ = None  # so that `array * tensor` calls Tensor.__rmul__ instead of NumPy's,
    __array_priority__ = 1000  # and instead of CuPy's

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

    def __init__(self, array: Array, requires_grad: bool = False) -> None:
        if type(array) is not backend.xp.ndarray:  # nor of a subclass, which may multiply otherwise
            guards.refuse_no_array(array)
        self.array, self._requires_grad, self.birth = array, requires_grad, self.clock()
        self.op: Any = None
        self.args: tuple = ()
        self.assigned = self.unrecorded = 0  # assigned: when data was assigned to last

    shape = property(lambda x: x.array.shape)
    dtype = property(lambda x: x.array.dtype)
    ndim = property(lambda x: x.array.ndim)
    requires_grad = property(lambda x: x._requires_grad, guards.refuse_switch)  # it belongs to how a Tensor is made

    @property
    def data(self) -> Array:
        return backend.read_only(self.array)

    @data.setter
    def data(self, data: Array) -> None:
        array = guards.checked_floats(backend.to_array(guards.plain(data)))
        self.array = array.copy() if backend.is_read_only(array) else array  # read-only is another Tensor's data
        guards.assigned(self)

    def operands(self) -> list[tuple["Tensor", Operator]]:
        """The Tensors among ``args``, each with the vjp that gives its gradient."""
        return [(x, vjp) for x, vjp in zip(self.args, self.op.vjps) if isinstance(x, Tensor)] if self.op else []

    def detach(self) -> "Tensor":
        """The same array, without its history: a constant, also where it was made of a gradient without a record."""
        return Tensor(self.array)

    def without_record(self) -> "Tensor":
        """The same array, without its history, and marked: whoever differentiates it would lose what flows through."""
        x = Tensor(self.array)
        x.unrecorded = x.birth
        return x

    def item(self) -> float:
        """The value of a Tensor of one element as a Python float (on the GPU this waits for the device).

        An error while an iteration is recorded, unless it is a constant: a replay would not read the value again.
        """
        return backend.checked_read(self.array).item()

    def __len__(self) -> int:
        return len(self.array)

    def __iter__(self) -> Iterator["Tensor"]:
        return map(self.__getitem__, range(len(self)))

    def __bool__(self) -> bool:
        return bool(backend.checked_read(self.array))

    def __eq__(self, other: object) -> NoReturn:
        raise TypeError("== of a Tensor: compare arrays, x.data == y.data, or write x is y")

    __hash__ = object.__hash__

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("a Tensor is no array: write x.data, or minigan.backend.to_numpy(x); or a function of mg.ops")

    def __copy__(self) -> "Tensor":
        return self.__deepcopy__({id(self.array): self.array})

    def __deepcopy__(self, memo: dict) -> "Tensor":
        x = Tensor(deepcopy(self.array, memo), self._requires_grad)
        x.unrecorded = self.unrecorded
        return x

    def __reduce__(self) -> tuple:
        return Tensor, (self.array, self._requires_grad)

    def __repr__(self) -> str:
        return f"Tensor({backend.to_numpy(self)}, dtype={self.dtype}, requires_grad={self.requires_grad})"

    def _repr_html_(self) -> str:  # of a notebook
        return f"<p>Tensor {self.shape}, {self.dtype}</p><pre>{backend.to_numpy(self)}</pre>"


def tensor(data: Any, requires_grad: bool = False) -> Tensor:
    """A Tensor holding a copy of ``data`` (array, Tensor, list or number) on the device in use: a constant, or a leaf.

    >>> x = mg.tensor([1.0, -2.0], requires_grad=True)  # a leaf: grad can be asked for a gradient with respect to it
    >>> y = (x * x).sum()  # remembers how it was made
    >>> y.item(), mg.grad(y, x)[0].data.tolist()
    (5.0, [2.0, -4.0])

    What has a float dtype keeps it; anything else becomes float32. Raises TypeError for complex numbers, for half
    precision, and for what is not numbers at all.
    """
    return Tensor(guards.as_floats(backend.unwrap(data)), requires_grad)


is_recording = ContextVar("is_recording", default=True)  # whether this thread's new Tensors remember how they were made
_before: ContextVar[tuple] = ContextVar("before", default=())  # the values that switches replaced, outermost first


class Switch:
    """``with Switch(variable, value):`` sets a context variable of this thread inside; or a decorator of a function.

    Raises TypeError in a generator, since at a ``yield`` the variable would stay set for the caller.
    """

    def __init__(self, variable: ContextVar, value: Any) -> None:
        self._variable, self._value = variable, value

    def __enter__(self) -> None:
        guards.check_no_yield()
        _before.set((*_before.get(), self._variable.get()))
        self._variable.set(self._value)

    def __exit__(self, *_: object) -> None:
        *before, value = _before.get()
        _before.set(tuple(before))
        self._variable.set(value)

    def __call__(self, function: Callable) -> Callable:
        @wraps(function)
        def call(*args: Any, **named: Any) -> Any:
            with self:
                return guards.not_lazy(function(*args, **named))

        return call


def recording(on: bool) -> Switch:
    """``with recording(on):`` whether Tensors that this thread makes inside remember how they were made."""
    return Switch(is_recording, on)


def no_grad() -> Switch:
    """``with no_grad():`` Tensors made inside keep no history and require no gradient; or a decorator of a function."""
    return recording(False)


def primitive(*vjps: Operator) -> Callable[[Callable[Parameters, Array]], Callable[Parameters, Tensor]]:
    """Turn ``forward``, a function of arrays, into a function of Tensors that records how its result was made.

    >>> @mg.primitive(lambda g, out, x: g * (2 * x))  # made of primitives, so there are derivatives of any order
    ... def square(x):
    ...     return x * x
    >>> mg.gradcheck(square, [1.0, -2.0], order=3)  # against finite differences

    The first parameters of ``forward`` are the operands: Tensors, whose arrays ``forward`` gets, or constants (arrays
    and numbers, to which no gradient flows; they are held, not copied). The other parameters, as axes, shapes and
    slopes, are not differentiated.

    ``vjps`` has a vector-Jacobian product for each operand: ``vjp(g, out, *args)`` takes the gradient ``g`` with
    respect to the result ``out`` of ``op(*args)``, and returns the gradient with respect to that operand, in the
    operand's dtype, and in its shape or in a shape that it was broadcast to.
    """

    def decorate(forward: Callable[Parameters, Array]) -> Callable[Parameters, Tensor]:
        n = len(vjps)
        compute = backend.kernel(forward)  # which calls forward, and notes it while an iteration is written down

        @guards.with_signature_of(forward, n)  # the arguments come in their places, with defaults
        def op(*args: Any) -> Tensor:
            args = (*args[:n], *guards.plain_settings(op.__name__, args[n:])) if args[n:] else args
            try:
                arrays = [x.array if isinstance(x, Tensor) else guards.plain(x) for x in args[:n]]
                out = Tensor(backend.to_array(compute(*arrays, *args[n:])))  # for () NumPy gives scalars
            except tuple(guards.MISUSED) as error:
                raise guards.misuse(op, args, error) from error
            guards.check_dtypes(op.__name__, args[:n], out)
            for x in args[:n]:
                if isinstance(x, Tensor):
                    if x.unrecorded > out.unrecorded:
                        out.unrecorded = x.unrecorded
                    if x._requires_grad and is_recording.get():
                        out.op, out.args, out._requires_grad = op, args, True
            return out

        op.vjps = vjps
        return op

    return decorate
