"""Samples judged: real images, noise and one digit only in their place; and the page that a run leaves."""

from html.parser import HTMLParser

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


@pytest.fixture(scope="module")
def judge():
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(judging, "SAMPLES", 2000)
        monkeypatch.setattr(judging, "NEIGHBOURS", 100)
        yield Judge(MNIST)


MEAN = MLP([784, 1], rng=0)
MEAN.layers[0].weight.data[:] = 1 / 784  # D is the mean pixel


def rows(images):
    return images.reshape(len(images), -1).astype("float32") / np.float32(255)


def test_other_real_images_are_worth_one_unit(judge):
    metrics = judge(rows(load_images()[30000:32000]), MEAN)
    assert metrics["units"] < 1.5 and judge.real["units"] == 1
    for name in ("precision", "recall"):
        assert metrics[name] == pytest.approx(judge.real[name], abs=0.05) and metrics[name] > 0.7
    assert metrics["classes"] == 10 and metrics["confidence"] > 0.97
    assert metrics["nearest"] == 0  # they are training images
    assert 3 < judge.real["nearest"] < 6


def test_noise_is_far_away(judge):
    metrics = judge(np.random.default_rng(0).random((2000, 784), dtype="float32"), MEAN)
    assert metrics["units"] > 50 and metrics["recall"] < 0.01 and metrics["nearest"] > 10


def test_one_digit_only_is_sharp_but_not_all(judge):
    ones = rows(load_images()[load_labels() == 1][:2000])
    metrics = judge(ones, MEAN)
    assert metrics["precision"] > 0.7 and metrics["recall"] < 0.3 and metrics["units"] > 20
    assert metrics["classes"] < 4 and metrics["largest_class"] > 0.95


def test_l1_on_training_and_test_images(judge):
    metrics = judge(np.full((2000, 784), 0.5, "float32") + rows(load_images()[:2000]) / 1000, MEAN)
    assert metrics["l1_train"] == pytest.approx(0.5 - 0.999 * rows(load_images()[:2000]).mean(), rel=1e-4)
    difference = rows(load_images()[:2000]).mean() - rows(load_images(split="test")[:2000]).mean()
    assert metrics["l1_test"] - metrics["l1_train"] == pytest.approx(difference, rel=1e-3)


def test_samples_that_are_not_finite(judge):
    with pytest.raises(DivergenceError, match="features of the samples are not finite"), np.errstate(all="ignore"):
        judge(np.full((2000, 784), np.inf, "float32"), MEAN)


def test_the_table_has_every_figure(judge):
    head, *lines = table(judge.real, judge.real)
    assert head == ("", "samples", "real") and len(lines) == len(METRICS) == len(judge.real)
    assert all(a == b for _, a, b in lines) and dict((what, a) for what, a, _ in lines)[METRICS["units"][0]] == "1.00"


def test_samples_by_class(judge, monkeypatch):
    samples = np.arange(1, 26, dtype="float32").reshape(25, 1, 1)
    probabilities = np.eye(3)[[0] * 12 + [2] * 13]
    monkeypatch.setattr(judging, "predict", lambda classifier, samples: Predictions(None, probabilities))
    grid = report.by_class(samples, judge).reshape(3, 10)
    assert grid[0].tolist() == list(range(1, 11)) and grid[1].sum() == 0 and grid[2].tolist() == list(range(13, 23))


def test_samples_beside_their_nearest():
    training = np.random.default_rng(0).integers(0, 256, (70, 6), dtype="uint8")
    samples = (training[10:40].astype("float32") / np.float32(255)).reshape(30, 2, 3)
    grid = report.beside_nearest(samples, training).reshape(3, 2, 10, 2, 3)
    np.testing.assert_array_equal(grid[:, 0], samples.reshape(3, 10, 2, 3))
    np.testing.assert_array_equal(grid[:, 0], grid[:, 1])


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
        self.links += [value for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_holds_everything(tmp_path, judged):
    run(*TINY, "--data", judged, "--out", tmp_path / "a&b")
    page = Page((tmp_path / "a&b" / "report.html").read_text(encoding="utf-8"))
    assert [link[:15] for link in page.links] == [f"data:image/{kind};" for kind in ("png", "png", "gif", *["png"] * 4)]
    for text in (
        "6 iterations in",
        "Over time",
        "After 6 iterations",
        "By class",
        "Learned, or copied?",
        "penalty_weight",
    ):
        assert text in page.text
    assert Page(report.table("Numbers", "<b>", [("a", "b"), ("1 < 2", "3")])).text == "Numbers<b>ab1 < 23"
    assert (tmp_path / "a&b" / "animation.gif").read_bytes().startswith(b"GIF8")
