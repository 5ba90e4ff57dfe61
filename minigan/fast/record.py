"""The record of a training iteration: its kernel calls, as a Python function without Tensors, loops or branches.

While an iteration runs with a ``Tape``, each kernel call becomes a line, as ``v36 = positive(v28)``. All computations
of the iteration, both sweeps of a gradient penalty included, are then array code that can be printed and compiled.
"""

import linecache
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy

from .. import backend
from ..backend import Array
from ..tensor import Switch, Tensor

HEADINGS = {str(Path(__file__).parent.with_name(name)) for name in ("training.py", "penalties.py")}  # are their lines


class Unrecordable(RuntimeError):
    """Something in an iteration cannot be recorded; the message says what."""


class Tape:
    """The kernel calls of an iteration, in their order.

    ``given`` has the inputs of the iteration, by name: arrays, random generators, and closures that it calls. An array
    that is neither given nor made by a kernel is refused, since a record would use its present values for ever. Calls
    that depend on nothing given have the same result in every iteration: these are the ``constants``. To be
    ``readable``, calls are found in the program's lines, and arrays in its variables, for their names.
    """

    def __init__(self, given: dict[str, Any], readable: bool = False) -> None:
        self.given, self.readable = dict(given), readable
        self.constants: dict[str, str] = {}  # calls, and their results' names
        self.functions: dict[str, Callable] = {}
        self._names = {id(x): name for name, x in given.items()}
        self._changing = set(self._names)
        self._calls: list[tuple[str, tuple, Array | None, str]] = []
        self._kept: list[Any] = []  # so that no new array gets the id of a known array

    def call(self, function: Callable, args: tuple) -> Array | None:
        """Call a kernel, and record the call. Raises Unrecordable for a call that cannot be recorded."""
        name = self._name(function)
        for x in leaves(args):
            if isinstance(x, backend.xp.ndarray) and id(x) not in self._names:
                raise Unrecordable(f"{name} got an array {x.shape} that no kernel made and the state does not hold")
        section = self._section() if self.readable else ""
        with Switch(backend.tape, None):
            result = function(*args)
        if not isinstance(result, (backend.xp.ndarray, numpy.generic, type(None))):
            raise Unrecordable(f"{name} returned no array, but {type(result).__name__}")
        result = None if result is None else backend.to_array(result)
        if result is not None and any(result is x for x in leaves(args)):
            return result  # nothing to compute
        self._kept.append((args, result))
        if result is not None and name not in self.given and self._changing.isdisjoint(map(id, leaves(args))):
            text = f"{name}({', '.join(map(self._text, args))})"
            self._names[id(result)] = self.constants.setdefault(text, f"c{len(self.constants) + 1}")
            return result
        self._calls.append((name, args, result, section))
        if result is not None:
            self._names.setdefault(id(result), f"v{len(self._calls)}")
            self._changing.add(id(result))
        return result

    def check_read(self, x: Array) -> None:
        if id(x) in self._changing:
            raise Unrecordable(f"a value is read from an array {x.shape}, and a record would go on as this one decides")

    def _name(self, function: Callable) -> str:
        """The name of a function in the record: its own, or a similar one. A closure is added to ``given``."""
        stem = getattr(function, "__name__", type(function).__name__)
        name = stem = "kernel" if not stem.isidentifier() or re.fullmatch(r"[cv]\d+|iteration", stem) else stem
        while name in self._names.values() or self.functions.setdefault(name, function) is not function:
            name = f"{stem}_{len(self.functions)}"
        if "<locals>" in getattr(function, "__qualname__", "<locals>"):
            self.given[name] = function
        return name

    def _section(self) -> str:
        """The line of the program that is running. Arrays in the program's local variables get the variables' names."""
        frame: Any = sys._getframe(2)
        section = ""
        while frame:
            if frame.f_code.co_filename in HEADINGS:
                line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
                section = section or f"{frame.f_code.co_name}: {line}"
                for name, x in frame.f_locals.items():
                    at, taken = id(x.array if isinstance(x, Tensor) else x), {*self._names.values(), *self.functions}
                    if re.fullmatch(r"v\d+", self._names.get(at, "")):  # only a numbered name so far
                        free = (f"{name}{n}" for n in ("", *range(2, 1000)))
                        self._names[at] = next(n for n in free if n not in taken)
            frame = frame.f_back
        return section

    def source(self, returned: Array, forget: bool = False) -> str:
        """The constants, and a function of ``given``; with ``forget`` a del follows each array's last use."""
        last = {id(x): i for i, (_, args, out, _) in enumerate(self._calls) for x in leaves([*args, out])}
        last |= dict.fromkeys([id(returned), *map(id, self.given.values())], -1)
        body, at = list[str](), ""
        for i, (name, args, out, section) in enumerate(self._calls):
            body += [*[""][: len(body)], f"    # {section}"] if section != at else []
            at, made = section, "" if out is None else f"{self._names[id(out)]} = "
            shape = "" if out is None else f"  # {out.shape}"
            body.append(f"    {made}{name}({', '.join(map(self._text, args))})".ljust(80 if shape else 0) + shape)
            gone = {self._names[id(x)] for x in leaves((*args, out)) if last[id(x)] == i and id(x) in self._changing}
            body += [f"    del {', '.join(sorted(gone))}"] if forget and gone else []
        constants = (f"{name} = {text}" for text, name in self.constants.items())
        head = [*constants, "", "", f"def iteration({', '.join(self.given)}):"]
        return "\n".join([*head, *body, f"    return {self._names[id(returned)]}\n"])

    def _text(self, x: Any) -> str:
        """The source text of an argument."""
        if id(x) in self._names:
            return self._names[id(x)]
        if isinstance(x, (tuple, list)):
            texts = ", ".join(map(self._text, x))
            return f"[{texts}]" if isinstance(x, list) else f"({texts}{',' * (len(x) == 1)})"
        x = x.item() if isinstance(x, numpy.generic) else str(x) if isinstance(x, numpy.dtype) else x
        return "..." if x is ... else repr(x)


def leaves(x: Any) -> list[Any]:
    """The items of nested tuples and lists, in one list."""
    return [z for y in x for z in leaves(y)] if isinstance(x, (tuple, list)) else [x]
