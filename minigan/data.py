"""The images of MNIST, or of any folder of IDX files as MNIST's, and batches of them on the device.

Such a folder holds ``train-images-idx3-ubyte``, ``t10k-labels-idx1-ubyte``, ..., gzipped or not.
"""

import gzip
import math
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy

from . import backend
from .backend import Array

MNIST = Path(__file__).parent / "mnist"
SPLITS = {"train": "train", "test": "t10k"}  # and how the files' names begin
LFS = b"version https://git-lfs"  # how Git's large file storage marks the absence of a file


class DataError(ValueError):
    """A file is missing or damaged; the message names it and says what is wrong."""


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turn any error inside, where the file at ``path`` is read as ``what``, into a DataError of one line."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for a writer
            raise DataError(f"{path}: not a regular file")
        with open(path, "rb") as file:
            if file.read(len(LFS)) == LFS:
                raise DataError(f"{path}: a pointer of Git LFS, and not the file itself, which git lfs pull brings")
        yield
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    except Exception as error:  # a parser may raise anything for bytes of another format
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(f"{path}: not {what}, or a damaged one ({reason})") from None


def load_images(folder: Path | str = MNIST, split: str = "train") -> numpy.ndarray:
    """The images of a split, "train" or "test": (n, height, width), uint8. Raises DataError where there are none."""
    return read_idx(_path(Path(folder), split, "images", 3), 3)


def load_labels(folder: Path | str = MNIST, split: str = "train") -> numpy.ndarray:
    """The classes of the images of a split: (n,), uint8. Raises DataError where they are missing or damaged."""
    return read_idx(_path(Path(folder), split, "labels", 1), 1)


def _path(folder: Path, split: str, what: str, ndim: int) -> Path:
    stem = f"{SPLITS[split]}-{what}"
    names = [f"{stem}{dot}idx{ndim}-ubyte{gz}" for dot in "-." for gz in ("", ".gz")]
    for name in names:
        if (folder / name).is_file() or (folder / name).is_fifo():  # Kaggle's MNIST has such a folder too
            return folder / name
    raise DataError(f"{folder}: expected a folder with a file {names[0]} or {names[1]}")


def read_idx(path: Path, ndim: int) -> numpy.ndarray:
    """The unsigned bytes of an IDX file, gzipped or not, as an array of ``ndim`` axes.

    The format: two zero bytes, the type (8), the number of axes, each axis's size as a big-endian 32-bit integer, the
    data. Raises DataError where the file differs from this.
    """
    with reading(path, "an IDX file"):
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":  # whatever its name is: browsers unzip files, and keep their names
            data = gzip.decompress(data)
        if data[:4] != bytes((0, 0, 8, ndim)):
            raise ValueError(f"expected it to begin with 0, 0, 8 for unsigned bytes, {ndim} for the number of axes")
        start = 4 + 4 * ndim
        shape = tuple(int.from_bytes(data[i : i + 4], "big") for i in range(4, start, 4))
        if len(data) - start != math.prod(shape) or 0 in shape:
            raise ValueError(f"the header announces {shape} bytes of data, the file holds {len(data) - start}")
        return numpy.frombuffer(data, numpy.uint8, offset=start).reshape(shape)


# --- On the device ------------------------------------------------------------------------------


def sampler(images: numpy.ndarray) -> Callable[[int, Any], Array]:
    """A function draw(n, rng) to n images, with replacement, as rows (n, pixels), float32 in [0, 1], on the device.

    ``images`` (count, ...), uint8, are copied to the device in use once, and take one byte a pixel there.
    """
    rows = backend.on_device(images.reshape(len(images), -1))

    def draw(n: int, rng: Any) -> Array:
        pixels = backend.xp.take(rows, rng.integers(0, len(rows), size=n), axis=0)
        return backend.xp.divide(pixels, 255, dtype="float32")

    return draw
