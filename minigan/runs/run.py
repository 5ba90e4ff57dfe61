"""One training run: what it has come to, and what it keeps in its folder on the way."""

import csv
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy

from .. import backend
from ..judge.classifier import FILE
from ..judge.evaluation import Judge
from ..nn import MLP
from ..settings import NOISES, Settings
from ..tools import pictures
from ..tools.files import write_json
from ..training import WGANGP, History, generate
from .checkpoint import Checkpoint, save
from .folder import Folder

CHUNK = 10_000  # samples computed at a time
SLOPE_NAMES = {"gradient": "gradient norm", "difference": "difference quotient"}


class Stopwatch:
    """Seconds since it was made, less those inside ``with stopwatch.stopped():``."""

    def __init__(self) -> None:
        self._start, self._stopped_at = time.perf_counter(), None

    def seconds(self) -> float:
        return (self._stopped_at or time.perf_counter()) - self._start

    @contextmanager
    def stopped(self) -> Iterator[None]:
        self._stopped_at = time.perf_counter()
        try:
            yield
        finally:
            self._start += time.perf_counter() - self._stopped_at
            self._stopped_at = None


class Run:
    """A model in training, the folder that its pictures and figures go to, and the time it has taken.

    ``shape`` is (height, width) of its images, and ``data`` the folder that they and the classifier come from. Where
    there is no classifier, samples are not evaluated.
    """

    def __init__(
        self, folder: Folder, model: WGANGP, shape: tuple[int, int], data: Path, device: str, threads: int
    ) -> None:
        self.folder, self.model, self.settings, self.shape = folder, model, model.settings, shape
        self.slope_name = SLOPE_NAMES[self.settings.slope]
        self.history = History()
        self.snapshots: list[tuple[int, numpy.ndarray]] = []  # iteration, images of one fixed noise
        self.evaluations: list[dict[str, float]] = []
        self.judge = Judge(data) if (data / FILE).exists() else None
        rng, n = numpy.random.default_rng([self.settings.seed, 1]), self.settings.grid**2
        self.fixed_noise = backend.asarray(NOISES[self.settings.noise](rng, (n, self.settings.noise_dim)))
        folder.grid(0).parent.mkdir(parents=True, exist_ok=True)
        where = {"device": device, "threads": threads, "data": str(data)}
        write_json(folder.settings, {**asdict(self.settings), **where})
        with open(folder.curves, "w", newline="") as file:
            csv.writer(file).writerow(("iteration", "l1", self.slope_name.replace(" ", "_"), "seconds"))
        self.watch = Stopwatch()  # of the training alone

    def read(self) -> tuple[int, float, float, float]:
        """A row of the curves: iteration, mean L1 and slope since the last row, seconds. Raises Diverged."""
        row = self.history.read(self.watch.seconds())
        with open(self.folder.curves, "a", newline="") as file:
            csv.writer(file).writerow(row)
        return row

    def snapshot(self) -> None:
        """A grid of samples from the fixed noise, and a checkpoint. Raises Diverged."""
        with self.watch.stopped():
            self.model.check_finite()
            iteration, generator = self.model.iterations, self.model.averaged
            images = backend.to_numpy(generate(generator, self.fixed_noise)).reshape(-1, *self.shape)
            pictures.save_grid(self.folder.grid(iteration), images, self.settings.grid)
            save(self.folder.checkpoint, Checkpoint(self.settings, iteration, self.shape, self.model.critic, generator))
            self.snapshots.append((iteration, images[: pictures.PANEL**2]))

    def evaluate(self) -> None:
        """The figures of the samples, in ``evaluation.json`` beside those of real images."""
        with self.watch.stopped():
            figures = evaluate(self.judge, self.model.critic, self.model.averaged, self.settings)
            self.evaluations.append({"iteration": self.model.iterations, "seconds": self.watch.seconds(), **figures})
            write_json(self.folder.evaluation, {"real": self.judge.real, "samples": self.evaluations})

    def summary(self) -> str:
        """How far the training came, in one line."""
        iteration, l1, slope, seconds = self.history.rows[-1] if self.history.rows else (0, numpy.nan, numpy.nan, 0.0)
        time = f"{seconds:.1f} s ({1000 * seconds / max(1, iteration):.1f} ms each)"
        return f"{iteration:,} iterations in {time}, L1 {l1:.3f}, {self.slope_name} {slope:.3f}"


def draw(generator: MLP, settings: Settings, n: int, seed: int | None = None) -> numpy.ndarray:
    """n samples (n, pixels), float32; the same ones for the same seed, which is the settings' where none is given."""
    rng = numpy.random.default_rng([settings.seed if seed is None else seed, 2])
    samples = numpy.empty((n, *generator.layers[-1].bias.shape), "float32")
    for start in range(0, n, CHUNK):
        chunk = samples[start : start + CHUNK]
        noise = NOISES[settings.noise](rng, (len(chunk), settings.noise_dim))
        chunk[:] = backend.to_numpy(generate(generator, backend.asarray(noise)))
    return samples


def evaluate(
    judge: Judge, critic: MLP, generator: MLP, settings: Settings, seed: int | None = None
) -> dict[str, float]:
    """All figures of as many samples as the judge has test images, and L1 on its training and its test images."""
    samples = draw(generator, settings, len(judge.test), seed)
    return judge(samples) | judge.distances(critic, samples)
