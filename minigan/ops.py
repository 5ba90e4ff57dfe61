"""Every primitive: what it computes and, right below, its vector-Jacobian products.

A vjp takes ``g``, the gradient with respect to the result ``out``, and the operands, and returns the gradient with
respect to one operand. It is written in the primitives of this file, so the gradient of a gradient, of any order, needs
nothing more. Where a derivative is constant (the slopes of relu, leaky_relu, maximum) it is a bare array: no gradient
can flow to it, so nothing of it enters the next graph.
"""

from collections.abc import Sequence
from functools import reduce
from typing import Any

from . import backend
from .backend import Array
from .tensor import Tensor, defvjp, primitive

Axis = int | tuple[int, ...] | None

PAIR = "shapes that broadcast together"


def _fit(g: Tensor, x: Tensor) -> Tensor:
    """Undo the broadcasting of ``x`` in the gradient ``g``."""
    return g if g.shape == x.shape else sum_to(g, x.shape)


def _data(x: Any) -> Any:
    return x.data if isinstance(x, Tensor) else x


# --- Arithmetic ---------------------------------------------------------------------------------


@primitive(expects=PAIR)
def add(x: Tensor, y: Tensor) -> Tensor:
    """x + y, elementwise."""
    return x + y


defvjp(add, lambda g, out, x, y: _fit(g, x), lambda g, out, x, y: _fit(g, y))


@primitive(expects=PAIR)
def sub(x: Tensor, y: Tensor) -> Tensor:
    """x - y, elementwise."""
    return x - y


defvjp(sub, lambda g, out, x, y: _fit(g, x), lambda g, out, x, y: _fit(neg(g), y))


@primitive(expects=PAIR)
def mul(x: Tensor, y: Tensor) -> Tensor:
    """x * y, elementwise."""
    return x * y


defvjp(mul, lambda g, out, x, y: _fit(g * y, x), lambda g, out, x, y: _fit(g * x, y))


@primitive(expects=PAIR)
def div(x: Tensor, y: Tensor) -> Tensor:
    """x / y, elementwise, for y != 0."""
    return x / y


defvjp(div, lambda g, out, x, y: _fit(g / y, x), lambda g, out, x, y: _fit(-g * out / y, y))


@primitive(expects="an array")
def neg(x: Tensor) -> Tensor:
    """-x, elementwise."""
    return -x


defvjp(neg, lambda g, out, x: -g)


@primitive(expects="an array and a Python number")
def power(x: Tensor, exponent: float = 1) -> Tensor:
    """x ** exponent, elementwise, for a constant exponent; x > 0 unless the exponent is a whole number."""
    if not isinstance(exponent, (int, float)):
        raise TypeError(f"power: expected a Python number as the exponent, got {type(exponent).__name__}")
    return x ** float(exponent)


# The factor 0 of a constant stands in for 0 * x ** -1, which is not 0 at x = 0.
defvjp(power, lambda g, out, x, exponent: g * (exponent * x ** (exponent - 1) if exponent else 0))


@primitive(expects="an array")
def safe_reciprocal(x: Tensor) -> Tensor:
    """1 / x, and 0 where x is 0 (so are all its derivatives there)."""
    zero = x == 0
    return ~zero / (x + zero)


defvjp(safe_reciprocal, lambda g, out, x: -(g * out * out))


# --- Smooth functions, elementwise --------------------------------------------------------------


@primitive(expects="an array")
def exp(x: Tensor) -> Tensor:
    """e ** x; overflows to inf above 88 in float32, 709 in float64."""
    return backend.xp.exp(x)


defvjp(exp, lambda g, out, x: g * out)


@primitive(expects="an array")
def log(x: Tensor) -> Tensor:
    """The natural logarithm, for x > 0 (-inf at 0 and NaN below it, with NumPy's warning)."""
    return backend.xp.log(x)


defvjp(log, lambda g, out, x: g / x)


@primitive(expects="an array")
def sqrt(x: Tensor) -> Tensor:
    """The square root, for x > 0: at 0 its derivative is infinite. For the length of a vector take ``norm``."""
    return backend.xp.sqrt(x)


defvjp(sqrt, lambda g, out, x: g / (2 * out))


@primitive(expects="an array")
def tanh(x: Tensor) -> Tensor:
    """The hyperbolic tangent."""
    return backend.xp.tanh(x)


defvjp(tanh, lambda g, out, x: g * (1 - out * out))


@primitive(expects="an array")
def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x)), for any x."""
    return backend.sigmoid(x)


defvjp(sigmoid, lambda g, out, x: g * (out * (1 - out)))


@primitive(expects="an array")
def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), for any x."""
    return backend.softplus(x)


defvjp(softplus, lambda g, out, x: g * sigmoid(x))


# --- Piecewise linear functions, elementwise ----------------------------------------------------


@primitive(expects="an array")
def relu(x: Tensor) -> Tensor:
    """max(x, 0), with derivative 0 at 0."""
    return backend.xp.maximum(x, 0)


defvjp(relu, lambda g, out, x: g * (x.data > 0))


def _slopes(x: Array, slope: float) -> Array:
    return (x > 0) * x.dtype.type(1 - slope) + x.dtype.type(slope)


@primitive(expects="an array and a slope")
def leaky_relu(x: Tensor, slope: float = 0.2) -> Tensor:
    """x where x > 0, slope * x elsewhere."""
    return x * _slopes(x, slope)


defvjp(leaky_relu, lambda g, out, x, slope: g * _slopes(x.data, slope))


@primitive(expects=PAIR)
def maximum(x: Tensor, y: Tensor) -> Tensor:
    """The larger of x and y, elementwise; where they are equal the gradient goes to y, so maximum(x, 0) is relu(x)."""
    return backend.xp.maximum(x, y)


defvjp(
    maximum,
    lambda g, out, x, y: _fit(g * (_data(x) > _data(y)), x),
    lambda g, out, x, y: _fit(g * ~(_data(x) > _data(y)), y),
)


# --- Sums and shapes ----------------------------------------------------------------------------


def _keepdims(g: Tensor, x: Tensor, axis: Axis, keepdims: bool) -> Tensor:
    """Give the result of a reduction of ``x`` its reduced axes back, with size 1."""
    if keepdims or g.ndim == x.ndim:
        return g
    axes = range(x.ndim) if axis is None else [a % x.ndim for a in (axis if isinstance(axis, tuple) else (axis,))]
    return reshape(g, tuple(1 if i in axes else n for i, n in enumerate(x.shape)))


@primitive(expects="axes of the array")
def sum(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The sum over ``axis`` (an int, a tuple of ints, or None for all)."""
    return x.sum(axis=axis, keepdims=keepdims)


defvjp(sum, lambda g, out, x, axis, keepdims: broadcast_to(_keepdims(g, x, axis, keepdims), x.shape))


def mean(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The mean over ``axis`` (an int, a tuple of ints, or None for all)."""
    total = sum(x, axis, keepdims)
    return total / (x.data.size / total.data.size)


@primitive(expects="an axis, or two")
def norm(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The Euclidean norm over ``axis`` (an int, a pair of ints, or None for all), safe at zero.

    Its derivative x / norm(x) has no limit at x = 0; the one taken there is 0, a subgradient, and so are the further
    ones. All are finite.
    """
    return backend.xp.linalg.norm(x, axis=axis, keepdims=keepdims)


defvjp(norm, lambda g, out, x, axis, keepdims: x * _keepdims(g * safe_reciprocal(out), x, axis, keepdims))


@primitive(expects="a shape that it broadcasts to")
def broadcast_to(x: Tensor, shape: tuple[int, ...] = ()) -> Tensor:
    """x repeated along new or size-1 axes, as a read-only view."""
    return backend.xp.broadcast_to(x, shape)


defvjp(broadcast_to, lambda g, out, x, shape: sum_to(g, x.shape))


@primitive(expects="a shape that broadcasts to it")
def sum_to(x: Tensor, shape: tuple[int, ...] = ()) -> Tensor:
    """x summed over the axes along which ``shape`` would be repeated: the adjoint of ``broadcast_to``."""
    new = x.ndim - len(shape)
    repeated = tuple(i for i, n in enumerate(x.shape) if i < new or shape[i - new] != n)
    return x.sum(axis=repeated).reshape(shape)


defvjp(sum_to, lambda g, out, x, shape: broadcast_to(g, x.shape))


@primitive(expects="a shape of the same size")
def reshape(x: Tensor, shape: int | tuple[int, ...] = -1) -> Tensor:
    """The same elements in another shape; one -1 stands for what is left."""
    return x.reshape(shape)


defvjp(reshape, lambda g, out, x, shape: reshape(g, x.shape))


@primitive(expects="a permutation of its axes")
def transpose(x: Tensor, axes: tuple[int, ...] | None = None) -> Tensor:
    """The axes permuted, or reversed with None."""
    return backend.xp.transpose(x, axes)


def _inverse(axes: tuple[int, ...] | None) -> tuple[int, ...] | None:
    return axes and tuple(sorted(range(len(axes)), key=lambda i: axes[i] % len(axes)))


defvjp(transpose, lambda g, out, x, axes: transpose(g, _inverse(axes)))


@primitive(expects="an index into it")
def getitem(x: Tensor, index: Any = ...) -> Tensor:
    """x[index], for any index that the array module takes."""
    return x[index]


defvjp(getitem, lambda g, out, x, index: scatter_add(g, index, x.shape))


@primitive(expects="the shape of what is indexed")
def scatter_add(x: Tensor, index: Any = ..., shape: tuple[int, ...] = ()) -> Tensor:
    """Zeros of ``shape`` with x added at ``index``, repeated indices adding up: the adjoint of ``getitem``."""
    out = backend.xp.zeros(shape, x.dtype)
    backend.xp.add.at(out, index, x)
    return out


defvjp(scatter_add, lambda g, out, x, index, shape: getitem(g, index))


def _part(x: Tensor, axis: int, *limits: int) -> Tensor:
    return getitem(x, (slice(None),) * (axis % x.ndim) + (slice(*limits),))


@primitive(expects="shapes that agree but for the axis")
def concatenate_pair(x: Tensor, y: Tensor, axis: int = 0) -> Tensor:
    """x and then y along an axis."""
    return backend.xp.concatenate((x, y), axis=axis)


defvjp(
    concatenate_pair,
    lambda g, out, x, y, axis: _part(g, axis, 0, x.shape[axis]),
    lambda g, out, x, y, axis: _part(g, axis, x.shape[axis], out.shape[axis]),
)


def concatenate(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """One Tensor after the other along an axis, by pairs."""
    return reduce(lambda x, y: concatenate_pair(x, y, axis), tensors)


# --- Matrix products: closed under differentiation, so none ever copies a transpose --------------


@primitive(expects="(..., n, k) @ (..., k, m)")
def matmul(x: Tensor, y: Tensor) -> Tensor:
    """The matrix product x @ y; axes before the last two broadcast."""
    return _at_least_2d(x) @ _at_least_2d(y)


@primitive(expects="(..., n, k) @ (..., m, k) transposed")
def matmul_nt(x: Tensor, y: Tensor) -> Tensor:
    """x @ y.T"""
    return x @ y.swapaxes(-1, -2)


@primitive(expects="(..., k, n) transposed @ (..., k, m)")
def matmul_tn(x: Tensor, y: Tensor) -> Tensor:
    """x.T @ y"""
    return x.swapaxes(-1, -2) @ y


@primitive(expects="(n, in), (in, out) and (out,)")
def linear(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """x @ w + b"""
    out = _at_least_2d(x) @ w
    out += b
    return out


def _at_least_2d(x: Array) -> Array:
    if x.ndim < 2:
        raise ValueError("a matrix has two axes or more; reshape a vector to a row or a column")
    return x


defvjp(matmul, lambda g, out, x, y: _fit(matmul_nt(g, y), x), lambda g, out, x, y: _fit(matmul_tn(x, g), y))
defvjp(matmul_nt, lambda g, out, x, y: _fit(matmul(g, y), x), lambda g, out, x, y: _fit(matmul_tn(g, x), y))
defvjp(matmul_tn, lambda g, out, x, y: _fit(matmul_nt(y, g), x), lambda g, out, x, y: _fit(matmul(x, g), y))
defvjp(
    linear,
    lambda g, out, x, w, b: _fit(matmul_nt(g, w), x),
    lambda g, out, x, w, b: _fit(matmul_tn(x, g), w),
    lambda g, out, x, w, b: _fit(g, b),
)


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
