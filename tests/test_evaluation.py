"""Samples judged: real images, noise and one digit only in their place; and the page that a run leaves."""

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from minigan import judge as judging
from minigan import report
from minigan.data import MNIST, load_images, load_labels
from minigan.judge import METRICS, Judge, Predictions, table
from minigan.nn import MLP
from minigan.run import Run
from minigan.settings import Settings
from minigan.training import DivergenceError
from tests.running import TINY, run

N = 1000
MEAN = MLP([784, 1], rng=0)
MEAN.layers[0].weight.data[:] = 1 / 784  # D is the mean pixel


@pytest.fixture(scope="module")
def judge():
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(judging, "SAMPLES", N)
        monkeypatch.setattr(judging, "NEIGHBOURS", 50)
        yield Judge(MNIST, train=load_images()[:12000])


def rows(images):
    return images.reshape(len(images), -1).astype("float32") / np.float32(255)


def test_other_real_images_are_worth_one_unit(judge):
    metrics, real = judge(rows(judge.train[-N:]), MEAN), judge.real
    shares, expected = ((told["precision"], told["recall"]) for told in (metrics, real))
    assert shares == pytest.approx(expected, abs=0.05) and min(shares) > 0.7
    assert metrics["units"] < 1.5 and metrics["classes"] == 10 and metrics["confidence"] > 0.97
    assert metrics["nearest"] == 0 and 3 < real["nearest"] < 6.5  # they are training images, and those are not


def test_noise_is_far_away_and_one_digit_only_is_sharp_but_not_all(judge):
    noise = judge(np.random.default_rng(0).random((N, 784), dtype="float32"), MEAN)
    assert noise["units"] > 50 and noise["recall"] < 0.01 and noise["nearest"] > 10
    ones = judge(rows(judge.train[load_labels()[:12000] == 1][:N]), MEAN)
    assert ones["precision"] > 0.7 and ones["recall"] < 0.3 and ones["units"] > 20
    assert ones["classes"] < 4 and ones["largest_class"] > 0.95 and ones["smallest_class"] < 0.01


def test_l1_on_training_and_test_images(judge):
    train, test = rows(judge.train[:N]), rows(judge.test)
    metrics = judge(0.5 + train / 1000, MEAN)
    l1 = 0.5 - 0.999 * train.mean(), 0.5 + train.mean() / 1000 - test.mean()
    assert (metrics["l1_train"], metrics["l1_test"]) == pytest.approx(l1, rel=1e-4)


def test_samples_that_are_not_finite(judge):
    with pytest.raises(DivergenceError, match="features of the samples are not finite"), np.errstate(all="ignore"):
        judge(np.full((N, 784), np.inf, "float32"), MEAN)


def test_the_table_has_every_figure(judge):
    head, *told = table(judge.real | {"units": 2}, judge.real)
    assert (head, [what for what, _, _ in told]) == (("", "samples", "real"), [what for what, _ in METRICS.values()])
    assert [row for row in told if row[1] != row[2]] == [(METRICS["units"][0], "2.00", "1.00")]


def test_samples_by_class(judge, monkeypatch):
    samples = np.arange(1, 26, dtype="float32").reshape(25, 1, 1)
    monkeypatch.setattr(
        judging, "predict", lambda classifier, samples: Predictions(None, np.eye(3)[[0] * 12 + [2] * 13])
    )
    grid = report.by_class(samples, judge).reshape(3, 10)
    assert grid.tolist() == [[*range(1, 11)], [0] * 10, [*range(13, 23)]]


def test_samples_beside_their_nearest():
    training = np.random.default_rng(0).integers(0, 256, (70, 6), dtype="uint8")
    samples = rows(training[10:40]).reshape(30, 2, 3)
    grid = report.beside_nearest(samples, training).reshape(3, 2, 10, 2, 3)
    np.testing.assert_array_equal(grid, np.stack([samples.reshape(3, 10, 2, 3)] * 2, axis=1))


@pytest.mark.parametrize("noise", ["normal", "uniform"])
def test_interpolations_keep_to_the_noise(noise, monkeypatch):
    """The way keeps the length that such noise has, and begins and ends in the two vectors."""
    monkeypatch.setattr(Run, "samples", lambda run, noise: noise)
    way = report.interpolations(Run(Settings(noise=noise, noise_dim=500), (2, 2), {}), rows=4).reshape(4, 10, 500)
    assert way.dtype == "float32" and len({row.tobytes() for row in way[:, [0, -1]].reshape(8, -1)}) == 8
    if noise == "normal":
        np.testing.assert_allclose(np.linalg.norm(way, axis=2), 500**0.5, rtol=0.15)
    else:
        np.testing.assert_allclose(way[:, 3], way[:, 0] + (way[:, 9] - way[:, 0]) / 3, atol=1e-5)


class Page(HTMLParser):
    """What a page refers to, and whether its elements are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.links, self.open, self.text = [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.links += [value[:15] for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_holds_everything(judged):
    run(*TINY, "--data", judged, "--out", "a&b")
    page = Page(Path("a&b/report.html").read_text(encoding="utf-8"))
    assert page.links == [f"data:image/{kind};" for kind in ("png", "png", "gif", *["png"] * 4)]
    told = "6 iterations in", "Over time", "After 6 iterations", "By class", "Learned, or copied?", "penalty_weight"
    assert [text for text in told if text not in page.text] == []
    assert Page(report.table("Numbers", "<b>", [("a", "b"), ("1 <u> 2", "3")])).text == "Numbers<b>ab1 <u> 23"
    assert Path("a&b/animation.gif").read_bytes().startswith(b"GIF8")
