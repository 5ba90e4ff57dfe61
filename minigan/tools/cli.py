"""What the command lines share: arguments checked as they are read, and errors that are one line."""

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from ..backend import DeviceError

BAD_INPUT, INTERRUPTED = 2, 130  # exit statuses; 130 is the shell's for a program ended by Ctrl-C


class InputError(ValueError):
    """What was asked for does not fit what is there; the message says how."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, without the usage above it, with status 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"{self.prog}: error: {message}\n")


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


def number(kind: type, low: float, high: float = math.inf, above: bool = False) -> Callable[[str], Any]:
    """An argparse type: a finite int or float from ``low`` (above it, if ``above``) to below ``high``."""
    expected = f"{'a whole number' if kind is int else 'a number'} {'above' if above else 'of at least'} {low}"
    expected += f" and below {high}" if high < math.inf else ""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not (low <= value < high) or (above and value == low):
            raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
        return value

    return parse


def text(value: Any) -> str:
    """A setting's value as one types it."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
