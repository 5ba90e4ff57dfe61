"""The critic's constraint: the Lipschitz penalties of the article, and the reason for double backprop.

A penalty is a function of the critic's slopes, one slope s = ||dD/du|| for each row u. It is three independent choices:
*where* the slopes are measured (``WHERE``), *how* (``SLOPES``), and the function of the slopes (``FORMS``). The
article's four penalties are

    (a)  gradient, one-sided-max, between        (b)  gradient, two-sided, between
    (c)  difference, one-sided-max, between      (d)  difference, two-sided, between

Only the gradient needs double backprop.
"""

import math
from collections.abc import Callable
from typing import Any

from . import backend, guards, ops
from .autodiff import grad
from .backend import Array, kernel
from .choices import Choices
from .tensor import Tensor

Critic = Callable[[Tensor | Array], Tensor]


def gradient_norm(critic: Critic, points: Array | Tensor) -> Tensor:
    """The critic's slope s = ||dD/du|| at each row u of ``points`` (n, ...): a Tensor (n,), itself differentiable.

    ``create_graph=True`` records the sweep that computes dD/du, so that ``grad`` of a function of the slopes runs back
    through that sweep into the critic's weights. The critic must compute each row alone: then the gradient of the sum
    of its outputs holds every row's own gradient. Where the critic is flat, the slope and its gradient are 0.
    """
    if not (isinstance(points, Tensor) and points.requires_grad):
        points = Tensor(_constant("gradient_norm", points), requires_grad=True)
    scores = ops.sum(critic(points))
    (gradient,) = grad(scores, points, create_graph=True)
    return ops.norm(_rows(gradient), axis=1)


def difference_quotient(critic: Critic, u1: Array | Tensor, u2: Array | Tensor) -> Tensor:
    """|D(u1) - D(u2)| / ||u1 - u2|| for each pair of rows (n, ...): a Tensor (n,), 0 where u1 and u2 coincide."""
    guards.check_pairs("difference_quotient", u1, u2)
    rise = ops.norm(_rows(critic(u1) - critic(u2)), axis=1)  # of one number: its absolute value
    return rise * ops.safe_reciprocal(ops.norm(_rows(ops.sub(u1, u2)), axis=1))


def _rows(x: Tensor) -> Tensor:
    return x if x.ndim == 2 else ops.reshape(x, (len(x), math.prod(x.shape[1:])))


def interpolate(real: Array | Tensor, fake: Array | Tensor, rng: Any) -> Array:
    """eps real + (1 - eps) fake, with one eps from U[0, 1) for each row: arrays (n, ...) of one dtype to such an array.

    The article, section "the result of the penalty". The result is a constant: no gradient flows to ``real`` or
    ``fake``. Raises ValueError for different shapes, and for a gradient that was computed without a record.
    """
    real, fake = (_constant("interpolate", x) for x in (real, fake))
    guards.check_pairs("interpolate", real, fake)
    return mix(real, fake, rng)


@kernel
def mix(real: Array, fake: Array, rng: Any) -> Array:
    """What ``interpolate`` does once its arguments are checked: a function of arrays, as a replay calls it."""
    eps = rng.random((len(real),) + (1,) * (real.ndim - 1), dtype=real.dtype)
    points = real - fake
    points *= eps
    points += fake
    return points


@kernel
def samples(real: Array, fake: Array, rng: Any) -> Array:
    return backend.xp.concatenate((real, fake))


# Where: real and generated rows, and a random generator, to the points where slopes are measured.
WHERE = Choices(
    "place",
    {
        "between": interpolate,
        "real": lambda real, fake, rng: real,  # the author in a comment of 2023: also works, "and even better"
        "generated": lambda real, fake, rng: fake,
        "samples": samples,  # both: what the article tries before it goes between them
    },
)

# How: a critic and such points, or two points for each row, to the critic's slopes (n,).
SLOPES = Choices("slope", {"gradient": gradient_norm, "difference": difference_quotient})

# The function: slopes (n,) to the penalty ().
FORMS = Choices(
    "penalty form",
    {
        "two-sided": lambda s: ops.mean((s - 1) ** 2),  # (b), (d); Gulrajani et al. 2017 (arXiv 1704.00028), equation 3
        "one-sided-max": lambda s: ops.mean(ops.maximum(s, 1)),  # (a), (c), as the article writes them
        "one-sided-relu": lambda s: ops.mean(ops.relu(s - 1)),  # the same less a constant: the article's program
        "one-sided-squared": lambda s: ops.mean(ops.relu(s - 1) ** 2),  # Petzka et al. 2018 (arXiv 1709.08894)
        "none": lambda s: 0.0,
    },
)


def slopes(
    critic: Critic, real: Array, fake: Array, rng: Any, slope: str = "gradient", where: str = "between"
) -> Tensor:
    """The critic's slopes (n,), one for each row of ``real`` and ``fake`` (n, ...).

    ``slope`` and ``where`` are names in SLOPES and WHERE. Raises ValueError for other names, and for a difference at a
    place that gives one point only.
    """
    check_slope(slope, where)
    points = [WHERE[where](real, fake, rng) for _ in range(2 if slope == "difference" else 1)]
    return SLOPES[slope](critic, *points)


def gradient_penalty(
    critic: Critic,
    real: Array,
    fake: Array,
    rng: Any,
    form: str = "two-sided",
    where: str = "between",
    slope: str = "gradient",
) -> Tensor:
    """The mean penalty on the critic's slopes, for ``real`` and ``fake`` rows (n, ...): shape (), not yet times lambda.

    ``form`` is a name in FORMS; ``where`` and ``slope`` are as in ``slopes``. Raises ValueError where ``slopes`` does,
    and for an unknown form.
    """
    return FORMS[form](slopes(critic, real, fake, rng, slope, where))


# --- What is refused ----------------------------------------------------------------------------


def _constant(name: str, x: Any) -> Array:
    """The array of ``x``, a constant. Raises ValueError for a gradient without a record, whose derivative is lost."""
    if getattr(x, "unrecorded", 0):
        raise ValueError(f"{name}: got {guards.UNRECORDED}")
    return backend.unwrap(x)


def check_slope(slope: str, where: str) -> None:
    """Raises ValueError for a difference quotient at a place that gives one point only."""
    if slope == "difference" and where != "between":
        raise ValueError(
            f"a difference needs two points, and {where!r} gives the same one twice; take slope 'gradient' there, or"
            " the difference 'between'"
        )
