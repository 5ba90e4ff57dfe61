"""How good samples are: every figure at once, beside what real images give in their place."""

import math
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy

from .. import backend
from ..data import DataError
from ..nn import MLP
from ..tensor import Tensor, no_grad
from ..tools.datasets import beside, load_images
from . import metrics
from .classifier import FILE, Look, load, look

SAMPLES = 10_000  # at most so many test images are what is real; MNIST has as many
FEWEST = 30  # the real figures would say nothing
NEIGHBOURS = 1_000  # so many samples are compared with every training image

# what the table says of each figure, and how it is written
FIGURES = {
    "frechet": ("Frechet distance of the classifier's features to test images", ".2f"),
    "units": ("... in units of real against real", ".2f"),
    "precision": ("precision: samples among test images (k = 3)", ".3f"),
    "recall": ("recall: test images among samples (k = 3)", ".3f"),
    "sliced_wasserstein": ("sliced Wasserstein distance of the pixels", ".4f"),
    "classes": ("classes with at least 1 % of the samples", ".0f"),
    "smallest_class": ("share of the smallest class", ".3f"),
    "largest_class": ("share of the largest class", ".3f"),
    "class_entropy": ("entropy of the classes' shares (all alike: 2.303 for ten)", ".3f"),
    "confidence": ("mean probability of the likeliest class", ".3f"),
    "inception_score": ("inception score of the classifier", ".2f"),
    "nearest": ("median distance to the nearest training image", ".2f"),
}


class Judge:
    """Judges samples by the classifier and the images of ``source``, with its test images as what is real.

    ``size`` is what pictures are brought to, and ``train`` may be the training images, where they are at hand. Raises
    DataError where images or classifier are missing, damaged, or not of each other.
    """

    def __init__(self, source: Path, size: int | None = None, train: numpy.ndarray | None = None) -> None:
        train = load_images(source, "train", size) if train is None else train
        test, path = load_images(source, "t10k", size), beside(source, FILE)
        if train.shape[1:] != test.shape[1:]:
            raise DataError(f"{source}: its test images have another size than its training images")
        if min(len(train), len(test)) < FEWEST:
            raise DataError(
                f"{source}: to judge samples takes {FEWEST} training and test images; remove {path.name} there"
            )
        self.train, self.test = _rows(train), _rows(test)[:SAMPLES]
        self.classifier = load(path, self.train.shape[1])
        features = self._test_features
        # Equal images may differ by rounding: which kernel multiplies a row goes by its place in the matrix.
        if numpy.ptp(features, axis=0).max() <= 1e-4 * numpy.abs(features).max():
            raise DataError(f"{path}: sees no difference between the test images; remove it, or make it anew")

    @cached_property
    def real(self) -> dict[str, float]:
        """The figures for as many training images in the place of samples (and for "nearest", for test images)."""
        return self._figures(self.train[: len(self.test)]) | {"units": 1.0, "nearest": self._nearest(self.test)}

    def __call__(self, samples: numpy.ndarray) -> dict[str, float]:
        """The figures for as many samples (n, pixels), float32 in [0, 1], as there are rows in ``test``."""
        figures = self._figures(samples)
        return figures | {
            "units": figures["frechet"] / max(self.real["frechet"], 1e-9),
            "nearest": self._nearest(samples),
        }

    def look(self, samples: numpy.ndarray) -> Look:
        return look(self.classifier, samples)

    def distances(self, critic: MLP, samples: numpy.ndarray) -> dict[str, float]:
        """L1 = mean D(samples) - mean D(real) for training images, and for test images, which no critic has seen.

        Where the two part, the critic has begun to know its training images by heart: Gulrajani et al. 2017
        (arXiv 1704.00028), figure 5.
        """
        fake, train, test = (_mean_score(critic, x) for x in (samples, self.train[: len(self.test)], self.test))
        return {"l1_train": fake - train, "l1_test": fake - test}

    @cached_property
    def _test_features(self) -> numpy.ndarray:
        return self.look(self.test).features

    def _figures(self, images: numpy.ndarray) -> dict[str, float]:
        seen = self.look(images)
        shares = metrics.class_shares(seen.probabilities)
        precision, recall = metrics.precision_recall(self._test_features, seen.features)
        return {
            "frechet": metrics.frechet(seen.features, self._test_features),
            "precision": precision,
            "recall": recall,
            "sliced_wasserstein": metrics.sliced_wasserstein(*map(metrics.in_unit_range, (images, self.test))),
            "classes": int((shares >= 0.01).sum()),
            "smallest_class": float(shares.min()),
            "largest_class": float(shares.max()),
            "class_entropy": float(metrics.entropy(shares)),
            "confidence": float(seen.probabilities.max(axis=1).mean()),
            "inception_score": metrics.inception_score(seen.probabilities),
        }

    def _nearest(self, images: numpy.ndarray) -> float:
        return float(numpy.median(metrics.nearest(images[:NEIGHBOURS], self.train)[1]))


def sound(rows: Any) -> list[dict[str, float]]:
    """``rows``, read from a file, if they are what ``evaluations`` consist of; else raises what that raises."""
    for row in rows:
        for name in ("iteration", *FIGURES, "l1_train", "l1_test"):
            if not math.isfinite(row[name]):
                raise ValueError(f"{name} is {row[name]}")
    return rows


def table(samples: dict[str, float], real: dict[str, float]) -> list[tuple[str, str, str]]:
    """Rows of text (what, samples, real images), the first of them the head."""
    rows = [(what, format(samples[name], how), format(real[name], how)) for name, (what, how) in FIGURES.items()]
    return [("", "samples", "real"), *rows]


def _rows(images: numpy.ndarray) -> numpy.ndarray:
    return images.reshape(len(images), -1)


def _mean_score(critic: MLP, images: numpy.ndarray, block: int = 2000) -> float:
    with no_grad():
        scores = [
            critic(Tensor(backend.asarray(metrics.in_unit_range(images[i : i + block])))).data.sum()
            for i in range(0, len(images), block)
        ]
    return float(sum(backend.to_numpy(s).item() for s in scores) / len(images))
