"""The metrics of quality, on cases with a known answer."""

import itertools

import numpy as np
import pytest

from minigan.judge import frechet, nearest, precision_recall

RNG = np.random.default_rng(0)
CORNERS = np.array(list(itertools.product([-1, 1], repeat=3))) * (7 / 8) ** 0.5  # of mean 0, with covariance 1


def test_frechet_of_gaussians_is_the_closed_form():
    """For independent coordinates: ||m - m'||^2 + sum (s - s')^2."""
    x, y = CORNERS * [1, 2, 0.5] + [0, 1, 2], CORNERS * [3, 2, 1] + [1, 1, 0]
    turn = np.linalg.qr(RNG.normal(size=(3, 3)))[0]  # it does not depend on the axes
    for pair in ((x, y), (x @ turn, y @ turn)):
        assert frechet(*pair) == pytest.approx(1 + 4 + 4 + 0.25)
    flat = np.pad(RNG.normal(size=(100, 5)).astype("float32"), ((0, 0), (0, 3)))  # singular, as of dead relus
    assert (frechet(flat, flat), frechet(flat, flat + 2)) == pytest.approx((0, 8 * 4), abs=1e-4)


def brute_force(rows, others, k):
    """The definition, pair by pair."""
    reach = [sorted(np.linalg.norm(o - others, axis=1))[k] for o in others]
    return np.mean([any(np.linalg.norm(r - o) <= d for o, d in zip(others, reach)) for r in rows])


def test_precision_and_recall_are_the_definition():
    real, fake = RNG.normal(size=(90, 2)), RNG.normal(0.5, 1.5, (220, 2))
    for k in (1, 3):
        got = precision_recall(real, fake, k)
        assert got == (brute_force(fake, real, k), brute_force(real, fake, k))
        assert 0 < got[0] < 1 and got[0] != got[1]
    assert (precision_recall(real, real), precision_recall(real, real + 100)) == ((1, 1), (0, 0))


@pytest.mark.parametrize("block", [7, 50, 1000])
def test_nearest(block):
    images, others = RNG.integers(0, 256, (20, 12), dtype="uint8"), RNG.integers(0, 256, (103, 12), dtype="uint8")
    others[40] = images[3]
    exact = np.linalg.norm((images[:, None] / 255) - (others / 255), axis=2)
    for given in (images, images.astype("float32") / np.float32(255)):
        index, distance = nearest(given, others, block)
        np.testing.assert_array_equal(index, exact.argmin(axis=1))
        np.testing.assert_allclose(distance, exact.min(axis=1), rtol=1e-5)
        assert (index[3], distance[3]) == (40, 0)
