"""The record as a drawing: the computation in blue, a recorded sweep below it in orange, an unrecorded sweep in red.

Tensors that pass no gradient on are grey. A Tensor made by a sweep is below the Tensor whose gradient it leads to.
"""

import inspect
import json
from html import escape
from pathlib import Path
from typing import Any

from .. import backend
from ..run.files import filled, write
from ..tensor import Tensor
from .story import MASK, Story, Sweep, Visit, value

HERE = Path(__file__).parent
WIDTH, HEIGHT, DX, DY = 2.1, 0.92, 3.1, 1.8  # of a box, and between the middles of neighbouring boxes
BENDS = [sign * bend for bend in (0, 0.12, 0.22, 0.3, 0.4, 0.5, 0.65, 0.8, 1, 1.2, 1.7, 2.3) for sign in (1, -1)]

Point = tuple[float, float]


class Drawing:
    """Places for the Tensors of a story, and the SVG marks of each step; ``steps`` has a line of text for each step."""

    def __init__(self, story: Story) -> None:
        self.story, self.ways, self.steps, self._marks = story, set[tuple](), list[str](), list[str]()
        self.places: dict[int, Point] = {}
        for title, sweep, tensors in story.stages:
            bottom = max((y + DY for _, y in self.places.values()), default=0.0)
            if sweep and not sweep.recorded:
                self._visit(title, sweep)
                continue
            (self._below if sweep else self._along)(tensors, bottom, sweep)  # type: ignore[arg-type]
            for x in tensors if not sweep else (x for x in tensors if id(x) not in story.calls):
                self._box(x, "orange" if sweep else "blue")
                self.steps.append(f"{title}: {story.symbol(x)} = {story.made(x)}{computed(x)}")
            for n, visit in enumerate(sweep.visits if sweep else (), 1):
                for x in (x for x in tensors if any(c is story.calls.get(id(x)) for c in visit.calls)):
                    self._box(x, "orange")
                self.steps.append(f"{title}: {self._told(str(n), visit)}")

    def _put(self, x: Tensor, column: float, row: float, dx: float, dy: float) -> None:
        while any(y == row and abs(x - column) < WIDTH for x, y in self.places.values()):
            column, row = column + dx, row + dy
        self.places[id(x)] = column, row

    def _along(self, tensors: list[Tensor], row: float, _: None) -> None:
        """Place the function's results from left to right, and a given Tensor left of its first use, or above it."""
        used = (self.places[id(a)][0] for x in tensors for a in x.args if id(a) in self.places)
        left, depth = min(used, default=0.0), dict[int, int]()
        for x in tensors:
            depth[id(x)] = 1 + max((depth.get(id(a), 0) for a in x.args if isinstance(a, Tensor)), default=-1)
            if x.op:
                self._put(x, left + DX * depth[id(x)], row, 0, DY)
        for x in (x for x in tensors if not x.op):
            user = next((u for u in tensors if any(a is x for a in u.args)), x)
            column, above = self.places.get(id(user), (left + DX, row))
            first = user is x or user.args[0] is x
            self._put(x, column - (DX if first else DX / 2), above - (0 if first else DY), DX, 0)

    def _below(self, tensors: list[Tensor], row: float, sweep: Sweep) -> None:
        """Place a gradient below its operand, and other Tensors of its vjp half way from node to operand."""
        for x in tensors:
            call = self.story.calls.get(id(x))
            at = [self.places[id(y)][0] for y in (call[:2] if call else (sweep.visits[0].node,) * 2)]
            self._put(x, at[1] if not call or x is call.result else (at[0] + at[1]) / 2, row, 0, DY)

    def _visit(self, title: str, sweep: Sweep) -> None:
        for n, visit in enumerate(sweep.visits, 1):
            at = f"{n}{' again' if self.story.again(visit) else ''}"
            self._note(visit.node, f"{at}: {value(visit.gradient, 3)}", "red")
            for call in visit.calls:
                self._arrow(visit.node, call.operand, "red", 4)
            self.steps.append(f"{title}: {self._told(at, visit)}")
        for x in self.story.missed(sweep):
            self._note(x, "not reached: 0", "grey")
            name = self.story.symbol(x)
            self.steps.append(
                f"{title}: {name} is not reached. No visited result was made of {name}: its gradient is 0."
            )

    def _told(self, n: str, visit: Visit) -> str:
        """A visit in words: the gradient, the vjps that are called, with their results, and those that are not."""
        symbol, node = self.story.symbol, visit.node
        calls = [f"{self.story.vjp_source(visit, c)} = {value(c.result)}" for c in visit.calls]
        others = [symbol(x) for x, _ in node.operands() if all(x is not c.operand for c in visit.calls)]
        parts = [
            f"visit {n}, {symbol(node)}, whose gradient {symbol(visit.gradient)} = {value(visit.gradient)} is complete."
        ]
        parts += [f"Called, of {place(node.op)}: {'; '.join(calls)}."] if calls else []
        parts += [f"Not called: for {', '.join(others)}, on no way to what is asked for."] if others and calls else []
        parts += [MASK] if any(getattr(a, "dtype", "") == "bool" for c in visit.calls for a in c.result.args) else []
        return " ".join(parts)

    def _box(self, x: Tensor, color: str) -> None:
        (column, row), color = self.places[id(x)], color if x.requires_grad else "grey"
        corner = f'x="{column - WIDTH / 2:.2f}" y="{row - HEIGHT / 2:.2f}"'
        self._mark(f'<rect class="{color}" {corner} width="{WIDTH}" height="{HEIGHT}" rx="0.12"/>')
        name = x.op.__name__ if x.op else ("given" if x.requires_grad else "constant")
        number = self.story.numbers.get(id(x), "").replace("   product ", " #")
        self._text(column, row - 0.22, self.story.symbol(x), f"{color} symbol")
        self._text(column, row + 0.09, f"{name}{number}", f"{color} small")
        self._text(column, row + 0.32, value(x, 3), f"{color} small")
        for a in x.args:
            if isinstance(a, Tensor):
                self._arrow(a, x, color if a.requires_grad else "grey", 0)
            elif isinstance(a, backend.xp.ndarray):
                self._text(column, row - HEIGHT / 2 - 0.15, f"{self.story.symbol(a)}: constant", "grey")

    def _note(self, x: Tensor, text: str, color: str) -> None:
        """Write a text below the box of a result, or above the box of a Tensor that no primitive made."""
        if id(x) in self.places:
            column, row = self.places[id(x)]
            self._text(column, row + (HEIGHT / 2 + 0.2) * (1 if x.op else -1), text, color)

    def _arrow(self, x: Tensor, y: Tensor, color: str, bend: int) -> None:
        """Draw an arrow from one box to another, around the boxes in its way, and next to an arrow already there."""
        if {id(x), id(y)} <= self.places.keys():
            start, end = self.places[id(x)], self.places[id(y)]
            others = [place for place in self.places.values() if place not in (start, end)]
            ways = [w for w in (way(start, end, b) for b in BENDS[bend:]) if not {w, w[::-1]} & self.ways]
            found = next((w for w in ways if not any(meets(w, place) for place in others)), ways[0])
            self.ways.add(found)
            path = "M{:.2f},{:.2f} Q{:.2f},{:.2f} {:.2f},{:.2f}".format(*found[0], *found[1], *found[2])
            self._mark(f'<path class="way {color}" d="{path}" marker-end="url(#{color})"/>')

    def _text(self, x: float, y: float, text: str, kind: str) -> None:
        self._mark(f'<text class="{kind}" x="{x:.2f}" y="{y:.2f}">{escape(text)}</text>')

    def _mark(self, element: str) -> None:
        self._marks.append(f'<g data-step="{len(self.steps)}">{element}</g>')

    def __str__(self) -> str:
        columns, rows = zip(*self.places.values())
        left, top = min(columns) - 0.6 * DX, min(rows) - 0.6 * DY
        size = {"width": round(max(columns) - left + 0.6 * DX, 2), "height": round(max(rows) - top + DY, 2)}
        marks = "\n".join(sorted(self._marks, key=lambda mark: "way" not in mark))
        return filled(HERE / "drawing.html", left=round(-left, 2), top=round(-top, 2), marks=marks, **size)


def way(start: Point, end: Point, bend: float) -> tuple[Point, Point, Point]:
    """A curve between two boxes: its start, the point that it bends towards, and its end."""
    (a, b), (c, d) = start, end
    x, y = (a + c) / 2 - bend * (d - b), (b + d) / 2 + bend * (c - a)
    scales = (max(abs(x - p) / (WIDTH / 2 + 0.04), abs(y - q) / (HEIGHT / 2 + 0.04), 1e-9) for p, q in (start, end))
    at, to = ((p + (x - p) / scale, q + (y - q) / scale) for (p, q), scale in zip((start, end), scales))
    return at, (x, y), to


def meets(curve: tuple[Point, Point, Point], box: Point) -> bool:
    shares = ((t * t, 2 * t * (1 - t), (1 - t) ** 2) for t in (i / 40 for i in range(41)))
    points = ([s * p + t * q + u * r for p, q, r in zip(*curve)] for s, t, u in shares)
    return any(abs(x - box[0]) < WIDTH / 2 + 0.03 and abs(y - box[1]) < HEIGHT / 2 + 0.03 for x, y in points)


def computed(x: Tensor) -> str:
    """The arithmetic: the values that a Tensor was made of, and its own."""
    return f" = {x.op.__name__}({', '.join(map(shown, x.args))}) = {value(x)}" if x.op else f" = {value(x)}"


def shown(x: Any) -> str:
    return value(x) if isinstance(x, (Tensor, backend.xp.ndarray)) else str(x)


def place(op: Any) -> str:
    """Where a primitive stands, with its vjps."""
    code = inspect.unwrap(op).__code__
    return f"{op.__name__} ({Path(code.co_filename).name}:{code.co_firstlineno})"


def draw(stories: Story | dict[str, Story], path: Path, title: str = "") -> list[str]:
    """Write a story as an SVG file, or, for a ``path`` .html, a page that plays it; returns a line for each step.

    Of several stories by their names the first is drawn, and a page lets choose.
    """
    stories = stories if isinstance(stories, dict) else {title: stories}
    drawings = {name: Drawing(story) for name, story in stories.items()}
    text = str(first := next(iter(drawings.values())))
    if path.suffix.lower() == ".html":
        cases = {}
        for name, drawing in drawings.items():
            story = drawing.story
            ending = story.error or f"All of it: {len(story.sweeps)} sweeps, {story.products} matrix products."
            cases[name] = {"svg": str(drawing), "steps": [*drawing.steps, ending], "text": str(story)}
        text = filled(HERE / "page.html", title=escape(title), cases=json.dumps(cases).replace("</", "<\\/"))
    write(path, text)
    return first.steps


Story._repr_html_ = lambda story: str(Drawing(story))  # type: ignore[attr-defined]  # in a notebook
