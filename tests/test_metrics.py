"""The metrics of quality, on cases with a known answer."""

import numpy as np
import pytest

from minigan.judge import frechet, nearest, precision_recall

RNG = np.random.default_rng(0)


def test_frechet_of_gaussians_is_the_closed_form():
    """For independent coordinates: ||m - m'||^2 + sum (s - s')^2."""
    x = RNG.normal([0, 1, 2], [1, 2, 0.5], (200_000, 3))
    y = RNG.normal([1, 1, 0], [3, 2, 1.0], (200_000, 3))
    assert frechet(x, y) == pytest.approx(1 + 4 + 4 + 0.25, rel=0.02)
    turn = np.linalg.qr(RNG.normal(size=(3, 3)))[0]  # it does not depend on the axes
    assert frechet(x @ turn, y @ turn) == pytest.approx(frechet(x, y), rel=1e-9)


def test_frechet_of_a_set_and_itself_is_zero():
    x = RNG.normal(size=(100, 5)).astype("float32")
    assert frechet(x, x) == pytest.approx(0, abs=1e-6)
    assert frechet(x, x + 2) == pytest.approx(5 * 4, rel=1e-5)
    flat = np.pad(x, ((0, 0), (0, 3)))  # features that never fire, as dead relus: singular covariances
    assert frechet(flat, flat) == pytest.approx(0, abs=1e-6)


def brute_force(rows, others, k):
    """The definition, pair by pair."""
    reach = [sorted(np.linalg.norm(o - others, axis=1))[k] for o in others]
    return np.mean([any(np.linalg.norm(r - o) <= d for o, d in zip(others, reach)) for r in rows])


@pytest.mark.parametrize("k", [1, 3])
def test_precision_and_recall_are_the_definition(k):
    real, fake = RNG.normal(size=(90, 2)), RNG.normal(0.5, 1.5, (70, 2))
    got = precision_recall(real, fake, k)
    assert got == (brute_force(fake, real, k), brute_force(real, fake, k))
    assert 0 < got[0] < 1 and got[0] != got[1]


def test_precision_and_recall_of_known_cases():
    real = RNG.normal(size=(3000, 4))
    assert precision_recall(real, real) == (1, 1)
    assert precision_recall(real, real + 100) == (0, 0)
    one_half = RNG.normal(size=(3000, 4))
    one_half[:, 0] = abs(one_half[:, 0])  # good samples, but of half the distribution
    precision, recall = precision_recall(real, one_half)
    assert precision > 0.85 and 0.4 < recall < 0.7


@pytest.mark.parametrize("block", [7, 50, 1000])
def test_nearest(block):
    images, others = RNG.integers(0, 256, (20, 12), dtype="uint8"), RNG.integers(0, 256, (103, 12), dtype="uint8")
    others[40] = images[3]
    index, distance = nearest(images, others, block)
    exact = np.linalg.norm((images[:, None] / 255) - (others / 255), axis=2)
    np.testing.assert_array_equal(index, exact.argmin(axis=1))
    np.testing.assert_allclose(distance, exact.min(axis=1), rtol=1e-5)
    assert (index[3], distance[3]) == (40, 0)
    as_floats = nearest(images.astype("float32") / np.float32(255), others, block)
    np.testing.assert_array_equal(as_floats[0], index)
