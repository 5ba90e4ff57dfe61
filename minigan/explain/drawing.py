"""The record as a drawing: the computation in blue, what a sweep recorded below it in orange, the last sweep in red.

What no gradient flows on from is grey. A Tensor that a sweep made stands below the one whose gradient it leads to.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from .. import backend
from ..tensor import Tensor
from ..tools.files import replacing
from .story import Stage, Story, value

BLUE, ORANGE, RED, GREY = "#2b6cb0", "#c05621", "#c53030", "#9a9a9a"
WIDTH, HEIGHT, DX, DY = 2.1, 0.92, 3.1, 1.8  # of a box, and from one to the next


class Drawing:
    """Places for the Tensors of a story, and the marks of each step of it, to draw or to play."""

    def __init__(self, story: Story) -> None:
        self.story, self.steps, self._drawn = story, [], 0
        self.places: dict[int, tuple[float, float]] = {}
        self._bottom = 0.0
        for stage in story.stages:
            if not stage.sweep or stage.sweep.recorded:
                (self._below if stage.sweep else self._along)(stage)
                self._bottom = min((y for _, y in self.places.values()), default=0.0) - DY

    def _put(self, x: Tensor, column: float, row: float) -> None:
        while self._taken(column, row):
            row -= DY
        self.places[id(x)] = column, row

    def _taken(self, column: float, row: float) -> bool:
        return any(y == row and abs(x - column) < WIDTH for x, y in self.places.values())

    def _along(self, stage: Stage) -> None:
        """What the function made goes from left to right; what it was given stands above its first use."""
        given = [x for x in stage.tensors if not x.op]
        start = [self.places[id(a)][0] for x in stage.tensors for a in x.args if id(a) in self.places]
        depth: dict[int, int] = {}
        for x in stage.tensors:
            depth[id(x)] = 1 + max((depth.get(id(a), 0) for a in x.args if isinstance(a, Tensor)), default=-1)
        row = self._bottom if start else self._bottom - DY
        left = min(start, default=0.0)
        for x in stage.tensors:
            if x.op:
                self._put(x, left + DX * depth[id(x)], row)
        for x in given:
            users = [u for u in stage.tensors if any(a is x for a in u.args)]
            if not users:
                self._put(x, left, row)
                continue
            column, above = self.places[id(users[0])]
            alone = users[0].args[0] is x
            spot = (column - DX, above) if alone else (column - 0.5 * DX, above + DY)
            while self._taken(*spot):
                spot = spot[0] + DX, spot[1]
            self._put(x, *spot)

    def _below(self, stage: Stage) -> None:
        """What a sweep made stands below the operand that it is for."""
        for x in stage.tensors:
            if id(x) in self.story.calls:
                visit, call = self.story.calls[id(x)]
                final = x is call.result
                at = self.places[id(call.operand)][0]
                self._put(x, at if final else (at + self.places[id(visit.node)][0]) / 2, self._bottom)
            else:
                self._put(x, self.places[id(stage.sweep.visits[0].node)][0], self._bottom)

    def draw(self, axes: Axes) -> None:
        """All steps, each with its artists marked by its number."""
        for mark in self._marks(axes):
            self.steps.append(mark)
        columns, rows = zip(*self.places.values())
        axes.set_xlim(min(columns) - 0.6 * DX, max(columns) + 0.6 * DX)
        axes.set_ylim(min(rows) - DY, max(rows) + 0.6 * DY)
        key = ((BLUE, "the computation"), (ORANGE, "the first sweep, recorded"), (RED, "the second: visits, gradients"))
        for i, (color, text) in enumerate((*key, (GREY, "constants: nothing flows on"))):
            axes.text(0.13 + 0.245 * i, 0.02, text, color=color, size=9, ha="center", transform=axes.transAxes)
        axes.set_aspect("equal")
        axes.axis("off")

    def _marks(self, axes: Axes) -> Iterator[str]:
        """Draw step by step, and say what each is about."""
        for stage in self.story.stages:
            if stage.sweep and not stage.sweep.recorded:
                yield from self._sweep(axes, stage)
                continue
            color = ORANGE if stage.sweep else BLUE
            for x in stage.tensors:
                self._box(axes, x, color)
                yield f"{stage.title}: {self.story.symbol(x)} = {self.story.made(x)} {self.story._for(x)}"

    def _box(self, axes: Axes, x: Tensor, color: str) -> None:
        column, row = self.places[id(x)]
        color = color if x.requires_grad else GREY
        box = FancyBboxPatch(
            (column - WIDTH / 2, row - HEIGHT / 2),
            WIDTH,
            HEIGHT,
            "round,pad=0.02,rounding_size=0.12",
            fc="white",
            ec=color,
        )
        self._mark(axes.add_patch(box))
        name = x.op.__name__ if x.op else ("given" if x.requires_grad else "constant")
        number = self.story.numbers.get(id(x), "").replace("product ", "#").strip()
        for mask in (a for a in x.args if isinstance(a, backend.xp.ndarray)):
            self._text(axes, column, row + HEIGHT / 2 + 0.15, f"{self.story.symbol(mask)}: constant", GREY, size=8)
        text = f"{name} {number}".strip()
        self._text(axes, column, row + 0.22, self.story.symbol(x), color, size=12, weight="bold")
        self._text(axes, column, row - 0.06, text, color, size=7)
        self._text(axes, column, row - 0.3, value(x, 3), color, size=7.5)
        for a in x.args:
            if isinstance(a, Tensor) and id(a) in self.places:
                self._arrow(axes, self.places[id(a)], (column, row), color if a.requires_grad else GREY)

    def _sweep(self, axes: Axes, stage: Stage) -> Iterator[str]:
        for n, visit in enumerate(stage.sweep.visits, 1):
            at = self.places.get(id(visit.node))
            if not at:
                continue
            again = " again" if self.story.again(visit) else ""
            self._note(axes, visit.node, f"{n}{again}: {value(visit.gradient, 3)}", RED)
            for call in visit.calls:
                if id(call.operand) in self.places:
                    self._arrow(axes, at, self.places[id(call.operand)], RED, bend=-0.22)
            asked = "; ".join(f"{self.story.symbol(c.operand)} by {c.source}" for c in visit.calls)
            gradient = f"{self.story.symbol(visit.gradient)} = {value(visit.gradient)}"
            symbol = self.story.symbol(visit.node)
            yield f"{stage.title}: visit {n}{again}, {symbol}: {gradient}. Asked for {asked or 'nothing'}"
        for x in stage.sweep.missed:
            if id(x) in self.places:
                self._note(axes, x, "not reached: 0", GREY)
                yield f"{stage.title}: {self.story.symbol(x)} is not reached, so its gradient is 0"

    def _note(self, axes: Axes, x: Tensor, text: str, color: str) -> None:
        """Below a box, or above one that no arrow comes to from there."""
        column, row = self.places[id(x)]
        self._text(axes, column, row + (HEIGHT / 2 + 0.2) * (-1 if x.op else 1), text, color, size=8)

    def _arrow(self, axes: Axes, start: Any, end: Any, color: str, bend: float = 0.0) -> None:
        dx, dy = end[0] - start[0], end[1] - start[1]
        scale = 1 / max(abs(dx) / (WIDTH / 2 + 0.05), abs(dy) / (HEIGHT / 2 + 0.05), 1e-9)
        tail = start[0] + dx * scale, start[1] + dy * scale
        head = end[0] - dx * scale, end[1] - dy * scale
        style = {"arrowstyle": "-|>", "mutation_scale": 9, "shrinkA": 0, "shrinkB": 0}
        arrow = FancyArrowPatch(tail, head, connectionstyle=f"arc3,rad={bend}", color=color, lw=1.1, zorder=0, **style)
        self._mark(axes.add_patch(arrow))

    def _text(self, axes: Axes, x: float, y: float, text: str, color: str, **how: Any) -> None:
        behind = {"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.8}
        self._mark(axes.text(x, y, text, color=color, ha="center", va="center", bbox=behind, **how))

    def _mark(self, artist: Any) -> None:
        self._drawn += 1
        artist.set_gid(f"step{len(self.steps)}-{self._drawn}")


def draw(story: Story, path: Path) -> list[str]:
    """The story as one picture, SVG or PNG by the name of ``path``; returns what each of its steps is about."""
    drawing = Drawing(story)
    columns, rows = zip(*drawing.places.values())
    size = 0.55 * (max(columns) - min(columns) + 1.2 * DX), 0.55 * (max(rows) - min(rows) + 1.3 * DY)
    figure = Figure(figsize=size, dpi=150)
    drawing.draw(figure.add_axes((0, 0, 1, 1)))
    with replacing(path) as part, rc_context({"svg.hashsalt": "minigan"}):
        figure.savefig(part, metadata={"Date": None} if path.suffix == ".svg" else None)
    return drawing.steps
