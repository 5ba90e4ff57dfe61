"""The sweeps of the engine, seen as they run."""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from operator import attrgetter
from typing import Any

from .. import autodiff, ops
from ..tensor import Tensor, _recording, tensor

PRODUCTS = ("matmul", "matmul_nt", "matmul_tn", "linear")
birth = attrgetter("birth")


@dataclass
class Call:
    """A vjp that was asked for the gradient with respect to ``operand``: its source, and what it returned."""

    operand: Tensor
    source: str
    result: Tensor | ops.RowProduct
    born: int  # before anything that it made
    products: int = 0  # matrix products that it made


@dataclass
class Visit:
    """A node of a sweep, its gradient there, complete, and the vjps that were asked of it."""

    node: Tensor
    gradient: Tensor
    calls: list[Call] = field(default_factory=list)


@dataclass
class Sweep:
    """One run of ``grad``: it has ``visits``, newest first, and made what was ``born`` up to ``end``."""

    inputs: set[Tensor]
    born: int
    recorded: bool = False
    visits: list[Visit] = field(default_factory=list)

    @property
    def returned(self) -> list[Tensor]:
        """What its vjps returned, and what that added up to."""
        calls = [x for v in self.visits for c in v.calls for x in parts_of(c.result)]
        return [v.gradient for v in self.visits] + calls

    @property
    def end(self) -> int:
        return max(map(birth, self.returned), default=self.born)

    @property
    def missed(self) -> list[Tensor]:
        """The inputs that it never came to."""
        return sorted(self.inputs - {v.node for v in self.visits}, key=birth)


class Watch:
    """Inside ``with watch.watching()``: the paths of the sweeps, the vjps that they ask, and what these add up to."""

    def __init__(self) -> None:
        self.sweeps: list[Sweep] = []
        self.products = 0
        self._path, self._add_up = autodiff._path, ops.add_up

    @contextmanager
    def watching(self) -> Iterator[None]:
        self._vjps: dict[Any, tuple] = {}
        plain = {name: getattr(ops, name) for name in PRODUCTS}
        autodiff._path, ops.add_up = self.path, self.add_up
        vars(ops).update({name: self._counted(product) for name, product in plain.items()})
        try:
            yield
        finally:
            autodiff._path, ops.add_up = self._path, self._add_up
            vars(ops).update(plain)
            for op, vjps in self._vjps.items():
                op.vjps = vjps

    def path(self, operands: Any, inputs: set[Tensor]) -> dict[Tensor, None]:
        path = self._path(operands, inputs)
        self.sweeps.append(Sweep(inputs, tensor(0).birth))
        self._nodes = iter(path)
        for node in path:
            if node.op and node.op not in self._vjps:
                self._vjps[node.op] = node.op.vjps
                node.op.vjps = tuple(map(self._watched, range(len(node.op.vjps)), node.op.vjps, sources(node.op)))
        return path

    def add_up(self, parts: Any) -> Tensor:
        gradient = self._add_up(parts)
        self.sweeps[-1].visits.append(Visit(next(self._nodes), gradient))
        self.sweeps[-1].recorded = _recording.get()
        return gradient

    def _watched(self, i: int, vjp: Callable, source: str) -> Callable:
        def watched(g: Tensor, out: Tensor, *args: Any) -> Any:
            born, before = tensor(0).birth, self.products
            result = vjp(g, out, *args)
            products = self.products - before + isinstance(result, ops.RowProduct)
            self.sweeps[-1].visits[-1].calls.append(Call(args[i], source, result, born, products))
            return result

        return watched

    def _counted(self, product: Callable) -> Callable:
        @wraps(product)
        def counted(*args: Any, **named: Any) -> Tensor:
            self.products += 1
            return product(*args, **named)

        return counted


def sources(op: Any) -> list[str]:
    """The source of each of a primitive's vjps, as far as it can be had."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(op)))
    except (OSError, SyntaxError):
        return ["?"] * len(op.vjps)
    found = [ast.unparse(node.body) for node in ast.walk(tree) if isinstance(node, ast.Lambda)]
    return (found + ["?"] * len(op.vjps))[: len(op.vjps)]


def parts_of(result: Tensor | ops.RowProduct) -> tuple[Tensor, ...]:
    return tuple(result) if isinstance(result, ops.RowProduct) else (result,)
