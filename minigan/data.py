"""Images from IDX files: the bundled MNIST, or any folder in the same format."""

import gzip
import math
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy

from . import backend
from .backend import Array

MNIST = Path(__file__).parent / "mnist"

UNSIGNED_BYTE = 0x08


class DataError(ValueError):
    """A file is missing or damaged; the message names it and says what is wrong."""


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Whatever goes wrong inside with the file at ``path``, which should be ``what``, is a DataError of one line."""
    try:
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # opening a pipe would wait for somebody to write
            raise DataError(f"{path}: not a regular file")
        yield
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    except Exception as error:  # a parser given another's bytes may raise anything
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(f"{path}: not {what}, or a damaged one ({reason})") from None


def read_idx(path: Path, ndim: int) -> numpy.ndarray:
    """The unsigned bytes of an IDX file, gzipped or not, as an array of ``ndim`` axes.

    The format: two zero bytes, the type, the number of axes, each axis's size as a big-endian 32-bit integer, the data.
    Raises DataError where any of it is not as expected. No memory is taken on the word of the header: what is read is
    never more than what the file holds, nor more than the header announces.
    """
    with reading(path, "an IDX file"), gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
        try:
            magic = file.read(4)
            if len(magic) < 4 or magic[:2] != b"\0\0":
                raise DataError(f"{path}: not an IDX file: expected it to begin with two zero bytes")
            if magic[2] != UNSIGNED_BYTE:
                raise DataError(f"{path}: holds type 0x{magic[2]:02x}; expected 0x08, unsigned bytes")
            if magic[3] != ndim:
                raise DataError(f"{path}: has {magic[3]} dimensions; expected {ndim}")
            header = file.read(4 * ndim)
            shape = tuple(int.from_bytes(header[i : i + 4], "big") for i in range(0, len(header), 4))
            if len(header) < 4 * ndim or 0 in shape:
                raise DataError(f"{path}: expected {ndim} dimensions of at least 1, got {shape}")
            size, body = math.prod(shape), bytearray()
            while len(body) <= size and (chunk := file.read(1 << 20)):
                body += chunk
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(f"{path}: damaged gzip file ({error})") from None
    if len(body) != size:
        held = f"{len(body)} bytes" if len(body) < size else "more"
        raise DataError(f"{path}: the header announces {size} bytes of data, {shape}, but the file holds {held}")
    return numpy.frombuffer(body, numpy.uint8).reshape(shape)


def load_images(folder: Path = MNIST, split: str = "train") -> numpy.ndarray:
    """The images of ``split`` ("train" or "t10k") in a folder of IDX files: (n, height, width), uint8.

    The file is ``{split}-images-idx3-ubyte``, or with a dot before idx3, either of them gzipped or not. Raises
    DataError where there is none, or where it is damaged.
    """
    return _load(folder, f"{split}-images", ndim=3)


def load_labels(folder: Path = MNIST, split: str = "train") -> numpy.ndarray:
    """The classes of those images: (n,), uint8, from ``{split}-labels-idx1-ubyte`` and its variants; errors alike."""
    return _load(folder, f"{split}-labels", ndim=1)


def _load(folder: Path, stem: str, ndim: int) -> numpy.ndarray:
    names = [f"{stem}{dot}idx{ndim}-ubyte{gz}" for dot in "-." for gz in ("", ".gz")]
    for name in names:
        if (folder / name).is_file() or (folder / name).is_fifo():  # Kaggle's has a folder of the one name as well
            return read_idx(folder / name, ndim)
    raise DataError(f"{folder}: expected a folder with a file {names[0]} or {names[1]}")


def sampler(images: numpy.ndarray) -> Callable[[int, Any], Array]:
    """The function draw(n, rng) of n images, with replacement, as rows (n, pixels), float32 in [0, 1], on the device.

    ``images`` (count, ...), uint8, move to the device in use once, and stay there one byte a pixel.
    """
    rows = backend.asarray(images.reshape(len(images), -1))

    def draw(n: int, rng: Any) -> Array:
        pixels = backend.xp.take(rows, rng.integers(0, len(rows), size=n), axis=0).astype("float32")
        pixels /= 255
        return pixels

    return draw
