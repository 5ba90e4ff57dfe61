"""Distributions in one and two dimensions.

A target is a function (n, rng) to samples (n, d), float32, on the device. The two-dimensional targets follow Gulrajani
et al. 2017 (arXiv 1704.00028), figure 1.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy

from .. import backend
from ..backend import Array

Target = Callable[[int, Any], Array]

EIGHT = numpy.array([(math.cos(a), math.sin(a)) for a in numpy.arange(8) * math.pi / 4]) * math.sqrt(2)
TWENTY_FIVE = numpy.array(list(itertools.product(range(-2, 3), repeat=2))) / math.sqrt(8) * 2
BIMODAL = numpy.array([[-2.0], [1.5]])


def normal(n: int, rng: Any) -> Array:
    """N(0, 1), in one dimension."""
    return rng.standard_normal((n, 1), dtype="float32")


def tilted(tilt: float) -> Target:
    """The density 1 + tilt (x - 1/2) on [0, 1], in one dimension, sampled by inverting its distribution function."""

    def draw(n: int, rng: Any) -> Array:
        u = rng.random((n, 1), dtype="float32")
        return (tilt / 2 - 1 + backend.xp.sqrt((1 - tilt / 2) ** 2 + 2 * tilt * u)) / tilt

    return draw


def mixture(centres: numpy.ndarray, deviation: float) -> Target:
    """Equal Gaussians of standard ``deviation`` about ``centres`` (k, d)."""

    def draw(n: int, rng: Any) -> Array:
        chosen = backend.on_device(centres, dtype="float32")[rng.integers(0, len(centres), size=n)]
        return chosen + rng.standard_normal(chosen.shape, dtype="float32") * deviation

    return draw


def swiss_roll(n: int, rng: Any) -> Array:
    """A spiral of one and a half turns, in two dimensions."""
    t = (1.5 + 3 * rng.random(n, dtype="float32")) * math.pi
    roll = backend.xp.stack((t * backend.xp.cos(t), t * backend.xp.sin(t)), axis=1)
    return (roll + 0.25 * rng.standard_normal((n, 2), dtype="float32")) / 7.5


bimodal = mixture(BIMODAL, 0.5)
eight_gaussians = mixture(EIGHT, 0.02)
twenty_five_gaussians = mixture(TWENTY_FIVE, 0.05)


def real(draw: Target, n: int = 4000, seed: int = 99) -> numpy.ndarray:
    """Fresh samples (n, d) of a target, as a NumPy array."""
    return backend.to_numpy(draw(n, backend.default_rng(seed)))
