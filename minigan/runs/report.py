"""The page that a run leaves to look at: one file, with its pictures inside."""

import base64
import html
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from string import Template

import numpy

from .. import backend
from ..judge import metrics
from ..judge.evaluation import Judge
from ..judge.evaluation import table as compare
from ..nn import MLP
from ..settings import NOISES, Settings
from ..tools import pictures
from ..tools.cli import text
from ..tools.files import write_text
from ..training import generate
from .checkpoint import Checkpoint
from .folder import Folder
from .playing import newest, section
from .run import SLOPE_NAMES, draw

COLUMNS = 10  # of every grid of samples

SAMPLES = "Not chosen: from the noise that all grids of the run share."
PROGRESS = "The same samples at several moments; iterations above."
ANIMATION = "A frame for each grid of the run."
INTERPOLATIONS = "Each row goes from one noise vector to another."
CURVES = (
    "Over the seconds of training alone. L1 is the distance between samples and images as the critic sees it. Where L1"
    " on test images parts from L1 on training images, the critic has begun to know the latter by heart."
)
EVALUATION = (
    "After {iteration:,} iterations. On the right, the same for real training images in the place of samples. Features,"
    " classes and probabilities are those of a classifier trained on the images."
)
CLASSES = "The first samples that the classifier puts into each class."
NEAREST = "Rows of samples, and below each the training images that are nearest to them, pixel by pixel."

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 60rem; margin: 0 auto;
       padding: 1rem; }
h1 { font-size: 1.6rem; margin: 0.5rem 0; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 0.5rem; border-bottom: 1px solid #ddd; }
figure { margin: 1rem 0; overflow-x: auto; }
img { max-width: 100%; height: auto; display: block; }
img.wide { width: 100%; min-width: 44rem; max-width: none; }
img.pixels { width: 100%; max-width: 38rem; image-rendering: pixelated; }
figcaption, p { color: #444; max-width: 42rem; }
table { border-collapse: collapse; font-size: 0.9rem; }
td, th { text-align: left; padding: 0.2rem 0.8rem 0.2rem 0; border-bottom: 1px solid #eee; vertical-align: top; }
td + td, th + th { text-align: right; font-variant-numeric: tabular-nums; }
</style>
</head>
<body>
<h1>$title</h1>
<p>$summary</p>
$body
</body>
</html>
""")


def summary(checkpoint: Checkpoint) -> str:
    """How far a run came, in one line."""
    iteration, l1, slope, seconds = checkpoint.rows[-1] if checkpoint.rows else (0, numpy.nan, numpy.nan, 0.0)
    time = f"{seconds:.1f} s ({1000 * seconds / max(1, iteration):.1f} ms each)"
    return f"{iteration:,} iterations in {time}, L1 {l1:.3f}, {SLOPE_NAMES[checkpoint.settings.slope]} {slope:.3f}"


def collapse(checkpoint: Checkpoint) -> str | None:
    """What to say where the last tenth of a run's figures is none that samples come of."""
    last = numpy.abs(checkpoint.rows[-max(1, len(checkpoint.rows) // 10) :])
    if (last[:, 1:3] < 5e-4).all():
        return "the critic is flat: L1 and its slope are 0, and the generator has nothing to learn from"
    if (last[:, 1] > 1e4).all():
        return f"the critic has run away: an L1 of {last[-1, 1]:.3g} is no distance; a penalty or a constraint holds it"
    return None


def report(folder: Folder, checkpoint: Checkpoint, judge: Judge | None) -> None:
    """The pictures of a run and the page with all of them, in ``folder``."""
    settings, snapshots, evaluations = checkpoint.settings, checkpoint.snapshots, checkpoint.evaluations
    _, generator = checkpoint.networks()
    slope_name = SLOPE_NAMES[settings.slope]
    pictures.save_curves(folder.picture("curves.png"), checkpoint.rows, slope_name, evaluations)
    pictures.save_progress(folder.picture("progress.png"), snapshots)
    pictures.save_animation(folder.picture("animation.gif"), snapshots)

    def grid(name: str, images: numpy.ndarray) -> Path:
        pictures.save_grid(folder.picture(name), images.reshape(-1, *checkpoint.shape), COLUMNS)
        return folder.picture(name)

    parts = [
        section(generator, settings, checkpoint.shape, checkpoint.iteration),
        picture("Samples", folder.grid(snapshots[-1][0]), SAMPLES),
        picture("Over time", folder.picture("progress.png"), PROGRESS, "wide"),
        picture("As they grew", folder.picture("animation.gif"), ANIMATION, "plain"),
        picture("Curves", folder.picture("curves.png"), CURVES, "wide"),
    ]
    if evaluations and judge:
        last, samples = evaluations[-1], draw(generator, settings, len(judge.test))
        classes = by_class(samples, judge.look(samples).probabilities)
        parts += [
            table("Figures", EVALUATION.format(**last), compare(last, judge.real)),
            picture("By class", grid("classes.png", classes), CLASSES),
            picture("Learned, or copied?", grid("nearest.png", beside_nearest(samples, judge.train)), NEAREST),
        ]
    values = [(name, text(value)) for name, value in asdict(settings).items()]
    parts += [
        picture("Between two noises", grid("interpolations.png", interpolations(generator, settings)), INTERPOLATIONS),
        table("Settings", "", [("setting", "value"), *values]),
    ]
    write(folder.report, summary(checkpoint), parts)
    write_text(folder.newest, newest(checkpoint.iteration))


def interpolations(generator: MLP, settings: Settings, rows: int = 6) -> numpy.ndarray:
    """Samples (rows * COLUMNS, pixels) along the way from one noise vector to another, a row for each pair.

    For normal noise the way is the arc between them, x cos t + y sin t, on which it stays as long as normal noise is
    (White 2016, arXiv 1609.04468); for uniform noise it is the straight line.
    """
    rng = numpy.random.default_rng([settings.seed, 3])
    x, y = (NOISES[settings.noise](rng, (rows, 1, settings.noise_dim)) for _ in range(2))
    t = numpy.linspace(0, 1, COLUMNS, dtype="float32")[:, None]
    angle = t * numpy.pi / 2
    way = x * numpy.cos(angle) + y * numpy.sin(angle) if settings.noise == "normal" else x + t * (y - x)
    return backend.to_numpy(generate(generator, backend.asarray(way.reshape(-1, settings.noise_dim), dtype="float32")))


def by_class(samples: numpy.ndarray, probabilities: numpy.ndarray) -> numpy.ndarray:
    """The first ``COLUMNS`` samples that the classifier puts into each class, a row for each; black where none is."""
    classes = probabilities.argmax(axis=1)
    grid = numpy.zeros((probabilities.shape[1], COLUMNS, samples.shape[1]), samples.dtype)
    for c, row in enumerate(grid):
        found = samples[classes == c][:COLUMNS]
        row[: len(found)] = found
    return grid.reshape(-1, samples.shape[1])


def beside_nearest(samples: numpy.ndarray, training: numpy.ndarray, rows: int = 3) -> numpy.ndarray:
    """Rows of ``COLUMNS`` samples, and below each the row of the training images that are nearest to them."""
    samples = samples[: rows * COLUMNS]
    index, _ = metrics.nearest(samples, training)
    pairs = numpy.stack([samples, metrics.in_unit_range(training[index])]).reshape(2, rows, COLUMNS, -1)
    return pairs.swapaxes(0, 1).reshape(2 * rows * COLUMNS, -1)


def picture(title: str, path: Path, caption: str, kind: str = "pixels") -> str:
    """An image file inside the page, under a title.

    ``kind`` is "pixels", enlarged without smoothing, or "wide", never made too small to read, or "plain".
    """
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    image = f'<img class="{kind}" alt="{title}" src="data:image/{path.suffix[1:]};base64,{data}">'
    return f"<h2>{title}</h2><figure>{image}<figcaption>{html.escape(caption)}</figcaption></figure>"


def table(title: str, caption: str, rows: Sequence[Sequence[str]]) -> str:
    """Rows of text, the first of them the head, under a title."""
    head, *body = [[html.escape(text) for text in row] for row in rows]
    lines = [
        f"<tr><th>{'</th><th>'.join(head)}</th></tr>",
        *(f"<tr><td>{'</td><td>'.join(row)}</td></tr>" for row in body),
    ]
    return f"<h2>{title}</h2><p>{html.escape(caption)}</p><table>{''.join(lines)}</table>"


def write(path: Path, summary: str, parts: Sequence[str]) -> None:
    """The page, of parts that ``picture`` and ``table`` made."""
    page = PAGE.substitute(title="minigan: a run", summary=html.escape(summary), body="\n".join(parts))
    write_text(path, page)
