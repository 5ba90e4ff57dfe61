"""WGAN-GP on an automatic differentiation that fits in one sitting's reading."""

from . import backend, losses, nn, ops, optim, penalties
from .autodiff import grad
from .tensor import Tensor, no_grad, tensor

__all__ = ["Tensor", "backend", "grad", "losses", "nn", "no_grad", "ops", "optim", "penalties", "tensor"]
