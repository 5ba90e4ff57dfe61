"""Training on the toy distributions, with L1 at every iteration."""

import signal
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from typing import Any

import numpy
from tqdm import tqdm

from .. import backend
from ..autodiff import grad
from ..fast import Replayed
from ..fast.threads import cores, threads_for, use_threads
from ..settings import Settings
from ..tensor import no_grad
from ..training import WGANGP, l1_and_mean_slope
from .toys import Target

FEWEST = 20  # iterations, however small the scale

# One dimension takes a one-sided penalty: once the generator has reached the target, the critic has no slope left, and
# a two-sided penalty would still require the slope 1, and drive the generator away again.
LINE = Settings(
    iterations=800,
    batch_size=256,
    critic_steps=5,
    learning_rate=2e-3,
    betas=(0.5, 0.9),
    decay="linear",
    penalty="one-sided-squared",
    critic=(32, 32),
    generator=(32, 32),
    output=None,
    noise="uniform",
    noise_dim=1,
    average=0.0,
)
PLANE = replace(
    LINE,
    batch_size=128,
    critic_steps=2,
    learning_rate=4e-3,
    lambda_=1.0,
    clip=0.1,
    critic=(64, 64),
    generator=(64, 64),
    noise="normal",
    noise_dim=2,
)


def scaled(settings: Settings, scale: float) -> Settings:
    """The same settings with ``scale`` times the iterations."""
    return replace(settings, iterations=max(FEWEST, round(settings.iterations * scale)))


@dataclass
class Trained:
    """A trained model, L1 at every iteration, and ``seen``, the results of the probe by iteration."""

    model: WGANGP
    l1: numpy.ndarray
    seconds: float
    seen: list[tuple[int, Any]]

    def samples(self, n: int = 4000) -> numpy.ndarray:
        return backend.to_numpy(self.model.generate(n))

    def scores(self, points: numpy.ndarray) -> numpy.ndarray:
        """The scores D (n,) of points (n, d)."""
        with no_grad():
            return backend.to_numpy(self.model.critic(backend.on_device(points, dtype="float32")))[:, 0]


def train(
    settings: Settings,
    draw: Target,
    what: str | None = None,
    probe: Callable[[WGANGP], Any] | None = None,
    moments: Collection[int] = (),
) -> Trained:
    """Train on samples of ``draw``, and ``probe`` the model after so many iterations; ``what`` names a progress bar."""
    dim = draw(1, backend.default_rng(0)).shape[1]
    model = WGANGP(settings, draw, dim)
    curves, seen = [], [(0, probe(model))] if probe and 0 in moments else []
    steps: Iterable[int] = range(1, settings.iterations + 1)
    if what:
        steps = tqdm(steps, what, unit="it", disable=None, leave=False)
    replayed, start = Replayed(model), time.perf_counter()
    with numpy.errstate(over="ignore", invalid="ignore"), use_threads(threads_for(settings, dim)):
        for i in steps:
            curves.append(replayed.iteration().copy())
            if probe and i in moments:
                seen.append((i, probe(model)))
    l1 = backend.to_numpy(backend.xp.stack(curves))[:, 0]
    return Trained(model, l1, time.perf_counter() - start, seen)


def side_by_side(function: Callable[[Settings], Any], each: Sequence[Settings], what: str) -> list[Any]:
    """``function`` of ``each`` settings, in order: by a process on each core, or on a GPU one after the other."""
    bar = partial(tqdm, desc=what, total=len(each), unit="run", disable=None, leave=False)
    if backend.xp is not numpy:
        return list(bar(map(function, each)))
    with get_context("spawn").Pool(min(cores(), len(each)), signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        return list(bar(pool.imap(function, each)))


def critic_alone(settings: Settings, draw: Target, steps: int) -> numpy.ndarray:
    """L1 at each step of a critic that is trained against a fixed generator."""
    model = WGANGP(settings, draw, 1)
    n = settings.batch_size
    with use_threads(threads_for(settings, 1)):
        l1 = [l1_and_mean_slope(*model.critic_step(draw(n, model.rng), model.generate(n)))[0] for _ in range(steps)]
    return backend.to_numpy(backend.xp.stack(l1))


def generator_gradient(model: WGANGP) -> float:
    """The norm of the generator's gradient, over all parameters together."""
    loss = model.game.generator(model.critic(model.generator(model.draw_noise(1000))))
    return float(sum((g.array**2).sum().item() for g in grad(loss, model.generator.parameters())) ** 0.5)
