"""``python -m minigan.article``: run the article's sections, one picture and one line for each."""

import argparse
import sys
from pathlib import Path
from typing import Any

from .. import backend
from ..run.cli import Parser, number, one_line_errors, path, unbroken_output
from ..run.files import as_json, write
from ..settings import Number
from .sections import SECTIONS


def main(argv: list[str] | None = None) -> int:
    parser = Parser(
        prog="python -m minigan.article",
        description="Run the article's sections, one picture and one line for each.",
        epilog="The sections: " + " ".join(f"{name}: {_title(name)}." for name in SECTIONS),
    )
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"{', '.join(SECTIONS)} [all]")
    parser.add_argument("--out", type=path, default=Path("out/article"), metavar="DIR", help="[out/article]")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="NumPy or CuPy [cpu]")
    scale = number(Number(float, 0, 1000, above=True))
    parser.add_argument("--scale", type=scale, default=1.0, metavar="X", help="times the iterations [1]")
    with unbroken_output():
        args = parser.parse_args(argv)
        for name in args.sections:
            if name not in SECTIONS:
                parser.error(f"unknown section {name!r}: expected one of {', '.join(SECTIONS)}")
        with one_line_errors(parser, args):
            return run(args)


def run(args: argparse.Namespace) -> int:
    backend.use(args.device)
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.sections or SECTIONS:
        picture = args.out / f"{name}.png"
        line, metrics = SECTIONS[name](picture, args.scale)
        write(picture.with_suffix(".json"), as_json({"line": line, "metrics": metrics}))
        print(f"{_title(name)}: {line}; {picture}")
        for what, value in metrics.items():
            print(f"    {what}: {_words(value)}")
    return 0


def _title(name: str) -> str:
    return str(SECTIONS[name].__doc__).split(":")[0]


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_words(v)}" for name, v in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
