"""What the command lines share: arguments checked as they are read, and errors that are one line."""

import argparse
import math
from collections.abc import Callable
from typing import Any, NoReturn

BAD_INPUT = 2


class InputError(ValueError):
    """What was asked for does not fit what is there; the message says how."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, without the usage above it, with status 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"{self.prog}: error: {message}\n")


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
