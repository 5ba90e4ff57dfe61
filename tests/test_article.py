"""The article's sections: what each one claims, in metrics, on runs shortened where the claim shows early.

No bound is nearer than half as much again to what came out of four seeds, by two kinds of kernels.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from minigan.article import __main__ as article
from minigan.article import sections
from minigan.article.distances import js, js_article, kl, modes_found, shares, sliced_wasserstein, steepest_pair
from minigan.article.sections import SECTIONS
from minigan.losses import GAMES
from minigan.penalties import WHERE
from tests.running import posix


def section(name, scale):
    """The metrics of a section, once its picture is there, by the command line."""
    assert article.main([name, "--scale", str(scale), "--out", "a"]) == 0
    assert Path(f"a/{name}.png").stat().st_size > 10_000
    return json.loads(Path(f"a/{name}.json").read_text())["metrics"]


def test_divergences_and_order(capsys):
    metrics, order = section("divergences", 0.1), section("order", 1)
    for form in ("article", "usual"):
        assert metrics[f"JS {form}, by counting 1000000"] == pytest.approx(metrics[f"JS {form}, exact"], rel=0.02)
    assert metrics["sizes at which the article's is infinite"] > 0
    assert metrics["decimal digits of 2^784"] == 237
    assert order["spread, mean of D(y_i)"] < 1e-5 < 1 < order["spread, one D(y_1, ..., y_M)"]
    out = capsys.readouterr().out
    assert out.startswith("2. KL, JS: from 1,000,000 samples")
    assert "\n3. A neural distance: over 200 orders" in out


@pytest.mark.slow
def test_interview_and_fight():
    metrics, fight = section("interview", 0.5), section("fight", 1)
    for name in ("normal", "bimodal"):
        assert max(metrics[f"error of the map, {name}"], metrics[f"distance, {name}"]) < 0.4
    for correlation in fight["correlation from 4 to 150, by seed"].values():
        assert correlation > 0.5
    assert fight["L1 at 300"] < fight["L1 at 2"] / 5
    assert fight["distance at 300"] < 0.5


@pytest.mark.slow
def test_unconstrained():
    metrics = section("unconstrained", 0.48)
    assert metrics["last L1, critic alone, none"] > 10 * metrics["last L1, critic alone, penalty"]
    assert metrics["last L1, critic alone, sigmoid"] <= 1
    assert metrics["largest L1 in the fight, none"] > 10 * metrics["largest L1 in the fight, penalty"]
    assert metrics["last gradient, sigmoid"] < metrics["last gradient, penalty"] / 4
    assert metrics["distance, sigmoid"] > 3


@pytest.mark.slow
def test_constraints(monkeypatch):
    monkeypatch.setattr(sections, "SEEDS", range(1))
    metrics = section("constraints", 0.25)
    assert np.isfinite([list(row.values()) for row in metrics.values()]).all()
    slope = {name: row["slope by gradient, mean"] for name, row in metrics.items()}
    steep = slope.pop("none")
    assert len(slope) == 8
    assert max(slope.values()) < steep / 1.5
    assert metrics["spectral"]["slope, steepest pair"] < 1.1  # by construction, at most 1
    assert abs(slope["(b) gradient, (s - 1)^2"] - 1) < abs(steep - 1) / 4


@pytest.mark.slow
@pytest.mark.parametrize("name, kinds", [("where", WHERE), ("games", GAMES)])
def test_side_by_side(name, kinds):
    metrics = section(name, 0.2)
    assert list(metrics) == list(kinds)
    for row in metrics.values():
        assert 0.4 < row["slope by gradient, mean"] < 3
        assert row["distance to the target"] < 0.6


@pytest.mark.slow
def test_plane():
    metrics = section("plane", 0.2)
    assert metrics["modes found, 8 Gaussians"] > 4
    assert metrics["modes found, 25 Gaussians"] > 12
    assert max(metrics[f"distance, {name}"] for name in ("8 Gaussians", "25 Gaussians", "Swiss roll")) < 0.8


def test_what_goes_wrong_is_told_in_one_line(capsys, monkeypatch):
    ends = {"stopped": KeyboardInterrupt(), "large": MemoryError("8 TiB")}

    def section(path, scale):
        """0. Nothing: it fails."""
        raise ends[path.stem]

    monkeypatch.setattr(article, "SECTIONS", SECTIONS | dict.fromkeys(ends, section))
    for flags, status, message in (
        (["mnist"], 2, "unknown section 'mnist': expected one of interview, divergences, order"),
        (["--scale", "0"], 2, "argument --scale: expected a number above 0 and below 1000, got '0'"),
        (["--scale", "1e18"], 2, "argument --scale: expected a number above 0 and below 1000, got '1e18'"),
        *([(["order", "--out", "/proc/out"], 2, "--out /proc/out: ")] if posix else []),
        (["stopped"], 130, "interrupted"),
        (["large"], 2, "not enough memory for these sizes: 8 TiB"),
    ):
        with pytest.raises(SystemExit) as exit:
            article.main(flags)
        error = capsys.readouterr().err
        assert (exit.value.code, error.count("\n")) == (status, 1)
        assert message in error


# --- The measures -------------------------------------------------------------------------------


def test_divergences_of_known_shares():
    counted = shares(np.array([0.1, 0.1, 0.6, 0.9]), np.array([0, 0.5, 0.75, 1]))
    assert counted.tolist() == [0.5, 0.25, 0.25]
    p, q, one, other = np.array([[0.5, 0.5], [0.25, 0.75], [1, 0], [0, 1]])
    assert kl(p, q) == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))
    assert js_article(p, q) == js_article(q, p) == pytest.approx((kl(p, q) + kl(q, p)) / 2)
    assert kl(p, p) == js(p, p) == js_article(p, p) == 0
    assert (js(one, other), js_article(one, other)) == (pytest.approx(math.log(2)), math.inf)
    similar = np.array([0.1, 0.9])  # to the other: the article's own example, a distance of 0.1 / 0 in its form only
    assert js_article(similar, other) == math.inf
    assert 0 < js(similar, other) < 0.1


def test_sliced_wasserstein():
    x, y = np.random.default_rng(0).normal(size=(500, 1)), np.random.default_rng(1).normal(size=(500, 2))
    shifted = y + np.array([1, 0])  # on a line at angle t it shows as |cos t|, 2 / pi on average
    got = sliced_wasserstein(x, x[::-1]), sliced_wasserstein(x, x + 3), sliced_wasserstein(y, shifted, 400)
    assert got == (0, pytest.approx(3), pytest.approx(2 / math.pi, rel=0.1))


def test_modes_and_steepest_pair():
    samples = np.array([[0.1, 0.0], [5.0, 0.1], [2.0, 2.0], [0.0, 0.0]])
    assert modes_found(samples, np.array([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]]), 0.2) == (2, 0.75)
    assert steepest_pair(np.array([0.0, 1.0, 4.0]), np.array([[0.0], [1.0], [2.0]])) == 3
    assert steepest_pair(np.array([0.0, 1.0]), np.array([[1.0], [1.0]])) == 0
