"""Everything that a run has come to, in one file, from which it goes on."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy

from .. import backend
from ..backend import Array
from ..data import DataError, reading, sampler
from ..judge.evaluation import sound
from ..judge.metrics import in_unit_range
from ..nn import MLP
from ..settings import COUNT, Number, Settings
from ..tools.files import Arrays, write_npz
from ..training import WGANGP, dtype_of, generate, networks, shapes

FILE = "checkpoint.npz"  # in a run's folder
VERSION = 3

Row = tuple[int, float, float, float]  # iteration, L1, slope, seconds of training


@dataclass
class Checkpoint:
    """A run after ``iteration`` iterations on images of ``shape`` (height, width), and of the CRC-32 ``images``.

    ``arrays`` are those of ``WGANGP.state``, and ``rng`` is the state of its generator. ``since`` are the figures of
    the iterations that the next row will be made of, (n, 2), ``snapshots`` the images (n, height, width), uint8, of one
    fixed noise.
    """

    settings: Settings
    iteration: int
    shape: tuple[int, int]
    arrays: dict[str, numpy.ndarray]
    images: int = 0
    rng: Any = None
    seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)
    since: numpy.ndarray = field(default_factory=lambda: numpy.empty((0, 2), "float32"))
    snapshots: list[tuple[int, numpy.ndarray]] = field(default_factory=list)
    evaluations: list[dict[str, float]] = field(default_factory=list)

    def networks(self) -> tuple[MLP, MLP]:
        """The critic, and the generator that draws the samples, on the device in use."""
        critic, generator = networks(self.settings, self.shape[0] * self.shape[1])
        drawing = "averaged" if self.settings.average else "generator"
        for name, network in (("critic", critic), (drawing, generator)):
            for parameter, p in network.named_parameters().items():
                p.data = backend.asarray(self.arrays[f"{name}.{parameter}"], dtype=p.dtype)
        return critic, generator

    def samples(self, noise: Array) -> numpy.ndarray:
        """What the generator makes of ``noise`` (n, noise_dim): images (n, height, width), float32 in [0, 1]."""
        _, generator = self.networks()
        rows = generate(generator, backend.asarray(noise, dtype="float32"))
        return backend.to_numpy(rows).reshape(-1, *self.shape)

    def scores(self, images: numpy.ndarray) -> numpy.ndarray:
        """D of images (n, height, width), uint8 or floats in [0, 1]: (n,), float32, small where they look real."""
        critic, _ = self.networks()
        rows = in_unit_range(images.reshape(len(images), -1))
        return backend.to_numpy(generate(critic, backend.asarray(rows)))[:, 0]

    def model(self, images: numpy.ndarray, replay: bool | str = True) -> WGANGP:
        """The model as it was, on images (n, height, width), uint8: each call of its ``iteration`` goes on training.

        On another kind of device than before, or another model of GPU, it goes on with other random numbers. Raises
        ValueError for images of another size.
        """
        if images.shape[1:] != self.shape:
            raise ValueError(f"expected images (n, {self.shape[0]}, {self.shape[1]})")
        model = WGANGP(self.settings, sampler(images), self.shape[0] * self.shape[1], replay)
        model.restore(self.arrays, self.iteration)
        if not backend.set_rng_state(model.rng, self.rng):
            model.rng = backend.default_rng(self.settings.seed + self.iteration)
        return model


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write an npz file: the arrays by their names, and the rest as a JSON header."""
    saved = vars(checkpoint).copy()
    arrays, snapshots, rng = (saved.pop(name) for name in ("arrays", "snapshots", "rng"))
    parts = {name: saved.pop(name) for name in ("rows", "since")}
    if isinstance(rng, dict):
        saved["rng"] = rng  # the CPU's
    else:
        parts["rng"] = backend.to_numpy(rng)
    header = {**saved, "version": VERSION, "settings": asdict(checkpoint.settings), "grids": [i for i, _ in snapshots]}
    parts["rows"] = numpy.array(parts["rows"]).reshape(-1, 4)
    parts["snapshots"] = numpy.array([images for _, images in snapshots], "uint8")
    write_npz(path, numpy.savez, header=json.dumps(header), **parts, **arrays)


def load(path: Path | str) -> Checkpoint:
    """Read what ``save`` wrote, or that of a run in a folder. Raises DataError."""
    path = Path(path) / FILE if Path(path).is_dir() else Path(path)
    with reading(path, "a checkpoint"), open(path, "rb") as file:
        arrays = Arrays(file)
        header = json.loads(arrays.text("header"))
        version = header.pop("version")
        if version != VERSION:
            raise DataError(f"{path}: has version {version}; expected {VERSION}")
        settings = {name: tuple(v) if isinstance(v, list) else v for name, v in header.pop("settings").items()}
        settings, shape, iteration = Settings(**settings), tuple(header.pop("shape")), header.pop("iteration")
        if len(shape) != 2 or not all(map(COUNT.allows, (*shape, iteration + 1))):
            raise ValueError(f"{iteration} iterations on images of shape {shape}")

        expected, state = shapes(settings, shape[0] * shape[1]), {}
        for name in expected:
            if arrays.shape(name) != expected[name]:
                raise DataError(
                    f"{path}: is of another network: {name} is {arrays.shape(name)}; its settings say {expected[name]}"
                )
            state[name] = arrays.array(name, expected[name], dtype_of(name))

        if "rng" in header:
            numpy.random.PCG64().state = header["rng"]
        else:
            header["rng"] = arrays.array("rng", arrays.shape("rng"), "int8")
        rows = arrays.array("rows", (arrays.shape("rows")[0], 4), "float64")
        since = arrays.array("since", (arrays.shape("since")[0], 2))
        grids = header.pop("grids")
        images = arrays.array("snapshots", (len(grids), arrays.shape("snapshots")[1], *shape), "uint8")
        if not all(map(Number(float, 0).allows, (header["images"], header["seconds"], *grids))):
            raise ValueError("a number is none")
        header["evaluations"] = sound(header["evaluations"])
        return Checkpoint(
            settings,
            iteration,
            shape,
            state,
            rows=[(int(i), *row) for i, *row in rows.tolist()],
            since=since,
            snapshots=list(zip(grids, images)),
            **header,
        )
