"""What the engine refuses, and why: each check is called by one line in the code that it protects.

Nothing here differentiates. Two errors would otherwise pass in silence: a gradient that was made without
``create_graph`` and is differentiated (see ``Tensor.unrecorded``), and an array that was changed after a graph was made
of it, so that the derivative would be of other numbers. So a write is noted, with its time, for the memory that it
changed, through whichever array and Tensor; and births of Tensors are times of the same clock:

    y = (x[:1] * x).sum()   # births 5 (x[:1]), 6 (mul) and 7 (sum)
    adam.step([g])          # of x: noted for the memory of its array, at 8
    z = (x * x).sum()       # births 9 and 10
    grad(z, x)              # right: nothing was written since 9
    grad(y, x)              # ValueError: mul, born at 6, has operands in memory that was written to at 8

A note may outlive its array: what is made of another array in the same memory later is younger than the note. So
nothing is removed, but where there are many notes, one for all the memory between them takes the place of the oldest: a
graph as old as these may be refused without need.
"""

import inspect
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from numbers import Real
from threading import Lock
from typing import Any, NoReturn

import numpy

from . import backend
from .backend import Array

# the errors of functions of arrays for wrong arguments, and the errors that a primitive raises for them
MISUSED = {ValueError: ValueError, IndexError: IndexError, TypeError: TypeError, AttributeError: TypeError}
MISUSED |= {ZeroDivisionError: ValueError}
OWN_WAY = (numpy.matrix, numpy.ma.MaskedArray, list, tuple)  # compute otherwise than plain arrays do


def is_tensor(x: Any) -> bool:
    return hasattr(x, "birth")


# --- A primitive is made, and called ------------------------------------------------------------


def check_vjps(vjps: tuple) -> None:
    """Raises TypeError for a function that is no vjp, as one below ``@primitive`` where the vjps were forgotten."""
    for vjp in filter(inspect.isfunction, vjps):
        if vjp.__code__.co_argcount < 3 and not vjp.__code__.co_flags & inspect.CO_VARARGS:
            raise TypeError(f"primitive: {vjp.__name__} is no vjp(g, out, *args); write @mg.primitive(vjp, ...)")


def check_forward(forward: Any, operands: int) -> None:
    """Raises TypeError for what cannot be made a primitive of so many operands."""
    if not inspect.isfunction(forward):
        raise TypeError(f"primitive: expected a Python function, got {forward!r}; write lambda x: f(x)")
    parameters = inspect.signature(forward).parameters.values()
    if any(x.kind is not x.POSITIONAL_OR_KEYWORD for x in parameters) or operands > len(parameters):
        name, expected = forward.__name__, f"parameters by position or name, {operands} or more for as many vjps"
        raise TypeError(f"{name}: expected {expected}, got {inspect.signature(forward)}; write lambda x: {name}(x)")


def called(op: Any, compute: Callable[..., Any], args: tuple, named: dict[str, Any]) -> tuple[tuple, Array]:
    """A call of a primitive: its arguments, plain and in their places, and the array that ``compute`` makes of them.

    Raises an error with the name of the primitive, the shapes that it got, and what it expects.
    """
    n = len(op.vjps)
    if named or len(args) != op.arity:
        args = _in_their_places(op, args, named)
    try:
        arrays = [x.array if hasattr(x, "birth") else plain(x) for x in args[:n]]
        if len(args) > n:
            args = (*args[:n], *[_setting(x) for x in args[n:]])
        array = backend.to_array(compute(*arrays, *args[n:]))  # for () NumPy gives scalars
    except tuple(MISUSED) as error:
        raise misuse(op, args, error) from error
    dtype, tensors, mixed = array.dtype, 0, False
    for x, a in zip(args, arrays):
        if hasattr(x, "birth"):
            tensors += 1
            mixed |= a.dtype is not dtype
    if tensors < n:
        args = (*[x if is_tensor(x) else a for x, a in zip(args, arrays)], *args[n:])
    if mixed or not tensors or dtype.char not in "fd":
        _check_dtypes(op.__name__, args[:n], dtype)
    return args, array


def _in_their_places(op: Any, args: tuple, named: dict[str, Any]) -> tuple:
    if not named and 0 < (missing := op.arity - len(args)) <= len(op.defaults):
        return args + op.defaults[-missing:]
    try:
        bound = op.signature.bind(*args, **named)
    except TypeError as error:
        raise TypeError(f"{op.__name__}: {error}") from None
    bound.apply_defaults()
    return bound.args


def plain(x: Any) -> Any:
    """A constant as a number of Python's, so that none widens a dtype, or as a plain array of real numbers.

    Raises TypeError for what is neither, and for an array that computes in a way of its own: its derivative would be
    another.
    """
    if type(x) is backend.xp.ndarray or type(x := _number(x)) in (bool, int, float, numpy.longdouble):
        return x
    array = backend.xp.asarray(x) if backend.xp is numpy or not isinstance(x, numpy.ndarray) else x
    if isinstance(x, OWN_WAY) or array.dtype.kind not in "fiub":
        raise TypeError(f"a {type(x).__name__} is no plain array of real numbers")
    return array


def _number(x: Any) -> Any:
    """``x``, as one of Python's numbers if it is a number."""
    if type(x) in (bool, int, float):
        return x
    if isinstance(x, numpy.generic):
        return x.item()
    return int(x) if isinstance(x, int) else float(x) if isinstance(x, Real) else x


def _setting(x: Any) -> Any:
    """An argument behind the operands. Raises TypeError for a Tensor to which a gradient should flow."""
    if any(is_tensor(y) and (y.requires_grad or y.unrecorded) for y in (x if isinstance(x, (list, tuple)) else (x,))):
        raise TypeError("a Tensor that requires a gradient is given where there is no vjp for it")
    return x.item() if isinstance(x, numpy.ndarray) and x.ndim == 0 else _number(x)


def misuse(op: Any, args: Sequence[Any], error: Exception) -> Exception:
    """The error to raise for an ``error`` in a primitive: with its name, the shapes it got, and its first line."""
    usual = [(is_tensor(x) and i < len(op.vjps)) or type(x) is backend.xp.ndarray for i, x in enumerate(args)]
    kinds = ["" if same or not hasattr(x, "shape") else f"{type(x).__name__} " for x, same in zip(args, usual)]
    got = ", ".join(f"{kind}{getattr(x, 'shape', x)}" for x, kind in zip(args, kinds))
    expected = f"; expected {op.__doc__.strip().partition(chr(10))[0]}" if op.__doc__ else ""
    raised_as = next(raised for kind, raised in MISUSED.items() if isinstance(error, kind))
    return raised_as(f"{op.__name__}: got {got}{expected} ({str(error).partition(chr(10))[0]})")


def _check_dtypes(name: str, operands: Sequence[Any], dtype: Any) -> None:
    """Raises TypeError for Tensors of another dtype than the result's, half precision, and integers alone."""
    got = [str(getattr(x, "dtype", x)) for x in operands]
    kinds = {x.dtype.kind for x in operands if hasattr(x, "dtype")}
    if dtype.char == "e":
        _refuse_half_precision(name)
    if dtype.kind != "f" or (kinds and "f" not in kinds):  # integer arithmetic would cut off digits
        raise TypeError(f"{name}: expected floats, got {', '.join(got)}, and a result of {dtype}")
    if any(is_tensor(x) and x.dtype != dtype for x in operands):
        raise TypeError(f"{name}: got {' and '.join(got)}; expected operands of one dtype, to be kept")


# --- A Tensor is made, or changed ---------------------------------------------------------------


def plain_array(x: Any) -> Array:
    """An array of a subclass that computes as its own, as one of numpy.memmap. Raises TypeError for anything else."""
    if isinstance(x, backend.xp.ndarray) and not isinstance(x, OWN_WAY):
        return backend.xp.asarray(x)
    raise TypeError(f"Tensor: expected an array of the device in use, got {type(x).__name__}; mg.tensor(x) makes one")


def as_floats(data: Any) -> Array:
    """A copy of ``data`` as floats: of its own dtype, or else float32. Raises TypeError for float16, or not real."""
    array, dtype = backend.xp.array(plain(data) if isinstance(data, numpy.ndarray) else data), "float32"
    if array.dtype.kind not in "fiub":
        raise TypeError(f"tensor: expected real numbers, got an array of dtype {array.dtype}")
    if hasattr(data, "dtype") and array.dtype.kind == "f":
        if array.dtype.char == "e":
            _refuse_half_precision("tensor")
        dtype = array.dtype.newbyteorder("=")
    return array.astype(dtype, copy=False)


def _refuse_half_precision(name: str) -> NoReturn:
    raise TypeError(f"{name}: expected float32 or float64, got float16, in which sums and exponentials overflow")


def check_shape(assigned: tuple[int, ...], shape: tuple[int, ...]) -> None:
    if assigned != shape:
        raise ValueError(f"data: got an array of shape {assigned} for a Tensor of shape {shape}")


def refuse_switch(x: Any, on: bool) -> NoReturn:
    how = "to freeze x nothing is needed: grad differentiates by what it is asked for, Adam moves what it was given"
    raise AttributeError(f"requires_grad belongs to how x is made, by mg.tensor(x, requires_grad=True); {how}")


def check_not_lazy(function: Any) -> None:
    """Raises TypeError for a generator or coroutine function, which has returned before any of its lines is run."""
    kinds = inspect.isgeneratorfunction, inspect.iscoroutinefunction, inspect.isasyncgenfunction
    if any(is_lazy(f) for is_lazy in kinds for f in (function, function.__call__)):
        how = "write the with inside of it, around what is to be done without a record, and no yield or await"
        raise TypeError(f"no_grad: {function} is a generator or coroutine function; {how}")


# --- A sweep ------------------------------------------------------------------------------------


def as_tuple(x: Any) -> tuple:
    """``x`` as a tuple: the items of an iterable, or a single Tensor, array or number alone."""
    return (x,) if hasattr(x, "dtype") or not isinstance(x, Iterable) else tuple(x)


def check_asked(outputs: tuple, inputs: tuple, grad_outputs: tuple, materialize: bool) -> None:
    """Raises ValueError, or TypeError, if ``grad`` cannot differentiate the outputs with respect to these inputs."""
    if len(grad_outputs) != len(outputs):
        raise ValueError(f"grad: got {len(outputs)} outputs and {len(grad_outputs)} grad_outputs")
    for x in (*outputs, *inputs):
        if not is_tensor(x):
            raise TypeError(f"grad: expected Tensors as outputs and inputs, got {type(x).__name__}")
    for i, x in enumerate(inputs):
        if not x.requires_grad:
            raise ValueError(f"grad: input {i}, shape {x.shape}, has requires_grad=False")
    oldest = min((x.birth for x in inputs), default=0)  # a gradient older than all inputs is a constant to them
    if any(y.unrecorded > oldest for y in outputs):
        raise ValueError(f"grad: an output depends on {UNRECORDED}")
    for i, (y, g) in enumerate(zip(outputs, grad_outputs)):
        if not (y.requires_grad or materialize):
            raise ValueError(
                f"grad: output {i}, shape {y.shape}, has no graph: nothing that it was made from has"
                " requires_grad=True, or it was made under no_grad(), or it is a constant, as the slope of a line is"
            )
        if g is None and y.requires_grad and math.prod(y.shape) != 1:
            raise ValueError(f"grad: output {i} has shape {y.shape}; without grad_outputs it must have one element")


UNRECORDED = (
    "a gradient that was computed without create_graph=True, so its derivative would be lost: pass create_graph=True"
    " there, or detach() it if a constant is meant"
)


def check_seed(i: int, y: Any, g: Any) -> None:
    if (g.shape, g.dtype) != (y.shape, y.dtype):
        raise ValueError(f"grad: grad_outputs {i} is {g.dtype} {g.shape}; its output is {y.dtype} {y.shape}")


# where memory was written to, and when last, in the order of these times; and of the notes before these the addresses
# between which they are, and the last time
_written: OrderedDict[tuple, int] = OrderedDict()
_before: tuple[float, float, int] = (math.inf, -math.inf, 0)
_latest = 0  # the last of all times
_writing = Lock()  # so that the times are in order in spite of threads
MANY = 4000


def note_write(*tensors: Any) -> None:
    """Note that the arrays of ``tensors``, and all that share memory with them, were written to.

    ``grad`` refuses a graph that was made of such an array before, which else would pass in silence:

        y = (x * x).sum()
        x.array[...] = 1; note_write(x)
        grad(y, x)    # ValueError; compute y again, from the changed x
    """
    global _before, _latest
    with _writing:
        for x in tensors:
            _written[x.place] = _latest = x.clock()
            _written.move_to_end(x.place)
        while len(_written) > MANY:
            (start, end, *_), time = _written.popitem(last=False)
            _before = min(_before[0], start), max(_before[1], end), time


def check_unchanged(node: Any) -> None:
    """Raises ValueError if the array of a node, or of an operand, was written to after the node was made."""
    if node.birth > _latest or not node.op:
        return
    with _writing:
        since = [place for place, _ in takewhile(lambda note: note[1] > node.birth, reversed(_written.items()))]
        low, high, time = _before
    since += [(low, high, low, (high - low,), (1,), 1)] if time > node.birth else []
    arrays = [x for x in map(backend.unwrap, (node, *node.args)) if isinstance(x, backend.xp.ndarray)]
    if any(backend.overlap(x, place) for x in map(backend.place, arrays) for place in since):
        raise ValueError(
            f"grad: {node.op.__name__}, shape {node.shape}, or an operand of it was changed in place since; call"
            " grad before the change, or compute anew after it"
        )


def check_gradient(g: Any, node: Any, x: Any) -> Any:
    """``g``, which a vjp of ``node`` returned for ``x``. Raises TypeError or ValueError if ``g`` does not fit ``x``."""
    if not is_tensor(g):
        raise TypeError(f"{node.op.__name__}: a vjp returned {type(g).__name__}; expected a Tensor, made by primitives")
    if g.array.shape != x.array.shape and not _broadcasts(x.shape, g.shape):
        raise ValueError(f"{node.op.__name__}: a vjp returned shape {g.shape} for an operand of shape {x.shape}")
    if g.array.dtype is not x.array.dtype and g.dtype != x.dtype:
        raise TypeError(f"{node.op.__name__}: a vjp returned {g.dtype} for an operand of {x.dtype}")
    return g


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    return len(shape) <= len(to) and all(n in (1, m) for n, m in zip(reversed(shape), reversed(to)))


def refuse_unused(i: int, x: Any) -> NoReturn:
    how = "allow_unused=True gives None, materialize_grads=True zeros"
    raise ValueError(f"grad: no output depends on input {i}, shape {x.shape} ({how})")


def check_pairs(name: str, x: Any, y: Any) -> None:
    if (x.shape, x.dtype) != (y.shape, y.dtype) or x.dtype.char not in "fd":
        got = f"{x.dtype} {x.shape} and {y.dtype} {y.shape}"
        raise ValueError(f"{name}: expected floats, as many rows of one kind as of the other, got {got}")
