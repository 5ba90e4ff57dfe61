"""The page of a run: one HTML file, with its pictures inside, and its generator to play with."""

import base64
import html
import json
import os
import shlex
import subprocess
import warnings
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from .. import backend
from ..settings import Settings
from . import pictures
from .files import filled, write_if_free
from .flags import flag, text
from .run import BUNDLED, Run

COLUMNS = 10  # of every grid of samples
LOOKED_AT = 2_000  # samples, for some of each class
MOST = 20_000_000  # characters of a generator in a page, which would not open else
TOO_LARGE = "<p>(The generator is too large to be in this page: run.samples(noise) of minigan.run.load draws.)</p>"

SAMPLES = "Not chosen: from the noise that all grids of the run share."
PROGRESS = "The same samples at several moments; iterations above."
ANIMATION = "A frame for each grid of the run. (It plays once, when it is first seen.)"
CURVES = (
    "Over the seconds of training alone. From iteration 1,000 on a point is the mean of ten iterations, and from 10,000"
    " on of a hundred. L1 is the distance between samples and images as the critic sees it. Where L1 on test images"
    " parts from L1 on training images, the critic has begun to know the latter by heart."
)
# of metrics m of samples, and r of real images
UNITS = "{m[units]:.2f} units: how far the samples are from test images, where other real images are 1. "
SHARES = (
    "Precision {m[precision]:.3f}: the share of samples that look real (of real images {r[precision]:.3f})."
    " Recall {m[recall]:.3f}: the share of real images that samples look like ({r[recall]:.3f})."
)
EVALUATION = (
    "After {iteration:,} iterations. On the right, the same for real training images in the place of samples. Features"
    " and classes are those of a classifier trained on the images."
)
CLASSES = "The first samples that the classifier puts into each class."
NEAREST = "Rows of samples, and below each the training images that are nearest to them, pixel by pixel."


def write_page(run: Run, folder: Path, judge: Any) -> None:
    """Write the pictures of a run, and the page with all of them, to ``folder``.

    ``judge`` is a ``judge.Judge`` or None, and with one the metrics are there too.
    """

    def picture(
        title: str, name: str, content: bytes | None, caption: str, kind: str = "pixels", still: bytes | None = None
    ) -> str:
        """Write a picture; its HTML. ``kind``: "pixels", not smoothed; "wide", never too small to read; "plain".

        Where there is a ``still``, it is shown until the picture, which moves, is first seen.
        """
        if content is None:
            return ""
        write_if_free(folder / name, content)
        moving = f' data-moving="{data(content, name)}"' if still else ""
        image = f'<img class="{kind}" alt="{title}" src="{data(still or content, name)}"{moving}>'
        return f"<h2>{title}</h2><figure>{image}<figcaption>{html.escape(caption)}</figcaption></figure>"

    drawn = pictures.grid(run.samples(run.fixed_noise), run.settings.grid)
    curves = attempt(pictures.curves, run.rows, run.evaluations)
    opening, parts = [picture("Samples", "samples.png", drawn, SAMPLES)], []
    if run.evaluations and judge:
        m = run.evaluations[-1]
        opening.append(f"<p>{(UNITS if m['units'] else '') + SHARES}</p>".format(m=m, r=judge.real))
    changed = run.metadata.get("changed_at")
    but = f" (It was resumed at iteration {changed:,} in another way, which this does not repeat.)" if changed else ""
    opening.append(f"<p>Once more, from the beginning:{but}</p><pre>{html.escape(command(run))}</pre>")
    if run.snapshots:
        grown, last = (attempt(pictures.animation, x) for x in (run.snapshots, run.snapshots[-1:]))
        parts += [
            picture("Over time", "progress.png", attempt(pictures.progress, run.snapshots), PROGRESS, "wide"),
            picture("As they grew", "animation.gif", grown, ANIMATION, "plain", still=last),
        ]
    parts.append(picture("Curves", "curves.png", curves, CURVES, "wide"))
    if run.evaluations and judge:
        samples = run.new_samples(min(LOOKED_AT, len(judge.test)))
        classes = judge.of_each_class(samples, COLUMNS)
        nearest = judge.beside_nearest(samples[: 3 * COLUMNS], COLUMNS)
        parts += [
            table("Metrics", EVALUATION.format(**run.evaluations[-1]), judge.table(run.evaluations[-1])),
            picture("By class", "classes.png", pictures.grid(classes, COLUMNS), CLASSES),
            picture("Learned, or copied?", "nearest.png", pictures.grid(nearest, COLUMNS), NEAREST),
        ]
    given = [(flag(setting), text(getattr(run.settings, setting.name))) for setting in fields(Settings)]
    parts.append(table("Settings", "", [("flag", "value"), *given]))
    slots = {"summary": html.escape(run.summary()), "opening": "\n".join(opening), "body": "\n".join(parts)}
    weights = generator(run)
    here = len(weights) < MOST
    slots["play"] = filled(Path(__file__).with_name("play.html"), generator=weights) if here else TOO_LARGE
    write_if_free(folder / "report.html", filled(Path(__file__).with_suffix(".html"), title="minigan: a run", **slots))


def attempt(draw: Callable[..., bytes], *args: Any) -> bytes | None:
    """A picture, or, with a warning, None: whatever keeps one from being drawn, a run goes on."""
    try:
        return draw(*args)
    except Exception as error:
        warnings.warn(f"{draw.__name__} cannot be drawn: {type(error).__name__}: {error}", stacklevel=2)
        return None


def data(content: bytes, name: str) -> str:
    return f"data:image/{name[-3:]};base64,{base64.b64encode(content).decode()}"


def command(run: Run) -> str:
    """The command that trains a run once more, from its beginning."""
    settings = [(x, getattr(run.settings, x.name)) for x in fields(Settings)]
    words = [word for x, value in settings if value != x.default for word in (flag(x), *text(value).split())]
    about = run.metadata
    given = [name for name in ("device", "workers", "threads", "size") if about.get(name)]
    given += ["data"] if about["data"] != BUNDLED else []
    words += [word for name in given for word in (f"--{name}", str(about[name]))]
    quote = subprocess.list2cmdline if os.name == "nt" else shlex.join
    return quote(["python", "run_mnist.py", *words, "--out", "again"])


def generator(run: Run) -> str:
    """The generator of the samples, as JSON for the page to run, with weights in half precision."""
    most, settings = 65504, run.settings  # the largest number in half precision
    arrays = [backend.to_numpy(p).clip(-most, most) for p in run.gan.ema.parameters()]
    slots = {
        "sizes": [len(arrays[0]), *(len(bias) for bias in arrays[1::2])],
        "hidden": settings.hidden,
        "output": settings.output or "none",
        "noise": settings.noise,
        "height": run.shape[0],
        "width": run.shape[1],
        "weights": base64.b64encode(b"".join(a.astype("<f2").tobytes() for a in arrays)).decode("ascii"),
    }
    return json.dumps(slots)


def table(title: str, caption: str, rows: Sequence[Sequence[str]]) -> str:
    """An HTML table of rows of text, under a title; the first row is the head."""
    head, *body = [[html.escape(text) for text in row] for row in rows]
    lines = [
        f"<tr><th>{'</th><th>'.join(head)}</th></tr>",
        *(f"<tr><td>{'</td><td>'.join(row)}</td></tr>" for row in body),
    ]
    return f"<h2>{title}</h2><p>{html.escape(caption)}</p><table>{''.join(lines)}</table>"
