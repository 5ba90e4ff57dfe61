"""The evaluation of samples: all metrics, and the same metrics of real images for comparison.

Most metrics use a small classifier of the images. The classifier is saved next to the data that it was trained on, in
``classifier.npz``; ``python -m minigan.judge`` trains it again.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy
from tqdm import tqdm

from . import backend, cli, ops
from .autodiff import grad
from .data import MNIST, SIZES, SPLITS, DataError, in_unit_range, load_images, load_labels, nearby, read_arrays, reading
from .files import in_memory, write
from .losses import softmax_cross_entropy
from .nn import MLP
from .optim import Adam
from .tensor import Tensor, no_grad
from .training import DivergenceError

FILE = "classifier.npz"
HIDDEN = (256, 64)
EPOCHS, BATCH, LEARNING_RATE = 12, 100, 2e-3

SAMPLES = 10_000  # at most so many images on each side of a comparison; MNIST has as many test images
FEWEST = 30  # with fewer images the metrics would mean nothing
# Of ten distances of real images to others, drawn anew each time, one is then a fifth from their mean (MNIST).
FEWEST_FOR_DISTANCE = 5_000
NEIGHBOURS = 1_000  # so many samples are compared with every training image

# each metric's description in the table, and its format
METRICS = {
    "frechet": ("Frechet distance of the classifier's features to test's", ".2f"),
    "units": ("... in units of real against real", ".2f"),
    "precision": ("precision: samples among test images (k = 3)", ".3f"),
    "recall": ("recall: test images among samples (k = 3)", ".3f"),
    "classes": ("classes with at least 1 % of the samples", ".0f"),
    "smallest_class": ("share of the smallest class", ".3f"),
    "largest_class": ("share of the largest class", ".3f"),
    "confidence": ("mean probability of the likeliest class", ".3f"),
    "nearest": ("median distance to the nearest training image", ".2f"),
}


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
            raise DataError(
                f"{source}: to judge samples takes {FEWEST} training and test images; remove {path.name} there"
            )
        n, rng = min(SAMPLES, len(train), len(test)), numpy.random.default_rng(0)
        self.train = train.reshape(len(train), -1)
        self.test, self.others = (x.reshape(len(x), -1)[rng.permutation(len(x))[:n]] for x in (test, train))
        self.classifier = load(path, self.train.shape[1])
        self._real = predict(self.classifier, self.test)
        features = self._real.features
        # Features of equal images may differ by rounding: the kernel for a row depends on its place in the matrix.
        if numpy.ptp(features, axis=0).max() <= 1e-4 * numpy.abs(features).max():
            raise DataError(f"{path}: sees no difference between the test images; remove it, or make it anew")

    @cached_property
    def real(self) -> dict[str, Any]:
        """The metrics of training images in the place of samples ("nearest" of test images)."""
        metrics = self._metrics(self.others)
        return metrics | {"units": metrics["frechet"] and 1.0, "nearest": self._nearest(self.test)}

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
            "units": metrics["frechet"] and metrics["frechet"] / max(self.real["frechet"], 1e-9),
            "nearest": self._nearest(samples),
            "l1_train": fake - train,
            "l1_test": fake - test,
        }
        if not numpy.isfinite([x for x in metrics.values() if x is not None]).all():
            raise DivergenceError("the samples are too far from any image to be judged: a metric of them is not finite")
        return metrics

    def _metrics(self, images: numpy.ndarray) -> dict[str, Any]:
        seen = predict(self.classifier, images)
        if not numpy.isfinite(seen.features).all():
            raise DivergenceError("the classifier's features of the samples are not finite: there is nothing to judge")
        shares = numpy.bincount(classes(seen), minlength=seen.probabilities.shape[1]) / len(images)
        precision, recall = precision_recall(self._real.features, seen.features)
        return {
            "frechet": frechet(seen.features, self._real.features) if len(images) >= FEWEST_FOR_DISTANCE else None,
            "precision": precision,
            "recall": recall,
            "classes": float((shares >= 0.01).sum()),
            "smallest_class": float(shares.min()),
            "largest_class": float(shares.max()),
            "confidence": float(seen.probabilities.max(axis=1).mean()),
        }

    def _nearest(self, images: numpy.ndarray) -> float:
        return float(numpy.median(nearest(images[:NEIGHBOURS], self.train)[1]))


def table(samples: dict[str, Any], real: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Rows of text (metric, samples, real images); the first row is the head."""
    had = [(what, samples[name], real[name], how) for name, (what, how) in METRICS.items() if samples[name] is not None]
    rows = [(what, format(x, how), format(y, how)) for what, x, y, how in had]
    few = [(f"no Frechet distance: it takes {FEWEST_FOR_DISTANCE:,} training and test images", "", "")]
    return [("", "samples", "real"), *(few if samples["frechet"] is None else []), *rows]


def _mean_score(critic: MLP, images: numpy.ndarray, block: int = 2000) -> float:
    with no_grad():
        scores = [
            critic(backend.asarray(in_unit_range(images[i : i + block]))).array.sum()
            for i in range(0, len(images), block)
        ]
    return float(sum(backend.to_numpy(s).item() for s in scores) / len(images))


# --- The classifier ------------------------------------------------------------------------------


class Predictions(NamedTuple):
    """The output of the classifier for n images: NumPy arrays, float32."""

    features: numpy.ndarray  # (n, 64), the last hidden layer
    probabilities: numpy.ndarray  # (n, classes)


def predict(classifier: MLP, images: numpy.ndarray, block: int = 2000) -> Predictions:
    """The classifier's predictions for images (n, pixels) or (n, height, width), uint8 or floats in [0, 1]."""
    parts = []
    with no_grad():
        for start in range(0, len(images), block):
            x = Tensor(_rows(images[start : start + block]))
            for layer in classifier.layers[:-1]:
                x = classifier.hidden(layer(x))
            logits = classifier.layers[-1](x)
            parts.append((x.array, ops.exp(logits - ops.logsumexp(logits, 1, keepdims=True)).array))
    return Predictions(*(numpy.concatenate([backend.to_numpy(a) for a in column]) for column in zip(*parts)))


def classes(seen: Predictions) -> numpy.ndarray:
    """The likeliest class of each image, (n,)."""
    return seen.probabilities.argmax(axis=1)


def accuracy(classifier: MLP, images: numpy.ndarray, labels: numpy.ndarray) -> float:
    """The share of images whose likeliest class is their label."""
    return float((classes(predict(classifier, images)) == labels).mean())


def train(images: numpy.ndarray, labels: numpy.ndarray, epochs: int = EPOCHS) -> MLP:
    """A classifier trained on images (n, height, width), uint8.

    Each batch is shifted by up to one pixel, so that the classifier learns strokes. The loss is softmax cross-entropy,
    and Adam's learning rate falls to 0. The seed is fixed: the same images and labels give the same classifier.
    """
    rng = numpy.random.default_rng(0)
    n, height, width = images.shape
    framed = numpy.pad(images, ((0, 0), (1, 1), (1, 1)))
    classifier = MLP([height * width, *HIDDEN, int(labels.max()) + 1], rng=rng)
    adam = Adam(classifier.parameters(), LEARNING_RATE)
    steps = epochs * (n // BATCH)
    with tqdm(total=steps, desc="classifier", unit="step", disable=None, leave=False) as bar:
        for _ in range(epochs):
            order = rng.permutation(n)
            for start in range(0, n - BATCH + 1, BATCH):
                chosen = order[start : start + BATCH]
                down, right = rng.integers(0, 3, 2)
                x = _rows(framed[chosen, down : down + height, right : right + width])
                loss = softmax_cross_entropy(classifier(x), backend.asarray(labels[chosen].astype("int64")))
                adam.lr = LEARNING_RATE * (1 - bar.n / steps)
                adam.step(grad(loss, classifier.parameters()))
                bar.update()
    return classifier


def _rows(images: numpy.ndarray) -> backend.Array:
    return backend.asarray(in_unit_range(images).reshape(len(images), -1))


def save(path: Path, classifier: MLP) -> None:
    """Write the parameters, in half precision: a few hundred KiB."""
    halves = (backend.to_numpy(p).astype("float16") for p in classifier.parameters())
    write(path, in_memory(numpy.savez_compressed, *halves))


def load(path: Path, pixels: int) -> MLP:
    """The classifier that ``save`` wrote, on the device in use; it takes rows of ``pixels`` pixels.

    Raises DataError where the file is missing or damaged, or is for images of another size.
    """
    if not path.exists():
        data = path.parent if path.name == FILE else "and the file that it belongs to"
        raise DataError(
            f"{path}: there is no classifier beside the data; make one with: python -m minigan.judge --data {data}"
        )
    with reading(path, "a classifier"):
        arrays = read_arrays(path)
        weights = [arrays[f"arr_{i}"] for i in range(2 * len(HIDDEN) + 2)]
        count = len(weights[-1])
        if len(weights[0]) != pixels:
            raise DataError(f"{path}: looks at images of {len(weights[0])} pixels; the ones beside it have {pixels}")
        if not 0 < count <= 256:
            raise ValueError(f"it has {count} classes")
        classifier = MLP([pixels, *HIDDEN, count])
        for i, (p, a) in enumerate(zip(classifier.parameters(), weights)):
            if (a.shape, a.dtype) != (p.shape, "float16"):
                raise ValueError(f"arr_{i} is {a.dtype} {a.shape}; expected float16 {p.shape}")
            if not numpy.isfinite(a).all():
                raise ValueError(f"arr_{i} holds numbers that are not finite")
            p.data = backend.asarray(a, dtype="float32")
    return classifier


# --- Between sets of images, by their features or pixels ----------------------------------------


def frechet(x: numpy.ndarray, y: numpy.ndarray) -> float:
    """The Frechet distance between the Gaussians with the means and covariances of two sets of features (n, d).

    ||m - m'||^2 + tr(C + C' - 2 (C C')^(1/2)): Heusel et al. 2017 (arXiv 1706.08500), equation 6. The last trace is the
    sum of the square roots of the eigenvalues of C^(1/2) C' C^(1/2), which is symmetric.
    """
    x, y = x.astype("float64"), y.astype("float64")
    c, d = numpy.cov(x, rowvar=False), numpy.cov(y, rowvar=False)
    values, vectors = numpy.linalg.eigh(c)
    root = vectors * numpy.sqrt(values.clip(0)) @ vectors.T
    cross = numpy.sqrt(numpy.linalg.eigvalsh(root @ d @ root).clip(0)).sum()
    return float(((x.mean(axis=0) - y.mean(axis=0)) ** 2).sum() + numpy.trace(c) + numpy.trace(d) - 2 * cross)


def precision_recall(real: numpy.ndarray, fake: numpy.ndarray, k: int = 3) -> tuple[float, float]:
    """The share of ``fake`` (m, d) that lies among ``real`` (n, d), and the share of ``real`` among ``fake``.

    Kynkaanniemi et al. 2019 (arXiv 1904.06991), equations 1 and 2: a row lies among others if its distance to some
    other row is at most the distance of that other row to its k-th nearest neighbour.
    """
    return _share_among(fake, real, k), _share_among(real, fake, k)


def _share_among(rows: numpy.ndarray, others: numpy.ndarray, k: int) -> float:
    # for each of the others the distance to its k-th nearest neighbour; index 0 is the row itself
    reach = numpy.concatenate([numpy.partition(d, k, axis=1)[:, k].copy() for d in _squared_distances(others, others)])
    # of equal rows it is 0, but for rounding: as much more is within reach
    reach += 4 * others.shape[1] * numpy.finfo(others.dtype).eps * (others * others).sum(axis=1)
    return float(numpy.concatenate([(d <= reach).any(axis=1) for d in _squared_distances(rows, others)]).mean())


def _squared_distances(x: numpy.ndarray, y: numpy.ndarray, block: int = 200) -> Iterator[numpy.ndarray]:
    """The squared distances of rows of x (n, d) and y (m, d): in blocks (block, m) of rows of x."""
    y_squares = (y * y).sum(axis=1)
    for start in range(0, len(x), block):
        rows = x[start : start + block]
        distances = rows @ y.T
        distances *= -2
        distances += (rows * rows).sum(axis=1, keepdims=True)
        distances += y_squares
        yield distances


def nearest(images: numpy.ndarray, others: numpy.ndarray, block: int = 5000) -> tuple[numpy.ndarray, numpy.ndarray]:
    """The row of ``others`` (m, d) nearest to each of ``images`` (n, d): its index (n,) and its distance (n,).

    Both are uint8 or floats in [0, 1]; distances are for pixels in [0, 1]. ``others`` are compared ``block`` at a time.
    """
    images = in_unit_range(images)
    index, least = numpy.zeros(len(images), int), numpy.full(len(images), numpy.inf)
    for start in range(0, len(others), block):
        part = in_unit_range(others[start : start + block])
        squares = numpy.concatenate(list(_squared_distances(images, part)))
        best = squares.argmin(axis=1)
        closer = squares.min(axis=1) < least
        index[closer], least[closer] = start + best[closer], squares.min(axis=1)[closer]
    return index, numpy.linalg.norm(images - in_unit_range(others[index]), axis=1)


# --- Its training, as a command ------------------------------------------------------------------


def main(argv: list[str] | None = None) -> int:
    parser = cli.Parser(prog="python -m minigan.judge", description="Train the classifier that judges samples.")
    parser.add_argument(
        "--data",
        type=cli.path,
        default=MNIST,
        metavar="DATA",
        help="images with labels, as of run_mnist.py; it is written there [MNIST]",
    )
    parser.add_argument("--size", type=cli.number(SIZES), metavar="N", help="pixels that pictures are brought to [28]")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="NumPy or CuPy [cpu]")
    with cli.unbroken_output():
        args = parser.parse_args(argv)
        with cli.one_line_errors(parser, args):
            return build(args)


def build(args: argparse.Namespace) -> int:
    backend.use(args.device)
    saved_to = nearby(args.data, FILE)
    splits = [(load_images(args.data, split, args.size), load_labels(args.data, split)) for split in SPLITS]
    for images, labels in splits:
        if len(images) != len(labels):
            raise DataError(f"{args.data}: holds {len(images)} images and {len(labels)} labels of them")
        if images.shape[1:] != splits[0][0].shape[1:]:
            raise DataError(f"{args.data}: its test images have another size than its training images")
    known, tested = (set(labels.tolist()) for _, labels in splits)
    few = len(splits[0][0]) < BATCH or len(splits[1][0]) < FEWEST
    if few or len(known) < 2 or tested - known:
        raise DataError(
            f"{args.data}: expected {BATCH} training images or more, of two classes or more, and {FEWEST} test images,"
            f" of classes among them; got {len(splits[0][0])}, of {len(known)}, and {len(splits[1][0])}"
        )
    start = time.perf_counter()
    classifier = train(*splits[0])
    seconds = time.perf_counter() - start
    save(saved_to, classifier)
    saved = load(saved_to, splits[0][0][0].size)
    right = [accuracy(saved, *split) for split in splits]
    print(f"{saved_to}: {right[1]:.2%} right on test images, {right[0]:.2%} on training images; {seconds:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
