"""How far apart two sets of samples are, in numbers. NumPy arrays in, Python floats out."""

import math
from collections.abc import Iterator

import numpy


def shares(samples: numpy.ndarray, edges: numpy.ndarray) -> numpy.ndarray:
    """p(I_i), the share of ``samples`` (n,) in each bin between ``edges`` (the article, section "KL, JS")."""
    return numpy.histogram(samples, edges)[0] / len(samples)


def kl(p: numpy.ndarray, q: numpy.ndarray) -> float:
    """sum p log(p / q) over bins with shares p and q: infinite where q has an empty bin and p has not."""
    some = p > 0
    if (q[some] == 0).any():
        return math.inf
    return float((p[some] * numpy.log(p[some] / q[some])).sum())


def js_article(p: numpy.ndarray, q: numpy.ndarray) -> float:
    """1/2 KL(p, q) + 1/2 KL(q, p), as the article writes it: infinite as soon as one bin is empty on one side."""
    return (kl(p, q) + kl(q, p)) / 2


def js(p: numpy.ndarray, q: numpy.ndarray) -> float:
    """1/2 KL(p, m) + 1/2 KL(q, m) through the mixture m = (p + q) / 2: the usual one, at most ln 2."""
    return (kl(p, (p + q) / 2) + kl(q, (p + q) / 2)) / 2


def sliced_wasserstein(x: numpy.ndarray, y: numpy.ndarray, directions: int = 100) -> float:
    """The 1-Wasserstein distance between the projections of x and y, both (n, d), on a line: mean over random lines.

    In one dimension it is the Wasserstein distance itself: how far the sorted samples are apart. Rabin et al. 2012.
    """
    lines = numpy.random.default_rng(0).normal(size=(x.shape[1], directions))
    lines /= numpy.linalg.norm(lines, axis=0)
    return float(numpy.abs(numpy.sort(x @ lines, axis=0) - numpy.sort(y @ lines, axis=0)).mean())


def modes_found(samples: numpy.ndarray, centres: numpy.ndarray, radius: float) -> tuple[int, float]:
    """How many of ``centres`` (k, d) have a sample (n, d) within ``radius``, and the share of samples within any."""
    near = numpy.linalg.norm(samples[:, None] - centres, axis=2) < radius
    return int(near.any(axis=0).sum()), float(near.any(axis=1).mean())


def steepest_pair(scores: numpy.ndarray, points: numpy.ndarray) -> float:
    """The largest |D(y) - D(y')| / ||y - y'|| over all pairs of rows, for scores (n,) and points (n, d)."""
    rise = numpy.abs(scores[:, None] - scores)
    run = numpy.linalg.norm(points[:, None] - points, axis=2)
    return float((rise[run > 0] / run[run > 0]).max(initial=0))


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
    """How many of ``fake`` (m, d) lie among ``real`` (n, d), and how many of ``real`` among ``fake``: two shares.

    Kynkaanniemi et al. 2019 (arXiv 1904.06991), equations 1 and 2: a row lies among others where it is no further from
    one of them than that one's k-th nearest neighbour is.
    """
    return _share_among(fake, real, k), _share_among(real, fake, k)


def _share_among(rows: numpy.ndarray, others: numpy.ndarray, k: int) -> float:
    # the k-th nearest of the others to each of them, itself not counted
    reach = numpy.concatenate([numpy.partition(d, k, axis=1)[:, k].copy() for d in _squared_distances(others, others)])
    return float(numpy.concatenate([(d <= reach).any(axis=1) for d in _squared_distances(rows, others)]).mean())


def _squared_distances(x: numpy.ndarray, y: numpy.ndarray, block: int = 200) -> Iterator[numpy.ndarray]:
    """Between each row of x (n, d) and each of y (m, d): in blocks of rows of x, (block, m)."""
    y_squares = (y * y).sum(axis=1)
    for start in range(0, len(x), block):
        rows = x[start : start + block]
        distances = rows @ y.T
        distances *= -2
        distances += (rows * rows).sum(axis=1, keepdims=True)
        distances += y_squares
        yield distances


def nearest(images: numpy.ndarray, others: numpy.ndarray, block: int = 5000) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Which row of ``others`` (m, d) is nearest to each of ``images`` (n, d), and how far it is: (n,) and (n,).

    Both are uint8 or floats in [0, 1], a pixel's range being 1. ``others`` are taken ``block`` rows at a time.
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


def in_unit_range(x: numpy.ndarray) -> numpy.ndarray:
    """uint8 images as float32 in [0, 1]; others as they are."""
    return x.astype("float32") / numpy.float32(255) if x.dtype == numpy.uint8 else x


# --- By a classifier's probabilities -------------------------------------------------------------


def class_shares(probabilities: numpy.ndarray) -> numpy.ndarray:
    """The share of rows (n, k) in which each of the k classes is the likeliest."""
    return numpy.bincount(probabilities.argmax(axis=1), minlength=probabilities.shape[1]) / len(probabilities)


def entropy(p: numpy.ndarray) -> numpy.ndarray:
    """-sum p log p over the last axis, in nats; 0 log 0 is 0."""
    return -(p * numpy.log(numpy.where(p > 0, p, 1))).sum(axis=-1)


def inception_score(probabilities: numpy.ndarray) -> float:
    """exp(H(mean p) - mean H(p)) of rows (n, k): from 1 to k, which means sure of every row, and all classes alike.

    Salimans et al. 2016 (arXiv 1606.03498), section 4.
    """
    p = probabilities.astype("float64")
    return float(numpy.exp(entropy(p.mean(axis=0)) - entropy(p).mean()))
