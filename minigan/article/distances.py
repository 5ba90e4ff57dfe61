"""Distances between two sets of samples in one or two dimensions: NumPy arrays in, Python floats out."""

import math

import numpy


def shares(samples: numpy.ndarray, edges: numpy.ndarray) -> numpy.ndarray:
    """p(I_i), the share of ``samples`` (n,) in each bin between ``edges`` (the article, section "KL, JS")."""
    return numpy.histogram(samples, edges)[0] / len(samples)


def kl(p: numpy.ndarray, q: numpy.ndarray) -> float:
    """sum p log(p / q) over bins with shares p and q: infinite where a bin is empty in q and not in p."""
    some = p > 0
    if (q[some] == 0).any():
        return math.inf
    return float((p[some] * numpy.log(p[some] / q[some])).sum())


def js_article(p: numpy.ndarray, q: numpy.ndarray) -> float:
    """1/2 KL(p, q) + 1/2 KL(q, p), as the article writes it: infinite if a bin is empty in only one of p and q."""
    return (kl(p, q) + kl(q, p)) / 2


def js(p: numpy.ndarray, q: numpy.ndarray) -> float:
    """1/2 KL(p, m) + 1/2 KL(q, m) with the mixture m = (p + q) / 2: the usual definition, at most ln 2."""
    return (kl(p, (p + q) / 2) + kl(q, (p + q) / 2)) / 2


def sliced_wasserstein(x: numpy.ndarray, y: numpy.ndarray, directions: int = 100) -> float:
    """The mean 1-Wasserstein distance between the projections of x and y, both (n, d), on random lines.

    In one dimension this is the Wasserstein distance: the mean distance of sorted samples. Rabin et al. 2012.
    """
    lines = numpy.random.default_rng(0).normal(size=(x.shape[1], directions))
    lines /= numpy.linalg.norm(lines, axis=0)
    return float(numpy.abs(numpy.sort(x @ lines, axis=0) - numpy.sort(y @ lines, axis=0)).mean())


def modes_found(samples: numpy.ndarray, centres: numpy.ndarray, radius: float) -> tuple[int, float]:
    """The number of ``centres`` (k, d) with samples (n, d) within ``radius``, and the share of such samples."""
    near = numpy.linalg.norm(samples[:, None] - centres, axis=2) < radius
    return int(near.any(axis=0).sum()), float(near.any(axis=1).mean())


def steepest_pair(scores: numpy.ndarray, points: numpy.ndarray) -> float:
    """The largest |D(y) - D(y')| / ||y - y'|| over all pairs of rows, for scores (n,) and points (n, d)."""
    rise = numpy.abs(scores[:, None] - scores)
    run = numpy.linalg.norm(points[:, None] - points, axis=2)
    return float((rise[run > 0] / run[run > 0]).max(initial=0))
