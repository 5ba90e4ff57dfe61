"""What refuses wrong calls, and explains why: each is called by one line in the code that it protects.

Nothing here differentiates. Among the errors that would otherwise pass in silence are these three.

An array that was changed after a graph was made of it: the derivative would be of other numbers.

    y = (x[:1] * x).sum()
    adam.step([g])          # of x: noted for the memory of its array, so that the view x[:1] counts as changed too
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
import math
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable, Sequence
from functools import wraps
from numbers import Rational
from typing import Any, NoReturn
from weakref import ref

import numpy

from . import backend
from .backend import Array

# the errors of functions of arrays for wrong arguments, and the errors that a primitive raises for them
MISUSED = {ValueError: ValueError, IndexError: IndexError, TypeError: TypeError, AttributeError: TypeError}
MISUSED |= {ZeroDivisionError: ValueError}


def is_tensor(x: Any) -> bool:
    return hasattr(x, "birth")


# --- A primitive is called ----------------------------------------------------------------------


def with_signature_of(forward: Callable[..., Array], operands: int) -> Callable[[Callable], Any]:
    """Give a function of ``*args`` the signature of ``forward``: Python then binds names and defaults, and refuses.

    Raises TypeError for a signature that a primitive of so many ``operands`` cannot have.
    """
    name = forward.__name__
    try:
        parameters = [*inspect.signature(forward).parameters.values()]
    except ValueError:  # of a function of NumPy's own
        raise TypeError(f"{name}: a primitive is made of a Python function; write lambda x: {name}(x)") from None
    for x in parameters:
        if x.kind is not x.POSITIONAL_OR_KEYWORD:
            how = f"takes its arguments by position or name, not as {x}"
            raise TypeError(f"{name}: a primitive {how}; write lambda x: {name}(x)")
    if operands > len(parameters):
        raise TypeError(f"{name}: has {operands} vjps, and {len(parameters)} parameters to be operands")
    names = [x.name for x in parameters]
    listed = [x.name if x.default is x.empty else f"{x.name}=_defaults[{i}]" for i, x in enumerate(parameters)]

    def decorate(function: Callable) -> Any:
        scope: dict[str, Any] = {"_function": function, "_defaults": [x.default for x in parameters]}
        exec(f"def call({', '.join(listed)}): return _function({', '.join(names)})", scope)
        return wraps(forward)(scope["call"])

    return decorate


def plain(x: Any) -> Any:
    """A constant among a primitive's operands: of NumPy's numbers Python's, so that none widens a dtype.

    Raises TypeError for an array that computes in a way of its own, so that the derivative would be another.
    """
    if type(x) in (int, float):
        return x
    if isinstance(x, (numpy.matrix, numpy.ma.MaskedArray, list, tuple)):
        raise TypeError(f"a {type(x).__name__} is no plain array")
    if isinstance(x, numpy.generic):
        return x.item()
    return float(x) if isinstance(x, Rational) and not isinstance(x, int) else x


def plain_settings(name: str, given: tuple) -> list[Any]:
    """The arguments behind the operands, plain. Raises TypeError for a Tensor to which a gradient should flow."""
    nested = [y for x in given for y in (x if isinstance(x, (list, tuple)) else (x,))]
    if any(is_tensor(y) and (y.requires_grad or y.unrecorded) for y in nested):
        raise TypeError(f"{name}: a Tensor that requires a gradient is given where there is no vjp for it")
    lone = [x.item() if isinstance(x, numpy.ndarray) and x.ndim == 0 else x for x in given]
    return [x if isinstance(x, (list, tuple)) else plain(x) for x in lone]


def misuse(op: Any, args: Sequence[Any], error: Exception) -> Exception:
    """The error to raise for an ``error`` in a primitive: with its name, the shapes it got, and its first line."""
    usual = [(is_tensor(x) and i < len(op.vjps)) or type(x) is backend.xp.ndarray for i, x in enumerate(args)]
    kinds = ["" if known or not hasattr(x, "shape") else f"{type(x).__name__} " for x, known in zip(args, usual)]
    got = ", ".join(f"{kind}{getattr(x, 'shape', x)}" for x, kind in zip(args, kinds))
    expected = f"; expected {op.__doc__.strip().partition(chr(10))[0]}" if op.__doc__ else ""
    raised_as = next(raised for kind, raised in MISUSED.items() if isinstance(error, kind))
    return raised_as(f"{op.__name__}: got {got}{expected} ({str(error).partition(chr(10))[0]})")


def check_dtypes(name: str, operands: Sequence[Any], out: Any) -> None:
    """Raises TypeError for operands of another dtype than the result, half precision, and integers alone."""
    dtype, constant = out.array.dtype, True
    if dtype.kind not in "fiub":
        raise TypeError(f"{name}: its function returned {dtype}, and no real numbers")
    for x in operands:
        if isinstance(x, type(out)):
            constant = False
            if x.array.dtype is not dtype and x.array.dtype != dtype:
                got = " and ".join(str(getattr(x, "dtype", type(x).__name__)) for x in operands)
                raise TypeError(f"{name}: got {got}; expected operands of one dtype, to be kept")
    if constant or dtype.char not in "fd":
        kinds = {x.dtype.kind for x in operands if hasattr(x, "dtype")}
        if dtype.char == "e":
            _refuse_half_precision(name)
        if dtype.kind != "f" or (kinds and "f" not in kinds):  # integer arithmetic would cut off digits
            raise TypeError(f"{name}: expected floats, got {', '.join(str(getattr(x, 'dtype', x)) for x in operands)}")


def refuse_no_array(x: Any) -> NoReturn:
    raise TypeError(f"Tensor: expected an array of the device in use, got {type(x).__name__}; mg.tensor(x) makes one")


def refuse_switch(x: Any, on: bool) -> NoReturn:
    raise AttributeError("requires_grad belongs to how a Tensor is made: write mg.tensor(x, requires_grad=True)")


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


def checked_floats(array: Array) -> Array:
    if array.dtype.char not in "fd":
        raise TypeError(f"data: expected floats, float32 or float64, got {array.dtype}")
    return array


def _refuse_half_precision(name: str) -> NoReturn:
    raise TypeError(f"{name}: expected float32 or float64, got float16, in which sums and exponentials overflow")


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


def check_unchanged(node: Any) -> None:
    """Raises ValueError if the array of a node, or of an operand, was written to after the node was made."""
    birth = node.birth
    if birth > _latest or not node.op:
        return
    for x in (node, *node.args):
        if getattr(x, "assigned", 0) > birth or _written_since(birth, x.array if is_tensor(x) else x):
            raise ValueError(
                f"grad: {node.op.__name__}, shape {node.shape}, or an operand of it was changed in place since; call"
                " grad before the change, or compute anew after it"
            )


# the array that owns the memory, its first and last address, and the time of its last write: by the array's id, or,
# where it is gone but the memory was never its own, by the addresses
_written: dict[Any, tuple[ref, tuple[int, int], int]] = {}
_latest = 0  # the time of the last write to any array


def assigned(x: Any) -> None:
    """Note that ``x`` has another array now."""
    global _latest
    x.assigned = _latest = x.clock()


def note_write(*tensors: Any) -> None:
    """Note that the arrays of ``tensors``, and all that share memory with them, were written to.

    ``grad`` refuses a graph that was made of such an array before, which else would pass in silence:

        y = (x * x).sum()
        x.array[...] = 1; note_write(x)
        grad(y, x)    # ValueError; compute y again, from the changed x
    """
    global _latest
    for x in tensors:
        owner, _latest = _owner(x.array), x.clock()
        at = id(owner)
        if at not in _written:
            own = owner.flags.owndata
            _written[at] = ref(owner, lambda _, at=at, own=own: _forget(at, own)), backend.span(owner), 0  # type: ignore[misc]
        _written[at] = *_written[at][:2], _latest


def _forget(at: int, own: bool) -> None:
    entry = _written.pop(at)
    if not own:
        _written[entry[1]] = entry


def _written_since(birth: int, x: Any) -> bool:
    if not isinstance(x, backend.xp.ndarray):
        return False
    low, high = backend.span(_owner(x))
    writes = [*_written.values()]
    return any(time > birth and start < high and low < stop for _, (start, stop), time in writes)


def _owner(array: Array) -> Array:
    """The array that owns the memory of ``array``, through views of any kind."""
    base = array.base
    while base is not None:
        array = base if isinstance(base, backend.xp.ndarray) else array
        base = getattr(base, "obj" if isinstance(base, memoryview) else "base", None)
    return array


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
    raise ValueError(
        f"grad: no output depends on input {i}, shape {x.shape} (allow_unused=True gives None, materialize_grads=True"
        " zeros)"
    )


# --- Recording is switched ----------------------------------------------------------------------


def check_no_yield() -> None:
    """Raises TypeError in a generator that enters the calling context manager: where it yields, that stays entered.

    Looked at is who wrote the ``with``: an ``__enter__``, or a function made a context manager, is asked from there.
    """
    frame: Any = sys._getframe(2)
    while frame.f_code.co_name == "__enter__" or _of_contextlib(frame) or _of_contextlib(frame.f_back):
        frame = frame.f_back
    if frame.f_code.co_flags & (inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR):
        _refuse_yield(frame.f_code.co_name)


def _of_contextlib(frame: Any) -> bool:
    return frame is not None and frame.f_globals.get("__name__") == "contextlib"


def not_lazy(result: Any) -> Any:
    """``result`` of a function that was called under a switch. Raises TypeError if it is still to be computed."""
    if isinstance(result, (Generator, AsyncGenerator, Coroutine)):
        if hasattr(result, "close"):
            result.close()
        _refuse_yield(getattr(result, "__name__", type(result).__name__))
    return result


def _refuse_yield(name: str) -> NoReturn:
    raise TypeError(
        f"no_grad: {name} is a generator or coroutine, and where it yields, its caller would not record either; call a"
        " function that does inside what is to be done without a record"
    )


# --- An optimizer -------------------------------------------------------------------------------


def checked_parameters(parameters: Any) -> list[Any]:
    """``parameters`` as a list. Raises TypeError or ValueError for what Adam cannot update, or would update twice."""
    parameters = list(as_tuple(parameters))
    for i, p in enumerate(parameters):
        if not is_tensor(p):
            raise TypeError(f"Adam: expected Tensors, got {type(p).__name__}")
        if p.op:
            raise ValueError(f"Adam: a parameter is the result of {p.op.__name__}, and not what it was made of")
        if backend.is_read_only(p.array):
            raise ValueError(f"Adam: the array of parameter {i} cannot be written to; mg.tensor copies it")
        if _share(p, parameters[:i]):
            raise ValueError(f"Adam: parameter {i} shares its array with one before it, and would be moved twice")
    return parameters


def _share(x: Any, tensors: Sequence[Any]) -> bool:
    """Whether some memory of ``x`` is also that of one of ``tensors``; two arrays of their own memory are told fast."""
    x, ys = x.array, [y.array for y in tensors]
    views = ys if x.base is not None else [y for y in ys if y is x or y.base is not None]
    return any(backend.overlap(x, y) for y in views)


def check_rates(lr: Any, betas: Any, eps: Any) -> None:
    ranges = {"lr": (lr, math.inf), "eps": (eps, math.inf)}
    if not hasattr(betas, "__len__") or len(betas) != 2:
        raise ValueError(f"Adam: expected two betas, got {betas!r}")
    for name, (x, end) in (ranges | {f"beta{i}": (beta, 1) for i, beta in enumerate(betas, 1)}).items():
        if not (isinstance(x, (int, float, numpy.number)) and 0 <= x < end):
            raise ValueError(f"Adam: expected {name}, a number from 0 to below {end}, got {x!r}")


def checked_gradients(gradients: Any, parameters: Sequence[Any], moments: Sequence[Any]) -> list[Any]:
    """``gradients`` as a list. Raises ValueError for others, and for a part of the memory that a step writes to."""
    gradients = list(as_tuple(gradients))
    got = [g.shape if is_tensor(g) else type(g).__name__ for g in gradients]
    expected = [p.shape for p in parameters]
    if got != expected:
        raise ValueError(f"Adam: got gradients of shapes {got}; expected {expected}")
    for i, (g, p) in enumerate(zip(gradients, parameters)):
        if g.dtype != p.dtype:
            raise TypeError(f"Adam: gradient {i} is {g.dtype}, and its parameter {p.dtype}")
        if _share(g, [*parameters, *moments]):
            raise ValueError(f"Adam: gradient {i} shares its array with a parameter; expected a copy of it")
    return gradients


# --- A penalty ----------------------------------------------------------------------------------


def as_constant(name: str, x: Any) -> Array:
    """The array of ``x``, a constant. Raises ValueError for a gradient without a record, whose derivative is lost."""
    if getattr(x, "unrecorded", 0):
        raise ValueError(f"{name}: got {UNRECORDED}")
    return backend.unwrap(x)


def check_pairs(name: str, x: Any, y: Any) -> None:
    if (x.shape, x.dtype) != (y.shape, y.dtype) or x.dtype.char not in "fd":
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
