"""What the engine recorded while a function ran, told: every Tensor, and every visit of every sweep."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy

from .. import backend
from ..tensor import Tensor
from .watching import PRODUCTS, Sweep, Visit, Watch, birth, parts_of

BAR = "\u0304"  # over the symbol of a Tensor: its gradient in the first sweep


@dataclass
class Stage:
    """What was made in one go: by the function itself, or by one of its sweeps."""

    title: str
    tensors: list[Tensor]
    sweep: Sweep | None = None


class Story:
    """All that was recorded, in the order of its making; ``str`` of it is a text.

    ``names`` are the Tensors that the function gave names; ``error`` is the line that it ended in, if it did;
    ``products`` is the number of matrix products.
    """

    def __init__(self, sweeps: list[Sweep], names: dict[str, Any], error: str = "") -> None:
        self.sweeps, self.error = sweeps, error
        self._same = {id(v.gradient.data): v.gradient for s in sweeps for v in s.visits}
        self.tensors = self._tensors([x for x in names.values() if isinstance(x, Tensor)])
        self.symbols = self._symbols(names)
        # for each Tensor that a vjp made, the visit and the call of it
        self.calls = {
            id(x): (v, c)
            for s in sweeps
            for v in s.visits
            for c in v.calls
            for x in _closure(parts_of(c.result), c.born)
        }
        self.stages = self._stages()
        self.numbers: dict[int, str] = {}  # of the matrix products, for the Tensors, visits and calls that made them
        self.products = 0
        for stage in self.stages:
            if stage.sweep and not stage.sweep.recorded:
                for call in (c for v in stage.sweep.visits for c in v.calls):
                    self._number(call, call.products)
            else:
                for x in stage.tensors:
                    self._number(x, x.op is not None and x.op.__name__ in PRODUCTS)

    def _tensors(self, named: list[Tensor]) -> list[Tensor]:
        """Those that were used for something or made of something, oldest first."""
        seen = [x for s in self.sweeps for x in (*s.inputs, *(v.node for v in s.visits), *s.returned)]
        found = _closure([self.itself(x) for x in named + seen])
        used = {id(a) for x in found for a in x.args} | set(map(id, seen))
        return sorted((x for x in found if x.op or x.requires_grad or x.unrecorded or id(x) in used), key=birth)

    def itself(self, x: Tensor) -> Tensor:
        """The Tensor that a sweep made, where ``x`` is the copy without a record that ``grad`` returned of it."""
        return self._same.get(id(x.data), x) if x.unrecorded else x

    def _symbols(self, names: dict[str, Any]) -> dict[int, str]:
        symbols: dict[int, str] = {}
        for name, x in names.items():
            if isinstance(x, Tensor):
                symbols.setdefault(id(self.itself(x)), name)
        gradients = {id(v.gradient) for s in self.sweeps for v in s.visits}
        unnamed = [x for x in self.tensors if id(x) not in symbols.keys() | gradients]
        symbols |= {id(x): f"t{n}" for n, x in enumerate(unnamed, 1)}
        for sweep in self.sweeps:
            output = symbols[id(sweep.visits[0].node)] if sweep.visits else ""
            for visit in sweep.visits:
                name = symbols[id(visit.node)]
                if visit is sweep.visits[0]:
                    symbols.setdefault(id(visit.gradient), "1")
                else:
                    bar = len(name) == 1 and sweep is self.sweeps[0]
                    symbols.setdefault(id(visit.gradient), name + BAR if bar else f"\u2202{output}/\u2202{name}")
        return symbols

    def _stages(self) -> list[Stage]:
        left, stages = self.tensors, []
        for i, sweep in enumerate(self.sweeps, 1):
            how = "recorded as it runs" if sweep.recorded else "not recorded"
            inputs = ", ".join(self.symbol(x) for x in sorted(sweep.inputs, key=birth))
            stages.append(Stage("The computation goes on" if stages else "The computation", []))
            stages.append(Stage(f"Sweep {i}, back to {inputs}: {how}", [], sweep))
            stages[-2].tensors = [x for x in left if x.birth <= sweep.born]
            stages[-1].tensors = [x for x in left if sweep.born < x.birth <= sweep.end]
            left = [x for x in left if x.birth > sweep.end]
        stages.append(Stage("The computation goes on" if stages else "The computation", left))
        return [s for s in stages if s.tensors or s.sweep]

    def _number(self, made: Any, products: int) -> None:
        for _ in range(products):
            self.products += 1
            self.numbers[id(made)] = f"{self.numbers.get(id(made), '')}   product {self.products}"

    def symbol(self, x: Any) -> str:
        """What stands for an operand: its name, or for what is no Tensor, itself."""
        if isinstance(x, Tensor):
            return self.symbols[id(self.itself(x))]
        if isinstance(x, backend.xp.ndarray):
            return f"{'mask' if x.dtype == bool else 'array'} {value(x)}"
        return str(x)

    def made(self, x: Tensor) -> str:
        """How it was made: the primitive and its operands; or why nothing flows on from it."""
        if x.op:
            return f"{x.op.__name__}({', '.join(map(self.symbol, x.args))}){self.numbers.get(id(x), '')}"
        if x.requires_grad:
            return "given"
        if any(x is s.visits[0].gradient for s in self.sweeps if s.visits):
            return "constant: here the sweep begins"
        if x.unrecorded or any(not s.recorded and s.born < x.birth <= s.end for s in self.sweeps):
            return "no record"
        return "constant: made of constants alone" if id(x) in self.calls else "constant: given"

    def again(self, visit: Visit) -> bool:
        """Whether an earlier sweep had come to this node of the computation as well."""
        first = next(v for s in self.sweeps for v in s.visits if v.node is visit.node)
        return visit.node.op is not None and first is not visit

    def __str__(self) -> str:
        lines: list[str] = []
        for stage in self.stages:
            lines += ["", stage.title, ""]
            if not stage.sweep or stage.sweep.recorded:
                rows = [(self.symbol(x), shape(x), value(x), self.made(x), self._for(x)) for x in stage.tensors]
                lines += [*table(("", "shape", "value", "made by", "for"), rows), ""]
            if stage.sweep:
                lines += self._visits(stage.sweep)
            if any(isinstance(a, backend.xp.ndarray) and a.dtype == "bool" for x in stage.tensors for a in x.args):
                lines += [
                    "",
                    "A mask is no Tensor: it is constant wherever it does not jump, so nothing flows on from it.",
                ]
        return "\n".join([*lines[1:], *(["", self.error] if self.error else [])]).replace("\n\n\n", "\n\n")

    def _for(self, x: Tensor) -> str:
        if id(x) not in self.calls:
            return ""
        visit, call = self.calls[id(x)]
        return f"{self.symbol(call.operand)} at {self.symbol(visit.node)}: {call.source}"

    def _visits(self, sweep: Sweep) -> list[str]:
        rows = []
        for n, visit in enumerate(sweep.visits, 1):
            node = self.symbol(visit.node) + (", again" if self.again(visit) else "")
            asked = [f"{self.symbol(c.operand)}: {c.source}{self.numbers.get(id(c), '')}" for c in visit.calls]
            uses = [c for v in sweep.visits for c in v.calls if c.operand is visit.node and len(parts_of(c.result)) > 1]
            joined = ": their products are formed as one" if len(uses) > 1 else ""
            asked = asked or [f"(an input, and all its uses are in{joined})"]
            rows.append((str(n), node, self.symbol(visit.gradient), value(visit.gradient), asked[0]))
            rows += [("", "", "", "", another) for another in asked[1:]]
        rows += [("-", self.symbol(x), "", "0", "(an input that was not reached)") for x in sweep.missed]
        return table(("visit", "of", "gradient", "value", "asked for"), rows)


def explain(f: Callable[..., Any], *args: Any, **named: Any) -> Story:
    """Run ``f(*args, **named)`` and tell what the engine recorded meanwhile: print it, or ``draw`` it.

    The Tensors get the names that they have in what ``f`` returns, if that is a dict (``return locals()``). A
    ValueError of ``f``, as of a gradient without a record, ends the story, with the names that there were until then.
    """
    watch, error = Watch(), ""
    with watch.watching():
        try:
            names = f(*args, **named)
        except ValueError as raised:
            error, called = f"ValueError: {raised}", raised.__traceback__.tb_next
            names = dict(called.tb_frame.f_locals) if called else {}
    return Story(watch.sweeps, names if isinstance(names, dict) else {}, error)


def shape(x: Tensor) -> str:
    return "(" + ", ".join(map(str, x.shape)) + ")"


def value(x: Any, digits: int = 4) -> str:
    """The numbers of an array, if they are few."""
    array = backend.to_numpy(x)
    if array.size > 8:
        return "..."
    array = array.astype(int) if array.dtype == bool else array
    return numpy.array2string(array, separator=" ", formatter={"all": lambda n: f"{n + 0:.{digits}g}"}).replace(
        "\n", ""
    )


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """Rows of text in columns."""
    rows = [head, *rows]
    widths = [max(map(_width, column)) for column in zip(*rows)]
    return ["  ".join(t + " " * (w - _width(t)) for t, w in zip(row, widths)).rstrip() for row in rows]


def _width(text: str) -> int:
    return len(text) - text.count(BAR)


def _closure(tensors: Any, born: int = -1) -> list[Tensor]:
    """All that they were made of, themselves included, back to a time."""
    found: dict[int, Tensor] = {}
    stack = list(tensors)
    while stack:
        x = stack.pop()
        if x.birth > born and id(x) not in found:
            found[id(x)] = x
            stack += [a for a in x.args if isinstance(a, Tensor)]
    return list(found.values())
