"""Pictures, as the bytes of PNG and GIF files: grids of images, their growth, and curves. All figures are made here.

matplotlib, which takes long to import, is imported where it draws, and draws by its own defaults.
"""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy
from PIL import Image, ImageDraw, ImageFont

from .files import in_memory

PANELS, PANEL = 6, 6  # a progress picture has at most so many panels, of so many rows and columns
PIXELS = 2_000_000  # at most, of a grid; a panel has at most a twentieth of them
POINTS = 5_000  # at most, of a curve

Snapshot = tuple[int, numpy.ndarray]  # iteration, images (n, height, width), uint8


def to_bytes(images: numpy.ndarray) -> numpy.ndarray:
    """Images in [0, 1] as uint8."""
    return images if images.dtype == numpy.uint8 else (images.clip(0, 1) * 255).round().astype("uint8")


def panel_side(shape: tuple[int, int]) -> int:
    """The number of rows, and of columns, of images of that shape (height, width) in a panel."""
    return max(1, min(PANEL, int((PIXELS / 20 / (shape[0] * shape[1])) ** 0.5)))


def tile(images: numpy.ndarray, columns: int, gap: int = 2) -> numpy.ndarray:
    """Images (n, height, width), uint8, as one picture, row by row, ``gap`` pixels apart."""
    n, height, width = images.shape
    rows = -(-n // columns)
    cells = numpy.full((rows * columns, height + gap, width + gap), 64, "uint8")
    cells[:n, gap:, gap:] = images
    cells[n:, gap:, gap:] = 0
    lines = cells.reshape(rows, columns, height + gap, width + gap).swapaxes(1, 2)
    picture = lines.reshape(rows * (height + gap), columns * (width + gap))
    return numpy.pad(picture, ((0, gap), (0, gap)), constant_values=64)


def grid(images: numpy.ndarray, columns: int) -> bytes:
    """A grid of images (n, height, width), in [0, 1] or uint8: at twice their size, or reduced to PIXELS."""
    picture = Image.fromarray(tile(to_bytes(images), columns))
    size = picture.width * picture.height
    if 4 * size <= PIXELS:
        picture = picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.NEAREST)
    elif size > PIXELS:
        picture = picture.reduce(math.ceil((size / PIXELS) ** 0.5))
    return in_memory(picture.save, format="png")


def progress(snapshots: Sequence[Snapshot]) -> bytes:
    """The same samples at up to six iterations, the first and the last included, side by side."""
    moments = numpy.unique(numpy.linspace(0, len(snapshots) - 1, PANELS).round().astype(int))
    with matplotlib_alone() as matplotlib:
        figure = matplotlib.figure.Figure(figsize=(2.5 * len(moments), 2.8), dpi=150, layout="constrained")
        for axes, i in zip(figure.subplots(1, len(moments), squeeze=False)[0], moments):
            iteration, images = snapshots[i]
            picture = tile(images, columns=panel_side(images.shape[1:]))
            axes.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axes.set_title(f"{iteration:,}", fontsize=11)
            axes.axis("off")
        return in_memory(figure.savefig, format="png")


def animation(snapshots: Sequence[Snapshot]) -> bytes:
    """A GIF of the samples at all snapshots, with the iteration above each; it plays once, and stays at the last."""
    with matplotlib_alone() as matplotlib:
        font = ImageFont.truetype(matplotlib.font_manager.findfont("DejaVu Sans"), 14)
    frames = []
    for iteration, images in snapshots:
        picture = Image.fromarray(tile(images, columns=panel_side(images.shape[1:])))
        scale = max(1, 400 // max(picture.size))
        picture = picture.resize((scale * picture.width, scale * picture.height), Image.Resampling.NEAREST)
        picture.thumbnail((2000, 2000))
        frame = Image.new("L", (picture.width, picture.height + 24), 255)
        frame.paste(picture, (0, 24))
        ImageDraw.Draw(frame).text((frame.width / 2, 12), f"{iteration:,}", fill=0, font=font, anchor="mm")
        frames.append(frame)
    return in_memory(frames[0].save, format="gif", save_all=True, append_images=frames[1:], duration=250)


def curves(rows: Sequence[tuple[int, float, float, float]], evaluations: Sequence[dict] = ()) -> bytes:
    """L1 and the critic's mean slope over the training time, from rows of (iteration, L1, slope, seconds).

    With evaluations also the Frechet distance of the samples, and L1 on training and test images.
    """
    _, l1, slope, seconds = numpy.array(rows).reshape(-1, 4)[:: 1 + len(rows) // POINTS].T
    drawn = [
        lines("", {"": (seconds, l1)}, "seconds", "L1 = mean D(fake) - mean D(real)", marks=[0]),
        lines("", {"": (seconds, slope)}, "seconds", "mean slope of the critic", marks=[1]),
    ]
    if evaluations:
        at, distance, train, test = (
            numpy.array([e[name] for e in evaluations], float) for name in ("seconds", "units", "l1_train", "l1_test")
        )
        held_out = {"training images": (at, train), "test images": (at, test)}
        drawn.append(lines("", held_out, "seconds", "L1", marks=[0], style="o-"))
        if numpy.isfinite(distance).any():  # which takes many images
            units = {"": (at, distance)}
            drawn.append(lines("", units, "seconds", "Frechet distance, real = 1", marks=[0, 1], style="o-"))
    return panels(drawn, columns=2, size=(5.5, 3))


# --- Panels: each a function that draws on matplotlib axes ---------------------------------------

Axes = Any  # matplotlib's
Panel = Callable[[Axes], None]


def panels(drawn: Sequence[Panel], columns: int, size: tuple[float, float] = (4, 3.2)) -> bytes:
    """A picture of panels, row by row; ``size`` is the width and height of a panel in inches."""
    rows = -(-len(drawn) // columns)
    with matplotlib_alone() as matplotlib:
        shape = (size[0] * columns, size[1] * rows)
        figure = matplotlib.figure.Figure(figsize=shape, dpi=110, layout="constrained")
        cells = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, panel in zip(cells, drawn):
            panel(axes)
        for axes in cells[len(drawn) :]:
            axes.axis("off")
        return in_memory(figure.savefig, format="png")


@contextmanager
def matplotlib_alone() -> Iterator[Any]:
    """The package as it is new, whatever the environment and the files of its user say: notebooks set MPLBACKEND."""
    others = {name: os.environ.pop(name) for name in ("MPLBACKEND", "MATPLOTLIBRC") if name in os.environ}
    try:
        import matplotlib.figure
        import matplotlib.font_manager
    finally:
        os.environ.update(others)
    with matplotlib.rc_context(matplotlib.rcParamsDefault):
        yield matplotlib


def lines(
    title: str,
    curves: dict[str, tuple[numpy.ndarray, numpy.ndarray]],
    xlabel: str = "",
    ylabel: str = "",
    marks: Sequence[float] = (),
    scale: tuple[str, str] = ("linear", "linear"),
    style: str = "-",
) -> Panel:
    """Curves (x, y) by their names, with dashed horizontal lines at ``marks``."""

    def draw(axes: Axes) -> None:
        for name, (x, y) in curves.items():
            axes.plot(x, y, style, linewidth=1, markersize=3, label=name or None)
        for mark in marks:
            axes.axhline(mark, linewidth=0.8, color="gray", linestyle="--")
        axes.set(title=title, xlabel=xlabel, ylabel=ylabel, xscale=scale[0], yscale=scale[1])
        axes.xaxis.set_minor_formatter("")
        axes.grid(alpha=0.3)
        if any(curves):
            axes.legend(fontsize=7)

    return draw
