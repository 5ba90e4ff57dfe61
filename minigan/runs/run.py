"""One training run: what it has come to, and what it keeps in its folder on the way."""

import csv
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy

from .. import backend
from ..judge.evaluation import Judge
from ..nn import MLP
from ..settings import NOISES, Settings
from ..tools import pictures
from ..tools.files import write_json
from ..training import WGANGP, History, generate
from .checkpoint import Checkpoint, Row, save
from .folder import Folder

CHUNK = 10_000  # samples computed at a time
SLOPE_NAMES = {"gradient": "gradient norm", "difference": "difference quotient"}


class Stopwatch:
    """Seconds since it was made, and ``before``, less those inside ``with stopwatch.stopped():``."""

    def __init__(self, before: float = 0.0) -> None:
        self._start, self._stopped_at = time.perf_counter() - before, None

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

    ``shape`` is (height, width) of its images, ``images`` their CRC-32; ``about`` goes into the settings file beside
    the settings. Without a ``judge`` samples are not evaluated. The run begins, or goes on from a ``checkpoint``,
    of which ``model`` is.
    """

    def __init__(
        self,
        folder: Folder,
        model: WGANGP,
        shape: tuple[int, int],
        images: int,
        about: dict[str, Any],
        judge: Judge | None,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.folder, self.model, self.settings, self.shape = folder, model, model.settings, shape
        self.images, self.judge = images, judge
        self.history = History()
        self.snapshots: list[tuple[int, numpy.ndarray]] = []  # iteration, images of one fixed noise
        self.evaluations: list[dict[str, float]] = []
        rng, n = numpy.random.default_rng([self.settings.seed, 1]), self.settings.grid**2
        self.fixed_noise = backend.asarray(NOISES[self.settings.noise](rng, (n, self.settings.noise_dim)))
        if checkpoint:
            self._go_on(checkpoint)
        folder.samples.mkdir(exist_ok=True)
        write_json(folder.settings, {**asdict(self.settings), **about})
        with open(folder.curves, "w", newline="") as file:
            name = SLOPE_NAMES[self.settings.slope].replace(" ", "_")
            csv.writer(file).writerows([("iteration", "l1", name, "seconds"), *self.history.rows])
        self.watch = Stopwatch(checkpoint.seconds if checkpoint else 0.0)  # of the training alone
        if self.due()[2]:
            with self.watch.stopped():
                self.evaluate()  # which an interruption may have left out

    def _go_on(self, checkpoint: Checkpoint) -> None:
        """As though it had never stopped: less what was read, drawn and judged only because it did."""
        early = len(checkpoint.since) and checkpoint.rows[-1][0] == checkpoint.iteration
        self.history.rows = checkpoint.rows[:-1] if early else checkpoint.rows
        self.history.iteration, self.history.since = checkpoint.iteration, checkpoint.since
        before = checkpoint.settings
        self.snapshots = [s for s in checkpoint.snapshots if s[0] % before.sample_every == 0]
        self.evaluations = [e for e in checkpoint.evaluations if e["iteration"] % before.evaluate_every == 0]

    def due(self) -> tuple[bool, bool, bool]:
        """Whether after this iteration the figures are read, a grid is drawn, and the samples are judged.

        Figures are read at every iteration at first, and later at every hundredth or so of those that there were. They
        are read, and found finite, before anything is made of the networks.
        """
        i = self.model.iterations
        drawn = i % self.settings.sample_every == 0
        judged = self.judge is not None and i > 0 and i % self.settings.evaluate_every == 0
        return drawn or judged or i % 10 ** max(0, len(str(i)) - 3) == 0, drawn, judged

    def keep(self, stopped: bool = False, last: bool = False) -> Row | None:
        """Read, draw, judge and save what is due, and all of it after the ``last`` iteration.

        Where it was ``stopped``, samples are not judged, which takes seconds. Returns the row that was read, if any.
        Raises Diverged.
        """
        read, drawn, judged = self.due()
        end = stopped or last
        row = self.read(due=read) if self.model.iterations and (read or end) else None
        if drawn or judged or end:
            with self.watch.stopped():
                self.model.check_finite()
                if drawn or end:
                    self.snapshot()
                if self.judge and not stopped and (judged or last):
                    self.evaluate()
                self.save()
        return row

    def read(self, due: bool = True) -> Row:
        """A row of the curves: iteration, mean L1 and slope since the last row, seconds. Raises Diverged."""
        known = len(self.history.rows)
        row = self.history.read(self.watch.seconds, due)
        with open(self.folder.curves, "a", newline="") as file:
            csv.writer(file).writerows(self.history.rows[known:])
        return row

    def snapshot(self) -> None:
        """A grid of samples from the fixed noise, of which the first are kept for the pictures of the whole run.

        Neither this nor ``evaluate`` does anything where it is done for this iteration.
        """
        iteration = self.model.iterations
        if iteration in [i for i, _ in self.snapshots]:
            return
        images = backend.to_numpy(generate(self.model.averaged, self.fixed_noise)).reshape(-1, *self.shape)
        images = pictures.to_bytes(images)
        pictures.save_grid(self.folder.grid(iteration), images, self.settings.grid)
        self.snapshots.append((iteration, images[: pictures.panel_side(self.shape) ** 2]))

    def evaluate(self) -> None:
        """The figures of the samples, in ``evaluation.json`` beside those of real images."""
        if self.model.iterations in [row["iteration"] for row in self.evaluations]:
            return
        figures = evaluate(self.judge, self.model.critic, self.model.averaged, self.settings)
        self.evaluations.append({"iteration": self.model.iterations, "seconds": self.watch.seconds(), **figures})
        write_json(self.folder.evaluation, {"real": self.judge.real, "samples": self.evaluations})

    def checkpoint(self) -> Checkpoint:
        arrays = {name: backend.to_numpy(tensor) for name, tensor in self.model.state().items()}
        return Checkpoint(
            self.settings,
            self.model.iterations,
            self.shape,
            arrays,
            self.images,
            backend.rng_state(self.model.rng),
            self.watch.seconds(),
            self.history.rows,
            self.history.since,
            self.snapshots,
            self.evaluations,
        )

    def save(self) -> None:
        save(self.folder.checkpoint, self.checkpoint())


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
