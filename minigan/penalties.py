"""The critic's constraint: the Lipschitz penalties of the article, and the reason for double backprop.

A penalty is three independent choices, each a small set of plain functions below: *where* it looks (``WHERE``), *how*
it measures the critic's slope there (``SLOPES``), and what it makes of the slopes (``FORMS``). The article's four are

    (a)  gradient, one-sided-max, between        (b)  gradient, two-sided, between
    (c)  difference, one-sided-max, between      (d)  difference, two-sided, between

Only the gradient needs double backprop.
"""

from collections.abc import Callable
from typing import Any

from . import ops
from .autodiff import grad
from .backend import Array
from .nn import named
from .tensor import Tensor

Critic = Callable[[Tensor | Array], Tensor]
Points = Callable[[Array, Array, Any], Array]


def interpolate(real: Array, fake: Array, rng: Any) -> Array:
    """eps real + (1 - eps) fake, with one eps from U[0, 1) for each row. Arrays (n, ...) of one dtype, and back."""
    real, fake = (x.data if isinstance(x, Tensor) else x for x in (real, fake))
    eps = rng.random((len(real),) + (1,) * (real.ndim - 1), dtype=real.dtype)
    return fake + eps * (real - fake)


def gradient_norm(critic: Critic, points: Array | Tensor) -> Tensor:
    """The critic's slope ||dD/dy|| at each row y of ``points`` (n, ...): a Tensor (n,), itself differentiable.

    ``create_graph=True`` records the sweep that computes dD/dy, so that ``grad`` of a function of the slopes runs back
    through it into the critic's weights. The critic must treat each row alone: then the gradient of the sum of its
    outputs holds every row's own gradient. Where the critic is flat, the slope is 0 and so is its gradient.
    """
    if not (isinstance(points, Tensor) and points.requires_grad):
        points = Tensor(points.data if isinstance(points, Tensor) else points, requires_grad=True)
    (slope,) = grad(ops.sum(critic(points)), points, create_graph=True)
    return ops.norm(_rows(slope), axis=1)


def difference_quotient(critic: Critic, y1: Array, y2: Array) -> Tensor:
    """|D(y1) - D(y2)| / ||y1 - y2|| for each pair of rows (n, ...): a Tensor (n,), 0 where the two coincide."""
    rise = ops.norm(_rows(critic(y1) - critic(y2)), axis=1)  # of one number: its absolute value
    return rise * ops.safe_reciprocal(ops.norm(_rows(Tensor(y1 - y2)), axis=1))


def _rows(x: Tensor) -> Tensor:
    return x if x.ndim == 2 else ops.reshape(x, (x.shape[0], -1))


# Where: real and generated rows to the points looked at (the article, section "the result of the penalty").
WHERE: dict[str, Points] = {
    "between": interpolate,
    "real": lambda real, fake, rng: real,  # the author in a comment of 2023: also works, "and even better"
    "generated": lambda real, fake, rng: fake,
}

# How: a critic and such points to its slopes (n,).
SLOPES: dict[str, Callable[[Critic, Callable[[], Array]], Tensor]] = {
    "gradient": lambda critic, points: gradient_norm(critic, points()),
    "difference": lambda critic, points: difference_quotient(critic, points(), points()),
}

# What of it: slopes (n,) to the penalty ().
FORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "two-sided": lambda s: ops.mean((s - 1) ** 2),  # (b), (d); Gulrajani et al. 2017 (arXiv 1704.00028), equation 3
    "one-sided-max": lambda s: ops.mean(ops.maximum(s, 1)),  # (a), (c), as the article writes them
    "one-sided-relu": lambda s: ops.mean(ops.relu(s - 1)),  # the same less a constant, as in the article's program
    "one-sided-squared": lambda s: ops.mean(ops.relu(s - 1) ** 2),  # Petzka et al. 2018 (arXiv 1709.08894)
}


def slope_of(slope: str = "gradient", where: str = "between") -> Callable[[Critic, Array, Array, Any], Tensor]:
    """The function (critic, real, fake, rng) to the critic's slopes (n,), by the names of how and where to measure.

    Raises ValueError for an unknown name, and for a difference where there is one point only.
    """
    points, measure = named("place", where, WHERE), named("slope", slope, SLOPES)
    if slope == "difference" and where != "between":
        raise ValueError(
            f"a difference needs two points, and {where!r} gives the same one twice; take slope 'gradient' there, or"
            " the difference 'between'"
        )
    return lambda critic, real, fake, rng: measure(critic, lambda: points(real, fake, rng))


def gradient_penalty(
    critic: Critic,
    real: Array,
    fake: Array,
    rng: Any,
    form: str = "two-sided",
    where: str = "between",
    slope: str = "gradient",
) -> Tensor:
    """The mean penalty on the critic's slope, from ``real`` and ``fake`` rows (n, ...): shape (), not yet times lambda.

    ``form``, ``where`` and ``slope`` are names in FORMS, WHERE and SLOPES. Raises ValueError for any other.
    """
    return named("penalty form", form, FORMS)(slope_of(slope, where)(critic, real, fake, rng))
