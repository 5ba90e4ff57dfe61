"""Files that are written whole or not at all, in folders to which one process at a time writes."""

import errno
import io
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from string import Template
from typing import Any

fcntl: Any
msvcrt: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
try:
    import msvcrt
except ImportError:
    msvcrt = None

PART = ".minigan-part"
PATIENCE = 1.0  # seconds that a file which another program holds open is waited for


class Held(OSError):
    """Another program holds the file open, as on Windows, and it cannot be replaced meanwhile."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to, which replaces ``path`` at the end: never half a file, and no old file lost.

    The data is flushed to disk before the replacement, and the folder after it, in case the machine stops in between.
    """
    part = path.with_name(f".{path.stem}{PART}{path.suffix}")
    try:
        yield part
        _flush(part)
        _replace(part, path)
        _flush(path.parent)
    except Held:
        raise
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None
    finally:
        part.unlink(missing_ok=True)


def _replace(part: Path, path: Path) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return os.replace(part, path)
        except PermissionError as error:
            if time.monotonic() > end:
                raise Held(error.errno, "another program holds it open", str(path)) from None
            time.sleep(0.02)


def _flush(path: Path) -> None:
    if sys.platform == "win32" and path.is_dir():
        return  # Windows has no folders to flush
    file = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        if hasattr(fcntl, "F_FULLFSYNC"):  # macOS, where fsync does not reach the disk
            fcntl.fcntl(file, fcntl.F_FULLFSYNC)
        else:
            os.fsync(file)
    finally:
        os.close(file)


def write(path: Path, content: bytes | str) -> None:
    """Write a whole file. Raises Held if another program holds it open."""
    with replacing(path) as part:
        # a path in it may hold bytes that are no text
        part.write_bytes(content.encode(errors="backslashreplace") if isinstance(content, str) else content)


def write_if_free(path: Path, content: bytes | str, or_beside: bool = False) -> None:
    """Write a file that a run can do without: if another program holds it open it stays as it was, with a warning.

    What must not be lost is then written ``or_beside`` it, under another name, which the warning gives.
    """
    try:
        write(path, content)
    except Held as error:
        new = ""
        if or_beside:
            write(beside := path.with_stem(f"{path.stem}-new"), content)
            new = f"; the new one is {beside}: rename it to go on from there"
        warnings.warn(f"{path}: {error.strerror}, and it stays as it was{new}", stacklevel=2)


def filled(template: Path, **slots: object) -> str:
    """The text of a template with its slots filled; the slot ``head`` is the beginning that all pages share."""
    head = Template(Path(__file__).with_name("head.html").read_text(encoding="utf-8")).safe_substitute(slots)
    return Template(template.read_text(encoding="utf-8")).substitute(slots, head=head)


def as_json(content: Any) -> str:
    return json.dumps(content, indent=2) + "\n"


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
    file = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)  # somebody's own, or a pipe, is left as it is
    try:
        try:
            _lock(file)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                raise BlockingIOError(0, "another run is writing there") from None
            warnings.warn(
                f"{folder}: no locks there ({error.strerror}): two runs would not notice each other", stacklevel=3
            )
        for part in (*folder.glob(f".*{PART}.*"), *folder.glob(f"samples/.*{PART}.*")):
            if part.is_file():
                part.unlink()  # of a process that was killed
        yield
    finally:
        os.close(file)


def _lock(file: int) -> None:
    """Lock a file until it is closed or the process ends. Raises OSError where another process has locked the file."""
    if fcntl:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    elif msvcrt:
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    else:
        raise OSError(errno.ENOSYS, "the system has none")
