"""One training run and all that it leaves in its folder."""

import csv
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy

from . import backend, figures, report
from .checkpoint import Checkpoint, load, replacing, save
from .classifier import FILE
from .cli import text
from .evaluation import Judge, table
from .nn import MLP
from .training import NOISES, WGANGP, History, Settings, generate

CHUNK = 10_000  # samples computed at a time
SLOPE_NAMES = {"gradient": "gradient norm", "difference": "difference quotient"}

# captions of the report
SAMPLES_CAPTION = "Not chosen: from the noise that all grids of the run share."
PROGRESS = "The same samples at several moments; iterations above."
ANIMATION = "A frame for each grid of the run."
INTERPOLATIONS = "Each row goes from one noise vector to another."
CURVES = (
    "Over the seconds of training alone. L1 is the distance between samples and images as the critic sees it. Where L1"
    " on test images parts from L1 on training images, the critic has begun to know the latter by heart."
)
FIGURES = (
    "After {iteration:,} iterations. On the right, the same for real training images in the place of samples. Features,"
    " classes and probabilities are those of a classifier trained on the images."
)
CLASSES = "The first samples that the classifier puts into each class."
NEAREST = "Rows of samples, and below each the training images that are nearest to them, pixel by pixel."


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
    """A model in training, the folder ``out`` that its pictures and figures go to, and the time it has taken.

    ``shape`` is (height, width) of its images, and ``data`` the folder that they and the classifier come from. Where
    there is no classifier, samples are not evaluated.
    """

    def __init__(self, out: Path, model: WGANGP, shape: tuple[int, int], data: Path, device: str) -> None:
        self.out, self.model, self.settings, self.shape = out, model, model.settings, shape
        self.slope_name = SLOPE_NAMES[self.settings.slope]
        self.history = History()
        self.curves: list[tuple[int, float, float, float]] = []  # iteration, L1, slope, seconds
        self.snapshots: list[tuple[int, numpy.ndarray]] = []  # iteration, images of one fixed noise
        self.evaluations: list[dict[str, float]] = []
        self.judge = Judge(data) if (data / FILE).exists() else None
        rng, n = numpy.random.default_rng([self.settings.seed, 1]), self.settings.grid**2
        self.fixed_noise = backend.asarray(NOISES[self.settings.noise](rng, (n, self.settings.noise_dim)))
        (out / "samples").mkdir(parents=True, exist_ok=True)
        write_json(out / "settings.json", {**asdict(self.settings), "device": device, "data": str(data)})
        with open(out / "curves.csv", "w", newline="") as file:
            csv.writer(file).writerow(("iteration", "l1", self.slope_name.replace(" ", "_"), "seconds"))
        self.watch = Stopwatch()  # of the training alone

    def read(self) -> tuple[int, float, float, float]:
        """A row of the curves: iteration, mean L1 and slope since the last row, seconds. Raises Diverged."""
        row = (*self.history.read(), self.watch.seconds())
        self.curves.append(row)
        with open(self.out / "curves.csv", "a", newline="") as file:
            csv.writer(file).writerow(row)
        return row

    def snapshot(self) -> None:
        """A grid of samples from the fixed noise, and a checkpoint. Raises Diverged."""
        with self.watch.stopped():
            self.model.check_finite()
            iteration, generator = self.model.iterations, self.model.averaged
            images = backend.to_numpy(generate(generator, self.fixed_noise)).reshape(-1, *self.shape)
            figures.save_grid(self.out / "samples" / f"{iteration:07d}.png", images, self.settings.grid)
            checkpoint = Checkpoint(self.settings, iteration, self.shape, self.model.critic, generator)
            save(self.out / "checkpoint.npz", checkpoint)
            self.snapshots.append((iteration, images[: figures.PANEL**2]))

    def evaluate(self) -> None:
        """The samples' figures, in ``evaluation.json`` beside those of real images."""
        with self.watch.stopped():
            judged = evaluate(self.judge, self.model.critic, self.model.averaged, self.settings)
            self.evaluations.append({"iteration": self.model.iterations, "seconds": self.watch.seconds(), **judged})
            write_json(self.out / "evaluation.json", {"real": self.judge.real, "samples": self.evaluations})

    def summary(self) -> str:
        """How far the training came, in one line."""
        iteration, l1, slope, seconds = self.curves[-1] if self.curves else (0, numpy.nan, numpy.nan, 0.0)
        time = f"{seconds:.1f} s ({1000 * seconds / max(1, iteration):.1f} ms each)"
        return f"{iteration:,} iterations in {time}, L1 {l1:.3f}, {self.slope_name} {slope:.3f}"

    def report(self, summary: str) -> None:
        """The pictures of the whole run, of its last checkpoint, and ``report.html`` with all of them."""
        out, shape = self.out, self.shape
        generator = load(out / "checkpoint.npz").generator  # sound, also where the training ended in divergence
        figures.save_curves(out / "curves.png", self.curves, self.slope_name, self.evaluations)
        figures.save_progress(out / "progress.png", self.snapshots)
        figures.save_animation(out / "animation.gif", self.snapshots)

        def grid(name: str, images: numpy.ndarray) -> Path:
            figures.save_grid(out / name, images.reshape(-1, *shape), report.COLUMNS)
            return out / name

        last = out / "samples" / f"{self.snapshots[-1][0]:07d}.png"
        parts = [
            report.picture("Samples", last, SAMPLES_CAPTION),
            report.picture("Over time", out / "progress.png", PROGRESS, "wide"),
            report.picture("As they grew", out / "animation.gif", ANIMATION, "plain"),
            report.picture("Curves", out / "curves.png", CURVES, "wide"),
        ]
        if self.evaluations:
            samples = draw(generator, self.settings, len(self.judge.test))
            by_class = report.by_class(samples, self.judge.look(samples).probabilities)
            copied = report.beside_nearest(samples, self.judge.train)
            figures_after = FIGURES.format(**self.evaluations[-1])
            parts += [
                report.table("Figures", figures_after, table(self.evaluations[-1], self.judge.real)),
                report.picture("By class", grid("classes.png", by_class), CLASSES),
                report.picture("Learned, or copied?", grid("nearest.png", copied), NEAREST),
            ]
        between = grid("interpolations.png", report.interpolations(generator, self.settings))
        values = [(name, text(value)) for name, value in asdict(self.settings).items()]
        parts += [
            report.picture("Between two noises", between, INTERPOLATIONS),
            report.table("Settings", "", [("setting", "value"), *values]),
        ]
        report.write(out / "report.html", summary, parts)


def draw(generator: MLP, settings: Settings, n: int, seed: int | None = None) -> numpy.ndarray:
    """n samples (n, pixels), float32; the same ones for the same seed, which is the settings' where none is given."""
    rng = numpy.random.default_rng([settings.seed if seed is None else seed, 2])
    samples = numpy.empty((n, *generator.layers[-1].bias.shape), "float32")
    for start in range(0, n, CHUNK):
        part = samples[start : start + CHUNK]
        noise = NOISES[settings.noise](rng, (len(part), settings.noise_dim))
        part[:] = backend.to_numpy(generate(generator, backend.asarray(noise)))
    return samples


def evaluate(
    judge: Judge, critic: MLP, generator: MLP, settings: Settings, seed: int | None = None
) -> dict[str, float]:
    """All figures of as many samples as the judge has test images, and L1 on its training and its test images."""
    samples = draw(generator, settings, len(judge.test), seed)
    return judge(samples) | judge.distances(critic, samples)


def write_json(path: Path, content: Any) -> None:
    with replacing(path) as part:
        part.write_text(json.dumps(content, indent=2) + "\n")
