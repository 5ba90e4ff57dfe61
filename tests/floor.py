"""What the benchmark compares with others: minigan's training iteration, and the floor, its matrix products alone.

A builder takes a Size and a device and returns two functions: one runs an iteration (draws included), the other waits
for the device.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

import minigan as mg
from minigan import backend
from minigan.data import load_images, sampler
from minigan.settings import Settings
from minigan.training import WGANGP

Built = tuple[Callable[[], Any], Callable[[], Any]]


@dataclass(frozen=True)
class Size:
    """Hidden widths, noise dimension, batch size and critic steps."""

    critic: tuple[int, ...]
    generator: tuple[int, ...]
    noise: int
    batch: int
    steps: int = 5

    @property
    def networks(self) -> tuple[list[int], list[int]]:
        return [784, *self.critic, 1], [self.noise, *self.generator, 784]

    @property
    def settings(self) -> Settings:
        widths = {"critic": self.critic, "generator": self.generator, "noise_dim": self.noise}
        return Settings(batch_size=self.batch, critic_steps=self.steps, learning_rate=LR, average=0.0, **widths)


SIZES = {
    "article": Size((128, 32), (32, 128), 10, 100),
    "default": Size((256, 128), (128, 256), 32, 64, 2),
    "middle": Size((512, 256), (256, 512), 100, 64),
    "large": Size((1024, 1024), (1024, 1024), 128, 256),
}

LR, BETAS, EPS, WEIGHT = 1e-4, (0.5, 0.9), 1e-8, 10.0


def build_minigan(size: Size, device: str, replay: bool = True) -> Built:
    backend.use(device)
    model = WGANGP(size.settings, sampler(load_images()), 784, replay)
    return model.iteration, lambda: backend.to_numpy(model.critic.parameters()[-1])


def build_floor(size: Size, device: str) -> Built:
    """The matrix products of an iteration alone, as few as the mathematics allows, into ready buffers."""
    backend.use(device)
    rng, products = np.random.default_rng(0), []

    def product(left: tuple[int, int], right: tuple[int, int], transposed: str = "") -> None:
        x, y = (backend.asarray(rng.normal(size=shape), dtype="float32") for shape in (left, right))
        x, y = (x.T if transposed == "x" else x), (y.T if transposed == "y" else y)
        products.append((x, y, backend.xp.empty((x.shape[0], y.shape[1]), "float32")))

    def forward(sizes: list[int], n: int) -> None:
        for a, b in pairwise(sizes):
            product((n, a), (a, b))

    def to_inputs(sizes: list[int], n: int) -> None:
        for a, b in pairwise(sizes):
            product((n, b), (a, b), "y")

    def to_weights(sizes: list[int], n: int) -> None:
        for a, b in pairwise(sizes):
            product((n, a), (n, b), "x")

    critic, generator = size.networks
    n = size.batch
    forward(generator, n * size.steps)
    for _ in range(size.steps):
        forward(critic, 2 * n)  # real and generated together
        to_weights(critic, 2 * n)
        to_inputs(critic[1:], 2 * n)
        forward(critic[:-1], n)  # the interpolates, but for the last layer, whose output nothing reads
        to_inputs(critic, n)  # the slope
        to_weights(critic, n)  # and back through it
        forward(critic[:-1], n)
    forward(generator, n)
    forward(critic, n)
    to_inputs(critic, n)
    to_weights(generator, n)
    to_inputs(generator[1:], n)

    def iteration() -> None:
        for x, y, out in products:
            backend.xp.matmul(x, y, out=out)

    return iteration, lambda: backend.to_numpy(products[-1][2][:1])


def minigan_gradients(weights: list, real: Any, fake: Any, eps: Any) -> list[np.ndarray]:
    """The gradient of the critic's whole loss for weights [(w, b), ...], on the CPU."""
    backend.use("cpu")
    critic = mg.nn.MLP([len(weights[0][0]), *(len(b) for _, b in weights)])
    for p, a in zip(critic.parameters(), [a for pair in weights for a in pair]):
        p.data = a
    loss = mg.losses.critic_loss(critic(real), critic(fake))
    slope = mg.penalties.gradient_norm(critic, fake + eps * (real - fake))
    loss = loss + WEIGHT * mg.penalties.FORMS["two-sided"](slope)
    return [g.data for g in mg.grad(loss, critic.parameters())]
