"""A small classifier of the images, the eye that judges samples: ``python -m minigan.judge.classifier`` trains it anew.

It lies beside the data it was trained on, in ``classifier.npz``.
"""

import argparse
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy
from tqdm import tqdm

from .. import backend, ops
from ..autodiff import grad
from ..data import MNIST, DataError, reading
from ..losses import softmax_cross_entropy
from ..nn import MLP
from ..optim import Adam
from ..tensor import Tensor, no_grad
from ..tools.cli import Parser, number, one_line_errors, path, unbroken_output
from ..tools.datasets import SIZES, beside, load_images, load_labels
from ..tools.files import Arrays, write_npz
from .metrics import in_unit_range

HIDDEN = (256, 64)
EPOCHS, BATCH, LEARNING_RATE = 12, 100, 2e-3
FILE = "classifier.npz"


class Look(NamedTuple):
    """What the classifier makes of n images: NumPy arrays, float32."""

    features: numpy.ndarray  # (n, 64), the last hidden layer
    probabilities: numpy.ndarray  # (n, classes)


def look(classifier: MLP, images: numpy.ndarray, block: int = 2000) -> Look:
    """Look at images (n, pixels) or (n, height, width), uint8 or floats in [0, 1]."""
    parts = []
    with no_grad():
        for start in range(0, len(images), block):
            x = Tensor(_rows(images[start : start + block]))
            for layer in classifier.layers[:-1]:
                x = classifier.hidden(layer(x))
            logits = classifier.layers[-1](x)
            parts.append((x.data, ops.exp(logits - ops.logsumexp(logits, 1, keepdims=True)).data))
    return Look(*(numpy.concatenate([backend.to_numpy(a) for a in column]) for column in zip(*parts)))


def accuracy(classifier: MLP, images: numpy.ndarray, labels: numpy.ndarray) -> float:
    """The share of images whose likeliest class is their label."""
    return float((look(classifier, images).probabilities.argmax(axis=1) == labels).mean())


def train(images: numpy.ndarray, labels: numpy.ndarray, epochs: int = EPOCHS) -> MLP:
    """A classifier of images (n, height, width), uint8, each batch moved by up to one pixel, so that it learns strokes.

    Softmax cross-entropy, and Adam with a learning rate that falls to 0. The seed is fixed: the same images and labels
    give the same classifier.
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
    """The parameters, in half precision: a few hundred KiB."""
    write_npz(path, numpy.savez_compressed, *(backend.to_numpy(p).astype("float16") for p in classifier.parameters()))


def load(path: Path, pixels: int) -> MLP:
    """Read what ``save`` wrote, onto the device in use; it looks at rows of so many ``pixels``.

    Raises DataError where there is none, or a damaged one, or one of images of another size.
    """
    if not path.exists():
        data = path.parent if path.name == FILE else "and the file that it belongs to"
        raise DataError(
            f"{path}: there is no classifier beside the data; make one with: python -m minigan.judge.classifier --data"
            f" {data}"
        )
    with reading(path, "a classifier"), open(path, "rb") as file:
        arrays = Arrays(file, compressed=True)
        looks_at, classes = arrays.shape("arr_0")[0], arrays.shape("arr_5")[0]
        if looks_at != pixels:
            raise DataError(f"{path}: looks at images of {looks_at} pixels; the ones beside it have {pixels}")
        if not 0 < classes <= 256:
            raise ValueError(f"it has {classes} classes")
        layers = list(pairwise([pixels, *HIDDEN, classes]))
        shapes = [shape for n, m in layers for shape in ((n, m), (m,))]
        parameters = [arrays.array(f"arr_{i}", shape, "float16") for i, shape in enumerate(shapes)]
    classifier = MLP([pixels, *HIDDEN, classes])
    for p, a in zip(classifier.parameters(), parameters):
        p.data = backend.asarray(a, dtype="float32")
    return classifier


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="python -m minigan.judge.classifier", description="Train the classifier that judges samples.")
    parser.add_argument(
        "--data",
        type=path,
        default=MNIST,
        metavar="DATA",
        help="images with labels, as of run_mnist.py; it is written there [MNIST]",
    )
    parser.add_argument("--size", type=number(SIZES), metavar="N", help="pixels that pictures are brought to [28]")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="NumPy or CuPy [cpu]")
    with unbroken_output():
        args = parser.parse_args(argv)
        with one_line_errors(parser, args, DataError):
            return build(args)


def build(args: argparse.Namespace) -> int:
    backend.use(args.device)
    saved_to = beside(args.data, FILE)
    splits = [(load_images(args.data, split, args.size), load_labels(args.data, split)) for split in ("train", "t10k")]
    for images, labels in splits:
        if len(images) != len(labels):
            raise DataError(f"{args.data}: holds {len(images)} images and {len(labels)} labels of them")
        if images.shape[1:] != splits[0][0].shape[1:]:
            raise DataError(f"{args.data}: its test images have another size than its training images")
    known, asked = (set(labels.tolist()) for _, labels in splits)
    if len(splits[0][0]) < BATCH or len(known) < 2 or asked - known:
        raise DataError(
            f"{args.data}: expected {BATCH} training images or more, of two classes or more, with the test images'"
            f" among them; got {len(splits[0][0])}, of {len(known)}"
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
