"""Every picture; the only file that knows matplotlib."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from matplotlib.ticker import NullFormatter
from PIL import Image, ImageDraw, ImageFont

from .files import replacing

PANELS, PANEL = 6, 6  # a progress picture has at most so many panels, of so many rows and columns
FRAMES = 100  # at most, of an animation
PIXELS = 2_000_000  # at most, of a grid; a panel has at most a twentieth of them

Snapshot = tuple[int, numpy.ndarray]  # iteration, images (n, height, width), uint8


def to_bytes(images: numpy.ndarray) -> numpy.ndarray:
    """Images in [0, 1] as uint8."""
    return images if images.dtype == numpy.uint8 else (images.clip(0, 1) * 255).round().astype("uint8")


def panel_side(shape: tuple[int, int]) -> int:
    """How many rows and columns of images of that shape (height, width) a panel has."""
    return max(1, min(PANEL, int((PIXELS / 20 / (shape[0] * shape[1])) ** 0.5)))


def tile(images: numpy.ndarray, columns: int, gap: int = 2) -> numpy.ndarray:
    """Images (n, height, width), uint8, as one picture, row by row, ``gap`` pixels apart."""
    n, height, width = images.shape
    rows = -(-n // columns)
    cells = numpy.full((rows * columns, height + gap, width + gap), 64, "uint8")
    cells[:n, gap:, gap:] = images
    cells[n:, gap:, gap:] = 0
    picture = cells.reshape(rows, columns, height + gap, width + gap).swapaxes(1, 2)
    picture = picture.reshape(rows * (height + gap), columns * (width + gap))
    return numpy.pad(picture, ((0, gap), (0, gap)), constant_values=64)


def save_grid(path: Path, images: numpy.ndarray, columns: int) -> None:
    """A grid of images (n, height, width), in [0, 1] or uint8: twice their size, or as small as PIXELS ask for."""
    picture = Image.fromarray(tile(to_bytes(images), columns))
    size = picture.width * picture.height
    if 4 * size <= PIXELS:
        picture = picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.NEAREST)
    elif size > PIXELS:
        picture = picture.reduce(math.ceil((size / PIXELS) ** 0.5))
    with replacing(path) as part:
        picture.save(part)


def _evenly(snapshots: Sequence[Snapshot], most: int) -> list[Snapshot]:
    """At most so many of them, the first and the last among them."""
    chosen = numpy.unique(numpy.linspace(0, len(snapshots) - 1, most).round().astype(int))
    return [snapshots[i] for i in chosen]


def save_progress(path: Path, snapshots: Sequence[Snapshot]) -> None:
    """The same samples at up to six moments, the first and the last among them, side by side."""
    chosen = _evenly(snapshots, PANELS)
    figure = Figure(figsize=(2.5 * len(chosen), 2.8), dpi=150, layout="constrained")
    for axes, snapshot in zip(figure.subplots(1, len(chosen), squeeze=False)[0], chosen):
        _moment(axes, *snapshot)
    with replacing(path) as part:
        figure.savefig(part)


def _moment(axes: Axes, iteration: int, images: numpy.ndarray) -> None:
    side = panel_side(images.shape[1:])
    axes.imshow(tile(images[: side**2], columns=side), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_title(f"{iteration:,}", fontsize=11)
    axes.axis("off")


def save_animation(path: Path, snapshots: Sequence[Snapshot]) -> None:
    """The samples at up to a hundred moments, iterations above, as a GIF that rests on the last."""
    font = ImageFont.truetype(findfont("DejaVu Sans"), 14)
    frames = []
    for iteration, images in _evenly(snapshots, FRAMES):
        side = panel_side(images.shape[1:])
        picture = Image.fromarray(tile(images[: side**2], columns=side))
        scale = max(1, 400 // picture.width)
        picture = picture.resize((scale * picture.width, scale * picture.height), Image.Resampling.NEAREST)
        frame = Image.new("L", (picture.width, picture.height + 24), 255)
        frame.paste(picture, (0, 24))
        ImageDraw.Draw(frame).text((frame.width / 2, 12), f"{iteration:,}", fill=0, font=font, anchor="mm")
        frames.append(frame)
    milliseconds = [*[250] * (len(frames) - 1), 2000]
    with replacing(path) as part:
        frames[0].save(part, save_all=True, append_images=frames[1:], duration=milliseconds, loop=0)


def save_curves(
    path: Path, rows: Sequence[tuple[int, float, float, float]], slope_name: str, evaluations: Sequence[dict] = ()
) -> None:
    """L1 and the critic's mean slope over the training time, from rows of (iteration, L1, slope, seconds).

    And from evaluations, where there are any: the Frechet distance of the samples, and L1 on training and test images.
    """
    _, l1, slope, seconds = numpy.array(rows).reshape(-1, 4).T
    panels = [
        lines("", {"": (seconds, l1)}, "seconds", "L1 = mean D(fake) - mean D(real)", marks=[0]),
        lines("", {"": (seconds, slope)}, "seconds", f"mean {slope_name}", marks=[1]),
    ]
    if evaluations:
        at, distance, train, test = (
            numpy.array([e[name] for e in evaluations]) for name in ("seconds", "units", "l1_train", "l1_test")
        )
        held_out = {"training images": (at, train), "test images": (at, test)}
        panels += [
            lines("", {"": (at, distance)}, "seconds", "Frechet distance, real = 1", marks=[0, 1], style="o-"),
            lines("", held_out, "seconds", "L1", marks=[0], style="o-"),
        ]
    save_panels(path, panels, columns=2, size=(5.5, 3))


# --- Panels: each a function that draws on matplotlib axes ---------------------------------------

Panel = Callable[[Axes], None]


def save_panels(path: Path, panels: Sequence[Panel], columns: int, size: tuple[float, float] = (4, 3.2)) -> None:
    """A picture of panels, row by row; ``size`` is one panel's width and height in inches."""
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows), dpi=110, layout="constrained")
    cells = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, panel in zip(cells, panels):
        panel(axes)
    for axes in cells[len(panels) :]:
        axes.axis("off")
    with replacing(path) as part:
        figure.savefig(part)


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
        for y in marks:
            axes.axhline(y, linewidth=0.8, color="gray", linestyle="--")
        axes.set(title=title, xlabel=xlabel, ylabel=ylabel, xscale=scale[0], yscale=scale[1])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3)
        if any(curves):
            axes.legend(fontsize=7)

    return draw


def histograms(title: str, samples: dict[str, numpy.ndarray], low: float, high: float) -> Panel:
    """Histograms of samples (n,) by their names, over each other."""

    def draw(axes: Axes) -> None:
        for name, x in samples.items():
            axes.hist(x, bins=60, range=(low, high), density=True, alpha=0.5, label=name)
        axes.set(title=title)
        axes.legend(fontsize=7)

    return draw


def plane(
    title: str,
    samples: dict[str, numpy.ndarray],
    extent: float,
    critic: Callable[[numpy.ndarray], numpy.ndarray] | None = None,
) -> Panel:
    """Samples (n, 2) by their names, over the level sets of ``critic``, a function (n, 2) to (n,), where given."""

    def draw(axes: Axes) -> None:
        if critic:
            ticks = numpy.linspace(-extent, extent, 100, dtype="float32")
            x, y = numpy.meshgrid(ticks, ticks)
            level = critic(numpy.stack((x.ravel(), y.ravel()), axis=1)).reshape(x.shape)
            axes.contour(x, y, level, levels=20, linewidths=0.6, cmap="viridis")
        for name, points in samples.items():
            axes.scatter(*points.T, s=2, alpha=0.5, label=name)
        axes.set(title=title, xlim=(-extent, extent), ylim=(-extent, extent), aspect="equal")
        axes.legend(fontsize=7, loc="upper right")

    return draw


def bars(title: str, values: dict[str, float]) -> Panel:
    """One horizontal bar for each name, with its value at the end; on a logarithmic scale where they differ by far."""

    def draw(axes: Axes) -> None:
        drawn = axes.barh(list(values), list(values.values()), color="tab:blue", alpha=0.7)
        axes.bar_label(drawn, fmt="%.3g", padding=3, fontsize=8)
        axes.margins(x=0.2)
        if min(values.values()) > 0 and max(values.values()) > 50 * min(values.values()):
            axes.set_xscale("log")
        axes.invert_yaxis()
        axes.tick_params(labelsize=8)
        axes.set(title=title)

    return draw
