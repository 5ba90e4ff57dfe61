"""A run: a model in training, and its metrics and samples so far. All of it is saved in a checkpoint, to resume from.

Of the files in a run's folder only the checkpoint is read; all others are only written.
"""

import csv
import io
import json
import math
import time
import zlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy

from .. import backend
from ..backend import Array
from ..data import MNIST, DataError, reading, sampler
from ..settings import NOISES, Settings
from ..training import WGANGP, DivergenceError, outputs
from . import pictures
from .files import as_json, in_memory, write_if_free
from .images import in_unit_range, read_arrays

FILE = "checkpoint.npz"  # in a run's folder
VERSION = 6
BUNDLED = "the bundled MNIST"  # wherever the program lies
EVALUATION = ("iteration", "seconds", "frechet", "units", "precision", "recall", "nearest", "l1_train", "l1_test")
# what it leaves beside the checkpoint, and which nobody's own file is to be replaced by
LEFT = ["report.html", "samples.png", "progress.png", "animation.gif", "curves.png"]
LEFT += ["classes.png", "nearest.png", "settings.json", "curves.csv", "evaluation.json"]
SNAPSHOTS = 100  # at most, that a checkpoint keeps
CHUNK = 10_000  # samples computed at a time

Row = tuple[int, float, float, float]  # iteration, mean L1 and mean slope since the row before, seconds of training


class Run:
    """A model ``gan`` of images of ``shape`` (height, width), and the metrics and samples of its training.

    ``done`` is the number of its iterations.

    ``metadata`` has ``data``, the path of the images (or BUNDLED), ``size``, to which pictures were resized, or None,
    ``crc32`` of all pixels, ``workers``, ``threads``, ``kernels`` and ``device``; and, where it was resumed in another
    way than before, ``changed_at``, the last such iteration. ``pending`` are the metrics (2,) of the iterations since
    the last of ``rows``, ``snapshots`` samples of one fixed noise, ``seconds`` the time of the training alone.
    """

    def __init__(self, settings: Settings, shape: tuple[int, int], metadata: dict[str, Any]) -> None:
        self.gan = WGANGP(settings, None, shape[0] * shape[1])
        self.shape, self.metadata, self.seconds = shape, metadata, 0.0
        self.rows: list[Row] = []
        self.pending: list[Array] = []
        self.snapshots: list[pictures.Snapshot] = []
        self.evaluations: list[dict[str, Any]] = []
        rng = numpy.random.default_rng([settings.seed, 1])
        self.fixed_noise = backend.on_device(NOISES[settings.noise](rng, (settings.grid**2, settings.noise_dim)))

    @property
    def settings(self) -> Settings:
        return self.gan.settings

    @property
    def source(self) -> Path:
        """The folder or file of its images."""
        return MNIST if self.metadata["data"] == BUNDLED else Path(self.metadata["data"])

    @property
    def done(self) -> int:
        return self.gan.done

    @property
    def samples_kept(self) -> int:
        """The number of samples that are kept of each grid."""
        return min(self.settings.grid**2, pictures.panel_side(self.shape) ** 2)

    def model(self, images: numpy.ndarray) -> WGANGP:
        """The model, which is to train on images (n, height, width), uint8: each ``iteration()`` of it does.

        Raises ValueError for images of another size.
        """
        if images.shape[1:] != self.shape:
            raise ValueError(f"expected images (n, {self.shape[0]}, {self.shape[1]}), got {images.shape}")
        self.gan.sample_real = sampler(images)
        return self.gan

    def samples(self, noise: Array) -> numpy.ndarray:
        """The generator's samples from ``noise`` (n, noise_dim): images (n, height, width), float32 in [0, 1]."""
        rows = outputs(self.gan.ema, backend.on_device(noise, dtype="float32"))
        return backend.to_numpy(rows).reshape(-1, *self.shape)

    def new_samples(self, n: int, seed: int | None = None) -> numpy.ndarray:
        """n samples (n, height, width), the same for the same seed; the default is the seed of the settings."""
        rng = numpy.random.default_rng([self.settings.seed if seed is None else seed, 2])
        images = numpy.empty((n, *self.shape), "float32")
        for start in range(0, n, CHUNK):
            part = images[start : start + CHUNK]
            part[...] = self.samples(NOISES[self.settings.noise](rng, (len(part), self.settings.noise_dim)))
        return images

    def scores(self, images: numpy.ndarray) -> numpy.ndarray:
        """The scores D (n,) of images (n, height, width), uint8 or floats in [0, 1]: float32, small for real images."""
        rows = in_unit_range(images.reshape(len(images), -1))
        return backend.to_numpy(outputs(self.gan.critic, backend.on_device(rows)))[:, 0]

    # --- During training ------------------------------------------------------------------------

    def advance(self, iteration: Callable[[], Array]) -> Row | None:
        """Train by an ``iteration()`` of the model, or of what makes it faster; returns a row of metrics if one is due.

        A row is due at every iteration up to 999, at every 10th up to 9,999, and so on; and whenever samples are due,
        or their evaluation. Raises DivergenceError for a metric that is NaN or infinite.
        """
        start = time.perf_counter()
        self.pending.append(iteration().copy())
        i, s = self.done, self.settings
        due = i % s.sample_every == 0 or i % s.evaluate_every == 0 or i % 10 ** max(0, len(str(i)) - 3) == 0
        values = backend.to_numpy(backend.xp.stack(self.pending)) if due else None  # on a GPU this may wait
        self.seconds += time.perf_counter() - start
        if values is None:
            return None
        for at, (l1, slope) in enumerate(values, i + 1 - len(values)):
            if not (math.isfinite(l1) and math.isfinite(slope)):
                raise DivergenceError(f"training diverged: L1 {l1:.4g} and slope {slope:.4g} at iteration {at}")
        self.rows.append((i, *values.mean(axis=0, dtype="float64").tolist(), self.seconds))
        self.pending.clear()
        return self.rows[-1]

    def due(self, every: int) -> bool:
        """Whether what happens ``every`` so many iterations, and at the last one, is due now."""
        return self.done % every == 0 or self.done == self.settings.iterations

    def draw_grid(self, folder: Path) -> None:
        """Write a grid of samples of the fixed noise to ``folder``; keep its first samples, of about 100 grids."""
        images = pictures.to_bytes(self.samples(self.fixed_noise))
        (folder / "samples").mkdir(exist_ok=True)
        write_if_free(folder / "samples" / f"{self.done:07d}.png", pictures.grid(images, self.settings.grid))
        thinned, every = False, self.settings.sample_every
        while self.done // every >= SNAPSHOTS:
            thinned, every = True, 2 * every
        kept = [(i, x) for i, x in self.snapshots if i < self.done and not (thinned and i % every)]
        self.snapshots = [*kept, (self.done, images[: self.samples_kept])]

    def evaluate(self, folder: Path, judge: Any, seed: int | None = None) -> None:
        """Evaluate samples by a ``judge.Judge``; a second evaluation at an iteration replaces the first."""
        samples = self.new_samples(len(judge.test), seed)
        metrics = judge(samples.reshape(len(samples), -1), self.gan.critic)
        row = {"iteration": self.done, "seconds": self.seconds, **metrics}
        before = [row for row in self.evaluations if row["iteration"] < self.done]
        self.evaluations = [*before, {name: row[name] for name in EVALUATION}]
        write_if_free(folder / "evaluation.json", as_json({"real": judge.real, "samples": self.evaluations}))

    def go_on(self, settings: Settings) -> None:
        """Resume with new lengths; drop a last snapshot and evaluation that were made only because the run ended."""
        before, self.gan.settings = self.settings, settings
        if settings.iterations > self.done:
            self.snapshots = [held for held in self.snapshots if held[0] % before.sample_every == 0]
            self.evaluations = [row for row in self.evaluations if row["iteration"] % before.evaluate_every == 0]

    def save(self, folder: Path) -> None:
        """Write the checkpoint, and settings and curves to read. Raises DivergenceError for numbers not finite."""
        rng = backend.rng_state(self.gan.rng)
        header = {"version": VERSION, "settings": asdict(self.settings), "shape": self.shape, **self.metadata}
        header |= {"iteration": self.done, "seconds": self.seconds}
        arrays = {name: backend.to_numpy(x) for name, x in self.gan.state().items()}
        images = [images for _, images in self.snapshots]
        judged = [[row[name] for name in EVALUATION] for row in self.evaluations]
        arrays |= {
            "header": numpy.array(json.dumps(header)),
            "rng": numpy.array(json.dumps(rng)) if isinstance(rng, dict) else backend.to_numpy(rng),
            "rows": numpy.array(self.rows, "float64").reshape(-1, 4),
            "pending": numpy.array([backend.to_numpy(x) for x in self.pending], "float32").reshape(-1, 2),
            "grids": numpy.array([i for i, _ in self.snapshots], "int64"),
            "snapshots": numpy.array(images, "uint8").reshape(len(images), self.samples_kept, *self.shape),
            "evaluations": numpy.array(judged, "float64").reshape(-1, len(EVALUATION)),
        }
        for name, x in arrays.items():  # the judge has looked at its own, of which some may not be had (NaN)
            if name != "evaluations" and x.dtype.kind == "f" and not numpy.isfinite(x).all():
                raise DivergenceError(f"training diverged: {name} holds numbers that are no longer finite")
        write_if_free(folder / FILE, in_memory(numpy.savez, **arrays, seal=seal(arrays)), or_beside=True)
        typed = {name.rstrip("_"): value for name, value in asdict(self.settings).items()}
        write_if_free(folder / "settings.json", as_json({**typed, **self.metadata}))
        self.write_curves(folder)

    def write_curves(self, folder: Path) -> None:
        table = io.StringIO()
        csv.writer(table).writerows([("iteration", "l1", "slope", "seconds"), *self.rows])
        write_if_free(folder / "curves.csv", table.getvalue())

    # --- In words -------------------------------------------------------------------------------

    def summary(self) -> str:
        """The progress of the run, in one line."""
        time = f"{self.seconds:.1f} s ({1000 * self.seconds / max(1, self.done):.1f} ms each)"
        _, l1, slope, _ = self.rows[-1] if self.rows else (0, math.nan, math.nan, 0)
        return f"{self.done:,} iterations in {time}, L1 {l1:.3f}, slope {slope:.3f}"

    def collapse(self) -> str | None:
        """A warning if the last tenth of the metrics shows that training has collapsed, else None."""
        last = numpy.abs(self.rows[-max(1, len(self.rows) // 10) :]).reshape(-1, 4)
        if (last[:, 1:3] < 5e-4).all():
            return "the critic is flat: L1 and its slope are 0, and the generator has nothing to learn from"
        if (last[:, 1] > 1e4).all():
            far = f"the critic has run away: an L1 of {last[-1, 1]:.3g} is no distance"
            return f"{far}; a penalty or a constraint holds it"
        return None


def seal(arrays: dict[str, numpy.ndarray]) -> int:
    """A number that tells whether a checkpoint's arrays are those that were saved, which are all finite, and fit."""
    crc = 0
    for name, x in sorted(arrays.items()):
        crc = zlib.crc32(f"{name} {x.dtype} {x.shape}".encode() + x.tobytes(), crc)
    return crc


def load(path: Path | str) -> Run:
    """The run that ``save`` wrote in a folder, on the device in use. Raises DataError for any other file.

    >>> run = load("out")
    >>> run.new_samples(16).shape  # float32 in [0, 1]
    (16, 28, 28)

    On another kind of device than before, or another model of GPU, the run continues with other random numbers.
    """
    path = Path(path) / FILE if Path(path).is_dir() else Path(path)
    with reading(path, "a checkpoint"):
        arrays = read_arrays(path)
        header = json.loads(str(arrays["header"]))
        if (version := header.pop("version")) != VERSION:
            raise DataError(f"{path}: has version {version}; expected {VERSION}")
        if arrays.pop("seal") != seal(arrays):
            raise DataError(f"{path}: was changed after it had been saved")
        given: Any = {name: tuple(v) if isinstance(v, list) else v for name, v in header.pop("settings").items()}
        seconds, iteration, shape = (header.pop(name) for name in ("seconds", "iteration", "shape"))
        run = Run(Settings(**given), tuple(shape), header)
        run.gan.restore(arrays)
        run.gan.done = iteration
        state = (
            dict(json.loads(str(arrays["rng"]))) if arrays["rng"].dtype.kind == "U" else arrays["rng"].astype("int8")
        )
        if not backend.set_rng_state(run.gan.rng, state):
            run.gan.rng = backend.default_rng(run.settings.seed + iteration)
        run.seconds, run.pending = seconds, list(backend.on_device(arrays["pending"]))
        run.rows = [(int(i), *row) for i, *row in arrays["rows"].tolist()]
        run.snapshots = list(zip(arrays["grids"].tolist(), arrays["snapshots"]))
        judged = [dict(zip(EVALUATION, [int(i), *row])) for i, *row in arrays["evaluations"].tolist()]
        run.evaluations = [{name: None if x != x else x for name, x in row.items()} for row in judged]
        return run
