"""The Lipschitz penalties of the article: the reason for double backprop.

A penalty looks at points between real and generated samples (``interpolate``), measures the critic's slope there
(``gradient_norm``), and turns the slopes into a number to be kept small (``FORMS``).
"""

from collections.abc import Callable
from typing import Any

from . import ops
from .autodiff import grad
from .backend import Array
from .nn import named
from .tensor import Tensor

# The article, section "the result of the penalty", for slopes s (n,). Both one-sided writings have the same gradient.
FORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "two-sided": lambda s: ops.mean((s - 1) ** 2),  # (b), Gulrajani et al. 2017 (arXiv 1704.00028), equation 3
    "one-sided-max": lambda s: ops.mean(ops.maximum(s, 1)),  # (a), as the article writes it
    "one-sided-relu": lambda s: ops.mean(ops.relu(s - 1)),  # (a) less a constant, as the article's program writes it
}


def interpolate(real: Array, fake: Array, rng: Any) -> Array:
    """eps real + (1 - eps) fake, with one eps from U[0, 1) for each row. Arrays (n, ...) of one dtype, and back."""
    real, fake = (x.data if isinstance(x, Tensor) else x for x in (real, fake))
    eps = rng.random((len(real),) + (1,) * (real.ndim - 1), dtype=real.dtype)
    return fake + eps * (real - fake)


def gradient_norm(critic: Callable[[Tensor], Tensor], points: Array | Tensor) -> Tensor:
    """The critic's slope ||dD/dy|| at each row y of ``points`` (n, ...): a Tensor (n,), itself differentiable.

    ``create_graph=True`` records the sweep that computes dD/dy, so that ``grad`` of a function of the slopes runs back
    through it into the critic's weights. The critic must treat each row alone: then the gradient of the sum of its
    outputs holds every row's own gradient. Where the critic is flat, the slope is 0 and so is its gradient.
    """
    if not (isinstance(points, Tensor) and points.requires_grad):
        points = Tensor(points.data if isinstance(points, Tensor) else points, requires_grad=True)
    (slope,) = grad(ops.sum(critic(points)), points, create_graph=True)
    return ops.norm(ops.reshape(slope, (points.shape[0], -1)), axis=1)


def gradient_penalty(
    critic: Callable[[Tensor], Tensor], real: Array, fake: Array, rng: Any, form: str = "two-sided"
) -> Tensor:
    """The mean penalty on the critic's slope between ``real`` and ``fake`` (n, ...): shape (), not yet times lambda.

    ``form`` is "two-sided", mean (s - 1)^2; "one-sided-max", mean max(s, 1); or "one-sided-relu", mean relu(s - 1).
    Raises ValueError for another form.
    """
    return named("penalty form", form, FORMS)(gradient_norm(critic, interpolate(real, fake, rng)))
