"""Checks that refuse wrong calls, and explain why: each check is one line in the code that it protects.

Nothing here differentiates. Three errors would otherwise pass in silence.

An array that was changed after a graph was made of it: the derivative would be of other numbers.

    y = (x[:1] * x).sum()
    x.data += 1             # noted for the memory of the array, so that the view x[:1] counts as changed too
    grad(y, x)              # ValueError: mul ... was changed in place since

A gradient that was made without ``create_graph`` and is differentiated: its part of the derivative would be lost.

    (g,) = grad(D, y)
    P = ((norm(g, 1) - 1) ** 2).mean()
    grad(P + other, w)      # ValueError: an output depends on a gradient that was computed without create_graph=True

``no_grad`` around a ``yield``: recording would be off in the caller too.

    def samples():
        with no_grad():     # TypeError: where it yields, its caller would not record either
            yield G(z)
"""

import inspect
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import ContextDecorator
from contextvars import ContextVar
from functools import wraps
from itertools import count
from types import CodeType
from typing import Any, NoReturn
from weakref import ref

import numpy

from . import backend
from .backend import Array

clock = count(1).__next__  # numbers the births of Tensors, and the writes to their arrays
is_recording = ContextVar("is_recording", default=True)  # whether this thread's new Tensors remember how they were made
listener: ContextVar[Any] = ContextVar("listener", default=None)  # to this thread's sweeps: ``explain``'s

# the errors of functions of arrays for wrong arguments, and the errors that a primitive raises for them
MISUSED = {ValueError: ValueError, IndexError: IndexError, TypeError: TypeError, AttributeError: TypeError}
MISUSED |= {ZeroDivisionError: ValueError}


def is_tensor(x: Any) -> bool:
    return isinstance(x, Guarded)


# --- A primitive is called ----------------------------------------------------------------------


def called_rightly(forward: Callable[..., Array], operands: int) -> Callable[[Callable], Any]:
    """Let a primitive take arguments by keyword too, keep dtypes, and explain what is wrong with a call.

    Raises the kind of error that ``forward`` raised, with the primitive's name, the first line of its docstring, and
    the shapes of the arguments; TypeError where a dtype would change or is half precision, or for a Tensor that
    requires a gradient behind the first ``operands`` arguments, since gradients flow to these arguments only.
    """
    parameters = inspect.signature(forward)
    for parameter in parameters.parameters.values():
        if parameter.kind is not parameter.POSITIONAL_OR_KEYWORD:
            raise TypeError(
                f"{forward.__name__}: a primitive takes its arguments by position or name, not as {parameter}"
            )
    defaults = tuple(parameter.default for parameter in parameters.parameters.values())
    arity, required = len(defaults), defaults.count(inspect.Parameter.empty)
    if operands > arity:
        raise TypeError(f"{forward.__name__}: has {operands} vjps, and {arity} parameters to be operands")

    def decorate(op: Callable) -> Callable:
        @wraps(forward)
        def call(*args: Any, **named: Any) -> Any:
            if named or not required <= len(args) <= arity:
                args = _bound(call.__name__, parameters, args, named)
            if len(args) < arity:
                args += defaults[len(args) :]
            if arity > operands:
                args = _undifferentiated(call.__name__, args, operands)
            try:
                out = op(*args)
            except tuple(MISUSED) as error:
                kind = next(told for raised, told in MISUSED.items() if isinstance(error, raised))
                raise kind(_in_words(call, args, error)) from error
            dtype = out._data.dtype
            constant = True
            for x in args[:operands]:
                if isinstance(x, Guarded):
                    constant = False
                    if x.unrecorded > out.unrecorded and is_recording.get():
                        out.unrecorded = x.unrecorded
                    if x._data.dtype is not dtype and x._data.dtype != dtype:
                        return _with_plain_numbers(call, args)
            if constant or dtype.char not in "fd":
                _check_dtypes(call.__name__, args[:operands], dtype)
            return out

        return call

    return decorate


def _bound(name: str, parameters: inspect.Signature, args: tuple, named: dict[str, Any]) -> tuple:
    try:
        bound = parameters.bind(*args, **named)
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from None
    bound.apply_defaults()
    return bound.args


def _in_words(op: Callable, args: tuple, error: Exception) -> str:
    got = ", ".join(str(getattr(x, "shape", x)) for x in args)
    if not op.__doc__:
        return f"{op.__name__}: got {got}: {error}"
    return f"{op.__name__}: got {got}; expected {op.__doc__.strip().partition(chr(10))[0]}"


def _undifferentiated(name: str, args: tuple, operands: int) -> tuple:
    """The arguments; behind the operands, Python numbers replace NumPy scalars, since vjps compute with them."""
    for i, x in enumerate(args[operands:], operands):
        if is_tensor(x) and x.requires_grad:
            raise TypeError(f"{name}: argument {i} is a Tensor that requires a gradient, and there is no vjp for it")
    return (*args[:operands], *map(_plain, args[operands:]))


def _plain(x: Any) -> Any:
    return x.item() if isinstance(x, numpy.generic) or (isinstance(x, numpy.ndarray) and x.ndim == 0) else x


def _check_dtypes(name: str, operands: tuple, dtype: Any) -> None:
    """Raises TypeError for half precision, and for integers alone, since integer arithmetic would cut off digits."""
    kinds = {x.dtype.kind for x in operands if hasattr(x, "dtype")}
    if dtype.char == "e":
        _refuse_half_precision(name)
    if dtype.kind != "f" or (kinds and "f" not in kinds):
        raise TypeError(f"{name}: expected floats, got {', '.join(str(getattr(x, 'dtype', x)) for x in operands)}")


def _with_plain_numbers(op: Callable, args: tuple) -> Any:
    """``op`` with Python numbers for NumPy scalars, which widened the dtype. Raises TypeError if there are none."""
    plain = tuple(x.item() if isinstance(x, numpy.generic) else x for x in args)
    if [type(x) for x in plain] != [type(x) for x in args]:
        return op(*plain)
    dtypes = " and ".join(str(getattr(x, "dtype", type(x).__name__)) for x in args)
    raise TypeError(f"{op.__name__}: got {dtypes}; expected operands of one dtype, to be kept")


def as_floats(array: Array, keep_dtype: bool) -> Array:
    """``array`` as floats: float32, or with ``keep_dtype`` its own. Raises TypeError for float16 kept, or not real."""
    if array.dtype.kind not in "fiub":
        raise TypeError(f"tensor: expected real numbers, got an array of dtype {array.dtype}")
    if keep_dtype and array.dtype.char == "e":
        _refuse_half_precision("tensor")
    dtype = array.dtype.newbyteorder("=") if keep_dtype and array.dtype.kind == "f" else "float32"
    return array.astype(dtype, copy=False)


def _refuse_half_precision(name: str) -> NoReturn:
    raise TypeError(f"{name}: expected float32 or float64, got float16, in which sums and exponentials overflow")


# --- A sweep ------------------------------------------------------------------------------------


def as_tuple(x: Any) -> tuple:
    """``x`` as a tuple: the items of an iterable, or a single Tensor, array or number alone."""
    return (x,) if hasattr(x, "dtype") or not isinstance(x, Iterable) else tuple(x)


def checked_seeds(outputs: tuple, inputs: tuple, grad_outputs: Any, materialize: bool) -> list[tuple[Any, Any]]:
    """The outputs that have a graph, each with the gradient that the sweep starts with there, both Tensors.

    Raises ValueError, or TypeError, if ``grad`` cannot differentiate the outputs with respect to these inputs.
    """
    if (watcher := listener.get()) is not None:
        watcher.begin_sweep(inputs)
    grad_outputs = (None,) * len(outputs) if grad_outputs is None else as_tuple(grad_outputs)
    if len(grad_outputs) != len(outputs):
        raise ValueError(f"grad: got {len(outputs)} outputs and {len(grad_outputs)} grad_outputs")
    for x in (*outputs, *inputs):
        if not is_tensor(x):
            raise TypeError(f"grad: expected Tensors as outputs and inputs, got {type(x).__name__}")
    for i, x in enumerate(inputs):
        if not x.requires_grad:
            raise ValueError(f"grad: input {i}, shape {x.shape}, has requires_grad=False")
    if _depends_on_unrecorded(outputs, inputs):
        raise ValueError(
            "grad: an output depends on a gradient that was computed without create_graph=True, so its derivative would"
            " be lost: pass create_graph=True there, or detach() it if a constant is meant"
        )
    for i, y in enumerate(outputs):
        if not (y.requires_grad or materialize):
            raise ValueError(
                f"grad: output {i}, shape {y.shape}, has no graph: nothing that it was made from has"
                " requires_grad=True, or it was made under no_grad()"
            )
    return [(y, _seed(i, y, g)) for i, (y, g) in enumerate(zip(outputs, grad_outputs)) if y.requires_grad]


def _depends_on_unrecorded(outputs: Sequence[Any], inputs: Sequence[Any]) -> bool:
    """Whether the outputs depend on an unrecorded gradient; a gradient older than all inputs is a constant to them."""
    seen, stack, oldest = set(), list(outputs), min((x.birth for x in inputs), default=0)
    while stack:
        x = stack.pop()
        if is_tensor(x) and x.unrecorded > oldest and x not in seen:
            if not x.op:
                return True
            seen.add(x)
            stack += x.args
    return False


def _seed(i: int, output: Any, g: Any) -> Any:
    if g is None:
        if output.data.size != 1:
            raise ValueError(
                f"grad: output {i} has shape {output.shape}; without grad_outputs it must have one element"
            )
        g = backend.ones(output.shape, output.dtype)
    if not (is_tensor(g) or isinstance(g, backend.xp.ndarray)):
        g = backend.asarray(g, dtype=output.dtype)
    if (g.shape, g.dtype) != (output.shape, output.dtype):
        raise ValueError(f"grad: grad_outputs {i} is {g.dtype} {g.shape}; its output is {output.dtype} {output.shape}")
    return g if is_tensor(g) else type(output)(g)


def notify(node: Any, gradient: Any) -> None:
    """Report the visit of a node, and the gradient there, to the listener, if there is one."""
    if (watcher := listener.get()) is not None:
        watcher.visit(node, gradient)


def check_unchanged(node: Any) -> None:
    """Raises ValueError if the array of a node, or of an operand, was written to after the node was made."""
    birth = node.birth
    if birth > _latest or not node.op:
        return
    for x in (node, *node.args):
        if getattr(x, "assigned", 0) > birth or _last_write(x._data if is_tensor(x) else x) > birth:
            raise ValueError(
                f"grad: {node.op.__name__}, shape {node.shape}, or an operand of it was changed in place since; call"
                " grad before the change, or compute anew after it"
            )


_written: dict[int, tuple[ref, int]] = {}  # by the owning array's id: the array, and the time of its last write
_latest = 0  # the time of the last write to any array


def _now() -> int:
    global _latest
    _latest = clock()
    return _latest


def changed(*tensors: Any) -> None:
    """Note that the arrays of ``tensors``, all their views, and the arrays that they are views of, were written to.

    ``grad`` refuses a graph that was made of such an array before:

        y = (x * x).sum()
        x.data[...] = 1; changed(x)
        grad(y, x)    # ValueError; compute y again, from the changed x
    """
    now = _now()
    for x in tensors:
        owner = _owner(x._data)
        at = id(owner)
        _written[at] = _written[at][0] if at in _written else ref(owner, lambda _, at=at: _written.pop(at)), now  # type: ignore[misc]


def _last_write(x: Any) -> int:
    return _written.get(id(_owner(x)), (None, 0))[1] if isinstance(x, backend.xp.ndarray) else 0


def _owner(array: Array) -> Array:
    """The array that owns the memory of ``array``, through views of any kind."""
    base = array.base
    while base is not None:
        array = base if isinstance(base, backend.xp.ndarray) else array
        base = getattr(base, "obj" if isinstance(base, memoryview) else "base", None)
    return array


def marked_unrecorded(g: Any) -> Any:
    """A marked copy of ``g``, a gradient from an unrecorded sweep; ``g`` itself may be a seed given by the caller."""
    g = g.detach()
    g.unrecorded = g.birth
    return g


def check_gradient(g: Any, node: Any, x: Any) -> Any:
    """``g``, which a vjp of ``node`` returned for ``x``. Raises TypeError or ValueError if ``g`` does not fit ``x``."""
    if not isinstance(g, Guarded):
        raise TypeError(f"{node.op.__name__}: a vjp returned {type(g).__name__}; expected a Tensor, made by primitives")
    if g._data.shape != x._data.shape and not _broadcasts(x.shape, g.shape):
        raise ValueError(f"{node.op.__name__}: a vjp returned shape {g.shape} for an operand of shape {x.shape}")
    if g._data.dtype is not x._data.dtype and g.dtype != x.dtype:
        raise TypeError(f"{node.op.__name__}: a vjp returned {g.dtype} for an operand of {x.dtype}")
    if (watcher := listener.get()) is not None:
        watcher.vjp(node, x, g)
    return g


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    return len(shape) <= len(to) and all(n in (1, m) for n, m in zip(reversed(shape), reversed(to)))


def unused(i: int, x: Any) -> NoReturn:
    raise ValueError(
        f"grad: no output depends on input {i}, shape {x.shape} (allow_unused=True gives None, materialize_grads=True"
        " zeros)"
    )


# --- Recording is switched ----------------------------------------------------------------------


_before: ContextVar[tuple] = ContextVar("before", default=())  # the values that switches replaced, outermost first


class Switch(ContextDecorator):
    """A context manager, and a decorator of functions, that sets a context variable of this thread inside.

    Raises TypeError in a generator, since at a ``yield`` the variable would stay set for the caller.
    """

    def __init__(self, variable: ContextVar, value: Any) -> None:
        self._variable, self._value = variable, value

    def _recreate_cm(self) -> "Switch":
        return Switch(self._variable, self._value)

    def __call__(self, function: Any) -> Any:
        lazy = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR | inspect.CO_COROUTINE
        _refuse_generator(getattr(function, "__code__", None), lazy)
        return super().__call__(function)

    def __enter__(self) -> None:
        frame: Any = sys._getframe(1)
        while frame.f_globals.get("__name__") == "contextlib":  # of an ExitStack
            frame = frame.f_back
        _refuse_generator(frame.f_code)
        _before.set((*_before.get(), self._variable.get()))
        self._variable.set(self._value)

    def __exit__(self, *_: object) -> None:
        *before, value = _before.get()
        _before.set(tuple(before))
        self._variable.set(value)


def _refuse_generator(code: CodeType | None, kinds: int = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR) -> None:
    if code and code.co_flags & kinds:
        raise TypeError(
            f"no_grad: {code.co_name} is a generator or coroutine, and where it yields, its caller would not record"
            " either; call a function that does inside what is to be done without a record"
        )


# --- A Tensor is taken for an array --------------------------------------------------------------


class Guarded:
    """The base of Tensor: which operations of arrays and numbers a Tensor refuses, and the notes on its array.

    Notes are times on the clock of births. ``assigned`` is the time of the last assignment to ``data``. ``unrecorded``
    is the birth of the newest unrecorded gradient that the Tensor is, or was made of, or 0: ``detach`` sets it to 0.
    """

    __slots__ = ("_data", "assigned", "unrecorded")
    _data: Array
    unrecorded: int
    shape: Any
    dtype: Any
    __array_ufunc__ = None  # so that `array * tensor` calls Tensor.__rmul__ instead of NumPy's,
    __array_priority__ = 1000  # and instead of CuPy's

    @property
    def data(self) -> Array:
        return self._data

    @data.setter
    def data(self, data: Array) -> None:
        if data is self._data:  # as by x.data += 1
            changed(self)
        self._data, self.assigned = backend.as_array(data), _now()

    def __eq__(self, other: object) -> NoReturn:
        raise TypeError("== of a Tensor: compare arrays, x.data == y.data, or write x is y")

    __hash__ = object.__hash__

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("a Tensor is no array: write x.data, or minigan.backend.to_numpy(x); or a function of mg.ops")


# --- An optimizer -------------------------------------------------------------------------------


def checked_parameters(parameters: Any) -> list[Any]:
    """``parameters`` as a list. Raises TypeError or ValueError for what Adam cannot update, or would update twice."""
    parameters = list(as_tuple(parameters))
    for p in parameters:
        if not is_tensor(p):
            raise TypeError(f"Adam: expected Tensors, got {type(p).__name__}")
        if p.op:
            raise ValueError(f"Adam: a parameter is the result of {p.op.__name__}, and not what it was made of")
    if len({id(p._data) for p in parameters}) < len(parameters):
        raise ValueError("Adam: a parameter is there twice, and would be moved twice")
    return parameters


def check_rates(lr: float, betas: Sequence[float]) -> None:
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"Adam: expected two betas from 0 to below 1, got {betas}")
    if not (isinstance(lr, (int, float, numpy.number)) and lr >= 0):
        raise ValueError(f"Adam: expected a learning rate of at least 0, got {lr}")


def checked_gradients(gradients: Any, parameters: Sequence[Any]) -> list[Any]:
    """``gradients`` as a list. Raises ValueError for wrong shapes, or an array of a parameter, which Adam changes."""
    gradients = list(as_tuple(gradients))
    got, expected = [getattr(g, "shape", g) for g in gradients], [p.shape for p in parameters]
    if got != expected:
        raise ValueError(f"Adam: got gradients of shapes {got}; expected {expected}")
    if not {id(p._data) for p in parameters}.isdisjoint(id(g.data) for g in gradients):
        raise ValueError("Adam: a gradient shares its array with a parameter; expected a copy of it")
    return gradients


# --- A penalty ----------------------------------------------------------------------------------


def same_mark(x: Any, new: Any) -> Any:
    """``new``, a Tensor of the array of ``x``, marked like ``x`` if ``x`` is an unrecorded gradient."""
    new.unrecorded = x.unrecorded if is_tensor(x) else 0
    return new


def check_pairs(name: str, x: Any, y: Any) -> None:
    if x.shape != y.shape or x.dtype.char not in "fd":
        raise ValueError(
            f"{name}: expected floats, as many rows of one kind as of the other, got {x.dtype} {x.shape} and {y.dtype}"
            f" {y.shape}"
        )


def check_slope(slope: str, where: str) -> None:
    """Raises ValueError for a difference quotient at a place that gives one point only."""
    if slope == "difference" and where != "between":
        raise ValueError(
            f"a difference needs two points, and {where!r} gives the same one twice; take slope 'gradient' there, or"
            " the difference 'between'"
        )
