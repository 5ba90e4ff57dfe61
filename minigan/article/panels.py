"""Panels of the sections' pictures: histograms, points in the plane, and bars."""

from collections.abc import Sequence
from pathlib import Path

import numpy

from ..run import pictures
from ..run.files import write
from ..run.pictures import Axes, Panel


def save(path: Path, drawn: Sequence[Panel], columns: int, size: tuple[float, float] = (4, 3.2)) -> None:
    """Write a PNG file of panels, row by row; ``size`` is the width and height of a panel in inches."""
    write(path, pictures.panels(drawn, columns, size))


def histograms(title: str, samples: dict[str, numpy.ndarray], low: float, high: float) -> Panel:
    """Histograms of samples (n,) by their names, drawn over each other."""

    def draw(axes: Axes) -> None:
        for name, x in samples.items():
            axes.hist(x, bins=60, range=(low, high), density=True, alpha=0.5, label=name)
        axes.set(title=title)
        axes.legend(fontsize=7)

    return draw


def grid(extent: float) -> numpy.ndarray:
    """100 by 100 points (10000, 2) of the square from -``extent`` to ``extent``, on which ``scatter`` takes scores."""
    ticks = numpy.linspace(-extent, extent, 100, dtype="float32")
    return numpy.stack(numpy.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)


def scatter(title: str, samples: dict[str, numpy.ndarray], extent: float, scores: numpy.ndarray) -> Panel:
    """Samples (n, 2) by their names, over the level sets of ``scores`` (10000,), a critic's on the ``grid``."""

    def draw(axes: Axes) -> None:
        x, y, level = (column.reshape(100, 100) for column in (*grid(extent).T, scores))
        axes.contour(x, y, level, levels=20, linewidths=0.6, cmap="viridis")
        for name, points in samples.items():
            axes.scatter(points[:, 0], points[:, 1], s=2, alpha=0.5, label=name)
        axes.set(title=title, xlim=(-extent, extent), ylim=(-extent, extent), aspect="equal")
        axes.legend(fontsize=7, loc="upper right")

    return draw


def bars(title: str, values: dict[str, float]) -> Panel:
    """A horizontal bar for each name, labelled with its value; on a logarithmic scale if the values differ widely."""

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
