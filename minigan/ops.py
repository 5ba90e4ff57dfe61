"""Every primitive: its vector-Jacobian products and, right below, what it computes.

What it computes is a function of arrays; ``primitive`` turns it into a function of Tensors, which is what the rest of
the program calls. A vjp takes ``g``, the gradient with respect to the result ``out``, and what the primitive was called
with, and returns the gradient with respect to one operand; there is one for each, in their order. It is written in the
functions of this file, so the gradient of a gradient, of any order, needs nothing more. Where a derivative is constant
(the masks of relu, leaky_relu, maximum) it is a bare array: no gradient can flow to it, so nothing of it enters the
next graph.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from numbers import Real
from typing import Any, NamedTuple

from . import backend
from .backend import Array
from .tensor import Tensor, primitive

Axis = int | tuple[int, ...] | None

PAIR = "shapes that broadcast together"


def _unbroadcast(g: Tensor, x: Tensor) -> Tensor:
    """The gradient ``g`` with respect to a broadcast ``x``, as the one with respect to ``x``."""
    return g if g.shape == x.shape else sum_to(g, x.shape)


# --- Arithmetic, elementwise --------------------------------------------------------------------


@primitive(lambda g, out, x, y: _unbroadcast(g, x), lambda g, out, x, y: _unbroadcast(g, y), expects=PAIR)
def add(x: Array, y: Array) -> Array:
    """x + y"""
    return x + y


@primitive(lambda g, out, x, y: _unbroadcast(g, x), lambda g, out, x, y: _unbroadcast(-g, y), expects=PAIR)
def sub(x: Array, y: Array) -> Array:
    """x - y"""
    return x - y


@primitive(lambda g, out, x, y: _unbroadcast(g * y, x), lambda g, out, x, y: _unbroadcast(g * x, y), expects=PAIR)
def mul(x: Array, y: Array) -> Array:
    """x * y"""
    return x * y


@primitive(
    lambda g, out, x, y: _unbroadcast(g / y, x), lambda g, out, x, y: _unbroadcast(-g * out / y, y), expects=PAIR
)
def div(x: Array, y: Array) -> Array:
    """x / y, for y != 0"""
    return x / y


@primitive(lambda g, out, x: -g)
def neg(x: Array) -> Array:
    """-x"""
    return -x


# The derivative of a constant is the factor 0, since 0 * x ** -1 would not be 0 at x = 0.
@primitive(lambda g, out, x, exponent: g * (exponent * x ** (exponent - 1) if exponent else 0))
def power(x: Array, exponent: float) -> Array:
    """x ** exponent, for a constant exponent; x > 0 unless the exponent is a whole number."""
    if not isinstance(exponent, Real):
        raise TypeError(f"power: expected a number as the exponent, got {type(exponent).__name__}")
    return x ** float(exponent)


@primitive(lambda g, out, x: -(g * out * out))
def safe_reciprocal(x: Array) -> Array:
    """1 / x, and 0 where x is 0 (so are all its derivatives there)."""
    zero = x == 0
    return ~zero / (x + zero)


# --- Smooth functions, elementwise --------------------------------------------------------------


@primitive(lambda g, out, x: g * out)
def exp(x: Array) -> Array:
    """e ** x; overflows to inf above 88 in float32, 709 in float64."""
    return backend.xp.exp(x)


@primitive(lambda g, out, x: g / x)
def log(x: Array) -> Array:
    """The natural logarithm, for x > 0 (-inf at 0 and NaN below it, with NumPy's warning)."""
    return backend.xp.log(x)


@primitive(lambda g, out, x: g / (2 * out))
def sqrt(x: Array) -> Array:
    """The square root, for x > 0: at 0 its derivative is infinite. For the length of a vector take ``norm``."""
    return backend.xp.sqrt(x)


@primitive(lambda g, out, x: g * (1 - out * out))
def tanh(x: Array) -> Array:
    """The hyperbolic tangent."""
    return backend.xp.tanh(x)


@primitive(lambda g, out, x: g * (out * (1 - out)))
def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), for any x."""
    return backend.sigmoid(x)


@primitive(lambda g, out, x: g * sigmoid(x))
def softplus(x: Array) -> Array:
    """log(1 + exp(x)), for any x."""
    return backend.softplus(x)


# --- Piecewise linear functions, elementwise ----------------------------------------------------


@primitive(lambda g, out, x: g * (out.data != 0))  # the mask: where x > 0, or NaN, which it must not hide
def relu(x: Array) -> Array:
    """max(x, 0), with derivative 0 at 0."""
    return backend.xp.maximum(x, 0)


def _leaky_mask(x: Array, slope: float) -> Array:
    """1 where x > 0, ``slope`` elsewhere, in x's dtype."""
    return (x > 0) * x.dtype.type(1 - slope) + x.dtype.type(slope)


@primitive(lambda g, out, x, slope: g * _leaky_mask(x.data, slope))
def leaky_relu(x: Array, slope: float = 0.2) -> Array:
    """x where x > 0, slope * x elsewhere."""
    return x * _leaky_mask(x, slope)


def _larger(x: Any, y: Any) -> Array:
    """Where x > y, for Tensors or constants."""
    x, y = (a.data if isinstance(a, Tensor) else a for a in (x, y))
    return x > y


@primitive(
    lambda g, out, x, y: _unbroadcast(g * _larger(x, y), x),
    lambda g, out, x, y: _unbroadcast(g * ~_larger(x, y), y),
    expects=PAIR,
)
def maximum(x: Array, y: Array) -> Array:
    """The larger of x and y; where they are equal the gradient goes to y, so that maximum(x, 0) is relu(x)."""
    return backend.xp.maximum(x, y)


# --- Shapes -------------------------------------------------------------------------------------


@primitive(lambda g, out, x, shape: sum_to(g, x.shape), expects="a shape that it broadcasts to")
def broadcast_to(x: Array, shape: tuple[int, ...]) -> Array:
    """x repeated along new or size-1 axes, as a read-only view."""
    return backend.xp.broadcast_to(x, shape)


@primitive(lambda g, out, x, shape: broadcast_to(g, x.shape), expects="a shape that broadcasts to it")
def sum_to(x: Array, shape: tuple[int, ...]) -> Array:
    """x summed over the axes along which ``shape`` would be repeated: the adjoint of ``broadcast_to``."""
    new = x.ndim - len(shape)
    repeated = tuple(i for i, n in enumerate(x.shape) if i < new or shape[i - new] != n)
    return x.sum(axis=repeated).reshape(shape)


@primitive(lambda g, out, x, shape: reshape(g, x.shape), expects="a shape of the same size")
def reshape(x: Array, shape: int | tuple[int, ...]) -> Array:
    """The same elements in another shape; one -1 stands for what is left."""
    return x.reshape(shape)


@primitive(lambda g, out, x, axis: reshape(g, x.shape), expects="axes of size 1")
def squeeze(x: Array, axis: Axis = None) -> Array:
    """x without axes of size 1 (an int, a tuple of ints, or None for all)."""
    return x.squeeze(axis)


def _inverse(axes: tuple[int, ...] | None) -> tuple[int, ...] | None:
    return axes and tuple(sorted(range(len(axes)), key=lambda i: axes[i] % len(axes)))


@primitive(lambda g, out, x, axes: transpose(g, _inverse(axes)), expects="a permutation of its axes")
def transpose(x: Array, axes: tuple[int, ...] | None = None) -> Array:
    """The axes permuted, or reversed with None."""
    return backend.xp.transpose(x, axes)


@primitive(lambda g, out, x, index: scatter_add(g, index, x.shape), expects="an index into it")
def getitem(x: Array, index: Any) -> Array:
    """x[index], for any index that the array module takes."""
    return x[index]


@primitive(lambda g, out, x, index, shape: getitem(g, index), expects="the shape of what is indexed")
def scatter_add(x: Array, index: Any, shape: tuple[int, ...]) -> Array:
    """Zeros of ``shape`` with x added at ``index``, repeated indices adding up: the adjoint of ``getitem``."""
    out = backend.xp.zeros_like(x, shape=shape or 1).reshape(shape)  # CuPy takes () for no shape at all
    backend.xp.add.at(out, index, x)
    return out


def _rows(x: Tensor, axis: int, start: int, stop: int) -> Tensor:
    return getitem(x, (slice(None),) * (axis % x.ndim) + (slice(start, stop),))


@primitive(
    lambda g, out, x, y, axis: _rows(g, axis, 0, x.shape[axis]),
    lambda g, out, x, y, axis: _rows(g, axis, x.shape[axis], out.shape[axis]),
    expects="shapes that agree but for the axis",
)
def concatenate_pair(x: Array, y: Array, axis: int = 0) -> Array:
    """x and then y along an axis."""
    return backend.xp.concatenate((x, y), axis=axis)


def concatenate(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """One Tensor after the other along an axis, by pairs."""
    return reduce(lambda x, y: concatenate_pair(x, y, axis), tensors)


# --- Reductions ---------------------------------------------------------------------------------


def _reduction(vjp: Callable[..., Tensor]) -> Callable[..., Callable[..., Tensor]]:
    """A function of Tensors, ``axis`` and ``keepdims``, from a primitive that leaves the axes it reduces, with size 1.

    So its result broadcasts to its operand, as its derivative wants it; where they are not kept, a view drops the axes.
    """

    def decorate(forward: Callable[[Array, Axis], Array]) -> Callable[..., Tensor]:
        kept = primitive(vjp, expects="axes of the array, and something there to reduce")(forward)

        def op(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
            out = kept(x, axis)
            return out if keepdims else squeeze(out, axis)

        op.__name__ = op.__qualname__ = forward.__name__
        op.__doc__, op.kept = forward.__doc__, kept
        return op

    return decorate


@_reduction(lambda g, out, x, axis: broadcast_to(g, x.shape))
def sum(x: Array, axis: Axis) -> Array:
    """The sum over ``axis`` (an int, a tuple of ints, or None for all)."""
    return x.sum(axis=axis, keepdims=True)


@_reduction(lambda g, out, x, axis: broadcast_to(g * (out.data.size / x.data.size), x.shape))
def mean(x: Array, axis: Axis) -> Array:
    """The mean over ``axis`` (an int, a tuple of ints, or None for all), of one element or more."""
    if x.size == 0:
        raise ValueError
    total = x.sum(axis=axis, keepdims=True)
    return total * (total.size / x.size)


@_reduction(lambda g, out, x, axis: g * exp(x - out))  # that is the softmax of x
def logsumexp(x: Array, axis: Axis) -> Array:
    """log(sum(exp(x))) over ``axis`` (an int, a tuple of ints, or None for all), for any x."""
    top = x.max(axis=axis, keepdims=True)
    return backend.xp.log(backend.xp.exp(x - top).sum(axis=axis, keepdims=True)) + top


@_reduction(lambda g, out, x, axis: x * (g * safe_reciprocal(out)))
def norm(x: Array, axis: Axis) -> Array:
    """The Euclidean norm over ``axis`` (an int, a tuple of ints, or None for all), safe at zero.

    Its derivative x / norm(x) has no limit at x = 0; the one taken there is 0, a subgradient, and so are the further
    ones. All are finite. Squares must not overflow or underflow: between 1e-18 and 1e18 in float32.
    """
    return backend.xp.sqrt((x * x).sum(axis=axis, keepdims=True))


def softmax_cross_entropy(x: Tensor, labels: Array) -> Tensor:
    """The mean of -log softmax(x)[label] over rows of logits ``x`` (n, k), for integer ``labels`` (n,): shape ().

    Raises ValueError for a label that is not one of 0 ... k - 1 (on the GPU, looking at them waits for the device).
    """
    if not 0 <= labels.min() <= labels.max() < x.shape[1]:
        raise ValueError(f"softmax_cross_entropy: expected labels from 0 to {x.shape[1] - 1}, got others among them")
    return mean(logsumexp(x, 1) - x[backend.xp.arange(len(labels)), labels])


# --- Matrix products: closed under differentiation, so that no transpose is ever copied ----------
#
# The gradient of a matrix w is a product x^T g: ``_row_product(x, g, w)``, of which the end of this file says more.


@primitive(
    lambda g, out, x, y: _unbroadcast(matmul_nt(g, y), x),
    lambda g, out, x, y: _row_product(x, g, y),
    expects="(..., n, k) @ (..., k, m)",
)
def matmul(x: Array, y: Array) -> Array:
    """x @ y, for two axes or more; those before the last two broadcast."""
    return backend.matmul(_matrix(x), _matrix(y))


@primitive(
    lambda g, out, x, y: _unbroadcast(matmul(g, y), x),
    lambda g, out, x, y: _row_product(g, x, y),
    expects="(..., n, k) @ (..., m, k) transposed",
)
def matmul_nt(x: Array, y: Array) -> Array:
    """x @ y.T"""
    y = _matrix(y).swapaxes(-1, -2)
    # an outer product, as from a critic's one score: elementwise it takes a third of the time
    return x * y if _matrix(x).shape[-1] == y.shape[-2] == 1 else backend.matmul(x, y)


@primitive(
    lambda g, out, x, y: _unbroadcast(matmul_nt(y, g), x),
    lambda g, out, x, y: _unbroadcast(matmul(x, g), y),
    expects="(..., k, n) transposed @ (..., k, m)",
)
def matmul_tn(x: Array, y: Array) -> Array:
    """x.T @ y"""
    return backend.matmul(_matrix(x).swapaxes(-1, -2), _matrix(y))


@primitive(
    lambda g, out, x, w, b: _unbroadcast(matmul_nt(g, w), x),
    lambda g, out, x, w, b: _row_product(x, g, w),
    lambda g, out, x, w, b: _unbroadcast(g, b),
    expects="(n, in), (in, out) and (out,)",
)
def linear(x: Array, w: Array, b: Array) -> Array:
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


# --- An optimisation: what the uses of one matrix contribute to its gradient, in one product -----


class RowProduct(NamedTuple):
    """x^T y, not formed yet: a sum over rows, so that several add up in one product of their rows together.

    A critic's weight has a gradient from its scores and another from its slopes, and their sum is
    x1^T y1 + x2^T y2 = [x1; x2]^T [y1; y2]: one pass over an array of the weight's size instead of three.
    """

    x: Tensor
    y: Tensor


def _row_product(x: Tensor, y: Tensor, w: Tensor) -> Tensor | RowProduct:
    return RowProduct(x, y) if w.ndim == x.ndim == y.ndim == 2 else _unbroadcast(matmul_tn(x, y), w)


def add_up(parts: Sequence[Tensor | RowProduct]) -> Tensor:
    """The sum of what vjps returned for the uses of one Tensor: at least one, all of its shape."""
    tensors = [p for p in parts if isinstance(p, Tensor)]
    products = [p for p in parts if isinstance(p, RowProduct)]
    if products:
        x, y = zip(*products)
        tensors.append(matmul_tn(concatenate(x), concatenate(y)))
    return reduce(add, tensors)
