"""Every primitive: its vector-Jacobian products and, right below, what it computes.

A vjp takes ``g``, the gradient with respect to the result ``out``, and the operands, and returns the gradient with
respect to one operand; there is one for each, in their order. It is written in the primitives of this file, so the
gradient of a gradient, of any order, needs nothing more. Where a derivative is constant (the slopes of relu,
leaky_relu, maximum) it is a bare array: no gradient can flow to it, so nothing of it enters the next graph.
"""

from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

from . import backend
from .backend import Array
from .tensor import Tensor, primitive

Axis = int | tuple[int, ...] | None

PAIR = "shapes that broadcast together"


def _fit(g: Tensor, x: Tensor) -> Tensor:
    """Undo the broadcasting of ``x`` in the gradient ``g``."""
    return g if g.shape == x.shape else sum_to(g, x.shape)


# --- Arithmetic, elementwise --------------------------------------------------------------------


@primitive(lambda g, out, x, y: _fit(g, x), lambda g, out, x, y: _fit(g, y), expects=PAIR)
def add(x: Tensor, y: Tensor) -> Tensor:
    """x + y"""
    return x + y


@primitive(lambda g, out, x, y: _fit(g, x), lambda g, out, x, y: _fit(-g, y), expects=PAIR)
def sub(x: Tensor, y: Tensor) -> Tensor:
    """x - y"""
    return x - y


@primitive(lambda g, out, x, y: _fit(g * y, x), lambda g, out, x, y: _fit(g * x, y), expects=PAIR)
def mul(x: Tensor, y: Tensor) -> Tensor:
    """x * y"""
    return x * y


@primitive(lambda g, out, x, y: _fit(g / y, x), lambda g, out, x, y: _fit(-g * out / y, y), expects=PAIR)
def div(x: Tensor, y: Tensor) -> Tensor:
    """x / y, for y != 0"""
    return x / y


@primitive(lambda g, out, x: -g)
def neg(x: Tensor) -> Tensor:
    """-x"""
    return -x


# The derivative of a constant is the factor 0, since 0 * x ** -1 would not be 0 at x = 0.
@primitive(lambda g, out, x, exponent: g * (exponent * x ** (exponent - 1) if exponent else 0))
def power(x: Tensor, exponent: float = 1) -> Tensor:
    """x ** exponent, for a constant exponent; x > 0 unless the exponent is a whole number."""
    if not isinstance(exponent, (int, float)):
        raise TypeError(f"power: expected a Python number as the exponent, got {type(exponent).__name__}")
    return x ** float(exponent)


@primitive(lambda g, out, x: -(g * out * out))
def safe_reciprocal(x: Tensor) -> Tensor:
    """1 / x, and 0 where x is 0 (so are all its derivatives there)."""
    zero = x == 0
    return ~zero / (x + zero)


# --- Smooth functions, elementwise --------------------------------------------------------------


@primitive(lambda g, out, x: g * out)
def exp(x: Tensor) -> Tensor:
    """e ** x; overflows to inf above 88 in float32, 709 in float64."""
    return backend.xp.exp(x)


@primitive(lambda g, out, x: g / x)
def log(x: Tensor) -> Tensor:
    """The natural logarithm, for x > 0 (-inf at 0 and NaN below it, with NumPy's warning)."""
    return backend.xp.log(x)


@primitive(lambda g, out, x: g / (2 * out))
def sqrt(x: Tensor) -> Tensor:
    """The square root, for x > 0: at 0 its derivative is infinite. For the length of a vector take ``norm``."""
    return backend.xp.sqrt(x)


@primitive(lambda g, out, x: g * (1 - out * out))
def tanh(x: Tensor) -> Tensor:
    """The hyperbolic tangent."""
    return backend.xp.tanh(x)


@primitive(lambda g, out, x: g * (out * (1 - out)))
def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x)), for any x."""
    return backend.sigmoid(x)


@primitive(lambda g, out, x: g * sigmoid(x))
def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), for any x."""
    return backend.softplus(x)


# --- Piecewise linear functions, elementwise ----------------------------------------------------


@primitive(lambda g, out, x: g * (x.data > 0))
def relu(x: Tensor) -> Tensor:
    """max(x, 0), with derivative 0 at 0."""
    return backend.xp.maximum(x, 0)


def _slopes(x: Array, slope: float) -> Array:
    """1 where x > 0, ``slope`` elsewhere, in x's dtype."""
    return (x > 0) * x.dtype.type(1 - slope) + x.dtype.type(slope)


@primitive(lambda g, out, x, slope: g * _slopes(x.data, slope))
def leaky_relu(x: Tensor, slope: float = 0.2) -> Tensor:
    """x where x > 0, slope * x elsewhere."""
    return x * _slopes(x, slope)


def _larger(x: Any, y: Any) -> Array:
    """Where x > y, for Tensors or constants."""
    x, y = (a.data if isinstance(a, Tensor) else a for a in (x, y))
    return x > y


@primitive(
    lambda g, out, x, y: _fit(g * _larger(x, y), x),
    lambda g, out, x, y: _fit(g * ~_larger(x, y), y),
    expects=PAIR,
)
def maximum(x: Tensor, y: Tensor) -> Tensor:
    """The larger of x and y; where they are equal the gradient goes to y, so that maximum(x, 0) is relu(x)."""
    return backend.xp.maximum(x, y)


# --- Sums and shapes ----------------------------------------------------------------------------


def _keepdims(g: Tensor, x: Tensor, axis: Axis, keepdims: bool) -> Tensor:
    """Make ``g``, of the shape of a reduction of ``x``, broadcast to it: give back the reduced axes with size 1."""
    if keepdims or g.ndim in (0, x.ndim):
        return g
    axes = [a % x.ndim for a in (axis if isinstance(axis, tuple) else (axis,))]
    return reshape(g, tuple(1 if i in axes else n for i, n in enumerate(x.shape)))


@primitive(
    lambda g, out, x, axis, keepdims: broadcast_to(_keepdims(g, x, axis, keepdims), x.shape),
    expects="axes of the array",
)
def sum(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The sum over ``axis`` (an int, a tuple of ints, or None for all)."""
    return x.sum(axis=axis, keepdims=keepdims)


@primitive(
    lambda g, out, x, axis, keepdims: broadcast_to(
        _keepdims(g * (out.data.size / x.data.size), x, axis, keepdims), x.shape
    ),
    expects="axes of the array",
)
def mean(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The mean over ``axis`` (an int, a tuple of ints, or None for all)."""
    total = x.sum(axis=axis, keepdims=keepdims)
    return total * (total.size / x.size)


@primitive(
    lambda g, out, x, axis, keepdims: (
        _keepdims(g, x, axis, keepdims) * exp(x - _keepdims(out, x, axis, keepdims))  # the softmax of x
    ),
    expects="axes of the array",
)
def logsumexp(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """log(sum(exp(x))) over ``axis`` (an int, a tuple of ints, or None for all), for any x."""
    top = x.max(axis=axis, keepdims=True)
    y = backend.xp.log(backend.xp.exp(x - top).sum(axis=axis, keepdims=True)) + top
    return y if keepdims else y.squeeze(axis)


def softmax_cross_entropy(x: Tensor, labels: Array) -> Tensor:
    """The mean of -log softmax(x)[label] over rows of logits ``x`` (n, k), for integer ``labels`` (n,): shape ()."""
    return mean(logsumexp(x, 1) - x[backend.xp.arange(len(labels)), labels])


@primitive(
    lambda g, out, x, axis, keepdims: x * _keepdims(g * safe_reciprocal(out), x, axis, keepdims),
    expects="an axis, or two",
)
def norm(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The Euclidean norm over ``axis`` (an int, a pair of ints, or None for all), safe at zero.

    Its derivative x / norm(x) has no limit at x = 0; the one taken there is 0, a subgradient, and so are the further
    ones. All are finite.
    """
    return backend.xp.linalg.norm(x, axis=axis, keepdims=keepdims)


@primitive(lambda g, out, x, shape: sum_to(g, x.shape), expects="a shape that it broadcasts to")
def broadcast_to(x: Tensor, shape: tuple[int, ...] = ()) -> Tensor:
    """x repeated along new or size-1 axes, as a read-only view."""
    return backend.xp.broadcast_to(x, shape)


@primitive(lambda g, out, x, shape: broadcast_to(g, x.shape), expects="a shape that broadcasts to it")
def sum_to(x: Tensor, shape: tuple[int, ...] = ()) -> Tensor:
    """x summed over the axes along which ``shape`` would be repeated: the adjoint of ``broadcast_to``."""
    new = x.ndim - len(shape)
    repeated = tuple(i for i, n in enumerate(x.shape) if i < new or shape[i - new] != n)
    return x.sum(axis=repeated).reshape(shape)


@primitive(lambda g, out, x, shape: reshape(g, x.shape), expects="a shape of the same size")
def reshape(x: Tensor, shape: int | tuple[int, ...] = -1) -> Tensor:
    """The same elements in another shape; one -1 stands for what is left."""
    return x.reshape(shape)


def _inverse(axes: tuple[int, ...] | None) -> tuple[int, ...] | None:
    return axes and tuple(sorted(range(len(axes)), key=lambda i: axes[i] % len(axes)))


@primitive(lambda g, out, x, axes: transpose(g, _inverse(axes)), expects="a permutation of its axes")
def transpose(x: Tensor, axes: tuple[int, ...] | None = None) -> Tensor:
    """The axes permuted, or reversed with None."""
    return backend.xp.transpose(x, axes)


@primitive(lambda g, out, x, index: scatter_add(g, index, x.shape), expects="an index into it")
def getitem(x: Tensor, index: Any = ...) -> Tensor:
    """x[index], for any index that the array module takes."""
    return x[index]


@primitive(lambda g, out, x, index, shape: getitem(g, index), expects="the shape of what is indexed")
def scatter_add(x: Tensor, index: Any = ..., shape: tuple[int, ...] = ()) -> Tensor:
    """Zeros of ``shape`` with x added at ``index``, repeated indices adding up: the adjoint of ``getitem``."""
    out = backend.xp.zeros(shape, x.dtype)
    backend.xp.add.at(out, index, x)
    return out


def _part(x: Tensor, axis: int, start: int, stop: int) -> Tensor:
    return getitem(x, (slice(None),) * (axis % x.ndim) + (slice(start, stop),))


@primitive(
    lambda g, out, x, y, axis: _part(g, axis, 0, x.shape[axis]),
    lambda g, out, x, y, axis: _part(g, axis, x.shape[axis], out.shape[axis]),
    expects="shapes that agree but for the axis",
)
def concatenate_pair(x: Tensor, y: Tensor, axis: int = 0) -> Tensor:
    """x and then y along an axis."""
    return backend.xp.concatenate((x, y), axis=axis)


def concatenate(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """One Tensor after the other along an axis, by pairs."""
    return reduce(lambda x, y: concatenate_pair(x, y, axis), tensors)


# --- Matrix products: closed under differentiation, so that no transpose is ever copied ----------


class RowProduct(NamedTuple):
    """x^T y, not formed yet: a sum over rows, so that several add up in one product of their rows together.

    A critic's weight has a gradient from its scores and another from its slope, and their sum is
    x1^T y1 + x2^T y2 = [x1; x2]^T [y1; y2]: one pass over an array of the weight's size instead of three.
    """

    x: Tensor
    y: Tensor


def _row_product(x: Tensor, y: Tensor, w: Tensor) -> Tensor | RowProduct:
    return RowProduct(x, y) if w.ndim == x.ndim == y.ndim == 2 else _fit(matmul_tn(x, y), w)


@primitive(
    lambda g, out, x, y: _fit(matmul_nt(g, y), x),
    lambda g, out, x, y: _row_product(x, g, y),
    expects="(..., n, k) @ (..., k, m)",
)
def matmul(x: Tensor, y: Tensor) -> Tensor:
    """x @ y, for two axes or more; those before the last two broadcast."""
    return backend.matmul(_matrix(x), _matrix(y))


@primitive(
    lambda g, out, x, y: _fit(matmul(g, y), x),
    lambda g, out, x, y: _row_product(g, x, y),
    expects="(..., n, k) @ (..., m, k) transposed",
)
def matmul_nt(x: Tensor, y: Tensor) -> Tensor:
    """x @ y.T"""
    y = _matrix(y).swapaxes(-1, -2)
    # an outer product, as from a critic's one score: elementwise it takes a third of the time
    return x * y if _matrix(x).shape[-1] == y.shape[-2] == 1 else backend.matmul(x, y)


@primitive(
    lambda g, out, x, y: _fit(matmul_nt(y, g), x),
    lambda g, out, x, y: _fit(matmul(x, g), y),
    expects="(..., k, n) transposed @ (..., k, m)",
)
def matmul_tn(x: Tensor, y: Tensor) -> Tensor:
    """x.T @ y"""
    return backend.matmul(_matrix(x).swapaxes(-1, -2), _matrix(y))


@primitive(
    lambda g, out, x, w, b: _fit(matmul_nt(g, w), x),
    lambda g, out, x, w, b: _row_product(x, g, w),
    lambda g, out, x, w, b: _fit(g, b),
    expects="(n, in), (in, out) and (out,)",
)
def linear(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """x @ w + b"""
    out = backend.matmul(_matrix(x), _matrix(w))
    out += b
    return out


def _matrix(x: Array) -> Array:
    if x.ndim < 2:
        raise ValueError("a vector is neither a row nor a column")
    return x


# --- The operators and methods of Tensor --------------------------------------------------------

Tensor.__add__ = Tensor.__radd__ = add
Tensor.__mul__ = Tensor.__rmul__ = mul
Tensor.__sub__ = sub
Tensor.__rsub__ = lambda x, y: sub(y, x)
Tensor.__truediv__ = div
Tensor.__rtruediv__ = lambda x, y: div(y, x)
Tensor.__neg__ = neg
Tensor.__pow__ = power
Tensor.__matmul__ = matmul
Tensor.__rmatmul__ = lambda x, y: matmul(y, x)
Tensor.__getitem__ = getitem
Tensor.T = property(transpose)
Tensor.sum = sum
Tensor.mean = mean
Tensor.reshape = lambda x, *shape: reshape(x, shape[0] if len(shape) == 1 else shape)
