"""The same training iteration in the libraries that minigan is compared with.

For each there is a builder, as in ``floor.py``, and a function that computes what ``minigan_gradients`` does, to show
that it is the same. Each library is imported in its own functions, and only there.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from minigan.data import load_images
from tests.floor import BETAS, EPS, LR, WEIGHT, Built, Size

# --- PyTorch ------------------------------------------------------------------------------------


def build_torch(size: Size, device: str, capturable: bool = False) -> Built:
    import torch

    on = torch.device("cuda" if device == "gpu" else "cpu")

    def network(sizes: list[int], *last: torch.nn.Module) -> torch.nn.Module:
        layers = [layer for a, b in pairwise(sizes) for layer in (torch.nn.Linear(a, b), torch.nn.ReLU())][:-1]
        return torch.nn.Sequential(*layers, *last).to(on)

    critic, generator = network(size.networks[0]), network(size.networks[1], torch.nn.Sigmoid())
    how = {"fused": True, "capturable": capturable}
    adams = [torch.optim.Adam(net.parameters(), LR, BETAS, EPS, **how) for net in (critic, generator)]
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


def build_torch_graph(size: Size, device: str) -> Built:
    """The same, recorded once as a CUDA graph and replayed."""
    import torch

    iteration, wait = build_torch(size, device, capturable=True)
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            iteration()
    torch.cuda.current_stream().wait_stream(stream)
    with torch.cuda.graph(graph):
        iteration()
    return graph.replay, wait


def torch_gradients(weights: list, real: Any, fake: Any, eps: Any) -> list[np.ndarray]:
    import torch

    pairs = [tuple(torch.tensor(a, requires_grad=True) for a in pair) for pair in weights]

    def critic(x: Any) -> Any:
        for w, b in pairs[:-1]:
            x = torch.relu(x @ w + b)
        return x @ pairs[-1][0] + pairs[-1][1]

    loss = torch_critic_loss(torch, critic, *map(torch.tensor, (real, fake, eps)))
    return [g.numpy() for g in torch.autograd.grad(loss, [a for pair in pairs for a in pair])]


# --- JAX ----------------------------------------------------------------------------------------


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


def jax_gradients(weights: list, real: Any, fake: Any, eps: Any) -> list[np.ndarray]:
    import jax

    with jax.default_device(jax.devices("cpu")[0]):
        pairs = [tuple(map(jax.numpy.asarray, pair)) for pair in weights]
        g = jax.grad(lambda critic: jax_critic_loss(jax, critic, real, fake, eps))(pairs)
    return [np.asarray(a) for pair in g for a in pair]


# --- HIPS autograd ------------------------------------------------------------------------------


def autograd_forward(network: list, x: Any) -> Any:
    import autograd.numpy as anp

    for w, b in network[:-1]:
        x = anp.maximum(x @ w + b, 0)
    return x @ network[-1][0] + network[-1][1]


def autograd_critic_loss(critic: list, real: Any, fake: Any, eps: Any) -> Any:
    import autograd.numpy as anp
    from autograd import grad

    slope = grad(lambda y: anp.sum(autograd_forward(critic, y)))(fake + eps * (real - fake))
    norm = anp.sqrt(anp.sum(slope * slope, axis=1))
    difference = anp.mean(autograd_forward(critic, real)) - anp.mean(autograd_forward(critic, fake))
    return difference + WEIGHT * anp.mean((norm - 1) ** 2)


def build_autograd(size: Size, device: str) -> Built:
    import autograd.numpy as anp
    from autograd import grad

    rng, images, n = np.random.default_rng(0), load_images().reshape(-1, 784), size.batch
    critic, generator = nets = [he(rng, sizes) for sizes in size.networks]
    moments = [[np.zeros((2, *a.shape), "float32") for pair in net for a in pair] for net in nets]
    steps = [0, 0]

    def generated(network: list, noise: Any) -> Any:
        return 1 / (1 + anp.exp(-autograd_forward(network, noise)))

    def generator_loss(network: list, noise: Any) -> Any:
        return anp.mean(autograd_forward(critic, generated(network, noise)))

    critic_gradient, generator_gradient = grad(autograd_critic_loss), grad(generator_loss)

    def adam(which: int, gradient: list) -> None:
        steps[which] += 1
        rate = LR * (1 - BETAS[1] ** steps[which]) ** 0.5 / (1 - BETAS[0] ** steps[which])
        parameters = [a for pair in nets[which] for a in pair]
        for p, g, (m, v) in zip(parameters, [g for pair in gradient for g in pair], moments[which]):
            m += (1 - BETAS[0]) * (g - m)
            v += (1 - BETAS[1]) * (g * g - v)
            p -= rate * m / (np.sqrt(v) + EPS)

    def iteration() -> None:
        for _ in range(size.steps):
            real = images[rng.integers(0, len(images), n)].astype("float32") / 255
            fake = generated(generator, rng.standard_normal((n, size.noise), dtype="float32"))
            adam(0, critic_gradient(critic, real, fake, rng.random((n, 1), dtype="float32")))
        adam(1, generator_gradient(generator, rng.standard_normal((n, size.noise), dtype="float32")))

    return iteration, lambda: None


def he(rng: np.random.Generator, sizes: list[int]) -> list:
    return [
        ((rng.standard_normal((a, b)) * (2 / a) ** 0.5).astype("float32"), np.zeros(b, "float32"))
        for a, b in pairwise(sizes)
    ]


def autograd_gradients(weights: list, real: Any, fake: Any, eps: Any) -> list[np.ndarray]:
    from autograd import grad

    return [a for pair in grad(autograd_critic_loss)(weights, real, fake, eps) for a in pair]


# --- DeZero -------------------------------------------------------------------------------------


def import_dezero() -> Any:
    np.int = int  # which its last release still asks NumPy for
    import dezero

    return dezero


def dezero_critic_loss(dezero: Any, critic: Any, real: Any, fake: Any, eps: Any) -> Any:
    """Constants are float32: with a Python number DeZero would go on in float64."""
    F, n, one = dezero.functions, len(real), np.float32(1)
    points = dezero.Variable(fake + eps * (real - fake))
    F.sum(critic(points)).backward(create_graph=True)
    norm = F.sum(points.grad * points.grad, axis=1) ** np.float32(0.5) - one
    critic.cleargrads()  # it computes every gradient, the weights' too
    difference = F.sum(critic(real)) - F.sum(critic(fake))
    return (difference + np.float32(WEIGHT) * F.sum(norm * norm)) * (one / np.float32(n))


def dezero_network(dezero: Any, weights: list) -> Any:
    network = dezero.models.MLP([len(b) for _, b in weights], activation=dezero.functions.relu)
    network(np.zeros((1, len(weights[0][0])), "float32"))  # so that its weights exist
    for layer, (w, b) in zip(network.layers, weights):
        layer.W.data, layer.b.data = w, b
    return network


def build_dezero(size: Size, device: str) -> Built:
    dezero = import_dezero()
    F, rng, images, n = dezero.functions, np.random.default_rng(0), load_images().reshape(-1, 784), size.batch
    critic, generator = (dezero_network(dezero, he(rng, sizes)) for sizes in size.networks)
    adams = [dezero.optimizers.Adam(LR, *BETAS, EPS).setup(net) for net in (critic, generator)]

    def noise() -> Any:
        return rng.standard_normal((n, size.noise), dtype="float32")

    def iteration() -> None:
        for _ in range(size.steps):
            real = images[rng.integers(0, len(images), n)].astype("float32") / np.float32(255)
            with dezero.no_grad():
                fake = F.sigmoid(generator(noise())).data
            loss = dezero_critic_loss(dezero, critic, real, fake, rng.random((n, 1), dtype="float32"))
            loss.backward()
            adams[0].update()
            critic.cleargrads()
        (F.sum(critic(F.sigmoid(generator(noise())))) * np.float32(1 / n)).backward()
        adams[1].update()
        generator.cleargrads()
        critic.cleargrads()

    return iteration, lambda: None


def dezero_gradients(weights: list, real: Any, fake: Any, eps: Any) -> list[np.ndarray]:
    dezero = import_dezero()
    critic = dezero_network(dezero, weights)
    dezero_critic_loss(dezero, critic, real, fake, eps).backward()
    return [p.grad.data for layer in critic.layers for p in (layer.W, layer.b)]


class Peer(NamedTuple):
    package: str
    build: Callable[[Size, str], Built]
    gradients: Callable[..., list[np.ndarray]]
    devices: tuple[str, ...] = ("cpu",)


PEERS = {
    "PyTorch": Peer("torch", build_torch, torch_gradients, ("cpu", "gpu")),
    "PyTorch, graph": Peer("torch", build_torch_graph, torch_gradients, ("gpu",)),
    "JAX": Peer("jax", build_jax, jax_gradients, ("cpu", "gpu")),
    "DeZero": Peer("dezero", build_dezero, dezero_gradients),
    "HIPS autograd": Peer("autograd", build_autograd, autograd_gradients),
}
