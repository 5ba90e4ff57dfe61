"""Multilayer perceptrons: affine layers with an activation between them."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy

from . import backend, ops
from .backend import Array, kernel
from .choices import Choices
from .guards import note_write
from .ops import logistic
from .tensor import Tensor, primitive


def identity(x: Tensor) -> Tensor:
    return x


@primitive(lambda g, out, x: g * (out * (1 - out)))
def pixel(x: Array) -> Array:
    """sigmoid(x), but 1e-7 at least: squares of products with smaller ones would be denormal numbers, which are slow"""
    return logistic(x, -16.0)


ACTIVATIONS = Choices(
    "hidden activation", {"relu": ops.relu, "leaky_relu": ops.leaky_relu, "tanh": ops.tanh, "softplus": ops.softplus}
)
OUTPUTS = Choices("output activation", {None: identity, "sigmoid": pixel, "tanh": ops.tanh})

Init = Callable[[numpy.random.Generator, int, int], numpy.ndarray]

INITS = Choices(
    "init",
    {
        # He et al. 2015 (arXiv 1502.01852), equation 10: keeps the variance of relu layers
        "he": lambda rng, n, m: rng.normal(0, (2 / n) ** 0.5, (n, m)),
        # the article's program
        "uniform": lambda rng, n, m: rng.uniform(-0.05, 0.05, (n, m)),
    },
)


class Linear:
    """x @ weight + bias, with weight (in, out) drawn by ``init`` and bias (out,) zero."""

    def __init__(self, n: int, m: int, init: Init, rng: numpy.random.Generator, dtype: str) -> None:
        self.weight = Tensor(backend.on_device(init(rng, n, m), dtype=dtype), requires_grad=True)
        self.bias = Tensor(backend.xp.zeros(m, dtype=dtype), requires_grad=True)

    def __call__(self, x: Tensor | Array) -> Tensor:
        return ops.linear(x, self.weight, self.bias)


@kernel
def power_iterate(u: Array, v: Array, weight: Array) -> None:
    """u and v a step nearer to the singular vectors of the largest singular value, in place."""
    w = backend.matmul(u, weight)
    v[...] = w / backend.xp.linalg.norm(w)
    w = backend.matmul(v, weight.T)
    u[...] = w / backend.xp.linalg.norm(w)


class SpectralLinear(Linear):
    """A Linear layer whose weight is divided by its largest singular value, so that the layer's slope comes to 1.

    Miyato et al. 2018 (arXiv 1802.05957), algorithm 1: sigma = u^T W v, where ``power_iteration`` brings u and v one
    step nearer to the singular vectors at a time. u and v are constants in the derivative, as published.
    """

    def __init__(self, n: int, m: int, init: Init, rng: numpy.random.Generator, dtype: str) -> None:
        super().__init__(n, m, init, rng, dtype)
        self.u = Tensor(backend.on_device(rng.normal(size=(1, n)), dtype=dtype))
        self.v = Tensor(backend.xp.empty((1, m), dtype))
        self.power_iteration()

    def power_iteration(self) -> None:
        power_iterate(self.u.array, self.v.array, self.weight.array)
        note_write(self.u, self.v)

    def __call__(self, x: Tensor | Array) -> Tensor:
        sigma = ops.matmul_nt(ops.matmul(self.u, self.weight), self.v)
        return ops.linear(x, self.weight / sigma, self.bias)


class MLP:
    """A stack of affine layers of the given sizes, (n, sizes[0]) to (n, sizes[-1]).

    >>> critic = mg.nn.MLP([784, 256, 1], hidden="leaky_relu", rng=0)
    >>> critic(np.ones((64, 784), "float32")).shape
    (64, 1)
    >>> [p.shape for p in critic.parameters()]
    [(784, 256), (256,), (256, 1), (1,)]

    ``hidden`` names the activation between layers (relu, leaky_relu with slope 0.2, tanh, softplus), ``output`` the
    last activation (None, "sigmoid", "tanh"), ``init`` the distribution of the weights ("he": normal with variance 2 /
    in; "uniform": U(-0.05, 0.05)); ``layer`` is Linear or SpectralLinear. ``rng`` is a NumPy generator or a seed: the
    same seed gives the same network on every device. Raises ValueError for fewer than two sizes and for unknown names.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        hidden: str = "relu",
        output: str | None = None,
        init: str = "he",
        rng: numpy.random.Generator | int | None = None,
        dtype: str = "float32",
        layer: type[Linear] = Linear,
    ) -> None:
        if len(sizes) < 2 or min(sizes) < 1:
            raise ValueError(f"MLP: expected two sizes or more, each at least 1, got {list(sizes)}")
        self.hidden, self.output, draw = ACTIVATIONS[hidden], OUTPUTS[output], INITS[init]
        rng = numpy.random.default_rng(rng)
        self.layers: list[Any] = [layer(n, m, draw, rng, dtype) for n, m in pairwise(sizes)]

    def __call__(self, x: Tensor | Array) -> Tensor:
        for layer in self.layers[:-1]:
            x = self.hidden(layer(x))
        return self.output(self.layers[-1](x))

    def parameters(self) -> list[Tensor]:
        """The weight and the bias of each layer, layer by layer."""
        return [p for layer in self.layers for p in (layer.weight, layer.bias)]

    def named_parameters(self) -> dict[str, Tensor]:
        """The parameters by name: weight1, bias1, weight2, ..."""
        names = (f"{kind}{i}" for i in range(1, len(self.layers) + 1) for kind in ("weight", "bias"))
        return dict(zip(names, self.parameters()))


def _nothing(critic: MLP, limit: float) -> None:
    pass


@kernel
def clip(x: Array, limit: float) -> None:
    backend.xp.clip(x, -limit, limit, out=x)


def _clip(critic: MLP, limit: float) -> None:
    for p in critic.parameters():
        clip(p.array, limit)
        note_write(p)


def _power_iteration(critic: MLP, limit: float) -> None:
    for layer in critic.layers:
        layer.power_iteration()


# Constraints of a critic besides a penalty: the class of layers, and a function (critic, clip) called after each step.
CONSTRAINTS = Choices(
    "constraint",
    {
        "none": (Linear, _nothing),
        "clip": (Linear, _clip),  # every weight within +-limit: Arjovsky et al. 2017 (arXiv 1701.07875), algorithm 1
        "spectral": (SpectralLinear, _power_iteration),
    },
)
