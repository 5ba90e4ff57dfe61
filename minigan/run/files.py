"""Files that are written whole or not at all, in folders to which one process at a time writes."""

import errno
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
    """A temporary path to write to, which replaces ``path`` at the end: never half a file, and no old file lost.

    The data is flushed to disk before the replacement, and the folder after it, in case the machine stops in between.
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
    """The text of a template with its slots filled; the slot ``head`` is the beginning that all pages share."""
    head = Template(Path(__file__).with_name("head.html").read_text(encoding="utf-8")).safe_substitute(slots)
    return Template(template.read_text(encoding="utf-8")).substitute(slots, head=head)


def write_json(path: Path, content: Any) -> None:
    write(path, json.dumps(content, indent=2) + "\n")


def in_memory(save: Callable[..., None], *args: Any, **named: Any) -> bytes:
    """The bytes that ``save(file, ...)`` writes.

    After a failed write to a real file, NumPy and others leave the file open, and closing it later fails again.
    """
    file = io.BytesIO()
    save(file, *args, **named)
    return file.getvalue()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder, and lock it for this process. Raises BlockingIOError where another process has locked it."""
    if folder.is_symlink() and not folder.exists():
        raise FileNotFoundError(errno.ENOENT, "is a link that leads nowhere", str(folder))
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as file:
        try:
            _lock(file.fileno())
        except OSError:
            raise BlockingIOError(0, "another run is writing there") from None
        for part in (*folder.glob(f".*{PART}.*"), *folder.glob(f"samples/.*{PART}.*")):
            if part.is_file():
                part.unlink()  # of a process that was killed
        yield


def _lock(file: int) -> None:
    """Lock a file until it is closed or the process ends. Raises OSError where another process has locked the file."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
