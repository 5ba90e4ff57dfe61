"""Samples judged: real images, noise and one digit only in their place; and the page that a run leaves."""

from html.parser import HTMLParser

import numpy as np
import pytest

from minigan.data import MNIST, load_images, load_labels
from minigan.judge import evaluation
from minigan.judge.evaluation import FIGURES, Judge, table
from minigan.nn import MLP
from minigan.runs import report
from minigan.settings import Settings
from minigan.tools import pictures


@pytest.fixture(scope="module")
def judge():
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(evaluation, "SAMPLES", 2000)
        monkeypatch.setattr(evaluation, "NEIGHBOURS", 100)
        yield Judge(MNIST)


def rows(images):
    return images.reshape(len(images), -1).astype("float32") / np.float32(255)


def test_other_real_images_are_worth_one_unit(judge):
    figures = judge(rows(load_images()[30000:32000]))
    assert figures["units"] < 1.5 and judge.real["units"] == 1
    for name in ("precision", "recall"):
        assert figures[name] == pytest.approx(judge.real[name], abs=0.05) and figures[name] > 0.7
    assert figures["classes"] == 10 and figures["confidence"] > 0.97 and figures["inception_score"] > 9.3
    assert figures["nearest"] == 0  # they are training images
    assert 3 < judge.real["nearest"] < 6


def test_noise_is_far_away(judge):
    figures = judge(np.random.default_rng(0).random((2000, 784), dtype="float32"))
    assert figures["units"] > 50 and figures["recall"] < 0.01 and figures["nearest"] > 10
    assert figures["sliced_wasserstein"] > 5 * judge.real["sliced_wasserstein"]


def test_one_digit_only_is_sharp_but_not_all(judge):
    ones = rows(load_images()[load_labels() == 1][:2000])
    figures = judge(ones)
    assert figures["precision"] > 0.7 and figures["recall"] < 0.3 and figures["units"] > 20
    assert figures["classes"] < 4 and figures["largest_class"] > 0.95
    assert figures["class_entropy"] < 0.2 and figures["inception_score"] < 1.2


def test_l1_on_training_and_test_images(judge):
    critic = MLP([784, 1], rng=0)
    critic.layers[0].weight.data[:] = 1 / 784  # D is the mean pixel
    samples = np.full((50, 784), 0.5, "float32")
    distances = judge.distances(critic, samples)
    assert distances["l1_train"] == pytest.approx(0.5 - rows(load_images()[:2000]).mean(), rel=1e-4)
    assert distances["l1_test"] == pytest.approx(0.5 - rows(load_images(split="t10k")[:2000]).mean(), rel=1e-4)


def test_the_table_has_every_figure(judge):
    head, *lines = table(judge.real, judge.real)
    assert head == ("", "samples", "real") and len(lines) == len(FIGURES) == len(judge.real)
    assert all(a == b for _, a, b in lines) and dict((what, a) for what, a, _ in lines)[FIGURES["units"][0]] == "1.00"


def test_samples_by_class():
    samples = np.arange(1, 26, dtype="float32")[:, None]
    classes = np.array([0] * 12 + [2] * 13)
    grid = report.by_class(samples, np.eye(3)[classes]).reshape(3, 10)
    assert grid[0].tolist() == list(range(1, 11)) and grid[1].sum() == 0 and grid[2].tolist() == list(range(13, 23))


def test_samples_beside_their_nearest():
    training = np.random.default_rng(0).integers(0, 256, (70, 6), dtype="uint8")
    samples = training[10:40].astype("float32") / np.float32(255)
    grid = report.beside_nearest(samples, training).reshape(3, 2, 10, 6)
    np.testing.assert_array_equal(grid[:, 0], samples.reshape(3, 10, 6))
    np.testing.assert_array_equal(grid[:, 0], grid[:, 1])


@pytest.mark.parametrize("noise", ["normal", "uniform"])
def test_interpolations_keep_to_the_noise(noise, monkeypatch):
    """The way keeps the length that such noise has, and begins and ends in the two vectors."""
    monkeypatch.setattr(report, "generate", lambda generator, noise: noise)
    way = report.interpolations(None, Settings(noise=noise, noise_dim=500), rows=4).reshape(4, 10, 500)
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
        assert tag != "script"
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_holds_everything(tmp_path):
    pictures.save_grid(tmp_path / "grid.png", np.zeros((4, 5, 5)), 2)
    pictures.save_animation(tmp_path / "grid.gif", [(0, np.zeros((4, 5, 5))), (9, np.ones((4, 5, 5)))])
    parts = [
        report.picture("A picture", tmp_path / "grid.png", "of <nothing> & more"),
        report.picture("It moves", tmp_path / "grid.gif", "", "plain"),
        report.table("Numbers", "All of them.", [("a", "b"), ("1 < 2", "3")]),
    ]
    report.write(tmp_path / "report.html", "what it was", parts)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert [link[:15] for link in page.links] == ["data:image/png;", "data:image/gif;"]
    for text in ("what it was", "A picture", "of <nothing> & more", "1 < 2", "All of them."):
        assert text in page.text
    assert (tmp_path / "grid.gif").read_bytes().startswith(b"GIF8")
