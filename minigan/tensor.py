"""A Tensor: an array, how it was made, and when."""

from collections.abc import Callable, Iterator
from contextlib import ContextDecorator
from contextvars import ContextVar
from copy import deepcopy
from functools import wraps
from inspect import signature
from itertools import count
from typing import Any, NoReturn, ParamSpec

from . import backend, guards
from .backend import Array

Operator = Callable[..., "Tensor"]
Parameters = ParamSpec("Parameters")
IN_OPS: Operator = None  # type: ignore[assignment]


class Tensor:
    """An array that remembers how it was made, so that ``grad`` can walk back from it.

    ``array`` is a NumPy or CuPy array of floats, held and not copied. A Tensor that was recorded also holds ``op``, the
    primitive that made it, and ``args``, the arguments of that call: ``array`` is that of ``op(*args)``. A Tensor never
    refers to anything made later, so a graph has no cycles and is freed with its last Tensor. A copy has no history.
    Raises TypeError for what is no such array, and for a subclass, whose attributes no result and no copy would have.

    ``birth`` numbers Tensors in the order of their making: a Tensor's operands have smaller numbers than the Tensor.

    ``unrecorded`` is the birth of the newest gradient without a record that the Tensor is, or was made of, or 0:

        (g,) = grad(D, y)               # without create_graph: g has no graph, and g.unrecorded = g.birth, say 57
        P = (norm(g, 1) ** 2).mean()    # has none either, but the mark: P.unrecorded = 57
        loss = (w * w).sum() + P        # has a graph, by which w is found, and the mark
        grad(loss, w)                   # w is older than 57, so P may depend on w: an error, as its part would be lost
        w = w - 0.1 * g                 # made after g (the mark is 57, the birth 80)
        grad((w * w).sum(), w)          # right: nothing as old as 57 can depend on this w

    ``detach`` and a pickle drop the mark; a copy keeps it.
    """

    __slots__ = ("__weakref__", "_place", "_requires_grad", "args", "array", "birth", "op", "unrecorded")
    clock = count(1).__next__  # numbers births, and writes to arrays
    __array_ufunc__ = None  # so that `array * tensor` calls Tensor.__rmul__ instead of NumPy's,
    __array_priority__ = 1000  # and instead of CuPy's

    def __init__(self, array: Array, requires_grad: bool = False) -> None:
        self.array = array if type(array) is backend.xp.ndarray else guards.plain_array(array)
        self._requires_grad, self.birth, self.unrecorded = requires_grad, self.clock(), 0
        self.op: Any = None
        self.args: tuple = ()
        self._place: tuple = (None, None)  # an array, and where it lies: ``place``

    def __init_subclass__(cls) -> NoReturn:
        raise TypeError("Tensor has no subclasses: hold a Tensor in an attribute instead")

    shape = property(lambda x: x.array.shape)
    dtype = property(lambda x: x.array.dtype)
    ndim = property(lambda x: x.array.ndim)
    requires_grad = property(lambda x: x._requires_grad, guards.refuse_switch)  # it belongs to how a Tensor is made

    @property
    def data(self) -> Array:
        """The array, to read; to change it, assign: ``x.data = x.data - 0.1``.

        Assigning copies, in the Tensor's own dtype; ValueError for another shape. Adam changes the array in place: who
        wants to keep it writes ``x.data.copy()``. On the CPU what is read cannot be written to; on a GPU it could, but
        nothing would notice. (Code that writes to ``array`` says so: ``guards.note_write``.)
        """
        return backend.read_only(self.array)

    @data.setter
    def data(self, data: Any) -> None:
        array = backend.on_device(guards.plain(data), self.dtype).copy()
        guards.check_shape(array.shape, self.shape)
        self.array = array
        guards.note_write(self)

    @property
    def place(self) -> tuple:
        """Where the array lies in memory; to ask for it takes a while, so it is kept."""
        if self._place[0] is not self.array:
            self._place = self.array, backend.place(self.array)
        return self._place[1]

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
        raise TypeError(
            "== of a Tensor: compare arrays, x.data == y.data, or write x is y; for x in list, x in set(list)"
        )

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
        return tensor, (self.array, self._requires_grad)  # which copies: what is unpickled may be read-only

    def __repr__(self) -> str:
        return f"Tensor({backend.to_numpy(self)}, dtype={self.dtype}, requires_grad={self.requires_grad})"

    def _repr_html_(self) -> str:  # of a notebook
        return f"<p>Tensor {self.shape}, {self.dtype}</p><pre>{backend.to_numpy(self)}</pre>"

    # ``ops`` defines these: each is a primitive.
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = IN_OPS
    __matmul__ = __rmatmul__ = __pow__ = __neg__ = __getitem__ = sum = mean = reshape = IN_OPS
    T: "Tensor"


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
    operand's dtype, and in its shape or in a shape that it was broadcast to. Raises TypeError for anything but Python
    functions.
    """
    guards.check_vjps(vjps)

    def decorate(forward: Callable[Parameters, Array]) -> Callable[Parameters, Tensor]:
        guards.check_forward(forward, len(vjps))
        compute = backend.kernel(forward)  # which calls forward, and notes it while an iteration is written down

        @wraps(forward)
        def op(*args: Any, **named: Any) -> Tensor:
            args, array = guards.called(op, compute, args, named)  # the arguments in their places, and what they give
            out = Tensor(array)
            for x in args[: len(vjps)]:
                if isinstance(x, Tensor):
                    if x.unrecorded > out.unrecorded:
                        out.unrecorded = x.unrecorded
                    if x._requires_grad and is_recording.get():
                        out.op, out.args, out._requires_grad = op, args, True
            return out

        op.vjps, op.signature = vjps, signature(forward)  # type: ignore[attr-defined]
        op.arity, op.defaults = len(op.signature.parameters), forward.__defaults__ or ()  # type: ignore[attr-defined]
        return op

    return decorate


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
_before: ContextVar[tuple] = ContextVar("before", default=())  # switches, and what they replaced, outermost first


class Switch(ContextDecorator):
    """``with Switch(variable, value):`` sets a context variable of this thread inside; or a decorator of a function."""

    def __init__(self, variable: ContextVar, value: Any) -> None:
        self._variable, self._value = variable, value

    def __enter__(self) -> None:
        _before.set((*_before.get(), (self, self._variable.get())))
        self._variable.set(self._value)

    def __exit__(self, *_: object) -> None:
        before = _before.get()
        mine = [i for i, (switch, _) in enumerate(before) if switch is self]
        if mine:  # else it was entered in another thread; and Ctrl-C may have left others behind it
            self._variable.set(before[mine[-1]][1])
            _before.set(before[: mine[-1]])

    def __call__(self, function: Callable) -> Any:
        guards.check_not_lazy(function)
        return super().__call__(function)


def no_grad() -> Switch:
    """``with no_grad():`` Tensors made inside keep no history and require no gradient; or a decorator of a function.

    Leave it before a ``yield`` or ``await``: until the generator goes on, its caller would not record either, and
    ``grad`` would find no graph there. Raises TypeError as a decorator of a generator function or coroutine function.
    """
    return Switch(is_recording, False)
