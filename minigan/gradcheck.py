"""A check of derivatives of any order against finite differences."""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any

import numpy

from . import backend, ops
from .autodiff import grad
from .tensor import Tensor, tensor


def gradcheck(
    f: Callable[..., Tensor],
    *inputs: Any,
    order: int = 2,
    step: float = 1e-5,
    rtol: float = 1e-5,
    atol: float = 1e-6,
    name: str | None = None,
) -> None:
    """Compare all derivatives of ``f`` up to ``order`` with central differences in float64.

    ``f`` is a function of Tensors to a Tensor, and ``inputs`` are its arguments: Tensors, arrays, lists or numbers. The
    elements of an output are summed with weights of mixed sizes and signs, so that mistakes do not cancel; from order 2
    on, so are the derivatives of the order before. ``f`` must be smooth within ``step`` of the inputs (times an input,
    where that is larger than 1).

    Raises ValueError where there is nothing to compare: no inputs, or an input of which ``f`` has no derivative above
    ``atol`` and yet depends on. Raises AssertionError where a finite difference is not finite, or
    is further from the result of ``grad`` than ``atol`` + ``rtol`` times the difference itself: with the name of ``f``,
    the order, the input, the index in it, and both values. At order 2 the gradient that vjps are given is an input too.
    """
    name = name or getattr(f, "__name__", str(f))
    arrays = [numpy.array(backend.to_numpy(x), dtype="float64") for x in inputs]
    if order < 1 or not sum(a.size for a in arrays):
        raise ValueError(f"gradcheck: {name}: expected an order of at least 1, and inputs with something in them")

    y = f(*map(tensor, arrays))
    if not isinstance(y, Tensor):
        raise TypeError(f"gradcheck: expected a function of Tensors to a Tensor, got one to {type(y).__name__}")
    arrays = [_weights(y), *arrays]

    def derivative(n: int, weights: Tensor, *tensors: Tensor) -> Tensor:
        """f, or a weighted sum of all its derivatives of order n."""
        if n == 0:
            return (f(*tensors) * weights).sum()
        parts = grad(derivative(n - 1, weights, *tensors), tensors, create_graph=True, materialize_grads=True)
        return reduce(ops.add, ((part * tensor(_weights(part))).sum() for part in parts))

    def value(n: int, *moved: numpy.ndarray) -> float:
        return derivative(n, *(tensor(a, requires_grad=True) for a in moved)).item()

    noise = 1e-15 * max(1.0, abs(value(0, *arrays))) / step  # what rounding makes of a derivative that is 0
    for n in range(order):
        leaves = [tensor(a, requires_grad=True) for a in arrays]
        computed = grad(derivative(n, *leaves), leaves, materialize_grads=True)
        for i, g in enumerate(map(backend.to_numpy, computed)):
            if i == 0 and n != 1:
                continue  # the derivative of order 1 by the weights is f itself
            difference = partial(finite_differences, partial(value, n), arrays, i)
            numeric = difference(step)
            most = abs(numeric).max(initial=0)
            if n == 0 and noise < most <= atol and most < 2 * abs(difference(step / 2)).max():
                raise ValueError(
                    f"gradcheck: {name}, input {i - 1}: no derivative is above atol, {atol:g}, so none was compared;"
                    " take a smaller atol, or a multiple of the function"
                )
            near = abs(g - numeric) <= atol + rtol * abs(numeric)
            wrong = numpy.argwhere(~(near & numpy.isfinite(numeric)))
            if len(wrong):
                at = tuple(map(int, wrong[0]))
                which = f"input {i - 1}" if i else "the gradient given to the vjps"
                raise AssertionError(
                    f"gradcheck: {name}, order {n + 1}, {which} at {at}: grad gives {g[at]:.10g}, the finite"
                    f" difference is {numeric[at]:.10g}"
                )


def finite_differences(
    f: Callable[..., float], arrays: Sequence[numpy.ndarray], i: int, step: float = 1e-5
) -> numpy.ndarray:
    """The gradient of ``f(*arrays)`` with respect to ``arrays[i]``, by two evaluations for each element.

    They are a ``step``, times the element where that is larger than 1, to both sides of it.
    """
    gradient = numpy.empty_like(arrays[i])
    for at in numpy.ndindex(gradient.shape):
        sides, by = [], step * max(1.0, float(abs(arrays[i][at])))
        for moved, side in ((arrays[i].copy(), by), (arrays[i].copy(), -by)):
            moved[at] += side
            sides.append(f(*arrays[:i], moved, *arrays[i + 1 :]))
        gradient[at] = (sides[0] - sides[1]) / (2 * by)
    return gradient


def _weights(y: Tensor) -> numpy.ndarray:
    rng = numpy.random.default_rng(12345)
    signs = numpy.where(numpy.arange(y.array.size) % 3, 1, -1).reshape(y.shape)
    return numpy.asarray(rng.uniform(0.5, 1.5, y.shape) * signs)
