"""The two players' losses, with the article's sign: the critic is small on real samples and large on generated ones."""

from . import ops
from .tensor import Tensor


def critic_loss(d_real: Tensor, d_fake: Tensor) -> Tensor:
    """mean D(z) - mean D(y), which is -L1 (the article, section "the fight"). Scores of any shape; returns shape ()."""
    return ops.mean(d_real) - ops.mean(d_fake)


def generator_loss(d_fake: Tensor) -> Tensor:
    """L2 = mean D(G(x)) (the article, section "the fight"). Scores of any shape; returns shape ()."""
    return ops.mean(d_fake)
