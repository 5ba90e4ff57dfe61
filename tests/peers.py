"""The same training iteration in minigan and in the libraries it is compared with, and the matrix products alone.

A builder takes a Size and a device and returns two functions: one runs an iteration (draws included), the other waits
for the device. Peers are imported by their builders, and only there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

import minigan as mg
from minigan import backend
from minigan.data import load_images, sampler
from minigan.penalties import gradient_norm
from minigan.training import WGANGP, Settings

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


SIZES = {
    "article": Size((128, 32), (32, 128), 10, 100),
    "middle": Size((512, 256), (256, 512), 100, 64),
    "large": Size((1024, 1024), (1024, 1024), 128, 256),
}

LR, BETAS, EPS, WEIGHT = 1e-4, (0.5, 0.9), 1e-8, 10.0


def build_minigan(size: Size, device: str) -> Built:
    backend.use(device)
    settings = Settings(
        batch_size=size.batch,
        critic_steps=size.steps,
        learning_rate=LR,
        decay="constant",
        critic=size.critic,
        generator=size.generator,
        noise_dim=size.noise,
    )
    model = WGANGP(settings, sampler(load_images()), 784)
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


def build_torch(size: Size, device: str) -> Built:
    import torch

    on = torch.device("cuda" if device == "gpu" else "cpu")

    def network(sizes: list[int], *last: torch.nn.Module) -> torch.nn.Module:
        layers = [layer for a, b in pairwise(sizes) for layer in (torch.nn.Linear(a, b), torch.nn.ReLU())][:-1]
        return torch.nn.Sequential(*layers, *last).to(on)

    critic, generator = network(size.networks[0]), network(size.networks[1], torch.nn.Sigmoid())
    adams = [torch.optim.Adam(net.parameters(), LR, BETAS, EPS, fused=True) for net in (critic, generator)]
    images = torch.from_numpy(load_images().reshape(-1, 784)).to(on)
    n = size.batch

    def iteration() -> None:
        for _ in range(size.steps):
            real = images[torch.randint(len(images), (n,), device=on)].float() / 255
            with torch.no_grad():
                fake = generator(torch.randn(n, size.noise, device=on))
            eps = torch.rand(n, 1, device=on)
            loss = torch_critic_loss(torch, critic, real, fake, eps)
            adams[0].zero_grad()
            loss.backward()
            adams[0].step()
        adams[1].zero_grad()
        critic(generator(torch.randn(n, size.noise, device=on))).mean().backward()
        adams[1].step()

    return iteration, torch.cuda.synchronize if device == "gpu" else lambda: None


def torch_critic_loss(torch: Any, critic: Any, real: Any, fake: Any, eps: Any) -> Any:
    points = (fake + eps * (real - fake)).requires_grad_()
    (slope,) = torch.autograd.grad(critic(points).sum(), points, create_graph=True)
    return critic(real).mean() - critic(fake).mean() + WEIGHT * ((slope.norm(dim=1) - 1) ** 2).mean()


def jax_forward(jax: Any, network: list, x: Any) -> Any:
    for w, b in network[:-1]:
        x = jax.nn.relu(x @ w + b)
    w, b = network[-1]
    return x @ w + b


def jax_critic_loss(jax: Any, critic: list, real: Any, fake: Any, eps: Any) -> Any:
    slope = jax.vmap(jax.grad(lambda y: jax_forward(jax, critic, y)[0]))(fake + eps * (real - fake))
    norm = jax.numpy.sqrt((slope * slope).sum(1))
    difference = jax_forward(jax, critic, real).mean() - jax_forward(jax, critic, fake).mean()
    return difference + WEIGHT * ((norm - 1) ** 2).mean()


def build_jax(size: Size, device: str) -> Built:
    import jax

    on = jax.devices("gpu" if device == "gpu" else "cpu")[0]
    jnp, random, n = jax.numpy, jax.random, size.batch

    def network(key: Any, sizes: list[int]) -> list:
        keys = random.split(key, len(sizes) - 1)
        return [(random.normal(k, (a, b)) * (2 / a) ** 0.5, jnp.zeros(b)) for k, (a, b) in zip(keys, pairwise(sizes))]

    def adam(p: Any, g: Any, m: Any, v: Any, t: Any) -> tuple:
        m = jax.tree.map(lambda m, g: BETAS[0] * m + (1 - BETAS[0]) * g, m, g)
        v = jax.tree.map(lambda v, g: BETAS[1] * v + (1 - BETAS[1]) * g * g, v, g)
        c1, c2 = 1 - BETAS[0] ** (t + 1), 1 - BETAS[1] ** (t + 1)
        p = jax.tree.map(lambda p, m, v: p - LR * (m / c1) / (jnp.sqrt(v / c2) + EPS), p, m, v)
        return p, m, v, t + 1

    def generated(generator: list, noise: Any) -> Any:
        return jax.nn.sigmoid(jax_forward(jax, generator, noise))

    def iteration(critic: tuple, generator: tuple, images: Any, key: Any) -> tuple:
        for _ in range(size.steps):
            key, a, b, c = random.split(key, 4)
            real = images[random.randint(a, (n,), 0, len(images))].astype(jnp.float32) / 255
            fake = generated(generator[0], random.normal(b, (n, size.noise)))
            eps = random.uniform(c, (n, 1))
            g = jax.grad(lambda d, real=real, fake=fake, eps=eps: jax_critic_loss(jax, d, real, fake, eps))(critic[0])
            critic = adam(critic[0], g, *critic[1:])
        key, a = random.split(key)
        noise = random.normal(a, (n, size.noise))
        g = jax.grad(lambda net: jax_forward(jax, critic[0], generated(net, noise)).mean())(generator[0])
        return critic, adam(generator[0], g, *generator[1:]), key

    with jax.default_device(on):
        images = jnp.asarray(load_images().reshape(-1, 784))
        nets = [network(random.PRNGKey(i), sizes) for i, sizes in enumerate(size.networks)]
        zeros = [jax.tree.map(jnp.zeros_like, net) for net in nets]
        state = [*((net, z, z, jnp.zeros(())) for net, z in zip(nets, zeros)), random.PRNGKey(2)]
        compiled = jax.jit(iteration)

    def step() -> None:
        state[:] = compiled(state[0], state[1], images, state[2])

    return step, lambda: jax.block_until_ready(state)


BUILDERS: dict[str, Callable[[Size, str], Built]] = {
    "minigan": build_minigan,
    "floor": build_floor,
    "PyTorch": build_torch,
    "JAX": build_jax,
}


def critic_gradients(library: str, weights: list, real: Any, fake: Any, eps: Any) -> list[np.ndarray]:
    """The gradient of the critic's whole loss, in minigan, PyTorch or JAX, for weights [(w, b), ...], on the CPU."""
    if library == "minigan":
        backend.use("cpu")
        critic = mg.nn.MLP([len(weights[0][0]), *(len(b) for _, b in weights)])
        for p, a in zip(critic.parameters(), [a for pair in weights for a in pair]):
            p.data = a
        loss = mg.losses.critic_loss(critic(real), critic(fake))
        slope = gradient_norm(critic, fake + eps * (real - fake))
        loss = loss + WEIGHT * mg.penalties.FORMS["two-sided"](slope)
        return [g.data for g in mg.grad(loss, critic.parameters())]
    if library == "PyTorch":
        import torch

        pairs = [tuple(torch.tensor(a, requires_grad=True) for a in pair) for pair in weights]

        def forward(x: Any) -> Any:
            for w, b in pairs[:-1]:
                x = torch.relu(x @ w + b)
            return x @ pairs[-1][0] + pairs[-1][1]

        loss = torch_critic_loss(torch, forward, *map(torch.tensor, (real, fake, eps)))
        return [g.numpy() for g in torch.autograd.grad(loss, [a for pair in pairs for a in pair])]
    import jax

    with jax.default_device(jax.devices("cpu")[0]):
        g = jax.grad(lambda d: jax_critic_loss(jax, d, real, fake, eps))(
            [tuple(map(jax.numpy.asarray, p)) for p in weights]
        )
    return [np.asarray(a) for pair in g for a in pair]
