"""Shared by the command lines: flags checked as they are parsed, one-line errors, and endings by signals."""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from ..backend import DeviceError
from ..data import DataError
from ..settings import Number
from ..training import DivergenceError

ENDS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)
]  # ask to end
FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130  # exit statuses; in shells, 128 + a signal's number means that signal


class InputError(ValueError):
    """The arguments do not fit each other, or the existing files; the message says how."""


# --- Flags --------------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, without the usage above it, with status 2."""

    def error(self, message: str) -> NoReturn:
        message += " (a flag takes one folder or file: for pictures, their folder)" * message.startswith("unrecognized")
        self.exit(BAD_INPUT, f"{self.prog}: error: {' '.join(message.splitlines())}\n")


def number(allowed: Number) -> Callable[[str], Any]:
    """An argparse type: a number that ``allowed`` allows."""

    def parse(text: str) -> Any:
        try:
            value = allowed.kind(text)
        except ValueError:
            value = None
        if not allowed.allows(value):
            raise argparse.ArgumentTypeError(f"expected {allowed}, got {text!r}")
        return value

    return parse


def path(text: str) -> Path:
    """An argparse type: the path of a file or folder."""
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError(f"expected a path, got {text!r}")
    return Path(os.path.expanduser(text))


# --- Endings ------------------------------------------------------------------------------------


@contextmanager
def one_line_errors(parser: Parser, args: argparse.Namespace) -> Iterator[None]:
    """End the program with one line on bad input, on an unusable device, file or size, and on Ctrl-C.

    ``args`` has ``device`` and ``out`` (or ``data``, where the program writes to that), which the line names.
    """
    try:
        yield
    except DeviceError as error:
        parser.error(f"--device {args.device}: {error}")
    except (InputError, DataError, DivergenceError) as error:
        parser.error(str(error))
    except MemoryError as error:
        parser.error(f"not enough memory for these sizes: {error}")
    except OSError as error:
        flag, where = ("--out", Path(args.out)) if "out" in args else ("--data", Path(args.data))
        named = Path(error.filename or where)
        its = named.is_relative_to(where) or where.is_relative_to(named)
        what, why = f"{flag} {where}" if its else str(named), error.strerror or error
        parser.error(f"{what}: {why}{f' ({named})' if its and named != where else ''}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


class Unbroken:
    """An output stream that does not fail.

    Characters that its encoding lacks are escaped; text that can no longer be written, as to a closed pipe, is dropped.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = open(os.devnull, "w") if stream is None else stream  # noqa: SIM115 (None: closed at the start)
        if hasattr(self._stream, "reconfigure"):  # a file's name may hold bytes that are no text in this locale
            self._stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        self._try(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, action: Callable[..., Any], *args: str) -> None:
        try:
            action(*args)
        except OSError:  # a closed pipe or terminal, a full disk
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())  # for the text still in the buffer
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def unbroken_output() -> Iterator[None]:
    """Inside, errors of standard output and standard error do not end the program."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(Unbroken, before)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


@contextmanager
def endings() -> Iterator[list[int]]:
    """Yields a list of the received signals that ask the program to end: Ctrl-C, a kill, or a closed terminal.

    After the first signal the program ends by itself; a second signal raises KeyboardInterrupt.
    """
    received: list[int] = []

    def note(number: int, _: Any) -> None:
        received.append(number)
        if len(received) > 1:
            raise KeyboardInterrupt

    # signals ignored at the start stay ignored: under nohup a closed terminal, in the background Ctrl-C
    heard = [number for number in ENDS if signal.getsignal(number) is not signal.SIG_IGN]
    heard = heard if threading.current_thread() is threading.main_thread() else []  # where alone Python hears them
    before = {number: signal.signal(number, note) for number in heard}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
