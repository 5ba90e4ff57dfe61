"""What the command lines share: flags checked as they are read, endings, threads, and errors that are one line."""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import Field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

from threadpoolctl import threadpool_info, threadpool_limits

from .backend import DeviceError
from .choices import Choices
from .data import DataError
from .settings import PRESETS, Number, Settings
from .training import DivergenceError

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130  # exit statuses; 128 and a signal's number is the shell's for its end
AVX512 = ("SkylakeX", "Cooperlake", "SapphireRapids")
ENDS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
WORK = 10_000_000  # multiplications and additions in a product that are worth another thread


class InputError(ValueError):
    """What was asked for does not fit what is there; the message says how."""


# --- Flags --------------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, without the usage above it, with status 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"{self.prog}: error: {' '.join(message.splitlines())}\n")


def add_settings(parser: Parser) -> None:
    """A flag for each setting, with its default in brackets, and what other presets have instead."""
    for setting in fields(Settings):
        (_, default), *others = [(label, getattr(preset, setting.name)) for label, preset in PRESETS.items()]
        shown = [text(default), *(f"{label}: {text(value)}" for label, value in others if value != default)]
        words, how = _how(setting, setting.metadata["allowed"])
        parser.add_argument(
            flag(setting),
            dest=setting.name,
            default=argparse.SUPPRESS,
            help=f"{setting.metadata['help']}{words} [{', '.join(shown)}]",
            **how,
        )


def flag(setting: Field) -> str:
    return setting.metadata["flag"] or f"--{setting.name.replace('_', '-')}"


def _how(setting: Field, allowed: Number | Choices) -> tuple[str, dict[str, Any]]:
    """How argparse is to read a setting, and what there is to choose from."""
    if isinstance(allowed, Choices):
        read = {"type": lambda word: None if word == "none" and None in allowed else word, "choices": list(allowed)}
        return f": {', '.join(map(text, allowed))}", {"metavar": "NAME", **read}
    nargs = 2 if setting.name == "betas" else "*" if isinstance(setting.default, tuple) else None
    return "", {"metavar": "N" if allowed.kind is int else "X", "type": number(allowed), "nargs": nargs}


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
    return Path(os.path.expanduser(text))


def text(value: Any) -> str:
    """A setting's value as one types it."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else "none" if value is None else str(value)


# --- Endings ------------------------------------------------------------------------------------


@contextmanager
def one_line_errors(parser: Parser, args: argparse.Namespace) -> Iterator[None]:
    """End the program in one line on bad input, on a device, file or size that is not to be had, and on Ctrl-C.

    ``args`` has the flags ``device`` and ``out`` (or ``data``, where it writes there), which the line names.
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
        where = f"--out {args.out}" if "out" in args else f"--data {args.data}"
        parser.error(f"{where}: {error.strerror or error}{f' ({error.filename})' if error.filename else ''}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


class Unbroken:
    """An output stream that does not fail: what it has no characters for it escapes, and where nobody takes what is
    written any more, it writes to nowhere."""

    def __init__(self, stream: Any) -> None:
        self._stream = open(os.devnull, "w") if stream is None else stream  # noqa: SIM115 (None: it was closed before)
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
            os.dup2(nowhere, self._stream.fileno())  # for what is still in its buffer
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


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
    asked: list[int] = []

    def note(number: int, _: Any) -> None:
        asked.append(number)
        if len(asked) > 1:
            raise KeyboardInterrupt

    # what was ignored at the start stays so: under nohup a closed terminal, in the background Ctrl-C
    heard = [number for number in ENDS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in heard}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# --- Threads ------------------------------------------------------------------------------------


def threads_for(settings: Settings, dim: int) -> int:
    """How many threads the products of a critic of rows (n, ``dim``) can use: so many cores or fewer.

    A rule of the sizes alone, so that the same run on the same machine gives the same numbers: with another number of
    threads a product adds up in another order. OPENBLAS_NUM_THREADS and its like are the most.
    """
    layers = pairwise([dim, *settings.critic, 1])
    largest = max(2 * (2 * settings.batch_size) * n * m for n, m in layers)  # real and generated rows together
    most = max([blas["num_threads"] for blas in _blas()], default=os.cpu_count() or 1)
    return min(most, max(1, largest // WORK))


def use_threads(number: int) -> threadpool_limits:
    """Let NumPy multiply matrices with ``number`` threads: from here on, or ``with use_threads(number):`` inside."""
    return threadpool_limits(number, user_api="blas")


def kernels() -> str:
    """The kind of processor whose kernels multiply matrices: with others the same run comes to other bits."""
    return "".join(sorted({str(blas.get("architecture", blas.get("internal_api"))) for blas in _blas()}))


def slower_kernels() -> str | None:
    """What to say where OpenBLAS does not know the processor, and has chosen kernels without its widest registers."""
    processor = Path("/proc/cpuinfo")
    chosen_by_hand = "OPENBLAS_CORETYPE" in os.environ or not any(blas.get("architecture") for blas in _blas())
    if chosen_by_hand or kernels() in AVX512 or not processor.exists() or "avx512f" not in processor.read_text():
        return None
    return f"OpenBLAS takes this processor for a {kernels()}; faster, as a rule: OPENBLAS_CORETYPE=SkylakeX in front"


def _blas() -> list[dict]:
    return [library for library in threadpool_info() if library["user_api"] == "blas"]
