"""Files that are written whole or not at all, in folders that one process at a time writes to."""

import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from string import Template
from typing import Any

PART = ".minigan-part"


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
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None
    finally:
        part.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    if sys.platform == "win32" and path.is_dir():
        return  # Windows has no folders to flush
    file = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def write(path: Path, content: bytes | str) -> None:
    with replacing(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


def filled(template: Path, **slots: object) -> str:
    """A template with its slots filled, ``head`` with what every page begins with."""
    head = Template(Path(__file__).with_name("head.html").read_text(encoding="utf-8")).safe_substitute(slots)
    return Template(template.read_text(encoding="utf-8")).substitute(slots, head=head)


def write_json(path: Path, content: Any) -> None:
    write(path, json.dumps(content, indent=2) + "\n")


def in_memory(save: Callable[..., None], *args: Any, **named: Any) -> bytes:
    """What ``save(file, ...)`` writes.

    Where a write to a real file fails, NumPy and others leave it open, and it fails again whenever it is collected.
    """
    file = io.BytesIO()
    save(file, *args, **named)
    return file.getvalue()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder, and let no other process in here meanwhile. Raises BlockingIOError where one is."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as file:
        try:
            _lock(file.fileno())
        except OSError:
            raise BlockingIOError(0, "another run is writing there", str(folder)) from None
        for part in (*folder.glob(f".*{PART}.*"), *folder.glob(f"samples/.*{PART}.*")):
            if part.is_file():
                part.unlink()  # of a process that was killed
        yield


def _lock(file: int) -> None:
    """Raises OSError where another process has locked the file; the lock goes with the process."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
