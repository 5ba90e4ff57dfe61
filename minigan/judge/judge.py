"""The evaluation of samples: all metrics, and the same metrics of real images for comparison."""

import warnings
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy

from .. import backend
from ..data import DataError
from ..nn import MLP
from ..run.images import in_unit_range, load_images, nearby
from ..tensor import no_grad
from ..training import DivergenceError
from .classifier import FILE, classes, load, predict
from .metrics import METRICS, frechet, nearest, precision_recall

SAMPLES = 10_000  # at most so many images on each side of a comparison; MNIST has as many test images
FEWEST = 30  # with fewer images the metrics would mean nothing
# Of ten distances of real images to others, drawn anew each time, one is then a fifth from their mean (MNIST).
FEWEST_FOR_DISTANCE = 5_000
NEIGHBOURS = 1_000  # so many samples are compared with every training image


class Judge:
    """An evaluator of samples, with the classifier and the images of ``source``; its test images are the reference.

    As many images stand on each side of every comparison: samples, ``test`` images, and ``others``, training images in
    the place of samples. Of larger sets these are a random choice, the same each time.

    Pictures are resized to ``size``; ``train`` may hold the training images, if they are loaded already. Raises
    DataError where images or classifier are missing or damaged, or do not belong together.
    """

    def __init__(self, source: Path, size: int | None = None, train: numpy.ndarray | None = None) -> None:
        train = load_images(source, "train", size) if train is None else train
        test, path = load_images(source, "test", size), nearby(source, FILE)
        if train.shape[1:] != test.shape[1:]:
            raise DataError(f"{source}: its test images have another size than its training images")
        if min(len(train), len(test)) < FEWEST:
            raise DataError(f"{source}: to judge samples takes {FEWEST} training and test images")
        n, rng = min(SAMPLES, len(train), len(test)), numpy.random.default_rng(0)
        self.train, self.repeated = train.reshape(len(train), -1), repeated(test, train)
        self.test, self.others = (x.reshape(len(x), -1)[rng.permutation(len(x))[:n]] for x in (test, train))
        self.copies = n - len({x.tobytes() for x in self.test})
        self.classifier = load(path, self.train.shape[1])
        self._real = predict(self.classifier, self.test)
        features = self._real.features
        # Features of equal images may differ by rounding: the kernel for a row depends on its place in the matrix.
        if numpy.ptp(features, axis=0).max() <= 1e-4 * numpy.abs(features).max():
            raise DataError(f"{path}: sees no difference between the test images")

    @cached_property
    def real(self) -> dict[str, Any]:
        """The metrics of training images in the place of samples ("nearest" of test images)."""
        metrics = self._metrics(self.others)
        units = 1.0 if (metrics["frechet"] or 0) > 1e-6 else None  # with 0 for a unit, there is none
        return metrics | {"units": units, "nearest": self._nearest(self.test)}

    def __call__(self, samples: numpy.ndarray, critic: MLP) -> dict[str, Any]:
        """The metrics of samples (n, pixels), float32 in [0, 1], as many as there are rows in ``test``.

        With too few images for a distance, it and its units are None.

        Among them is L1 = mean D(samples) - mean D(real), for training images and for test images, which the critic
        never saw: where the two L1 differ, the critic has begun to memorise its training images (Gulrajani et al. 2017,
        arXiv 1704.00028, figure 5).
        """
        metrics = self._metrics(samples)
        fake, train, test = (_mean_score(critic, x) for x in (samples, self.others, self.test))
        metrics |= {
            "units": metrics["frechet"] / self.real["frechet"] if self.real["units"] else None,
            "nearest": self._nearest(samples),
            "l1_train": fake - train,
            "l1_test": fake - test,
        }
        if not numpy.isfinite([x for x in metrics.values() if x is not None]).all():
            raise DivergenceError("the samples are too far from any image to be judged: a metric of them is not finite")
        return metrics

    def table(self, metrics: dict[str, Any]) -> list[tuple[str, str, str]]:
        """Rows of text (metric, samples, real images) for the ``metrics`` of samples; the first row is the head."""
        had = [(text, metrics[name], self.real[name], how) for name, (text, how) in METRICS.items()]
        rows = [(text, format(x, how), format(y, how)) for text, x, y, how in had if None not in (x, y)]
        notes = [f"no Frechet distance: it takes {FEWEST_FOR_DISTANCE:,} training and test images"]
        notes = notes if self.real["frechet"] is None else []
        notes += [f"{self.repeated:,} of the test images are training images too"] if self.repeated else []
        notes += [f"{self.copies:,} of the test images are copies of others"] if self.copies else []
        return [("", "samples", "real"), *((note, "", "") for note in notes), *rows]

    def print_table(self, metrics: dict[str, Any]) -> None:
        for what, samples, real in self.table(metrics):
            print(f"{what:<60} {samples:>8} {real:>8}")

    def of_each_class(self, samples: numpy.ndarray, n: int) -> numpy.ndarray:
        """The first n samples that the classifier puts into each class, class by class; black where none is."""
        predicted = predict(self.classifier, samples)
        grid = numpy.zeros((predicted.probabilities.shape[1], n, *samples.shape[1:]), samples.dtype)
        for c, row in enumerate(grid):
            found = samples[classes(predicted) == c][:n]
            row[: len(found)] = found
        return grid.reshape(-1, *samples.shape[1:])

    def beside_nearest(self, samples: numpy.ndarray, n: int) -> numpy.ndarray:
        """Rows of n samples, and below each row the training images that are nearest to its samples."""
        index, _ = nearest(samples.reshape(len(samples), -1), self.train)
        pairs = numpy.stack([samples, in_unit_range(self.train[index]).reshape(samples.shape)])
        return pairs.reshape(2, -1, n, *samples.shape[1:]).swapaxes(0, 1).reshape(-1, *samples.shape[1:])

    def _metrics(self, images: numpy.ndarray) -> dict[str, Any]:
        predicted = predict(self.classifier, images)
        if not numpy.isfinite(predicted.features).all():
            raise DivergenceError("the classifier's features of the samples are not finite: there is nothing to judge")
        precision, recall = precision_recall(self._real.features, predicted.features)
        return {
            "frechet": frechet(predicted.features, self._real.features) if len(images) >= FEWEST_FOR_DISTANCE else None,
            "precision": precision,
            "recall": recall,
        }

    def _nearest(self, images: numpy.ndarray) -> float:
        return float(numpy.median(nearest(images[:NEIGHBOURS], self.train)[1]))


def repeated(images: numpy.ndarray, others: numpy.ndarray) -> int:
    """How many of the images are among the others."""
    seen = {x.tobytes() for x in others}
    return sum(x.tobytes() in seen for x in images)


def find_judge(
    source: Path, size: int | None = None, train: numpy.ndarray | None = None, needed: bool = False
) -> Judge | None:
    """The judge of samples; None if there is no classifier beside the images, or, with a warning, none that fits.

    Raises DataError for both where a judge is ``needed``.
    """
    if not (needed or nearby(source, FILE).exists()):
        return None
    try:
        return Judge(source, size, train)
    except DataError as error:
        make = f"python -m minigan.judge --data {source}{f' --size {size}' if size else ''}"
        if needed:
            raise DataError(f"{error}; a classifier is made by: {make}") from None
        warnings.warn(f"no metrics of samples: {error}; remove the classifier, or make it anew: {make}", stacklevel=2)
        return None


def _mean_score(critic: MLP, images: numpy.ndarray, block: int = 2000) -> float:
    with no_grad():
        scores = [
            critic(backend.on_device(in_unit_range(images[i : i + block]))).array.sum()
            for i in range(0, len(images), block)
        ]
    return float(sum(backend.to_numpy(s).item() for s in scores) / len(images))
