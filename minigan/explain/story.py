"""A text about the differentiation in a function: every recorded Tensor, and every visit of every sweep."""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import Any, NamedTuple

import numpy

from .. import backend
from ..autodiff import watcher
from ..backend import Array
from ..tensor import Switch, Tensor, tensor

BAR = "\u0304"  # over the symbol of a Tensor: its gradient in the first sweep
MASK = "A mask is no Tensor: it is constant wherever it does not jump, so nothing flows on from it."
PRODUCTS = ("matmul", "matmul_nt", "matmul_tn", "linear")
birth = attrgetter("birth")


class Call(NamedTuple):
    """A call of a vjp of ``node``, for the gradient of ``operand``; Tensors of the call are born after ``born``."""

    node: Tensor
    operand: Tensor
    result: Tensor
    born: int
    products: int  # matrix products in the call


class Visit(NamedTuple):
    """The visit of a node in a sweep: the node, its complete gradient, and the calls of its vjps."""

    node: Tensor
    gradient: Tensor
    calls: list[Call]


class Sweep(NamedTuple):
    inputs: tuple[Tensor, ...]
    born: int
    visits: list[Visit]

    @property
    def made(self) -> list[Tensor]:
        """The gradients, and the results of the vjps."""
        return [x for v in self.visits for x in (v.gradient, *(c.result for c in v.calls))]

    @property
    def recorded(self) -> bool:
        return any(x.op for x in self.made)


class Watch:
    """A listener that notes every sweep, and that counts matrix products in the place of a ``Tape``."""

    def __init__(self) -> None:
        self.sweeps: list[Sweep] = []
        self.products, self._before = 0, (0, 0)

    def call(self, function: Callable, args: tuple) -> Any:
        self.products += function.__name__ in PRODUCTS
        return function(*args)

    def check_read(self, x: Array) -> None:
        pass

    def begin_sweep(self, inputs: tuple[Tensor, ...]) -> None:
        self.sweeps.append(Sweep(inputs, tensor(0).birth, []))

    def visit(self, node: Tensor, gradient: Tensor) -> None:
        self.sweeps[-1].visits.append(Visit(node, gradient, []))
        self._before = tensor(0).birth, self.products

    def vjp(self, node: Tensor, x: Tensor, result: Tensor) -> None:
        born, products = self._before
        self.sweeps[-1].visits[-1].calls.append(Call(node, x, result, born, self.products - products))
        self._before = tensor(0).birth, self.products


class Story:
    """All Tensors and sweeps that were recorded, in the order of their making; ``str`` of a Story is its text.

    ``names`` are the named Tensors of the function; ``error`` is the line of the error that ended the function, if any;
    ``products`` is the number of matrix products.
    """

    def __init__(self, sweeps: list[Sweep], names: dict[str, Any], error: str = "") -> None:
        self.sweeps, self.error = sweeps, error
        self.products, self.numbers = 0, dict[int, str]()  # by the ids of the Tensors and calls that made them
        self._same = {id(v.gradient.array): v.gradient for s in sweeps for v in s.visits}
        named = {name: self.itself(x) for name, x in names.items() if isinstance(x, Tensor)}
        shown = [x for x in named.values() if x.op or x.requires_grad or x.unrecorded]
        shown += [x for s in sweeps for x in (*s.inputs, *(v.node for v in s.visits), *s.made)]
        self.tensors = sorted(_closure(shown), key=birth)
        self.calls = {id(x): c for s in sweeps for v in s.visits for c in v.calls for x in _closure([c.result], c.born)}
        self._symbols = self._named(named)
        self.stages = self._staged()
        for _, sweep, tensors in self.stages:
            for made in tensors if not sweep or sweep.recorded else (c for v in sweep.visits for c in v.calls):
                count = made.products if isinstance(made, Call) else made.op and made.op.__name__ in PRODUCTS
                for _ in range(count or 0):
                    self.products += 1
                    self.numbers[id(made)] = f"{self.numbers.get(id(made), '')}   product {self.products}"

    def itself(self, x: Tensor) -> Tensor:
        """The Tensor made by a sweep, if ``x`` is the unrecorded copy that ``grad`` returned of it; else ``x``."""
        return self._same.get(id(x.array), x) if x.unrecorded else x

    def _named(self, named: dict[str, Tensor]) -> dict[int, str]:
        visits = [(s, v) for s in self.sweeps for v in s.visits]
        symbols = {id(x): name for name, x in reversed(named.items())}
        unnamed = [x for x in self.tensors if not symbols.keys() | {id(v.gradient) for _, v in visits} >= {id(x)}]
        symbols |= {id(x): f"t{n}" for n, x in enumerate(unnamed, 1)}
        for sweep, visit in visits:
            first, name = symbols[id(sweep.visits[0].node)], symbols[id(visit.node)]
            over = name + BAR if len(name) == 1 and sweep is self.sweeps[0] else f"\u2202{first}/\u2202{name}"
            symbols.setdefault(id(visit.gradient), "1" if visit is sweep.visits[0] else over)
        return symbols

    def _staged(self) -> list[tuple[str, Sweep | None, list[Tensor]]]:
        """The stages (title, sweep or None, Tensors): parts of the function itself, and its sweeps, in order."""
        stages, start, title = list[Any](), 0, "The computation"
        for n, sweep in enumerate(self.sweeps, 1):
            end = max(map(birth, sweep.made))
            inputs = ", ".join(map(self.symbol, sorted(sweep.inputs, key=birth)))
            how = "recorded as it runs" if sweep.recorded else "not recorded"
            stages.append((title, None, [x for x in self.tensors if start < x.birth <= sweep.born]))
            made = [x for x in self.tensors if sweep.born < x.birth <= end]
            stages.append((f"Sweep {n}, back to {inputs}: {how}", sweep, made))
            start, title = end, "The computation goes on"
        stages.append((title, None, [x for x in self.tensors if x.birth > start]))
        return [stage for stage in stages if stage[1] or stage[2]]

    def symbol(self, x: Any) -> str:
        """The text for an operand: the name of a Tensor, or the value of anything else."""
        if isinstance(x, Tensor):
            return self._symbols[id(self.itself(x))]
        if isinstance(x, backend.xp.ndarray):
            return f"{'mask' if x.dtype == bool else 'array'} {value(x)}"
        return str(x)

    def made(self, x: Tensor) -> str:
        """How ``x`` was made: the primitive and its operands; or the reason why no gradient flows on from ``x``."""
        if x.op:
            return f"{x.op.__name__}({', '.join(map(self.symbol, x.args))}){self.numbers.get(id(x), '')}"
        if x.requires_grad:
            return "given"
        if any(x is s.visits[0].gradient for s in self.sweeps if s.visits):
            return "constant: here the sweep begins"
        made = x.unrecorded or any(x is y for s in self.sweeps if not s.recorded for y in s.made)
        return "no record" if made else f"constant: {'made of constants alone' if id(x) in self.calls else 'given'}"

    def wanted(self, x: Tensor) -> str:
        """The operand that a sweep made ``x`` for, and the node whose vjp made ``x``."""
        call = self.calls.get(id(x))
        return f"{self.symbol(call.operand)} at {self.symbol(call.node)}" if call else ""

    def vjp_source(self, visit: Visit, call: Call) -> str:
        """The source of the vjp in ``call``, with the Tensors' symbols for its parameters."""
        op, args = call.node.op, call.node.args
        same = [c for c in visit.calls if c.operand is call.operand]  # an operand used twice has two calls, in order
        i = [i for i, x in enumerate(args) if x is call.operand][[c is call for c in same].index(True)]
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(op)))
            vjp = [node for node in ast.walk(tree) if isinstance(node, ast.Lambda)][i]
            meant = dict(zip((a.arg for a in vjp.args.args), map(self.symbol, (visit.gradient, visit.node, *args))))
            source = "".join(meant.get(word, word) for word in re.split(r"\b(\w+)\b", ast.unparse(vjp.body)))
        except (OSError, SyntaxError, IndexError):
            source = f"a vjp of {op.__name__}"
        return f"{self.symbol(call.operand)}: {source}{self.numbers.get(id(call), '')}"

    def again(self, visit: Visit) -> bool:
        """Whether an earlier sweep visited this node of the computation too."""
        visits = (v for s in self.sweeps for v in s.visits if v.node is visit.node)
        return visit.node.op is not None and visit is not next(visits)

    def missed(self, sweep: Sweep) -> list[Tensor]:
        """The inputs that the sweep did not reach."""
        return sorted({*sweep.inputs} - {v.node for v in sweep.visits}, key=birth)

    def __str__(self) -> str:
        lines: list[str] = []
        for title, sweep, tensors in self.stages:
            lines += [title, ""]
            if not sweep or sweep.recorded:
                rows = [(self.symbol(x), str(x.shape), value(x), self.made(x), self.wanted(x)) for x in tensors]
                lines += [*table(("", "shape", "value", "made by", "for"), rows), ""]
            if sweep:
                lines += [*table(("visit", "of", "gradient", "value", "vjp"), self._visits(sweep)), ""]
            if any(isinstance(a, backend.xp.ndarray) and a.dtype == "bool" for x in tensors for a in x.args):
                lines += [MASK, ""]
        return "\n".join([*lines, self.error]).rstrip()

    def _visits(self, sweep: Sweep) -> Iterator[tuple[str, ...]]:
        for n, visit in enumerate(sweep.visits, 1):
            node = self.symbol(visit.node) + (", again" if self.again(visit) else "")
            vjps = [self.vjp_source(visit, c) for c in visit.calls] or ["(an input, and all its uses are in)"]
            yield str(n), node, self.symbol(visit.gradient), value(visit.gradient), vjps[0]
            yield from (("", "", "", "", another) for another in vjps[1:])
        yield from (("-", self.symbol(x), "", "0", "(an input that was not reached)") for x in self.missed(sweep))


def explain(f: Callable[..., Any], *args: Any, **named: Any) -> Story:
    """Run ``f(*args, **named)``, and return the Story of its differentiation: print it, or ``draw`` it.

    >>> def cube(x):
    ...     (g,) = mg.grad(x**3, x)
    ...     return locals()
    >>> print(explain(cube, mg.tensor([2.0], requires_grad=True)))
    The computation
    ...
    2      x   g         [12]   (an input, and all its uses are in)

    If ``f`` returns a dict (``return locals()``), its keys name the Tensors. A ValueError of ``f``, as for an
    unrecorded gradient, ends the story; the Tensors then have the names of the local variables of ``f`` at that point.
    """
    watch, error = Watch(), ""
    with Switch(watcher, watch), Switch(backend.tape, watch):
        try:
            names = f(*args, **named)
        except ValueError as raised:
            error, called = f"ValueError: {raised}", raised.__traceback__.tb_next  # type: ignore[union-attr]
            names = dict(called.tb_frame.f_locals) if called else {}
    return Story([s for s in watch.sweeps if s.visits], names if isinstance(names, dict) else {}, error)


def value(x: Any, digits: int = 4) -> str:
    """The numbers of an array of at most 8 elements; of a larger one "..."."""
    array = backend.to_numpy(x)
    if array.size > 8:
        return "..."
    how: Any = {"all": lambda n: f"{n + 0:.{digits}g}"}
    text = numpy.array2string(array.astype(int) if array.dtype == bool else array, separator=" ", formatter=how)
    return text.replace("\n", "")


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Lines of text: ``head`` and ``rows`` in aligned columns."""
    rows = [head, *rows]
    widths = [max(len(text) - text.count(BAR) for text in column) for column in zip(*rows)]
    return ["  ".join(t.ljust(w + t.count(BAR)) for t, w in zip(row, widths)).rstrip() for row in rows]


def _closure(tensors: Iterable[Tensor], born: int = -1) -> list[Tensor]:
    """``tensors`` and all Tensors that they were made of, if born after ``born``."""
    found: dict[int, Tensor] = {}
    for x in (left := list(tensors)):
        if x.birth > born and id(x) not in found:
            found[id(x)] = x
            left += [a for a in x.args if isinstance(a, Tensor)]
    return list(found.values())
