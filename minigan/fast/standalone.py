"""A training iteration as a program, made of its record: to read, or to run with NumPy alone."""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from string import Template
from typing import Any

import numpy

from .. import backend
from ..data import sampler
from ..settings import Settings
from ..training import WGANGP
from .replay import Program


def program(settings: Settings) -> Program:
    """The recorded iteration of these settings on images of 28 x 28 pixels; ``str`` of the Program is its source."""
    return Program(WGANGP(settings, sampler(numpy.zeros((1, 28, 28), "uint8")), 784), readable=True)


def source(recorded: Program, settings: Settings) -> str:
    """The source of a file with the iteration, below all functions that it calls; as a script it trains a while."""
    sources: dict[str, str] = {}
    for name, function in recorded.functions.items():
        if name not in recorded.given:
            _write(name, function, sources)
    arrays = {name: (x.shape, str(x.dtype)) for name, x in recorded.given.items() if hasattr(x, "dtype")}
    slots = {"kernels": "\n\n\n".join(sources.values()), "iteration": recorded, "arrays": arrays}
    file = Template(Path(__file__).with_suffix(".txt").read_text(encoding="utf-8"))
    return file.substitute(slots, rate=settings.learning_rate)


def _write(name: str, function: Callable[..., Any], sources: dict[str, str]) -> None:
    """Add to ``sources`` a function under a name, and the functions that it calls, with NumPy for the backend."""
    function, sources[name] = inspect.unwrap(function), ""
    tree: Any = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    tree.name, tree.decorator_list, tree.returns = name, [], None
    for parameter in tree.args.args:
        parameter.annotation = None
    source = re.sub(r"\b(backend\.)?xp\.", "numpy.", ast.unparse(tree))
    source = re.sub(r"backend\.(\w+)", lambda found: getattr(backend, found[1]).__name__, source)
    for word in re.findall(r"(?<![.\w])\w+(?=\()", source):
        called = function.__globals__.get(word) or vars(backend).get(word)
        if inspect.isfunction(called) and word not in sources:
            _write(word, called, sources)
    sources[name] = source
