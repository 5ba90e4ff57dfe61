"""WGAN-GP and its kin: the settings, one iteration, and the two figures that tell how it goes."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy

from . import backend
from .autodiff import grad
from .backend import Array
from .losses import GAMES
from .nn import MLP, Linear, SpectralLinear, named
from .optim import Adam
from .penalties import FORMS, slope_of
from .tensor import no_grad

NOISES: dict[str, Callable[[Any, tuple[int, int]], Array]] = {
    "normal": lambda rng, shape: rng.standard_normal(shape, dtype="float32"),
    "uniform": lambda rng, shape: rng.random(shape, dtype="float32") * 2 - 1,
}

# what the learning rate is multiplied by, once a share of the iterations is done
DECAYS: dict[str, Callable[[float], float]] = {
    "linear": lambda share: max(1 - share, 0.0),
    "constant": lambda share: 1.0,
}


@dataclass(frozen=True)
class Settings:
    """What a run is made of; the defaults reach digits fast. ``critic`` and ``generator`` are hidden widths."""

    iterations: int = 10_000
    batch_size: int = 64
    critic_steps: int = 2
    learning_rate: float = 2e-3
    decay: str = "constant"
    betas: tuple[float, float] = (0.5, 0.9)
    game: str = "wgan"
    penalty: str = "two-sided"
    where: str = "between"
    slope: str = "gradient"
    penalty_weight: float = 10.0
    constraint: str = "none"
    clip: float = 0.01
    critic: tuple[int, ...] = (256, 128)
    generator: tuple[int, ...] = (128, 256)
    hidden: str = "relu"
    output: str | None = "sigmoid"
    critic_output: str | None = None
    init: str = "he"
    noise: str = "normal"
    noise_dim: int = 32
    average: float = 0.9995
    seed: int = 0
    sample_every: int = 500
    evaluate_every: int = 2_000
    grid: int = 10


PRESETS = {
    "default": Settings(),
    "long": Settings(iterations=100_000, average=0.9999, sample_every=4_000, evaluate_every=10_000),
    "article": Settings(  # the article's own program
        iterations=400_000,
        batch_size=100,
        critic_steps=5,
        learning_rate=1e-4,
        betas=(0.5, 0.999),
        penalty="one-sided-relu",
        critic=(128, 32),
        generator=(32, 128),
        init="uniform",
        noise="uniform",
        noise_dim=10,
        average=0.0,
        sample_every=1_000,
        evaluate_every=40_000,
        grid=6,
    ),
}


def networks(settings: Settings, dim: int, rng: numpy.random.Generator | int | None = None) -> tuple[MLP, MLP]:
    """A new critic, (n, dim) to (n, 1), and generator, (n, noise_dim) to (n, dim). ValueError for an unknown name."""
    layer = {"spectral": SpectralLinear}.get(settings.constraint, Linear)
    kind = {"hidden": settings.hidden, "init": settings.init, "rng": numpy.random.default_rng(rng)}
    critic = MLP([dim, *settings.critic, 1], output=settings.critic_output, layer=layer, **kind)
    generator = MLP([settings.noise_dim, *settings.generator, dim], output=settings.output, **kind)
    return critic, generator


def generate(generator: MLP, noise: Array) -> Array:
    """The samples (n, dim) that the generator makes of ``noise`` (n, noise_dim), float32."""
    with no_grad():
        return generator(noise).data


class Diverged(ArithmeticError):
    """A figure or a parameter is NaN or infinite; the message says since when, and what was last finite."""


class WGANGP:
    """The two networks and all that training them takes.

    ``averaged`` is the generator with the exponential average of its weights over the iterations, which draws better
    samples than its weights of the moment (Yazici et al. 2019, arXiv 1806.04498); with ``average`` 0, itself.
    ``draw(n, rng)`` gives n real rows (n, dim), float32, on the device in use. The same settings and ``draw`` give the
    same numbers, bit for bit, on the same machine's CPU. ``graph`` replays iterations as ``backend.recorded`` says.
    Raises ValueError for settings that name what there is not, or that make no sense together.
    """

    def __init__(self, settings: Settings, draw: Callable[[int, Any], Array], dim: int, graph: bool = False) -> None:
        self.settings = settings
        self.draw = draw
        self.game = named("game", settings.game, GAMES)
        self.slope = slope_of(settings.slope, settings.where)
        self.penalty = named("penalty form", settings.penalty, {**FORMS, "none": None})
        self.decay = named("decay", settings.decay, DECAYS)
        self.noise = named("noise", settings.noise, NOISES)
        self.after_step = named("constraint", settings.constraint, CONSTRAINTS)
        for_networks, for_training = numpy.random.SeedSequence(settings.seed).spawn(2)
        self.critic, self.generator = networks(settings, dim, numpy.random.default_rng(for_networks))
        self.averaged = deepcopy(self.generator) if settings.average else self.generator
        self.rng = backend.default_rng(int(for_training.generate_state(1, numpy.uint64)[0]))
        self.critic_adam = Adam(self.critic.parameters(), settings.learning_rate, settings.betas)
        self.generator_adam = Adam(self.generator.parameters(), settings.learning_rate, settings.betas)
        self.iterations = 0
        self.rates = backend.xp.empty((settings.critic_steps + 2, 2), "float32")
        self.replay = backend.recorded(self.steps) if graph else None

    def iteration(self) -> tuple[Array, Array]:
        """``critic_steps`` steps of the critic and one of the generator: the article's game, section "the fight".

        Returns L1 and the mean slope at the last critic step, as arrays of one element that stay on the device: nothing
        in here waits for it. With ``graph`` the next iteration overwrites them.
        """
        rate = self.settings.learning_rate * self.decay(self.iterations / self.settings.iterations)
        self.critic_adam.lr = self.generator_adam.lr = rate
        adams = [self.critic_adam] * self.settings.critic_steps + [self.generator_adam]
        # At first the average reaches back over a quarter of the iterations, so that the initial weights are forgotten.
        keep = min(self.settings.average, (1 + self.iterations) / (5 + self.iterations))
        rates = [*(adam.next_step() for adam in adams), (keep, 1 - keep)]
        self.rates[...] = backend.asarray(rates, dtype="float32")
        self.iterations += 1
        return self.replay() if self.replay else self.steps()

    def steps(self) -> tuple[Array, Array]:
        """All that an iteration does on the device; what changes from one to the next is in ``rates``."""
        n, critic_steps = self.settings.batch_size, self.settings.critic_steps
        reals = self.draw(n * critic_steps, self.rng)
        # The generator stands still while the critic learns, so all its fakes come from one forward.
        fakes = self.generate(n * critic_steps)
        for i in range(critic_steps):
            rows = slice(i * n, (i + 1) * n)
            l1, slope = self.critic_step(reals[rows], fakes[rows], self.rates[i])
        self.generator_step(self.rates[critic_steps])
        if self.settings.average:
            keep, add = self.rates[critic_steps + 1]
            for a, p in zip(self.averaged.parameters(), self.generator.parameters()):
                a.data *= keep
                a.data += add * p.data
        return l1, slope

    def critic_step(self, real: Array, fake: Array, rate_and_eps: Array | None = None) -> tuple[Array, Array]:
        """One Adam step of the critic on real and generated rows; L1 and the mean slope before it."""
        n = len(real)
        scores = self.critic(backend.xp.concatenate((real, fake)))
        d_real, d_fake = scores[:n], scores[n:]
        loss = self.game.critic(d_real, d_fake, real, fake)
        slope = self.slope(self.critic, real, fake, self.rng)
        if self.penalty:
            loss = loss + self.settings.penalty_weight * self.penalty(slope)
        self.critic_adam.step(grad(loss, self.critic.parameters()), rate_and_eps)
        self.after_step(self)
        return d_fake.data.mean() - d_real.data.mean(), slope.data.mean()

    def generator_step(self, rate_and_eps: Array | None = None) -> None:
        """One Adam step of the generator against the critic as it is."""
        loss = self.game.generator(self.critic(self.generator(self.draw_noise(self.settings.batch_size))))
        self.generator_adam.step(grad(loss, self.generator.parameters()), rate_and_eps)

    def draw_noise(self, n: int) -> Array:
        """Fresh noise (n, noise_dim), float32, on the device."""
        return self.noise(self.rng, (n, self.settings.noise_dim))

    def generate(self, n: int) -> Array:
        """n samples (n, dim) of fresh noise, by the generator as it is."""
        return generate(self.generator, self.draw_noise(n))

    def check_finite(self) -> None:
        """Raises Diverged where a parameter is not finite (on the GPU this waits for the device)."""
        for name, network in (("critic", self.critic), ("generator", self.generator)):
            if not all(backend.xp.isfinite(p.data).all() for p in network.parameters()):
                raise Diverged(f"training diverged: the {name}'s parameters are no longer finite")


def _clip(model: WGANGP) -> None:
    c = model.settings.clip
    for p in model.critic.parameters():
        backend.xp.clip(p.data, -c, c, out=p.data)


def _power_iteration(model: WGANGP) -> None:
    for layer in model.critic.layers:
        layer.power_iteration()


# What holds the critic besides a penalty, and what it does after each of the critic's steps.
CONSTRAINTS: dict[str, Callable[[WGANGP], None]] = {
    "none": lambda model: None,
    "clip": _clip,  # every weight within +-clip: Arjovsky et al. 2017 (arXiv 1701.07875), algorithm 1
    "spectral": _power_iteration,  # every layer a SpectralLinear
}


class History:
    """L1 and the critic's mean slope at every iteration, averaged over the iterations between two readings.

    ``add`` keeps them on the device; ``read`` fetches those since the last reading in one go and returns a row
    (iteration, L1, slope), which it also keeps in ``rows``.
    """

    def __init__(self) -> None:
        self.rows: list[tuple[int, float, float]] = []
        self.iteration = 0
        self._last = "nothing yet"
        self._unread: list[Array] = []

    def add(self, l1: Array, slope: Array) -> None:
        self._unread.append(backend.xp.stack((l1, slope)))

    def read(self) -> tuple[int, float, float]:
        """Raises Diverged at the first figure that is NaN or infinite."""
        if self._unread:
            values = backend.to_numpy(backend.xp.stack(self._unread)).astype("float64")
            self._unread.clear()
            for l1, slope in values:
                self.iteration += 1
                figures = f"L1 {l1:.4g} and slope {slope:.4g} at iteration {self.iteration}"
                if not numpy.isfinite([l1, slope]).all():
                    raise Diverged(f"training diverged: {figures}; last finite: {self._last}")
                self._last = figures
            self.rows.append((self.iteration, *values.mean(axis=0).tolist()))
        return self.rows[-1]
