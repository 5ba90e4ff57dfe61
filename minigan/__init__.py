"""WGAN-GP on an automatic differentiation that can be read in one sitting, in this order:

1. ``tensor``: an array that remembers how it was made: by which primitive, and from which operands;
2. ``ops``: the primitives, each below its derivatives, which are made of primitives themselves;
3. ``autodiff``: ``grad``, one sweep from the newest Tensor to the oldest, which can be recorded and differentiated too;
4. ``penalties``: a sweep to the points gives the critic's slopes, and a second sweep runs through it to the weights;
5. ``nn``, ``losses``, ``optim``, ``settings``, ``training``: networks, games, Adam, and one iteration of all together.
"""

from . import backend, losses, nn, ops, optim, penalties
from .autodiff import grad
from .gradcheck import gradcheck
from .tensor import Tensor, no_grad, primitive, tensor

__all__ = [
    "Tensor",
    "backend",
    "grad",
    "gradcheck",
    "losses",
    "nn",
    "no_grad",
    "ops",
    "optim",
    "penalties",
    "primitive",
    "tensor",
]
