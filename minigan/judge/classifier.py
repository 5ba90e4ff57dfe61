"""A small classifier of images, whose features and classes the metrics are of. It lies beside the images."""

import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy
from threadpoolctl import threadpool_limits
from tqdm import trange

from .. import backend, ops
from ..autodiff import grad
from ..data import DataError, reading
from ..nn import MLP
from ..optim import Adam
from ..run.files import in_memory, write
from ..run.images import in_unit_range, read_arrays
from ..tensor import Tensor, no_grad

FILE = "classifier.npz"
HIDDEN = (256, 64)
MOST = 256  # classes
EPOCHS, BATCH, LEARNING_RATE = 12, 100, 2e-3


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


def classes(predicted: Predictions) -> numpy.ndarray:
    """The likeliest class of each image, (n,)."""
    return predicted.probabilities.argmax(axis=1)


def accuracy(classifier: MLP, images: numpy.ndarray, labels: numpy.ndarray) -> float:
    """The share of images whose likeliest class is their label."""
    return float((classes(predict(classifier, images)) == labels).mean())


def train(images: numpy.ndarray, labels: numpy.ndarray, epochs: int = EPOCHS) -> MLP:
    """A classifier trained on images (n, height, width), uint8.

    Each batch is shifted by up to one pixel, so that the classifier learns strokes. The loss is softmax cross-entropy,
    and Adam's learning rate falls to 0. The seed is fixed, and there is one thread: the same images and labels, from 0
    on, give the same classifier.
    """
    rng = numpy.random.default_rng(0)
    n, height, width = images.shape
    framed = numpy.pad(images, ((0, 0), (1, 1), (1, 1)))
    classifier = MLP([height * width, *HIDDEN, int(labels.max()) + 1], rng=rng)
    adam = Adam(classifier.parameters(), LEARNING_RATE)
    batches = n // BATCH
    with threadpool_limits(1, "blas"):
        for step in trange(epochs * batches, desc="classifier", unit="step", disable=None, leave=False):
            if step % batches == 0:
                order = rng.permutation(n)
            chosen = order[step % batches * BATCH :][:BATCH]
            down, right = rng.integers(0, 3, 2)
            x = _rows(framed[chosen, down : down + height, right : right + width])
            loss = softmax_cross_entropy(classifier(x), backend.on_device(labels[chosen].astype("int64")))
            adam.lr = LEARNING_RATE * (1 - step / (epochs * batches))
            adam.step(grad(loss, classifier.parameters()))
    return classifier


def _rows(images: numpy.ndarray) -> backend.Array:
    return backend.on_device(in_unit_range(images).reshape(len(images), -1))


def softmax_cross_entropy(x: Tensor, labels: backend.Array) -> Tensor:
    """The mean of -log softmax(x)[label] over rows of logits ``x`` (n, k), for integer ``labels`` (n,): shape ().

    Raises ValueError for labels of other shapes or types, or outside of 0 ... k - 1 (on the GPU this check waits).
    """
    if getattr(labels, "shape", None) != x.shape[:1] or labels.dtype.kind not in "iu":
        raise ValueError(f"softmax_cross_entropy: expected an array of {len(x)} whole numbers, a label for each row")
    if not 0 <= labels.min() <= labels.max() < x.shape[1]:
        raise ValueError(f"softmax_cross_entropy: expected labels from 0 to {x.shape[1] - 1}, got others among them")
    x = x - x.array.max(axis=1, keepdims=True)  # a part common to a row's logits costs digits, and cancels out
    return ops.mean(ops.logsumexp(x, 1) - x[backend.xp.arange(len(labels)), labels])


def save(path: Path, classifier: MLP) -> None:
    """Write the parameters, in half precision: a few hundred KiB."""
    halves = (backend.to_numpy(p).astype("float16") for p in classifier.parameters())
    write(path, in_memory(numpy.savez_compressed, *halves))


def is_another(path: Path) -> bool:
    """Whether there is a file that ``save`` did not write."""
    try:
        return path.exists() and any(a.dtype != "float16" for a in read_arrays(path).values())
    except (OSError, ValueError, zipfile.BadZipFile):
        return True


def load(path: Path, pixels: int) -> MLP:
    """The classifier that ``save`` wrote, on the device in use; it takes rows of ``pixels`` pixels.

    Raises DataError where the file is missing or damaged, or is for images of another size.
    """
    if not path.exists():
        raise DataError(f"{path}: there is no classifier beside the data")
    with reading(path, "a classifier"):
        arrays = read_arrays(path)
        weights = [arrays[f"arr_{i}"] for i in range(2 * len(HIDDEN) + 2)]
        count = len(weights[-1])
        if len(weights[0]) != pixels:
            raise DataError(f"{path}: looks at images of {len(weights[0])} pixels; the ones beside it have {pixels}")
        if not 0 < count <= MOST:
            raise ValueError(f"it has {count} classes")
        classifier = MLP([pixels, *HIDDEN, count])
        for i, (p, a) in enumerate(zip(classifier.parameters(), weights)):
            if (a.shape, a.dtype) != (p.shape, "float16"):
                raise ValueError(f"arr_{i} is {a.dtype} {a.shape}; expected float16 {p.shape}")
            if not numpy.isfinite(a).all():
                raise ValueError(f"arr_{i} holds numbers that are not finite")
            p.data = backend.on_device(a, dtype="float32")
    return classifier
