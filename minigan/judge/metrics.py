"""Distances between sets of images, by their features or pixels."""

from collections.abc import Iterator

import numpy

from ..run.images import in_unit_range

# each of them: its description in a table, and its format
METRICS = {
    "frechet": ("Frechet distance to test images, by classifier's features", ".2f"),
    "units": ("... in units of real against real", ".2f"),
    "precision": ("precision: samples among test images (k = 3)", ".3f"),
    "recall": ("recall: test images among samples (k = 3)", ".3f"),
    "nearest": ("median distance to the nearest training image", ".2f"),
}


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
    others = numpy.unique(others, axis=0)  # a copy would be the nearest neighbour, and nothing within its reach
    k = min(k, len(others) - 1)
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
