"""How a run begins, or is opened again: its images, what it computes with, and what is refused before it writes."""

import math
import os
import zlib
from argparse import Namespace
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy

from ..data import MNIST, DataError
from ..fast import threads
from ..settings import PRESETS
from .cli import InputError
from .images import kind_of, load_images
from .progress import warn
from .run import BUNDLED, FILE, LEFT, Run, load


def begin(args: Namespace, given: dict[str, Any]) -> tuple[Run, numpy.ndarray]:
    """A new run, and its images."""
    refuse_another_run(args.out)
    try:
        settings = replace(PRESETS[args.preset], **given)
    except ValueError as error:
        raise InputError(str(error)) from None
    data = args.data or MNIST
    if kind_of(data) == "pictures" and args.out.resolve().is_relative_to(data.resolve()):
        raise InputError(f"--out {args.out} lies in --data {data}, which would then hold the run's own pictures")
    images = read_images(data, args.size)
    about = {"data": name_of(data), "size": args.size, "crc32": zlib.crc32(images.data)}
    run = Run(settings, images.shape[1:], about)
    compute_with(run, args, 1, threads.threads_for(settings, images[0].size))
    return run, images


def name_of(data: Path) -> str:
    return BUNDLED if data.resolve() == MNIST.resolve() else str(data.resolve())


def find(folder: Path) -> None:
    """Raises DataError where a folder holds no run."""
    if not (folder / FILE).exists():
        raise DataError(f"{folder / FILE}: there is no such file; expected the checkpoint of a run")


def reopen(args: Namespace, given: dict[str, Any]) -> Run:
    """The run in ``args.out``; flags may give other data, workers and threads, and, to resume, other lengths."""
    run = load(args.out / FILE)
    data = args.data or run.source
    pictures = args.mode != "generate" and data.exists() and kind_of(data) == "pictures"
    size = args.size or (run.metadata["size"] if pictures else None)
    run.metadata |= {"data": name_of(data), "size": size}
    compute_with(run, args, run.metadata["workers"], run.metadata["threads"])
    if args.mode == "resume":
        if (
            run.settings.decay != "constant"
            and given.get("iterations", run.settings.iterations) != run.settings.iterations
        ):
            run.metadata["changed_at"] = run.done
        run.go_on(replace(run.settings, **given))
        if run.settings.iterations < run.done:
            raise InputError(f"--resume: the run in {args.out} is at iteration {run.done:,} already")
    return run


def its_images(args: Namespace, run: Run) -> numpy.ndarray:
    images = read_images(run.source, run.metadata["size"])
    refuse_other_images(args, run, images)
    return images


def compute_with(run: Run, args: Namespace, workers: int, number: int) -> None:
    """Note what the run computes with: the flags' workers and threads, or those given here."""
    pixels, before = math.prod(run.shape), run.metadata.get("kernels")
    workers = args.workers or (workers if args.device == "cpu" else 1)
    if workers > 1 and args.device == "gpu":
        raise InputError(f"--workers {workers} share an iteration on the CPU; on the GPU it is one")
    if workers > pixels:
        raise InputError(f"--workers {workers}: expected at most {pixels}, one for each pixel of an image")
    if workers > 1 and run.settings.constraint == "spectral":
        warn("spectral layers train by one worker, since each needs its whole weight")
        workers = 1
    number = args.threads or (number if workers == 1 else 1)
    by = {"workers": workers, "threads": number, "kernels": threads.kernels(), "device": args.device}
    if args.mode == "resume" and by != {name: run.metadata[name] for name in by}:
        run.metadata["changed_at"] = run.done
    run.metadata |= by
    threads.use_threads(number)
    if args.mode == "resume" and args.device == "cpu" and before != threads.kernels():
        warn(f"its matrices were multiplied by kernels for a {before}: it goes on up to rounding, not bit for bit")


def as_saved(run: Run, folder: Path, error: Exception) -> Run:
    """The run as it was saved last, with all metrics of one that an error ended, of which a line tells."""
    saved = load(folder)
    warn(f"error: {error}; {folder / FILE} keeps iteration {saved.done}")
    saved.rows = run.rows
    saved.write_curves(folder)
    return saved


def read_images(data: Path, size: int | None) -> numpy.ndarray:
    """The images; with a line about them. Pixels that use little of their range look like nothing, and train to it."""
    if find_spec("matplotlib") is None:
        raise InputError("matplotlib is not installed, which draws: python -m pip install -r requirements.txt")
    images = load_images(data, size=size)
    print(described(images, data), flush=True)
    return images


def described(images: numpy.ndarray, source: Path) -> str:
    height, width = images.shape[1:]
    pixels = f"{images.min()} to {images.max()}{' only, of 0 to 255' if numpy.ptp(images) < 128 else ''}"
    return f"{len(images):,} images of {width} x {height}, {pixels} (mean {images.mean():.0f}), from {source}"


def refuse_another_run(out: Path) -> None:
    """Raises InputError where a new run would overwrite a run that has done an iteration, or somebody's own files."""
    if (out / FILE).exists() and load(out / FILE).done:
        raise InputError(
            f"--out {out} already holds a run: --resume goes on with it; or name another folder, or remove it"
        )
    theirs = [name for name in LEFT if os.path.lexists(out / name)]
    theirs += [f"samples/{path.name}" for path in (out / "samples").glob("[!.]*") if path.stem != "0000000"]
    if theirs and not (out / FILE).exists():
        raise InputError(f"--out {out} holds {theirs[0]} and no run: it would be replaced; name another folder")


def refuse_other_images(args: Namespace, run: Run, images: numpy.ndarray) -> None:
    """Raises InputError for images, or rows of them, that the run was not trained on."""
    shapes = run.shape, (run.shape[0] * run.shape[1],)
    if images.shape[1:] not in shapes or zlib.crc32(images.data) != run.metadata["crc32"]:
        data = args.data or run.source
        raise InputError(f"--data {data} holds other images than the run in {args.out} was trained on")
