"""Every picture; the only file that knows matplotlib."""

from collections.abc import Sequence
from pathlib import Path

import numpy
from matplotlib.figure import Figure
from matplotlib.image import imsave

from .checkpoint import replacing

PANELS, PANEL = 6, 6  # a progress picture has at most so many panels, of so many rows and columns


def tile(images: numpy.ndarray, columns: int, gap: int = 2) -> numpy.ndarray:
    """Images (n, height, width) in [0, 1] as one picture, row by row, ``gap`` pixels apart."""
    n, height, width = images.shape
    rows = -(-n // columns)
    cells = numpy.full((rows * columns, height + gap, width + gap), 0.25, images.dtype)
    cells[:n, gap:, gap:] = images
    cells[n:, gap:, gap:] = 0
    picture = cells.reshape(rows, columns, height + gap, width + gap).swapaxes(1, 2)
    picture = picture.reshape(rows * (height + gap), columns * (width + gap))
    return numpy.pad(picture, ((0, gap), (0, gap)), constant_values=0.25)


def save_grid(path: Path, images: numpy.ndarray, columns: int) -> None:
    """A grid of images (n, height, width) in [0, 1], twice their size."""
    picture = tile(images, columns).repeat(2, axis=0).repeat(2, axis=1)
    with replacing(path) as part:
        imsave(part, picture, cmap="gray", vmin=0, vmax=1)


def save_progress(path: Path, snapshots: Sequence[tuple[int, numpy.ndarray]]) -> None:
    """The same samples at up to six moments (iteration, images), the first and the last among them, side by side."""
    chosen = numpy.unique(numpy.linspace(0, len(snapshots) - 1, PANELS).round().astype(int))
    figure = Figure(figsize=(2.5 * len(chosen), 2.8), dpi=150, layout="constrained")
    for axes, i in zip(figure.subplots(1, len(chosen), squeeze=False)[0], chosen):
        iteration, images = snapshots[i]
        axes.imshow(tile(images[: PANEL**2], columns=PANEL), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(f"{iteration:,}", fontsize=11)
        axes.axis("off")
    with replacing(path) as part:
        figure.savefig(part)


def save_curves(path: Path, rows: Sequence[tuple[int, float, float]]) -> None:
    """L1 and the gradient norm over the iterations, one above the other; rows of (iteration, L1, gradient norm)."""
    iteration, l1, slope = numpy.array(rows).reshape(-1, 3).T
    figure = Figure(figsize=(8, 6), dpi=120, layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True)
    top.plot(iteration, l1, linewidth=1, color="tab:blue")
    top.set_ylabel("L1 = mean D(fake) - mean D(real)")
    top.set_ylim(bottom=min(0, *l1) if len(l1) else 0)
    bottom.plot(iteration, slope, linewidth=1, color="tab:orange")
    bottom.axhline(1, linewidth=0.8, color="gray", linestyle="--")
    bottom.set_ylabel("mean gradient norm")
    bottom.set_xlabel("iteration")
    for axes in (top, bottom):
        axes.grid(alpha=0.3)
    with replacing(path) as part:
        figure.savefig(part)
