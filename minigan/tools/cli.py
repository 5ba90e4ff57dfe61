"""What the command lines share: arguments checked as they are read, and errors that are one line."""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from ..backend import DeviceError
from ..settings import Number

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130  # exit statuses; 128 and a signal's number is the shell's for its end


class InputError(ValueError):
    """What was asked for does not fit what is there; the message says how."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, without the usage above it, with status 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"{self.prog}: error: {' '.join(message.splitlines())}\n")


@contextmanager
def one_line_errors(parser: Parser, args: argparse.Namespace, *bad_input: type[ValueError]) -> Iterator[None]:
    """End the program in one line on bad input, of the kinds given or of a device, file or size, and on Ctrl-C.

    ``args`` has the flags ``device`` and ``out`` (or ``data``, where it writes there), which the line names.
    """
    try:
        yield
    except DeviceError as error:
        parser.error(f"--device {args.device}: {error}")
    except (InputError, *bad_input) as error:
        parser.error(str(error))
    except MemoryError as error:
        parser.error(f"not enough memory for these sizes: {error}")
    except OSError as error:
        where = f"--out {args.out}" if "out" in args else f"--data {args.data}"
        parser.error(f"{where}: {error.strerror or error} ({error.filename})")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


class Unbroken:
    """An output stream that does not fail: what it has no characters for it escapes, and where nobody takes what is
    written any more, it writes to nowhere."""

    def __init__(self, stream: Any) -> None:
        self._stream = open(os.devnull, "w") if stream is None else stream  # noqa: SIM115 (None: it was closed before)

    def write(self, text: str) -> int:
        with self._unbroken():
            try:
                self._stream.write(text)
            except UnicodeEncodeError:  # in a file's name, as a rule: some of its bytes may be no text in this locale
                name = text.encode(errors="surrogateescape")
                self._stream.write(name.decode(self._stream.encoding, "backslashreplace"))
        return len(text)

    def flush(self) -> None:
        with self._unbroken():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextmanager
    def _unbroken(self) -> Iterator[None]:
        try:
            yield
        except OSError:  # a closed pipe or terminal, a full disk
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())  # for what is still in its buffer
            os.close(nowhere)


@contextmanager
def unbroken_output() -> Iterator[None]:
    """Inside, what becomes of standard output and standard error ends nothing."""
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
    """Yields a list of the signals that have asked the program to end: Ctrl-C, a kill, or a closed terminal.

    The first lets it end by itself; another is a KeyboardInterrupt.
    """
    signals = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    asked: list[int] = []

    def note(number: int, _: Any) -> None:
        asked.append(number)
        if len(asked) > 1:
            raise KeyboardInterrupt

    # what was ignored at the start stays so: under nohup a closed terminal, in the background Ctrl-C
    heard = [number for number in signals if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in heard}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def number(allowed: Number) -> Callable[[str], Any]:
    """An argparse type: a number as ``allowed``."""

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
    return Path(text).expanduser()


def text(value: Any) -> str:
    """A setting's value as one types it."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
