"""The games between critic and generator, with the article's sign: D is small on real samples, large on generated ones.

Most papers have the other sign: their D is -D here. Scores are Tensors (n, 1), or of any shape; losses have shape ().
"""

from collections.abc import Callable
from typing import NamedTuple

from . import guards, ops
from .backend import Array
from .choices import Choices
from .tensor import Tensor


def critic_loss(d_real: Tensor, d_fake: Tensor) -> Tensor:
    """mean D(z) - mean D(y), which is -L1 (the article, section "the fight")."""
    return ops.mean(d_real) - ops.mean(d_fake)


def generator_loss(d_fake: Tensor) -> Tensor:
    """L2 = mean D(G(x)) (the article, section "the fight")."""
    return ops.mean(d_fake)


def leaky_critic_loss(d_real: Tensor, d_fake: Tensor, margin: Array, leak: float) -> Tensor:
    """mean C(margin + D(z) - D(y)), with the leaky cost C(a) = max(a, leak a), for the pair z, y of each row.

    GLS-GAN (Qi 2017, arXiv 1701.06264, the section on generalised LS-GAN). ``leak`` 0 is LS-GAN (in its limit of large
    lambda), which requires a margin between the two scores and no more; ``leak`` 1 is WGAN up to a constant. Raises
    ValueError for scores and margins of different shapes, which would broadcast.
    """
    if not d_real.shape == d_fake.shape == margin.shape:
        raise ValueError(
            f"leaky_critic_loss: expected scores and margins of one shape, got {d_real.shape}, {d_fake.shape},"
            f" {margin.shape}"
        )
    return ops.mean(ops.leaky_relu(d_real - d_fake + margin, leak))


def distance(real: Array, fake: Array) -> Array:
    """The margin of LS-GAN: the distance of each real row (n, d) to the generated row of the same index, as (n, 1)."""
    guards.check_pairs("distance", real, fake)
    return ops.norm(ops.sub(real, fake), axis=1, keepdims=True).array


class Game(NamedTuple):
    """The critic's loss of (D(z), D(y), z, y), and the generator's of D(y), for real rows z and generated rows y."""

    critic: Callable[[Tensor, Tensor, Array, Array], Tensor]
    generator: Callable[[Tensor], Tensor]


def _original(d_real: Tensor, d_fake: Tensor, *_: Array) -> Tensor:
    """log(1 + e^D(z)) + log(1 + e^-D(y)): the original GAN as the article's author reads it, in a comment of 2023."""
    return ops.mean(ops.softplus(d_real)) + ops.mean(ops.softplus(-d_fake))


GAMES = Choices(
    "game",
    {
        # the article; Arjovsky et al. 2017 (arXiv 1701.07875), equation 3
        "wgan": Game(lambda d_real, d_fake, *_: critic_loss(d_real, d_fake), generator_loss),
        # Goodfellow et al. 2014 (arXiv 1406.2661), section 3: the generator as advised there, and as in equation 1
        "gan": Game(_original, lambda d_fake: ops.mean(ops.softplus(d_fake))),
        "gan-saturating": Game(_original, lambda d_fake: -ops.mean(ops.softplus(-d_fake))),
        # Lim and Ye 2017 (arXiv 1705.02894); Miyato et al. 2018 (arXiv 1802.05957), equations 16 and 17
        "hinge": Game(
            lambda d_real, d_fake, *_: ops.mean(ops.relu(1 + d_real)) + ops.mean(ops.relu(1 - d_fake)), generator_loss
        ),
        # Qi 2017 (arXiv 1701.06264)
        "ls-gan": Game(
            lambda d_real, d_fake, z, y: leaky_critic_loss(d_real, d_fake, distance(z, y), 0), generator_loss
        ),
        "gls-gan": Game(
            lambda d_real, d_fake, z, y: leaky_critic_loss(d_real, d_fake, distance(z, y), 0.5), generator_loss
        ),
    },
)
