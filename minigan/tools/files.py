"""Files that are written whole or not at all, and read without believing what they say of themselves."""

import io
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy
from numpy.lib import format as npy

from ..data import reading

PART = ".part"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to that takes the place of ``path`` once all is written: never half a file, nothing lost.

    It is on the disk before it takes the place, and so is its name after that: whatever ends the machine in between.
    """
    part = path.with_name(f".{path.stem}{PART}{path.suffix}")
    try:
        yield part
        _flush(part)
        os.replace(part, path)
        _flush(path.parent)
    finally:
        part.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows has no folders to flush
    file = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def sweep(folder: Path) -> None:
    """Remove what ``replacing`` left in ``folder`` where it was killed."""
    for part in folder.glob(f".*{PART}.*"):
        part.unlink()


def write_npz(path: Path, save: Callable[..., None], *arrays: numpy.ndarray, **named: Any) -> None:
    """Arrays as ``save``, numpy.savez or numpy.savez_compressed, writes them.

    To memory first: where a write to a file fails, it is left open, and fails again whenever it is collected.
    """
    whole = io.BytesIO()
    save(whole, *arrays, **named)
    with replacing(path) as part:
        part.write_bytes(whole.getbuffer())


def write_text(path: Path, text: str) -> None:
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path, what: str) -> Any:
    """The content of a JSON file of at most 16 MiB, which is ``what``. Raises DataError."""
    with reading(path, what), open(path, "rb") as file:
        return json.loads(file.read(1 << 24))


class Arrays:
    """The arrays of an npz file, which are read only where their headers say what is expected.

    ``compressed`` ones are as large as they say; others as large as the file. Raises ValueError and what else parsers
    raise: to be used inside of ``reading``.
    """

    def __init__(self, file: Any, compressed: bool = False) -> None:
        self._zip = zipfile.ZipFile(file)
        if not compressed and any(info.compress_type != zipfile.ZIP_STORED for info in self._zip.infolist()):
            raise ValueError("its arrays are compressed")

    def __contains__(self, name: str) -> bool:
        return f"{name}.npy" in self._zip.namelist()

    def text(self, name: str) -> str:
        with self._open(name) as (file, shape, dtype):
            if shape != () or dtype.kind != "U":
                raise ValueError(f"{name} is no text, but {dtype} {shape}")
            return str(self._read(file, shape, dtype)[()])

    def shape(self, name: str) -> tuple[int, ...]:
        with self._open(name) as (_, shape, _):
            return shape

    def array(self, name: str, shape: tuple[int, ...], dtype: str = "float32") -> numpy.ndarray:
        """Raises ValueError where the array has another shape or dtype, or holds what is not finite."""
        with self._open(name) as (file, its_shape, its_dtype):
            if (its_shape, its_dtype) != (shape, numpy.dtype(dtype)):
                raise ValueError(f"{name} is {its_dtype} {its_shape}; expected {dtype} {shape}")
            array = self._read(file, shape, its_dtype)
        if array.dtype.kind == "f" and not numpy.isfinite(array).all():
            raise ValueError(f"{name} holds numbers that are not finite")
        return array

    @contextmanager
    def _open(self, name: str) -> Iterator[tuple[Any, tuple[int, ...], numpy.dtype]]:
        with self._zip.open(f"{name}.npy") as file:
            if npy.read_magic(file) != (1, 0):
                raise ValueError(f"{name} is in another version of the format")
            shape, fortran_order, dtype = npy.read_array_header_1_0(file)
            if fortran_order or dtype.hasobject:
                raise ValueError(f"{name} is laid out in another way")
            yield file, shape, dtype

    @staticmethod
    def _read(file: Any, shape: tuple[int, ...], dtype: numpy.dtype) -> numpy.ndarray:
        array = numpy.empty(shape, dtype)
        data = array.reshape(-1).view("uint8")
        if file.readinto(data) != array.nbytes or file.read(1):
            raise ValueError("an array is of another length than it says")
        return array
