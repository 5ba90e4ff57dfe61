"""Every primitive: its vector-Jacobian products and, right below, what it computes.

Below the decorator stands a function of arrays; ``primitive`` makes of it a function of Tensors, which the rest of the
program calls. A vjp takes ``g``, the gradient with respect to the result ``out``, and the primitive's arguments, and
returns the gradient with respect to one operand; a primitive has a vjp for each operand, in their order. Vjps are
written in the functions of this file, so the gradient of a gradient, of any order, needs nothing more. Where an operand
was broadcast, the sweep adds up over the copies.

The derivative of relu, leaky_relu and maximum is piecewise constant. So it is an array, a mask, and not a Tensor: the
graph of a product holds the mask, and no gradient flows to it. ``kernel`` marks a function of arrays whose calls are
recorded for a replay; ``primitive`` marks its function too.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from . import backend
from .backend import Array, kernel, unwrap
from .tensor import Tensor, primitive, tensor

Axis = int | tuple[int, ...] | None

# --- Arithmetic, elementwise, with broadcasting -------------------------------------------------


@primitive(lambda g, out, x, y: g, lambda g, out, x, y: g)
def add(x: Array, y: Array) -> Array:
    """x + y, of shapes that broadcast together"""
    return x + y


@primitive(lambda g, out, x, y: g, lambda g, out, x, y: -g)
def sub(x: Array, y: Array) -> Array:
    """x - y, of shapes that broadcast together"""
    return x - y


@primitive(lambda g, out, x, y: g * y, lambda g, out, x, y: g * x)
def mul(x: Array, y: Array) -> Array:
    """x * y, of shapes that broadcast together"""
    return x * y


@primitive(lambda g, out, x, y: g / y, lambda g, out, x, y: -(g / y) * out)
def div(x: Array, y: Array) -> Array:
    """x / y, of shapes that broadcast together, for y != 0"""
    return x / y


@primitive(lambda g, out, x: -g)
def neg(x: Array) -> Array:
    """-x"""
    return -x


# The derivative of x ** 0 is the factor 0, since 0 * x ** -1 would not be 0 at x = 0.
@primitive(lambda g, out, x, exponent: g * (exponent * x ** (exponent - 1) if exponent else 0))
def power(x: Array, exponent: float) -> Array:
    """x ** exponent, for a constant exponent; x > 0 unless the exponent is a whole number"""
    return x ** float(exponent + 0.0)  # + 0.0 refuses a text, float() an array


@primitive(lambda g, out, x: -(g * out * out))
def safe_reciprocal(x: Array) -> Array:
    """1 / x, and 0 where x is 0 (so are all its derivatives there)"""
    return (x != 0) / (x + (x == 0))  # 1 / x, or 0 / 1


# --- Smooth functions, elementwise --------------------------------------------------------------


@primitive(lambda g, out, x: g * out)
def exp(x: Array) -> Array:
    """e ** x; overflows to inf above 88 in float32, 709 in float64"""
    return backend.xp.exp(x)


@primitive(lambda g, out, x: g / x)
def log(x: Array) -> Array:
    """The natural logarithm, for x > 0 (-inf at 0 and NaN below it, with NumPy's warning)"""
    return backend.xp.log(x)


@primitive(lambda g, out, x: g / (2 * out))
def sqrt(x: Array) -> Array:
    """The square root, for x > 0: at 0 its derivative is infinite; for the length of a vector take ``norm``"""
    return backend.xp.sqrt(x)


@primitive(lambda g, out, x: g * (1 - out * out))
def tanh(x: Array) -> Array:
    """The hyperbolic tangent"""
    return backend.xp.tanh(x)


def logistic(x: Array, low: float = -float("inf")) -> Array:
    y = backend.xp.exp(backend.xp.clip(x, low, 88))  # above, the result is 1, and exp would overflow soon
    y /= y + 1
    return y


@primitive(lambda g, out, x: g * (out * (1 - out)))
def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), for any x"""
    return logistic(x)


@primitive(lambda g, out, x: g * sigmoid(x))
def softplus(x: Array) -> Array:
    """log(1 + exp(x)), for any x"""
    y = backend.xp.log1p(backend.xp.exp(-backend.xp.abs(x)))  # never exp of a large number
    y += backend.xp.clip(x, 0, float("inf"))
    return y


# --- Piecewise linear functions, elementwise ----------------------------------------------------


@kernel
def positive(out: Array) -> Array:
    """The mask of out = relu(x): true where out is positive, or NaN, which is passed on."""
    return out != 0


@primitive(lambda g, out, x: g * positive(out.array))
def relu(x: Array) -> Array:
    """max(x, 0), with derivative 0 at 0"""
    return backend.xp.clip(x, 0, float("inf"))  # maximum(x, 0) takes three times as long


@kernel
def leaky_mask(x: Array, slope: float) -> Array:
    """1 where x > 0, ``slope`` elsewhere, in x's dtype."""
    return backend.xp.where(x > 0, x.dtype.type(1), x.dtype.type(slope))


@primitive(lambda g, out, x, slope: g * leaky_mask(x.array, slope))
def leaky_relu(x: Array, slope: float = 0.2) -> Array:
    """x where x > 0, slope * x elsewhere"""
    return x * leaky_mask(x, slope)


@kernel
def differs(out: Array, y: Array) -> Array:
    """The mask of out = maximum(x, y) for x: true where out is not y, so that x is larger, or one is NaN."""
    return out != y


# y gets what x does not. ``unwrap`` takes the array of a Tensor, and leaves a constant, which has none, as it is.
@primitive(
    lambda g, out, x, y: g * differs(out.array, unwrap(y)),
    lambda g, out, x, y: g - g * differs(out.array, unwrap(y)),
)
def maximum(x: Array, y: Array) -> Array:
    """The larger of x and y; where they are alike the gradient goes to y, so that maximum(x, 0) is relu(x)"""
    return backend.xp.maximum(x, y)


# --- Shapes -------------------------------------------------------------------------------------


@primitive(lambda g, out, x, shape: g)
def broadcast_to(x: Array, shape: tuple[int, ...]) -> Array:
    """x repeated along new or size-1 axes to a shape that it broadcasts to, as a read-only view"""
    return backend.xp.broadcast_to(x, shape)


@primitive(lambda g, out, x, shape: broadcast_to(g, x.shape))
def sum_to(x: Array, shape: tuple[int, ...]) -> Array:
    """x summed to a shape that broadcasts to its own, over what is repeated then: the adjoint of ``broadcast_to``"""
    new = x.ndim - len(shape)
    repeated = tuple(i for i, n in enumerate(x.shape) if i < new or shape[i - new] != n)
    return x.sum(axis=repeated).reshape(shape)


@primitive(lambda g, out, x, shape: reshape(g, x.shape))
def reshape(x: Array, shape: int | tuple[int, ...]) -> Array:
    """The same elements in another shape of the same size; one -1 stands for what is left"""
    return x.reshape(shape)


@primitive(lambda g, out, x, axes: transpose(g, _inverse(axes)))
def transpose(x: Array, axes: Sequence[int] | None = None) -> Array:
    """x with its axes permuted by ``axes``, or reversed with None"""
    return backend.xp.transpose(x, axes)


def _inverse(axes: Sequence[int] | None) -> Sequence[int] | None:
    """The axes that undo a transpose: the argsort of a permutation is its inverse (axes may count from the end)."""
    return None if axes is None else tuple(sorted(range(len(axes)), key=lambda i: axes[i] % len(axes)))


@primitive(lambda g, out, x, index: scatter_add(g, index, x.shape))
def getitem(x: Array, index: Any) -> Array:
    """x[index], for an index into it of any kind that the array module takes; an array or list is held, not copied"""
    return x[index]


@primitive(lambda g, out, x, index, shape: getitem(g, index))
def scatter_add(x: Array, index: Any, shape: tuple[int, ...]) -> Array:
    """Zeros of ``shape`` with x added at ``index``, repeated indices adding up: the adjoint of ``getitem``"""
    out = backend.xp.zeros(shape, x.dtype)
    backend.xp.add.at(out, index, x)
    return out


def _slice(x: Tensor, axis: int, start: int, stop: int | None) -> Tensor:
    """x[:, ..., start:stop], the slice standing at ``axis``."""
    return getitem(x, (slice(None),) * (axis % x.ndim) + (slice(start, stop),))


@primitive(
    lambda g, out, x, y, axis: _slice(g, axis, 0, x.shape[axis]),
    lambda g, out, x, y, axis: _slice(g, axis, x.shape[axis], None),
)
def concatenate_pair(x: Array, y: Array, axis: int = 0) -> Array:
    """x and then y along an axis, of shapes that agree but for the axis"""
    if axis is None:
        raise TypeError("without an axis NumPy would flatten both")
    return backend.xp.concatenate((x, y), axis=axis)


def concatenate(tensors: Iterable[Tensor | Array], axis: int = 0) -> Tensor:
    """One after the other along an axis, by pairs, and pairs of pairs. Raises ValueError for none at all."""
    pieces = list(tensors)
    if not pieces:
        raise ValueError("concatenate: expected one Tensor or more, got none")
    while len(pieces) > 1:
        pairs = (pieces[i : i + 2] for i in range(0, len(pieces), 2))
        pieces = [concatenate_pair(pair[0], pair[1], axis) if len(pair) == 2 else pair[0] for pair in pairs]
    return pieces[0] if isinstance(pieces[0], Tensor) else tensor(pieces[0])


# --- Reductions, over ``axis``: an int, a tuple of ints, or None for all -------------------------


def _expand(y: Tensor, x: Tensor, axis: Axis) -> Tensor:
    """The result y of a reduction of x with the reduced axes too, of size 1, so that it broadcasts to x."""
    axes = {*axis} if isinstance(axis, tuple) else {axis}
    shape = tuple(1 if axis is None or axes & {i, i - x.ndim} else n for i, n in enumerate(x.shape))
    return y if y.shape == shape else reshape(y, shape)


@primitive(lambda g, out, x, axis, keepdims: broadcast_to(_expand(g, x, axis), x.shape))
def sum(x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """The sum of an array over some of its axes"""
    return x.sum(axis=axis, keepdims=keepdims)


# out.array.size / x.array.size is 1 / n, for means of n elements each.
@primitive(
    lambda g, out, x, axis, keepdims: broadcast_to(_expand(g, x, axis) * (out.array.size / x.array.size), x.shape)
)
def mean(x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """The mean of an array over some of its axes, not empty"""
    total = x.sum(axis=axis, keepdims=keepdims)
    return total * (total.size / x.size)  # x.mean takes three times as long for small arrays


@primitive(lambda g, out, x, axis, keepdims: _expand(g, x, axis) * softmax(x, axis))
def logsumexp(x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """log(sum(exp(x))) of an array over some of its axes, not empty; its derivative is NaN where it is infinite"""
    top = x.max(axis=axis, keepdims=True)
    total = backend.xp.exp(x - backend.xp.where(backend.xp.isfinite(top), top, 0)).sum(axis=axis, keepdims=keepdims)
    return backend.xp.log(total + (total == 0)) + top.reshape(total.shape)  # 0 where all are -inf


@primitive(lambda g, out, x, axis: out * (g - sum(g * out, axis, True)))
def softmax(x: Array, axis: Axis = None) -> Array:
    """exp(x) / sum(exp(x)) of an array over some of its axes, not empty"""
    y = backend.xp.exp(x - x.max(axis=axis, keepdims=True))
    return y / y.sum(axis=axis, keepdims=True)


@primitive(lambda g, out, x, axis, keepdims: x * _expand(g * safe_reciprocal(out), x, axis))
def norm(x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """The Euclidean norm of an array over some of its axes, safe at zero

    Its derivative x / norm(x) has no limit at x = 0; the one taken there is 0, a subgradient, and so are the further
    ones. All are finite. So the second derivative of norm(x) ** 2 is 0 there, and not 2: where that matters, write
    (x * x).sum(). Squares must not overflow or underflow: between 1e-18 and 1e18 in float32.
    """
    return backend.xp.sqrt((x * x).sum(axis=axis, keepdims=keepdims))


# --- Matrix products: x y, x y^T and x^T y, whose derivatives are each other, so that there is no transpose ------


@primitive(lambda g, out, x, y: matmul_nt(g, y), lambda g, out, x, y: matmul_tn(x, g))
def matmul(x: Array, y: Array) -> Array:
    """x @ y, (..., n, k) @ (..., k, m); axes before the last two broadcast"""
    return backend.matmul(_matrix(x), _matrix(y))


@primitive(lambda g, out, x, y: matmul(g, y), lambda g, out, x, y: matmul_tn(g, x))
def matmul_nt(x: Array, y: Array) -> Array:
    """x @ y.T, (..., n, k) @ (..., m, k) transposed"""
    y = _matrix(y).swapaxes(-1, -2)
    # an outer product, as from a critic's one score: elementwise it takes a third of the time
    return x * y if _matrix(x).shape[-1] == y.shape[-2] == 1 else backend.matmul(x, y)


@primitive(lambda g, out, x, y: matmul_nt(y, g), lambda g, out, x, y: matmul(x, g))
def matmul_tn(x: Array, y: Array) -> Array:
    """x.T @ y, (..., k, n) transposed @ (..., k, m)"""
    return backend.matmul(_matrix(x).swapaxes(-1, -2), _matrix(y))


@primitive(lambda g, out, x, w, b: matmul_nt(g, w), lambda g, out, x, w, b: matmul_tn(x, g), lambda g, out, x, w, b: g)
def linear(x: Array, w: Array, b: Array) -> Array:
    """x @ w + b, (n, in) @ (in, out) + (out,)"""
    out = backend.matmul(_matrix(x), _matrix(w))
    out += b
    return out


def _matrix(x: Array) -> Array:
    """x, which must have rows and columns."""
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
Tensor.T = property(transpose)  # type: ignore[assignment]
Tensor.sum = sum
Tensor.mean = mean
Tensor.reshape = lambda x, *shape: reshape(x, shape[0] if len(shape) == 1 else shape)
