"""Samples judged: the metrics, on cases with a known answer; the classifier; and real images, noise, one digit only."""

import itertools
import re
import sys

import numpy as np
import pytest

from minigan.data import MNIST, load_images, load_labels
from minigan.judge import Judge, classifier
from minigan.judge import __main__ as command
from minigan.judge import judge as judging
from minigan.judge.judge import repeated
from minigan.judge.metrics import METRICS, frechet, nearest, precision_recall
from minigan.nn import MLP
from minigan.training import DivergenceError
from tests.test_data import idx

RNG = np.random.default_rng(0)

# --- The metrics --------------------------------------------------------------------------------

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
        assert 0 < got[0] < 1
        assert got[0] != got[1]
    assert (precision_recall(real, real), precision_recall(real, real + 100)) == ((1, 1), (0, 0))
    assert precision_recall(np.repeat(real, 5, axis=0), fake) == precision_recall(real, fake)  # copies add no reach
    many = np.repeat(RNG.normal(size=(200, 64)).astype("float32"), 4, axis=0)  # more often than k times
    assert precision_recall(many, many[RNG.permutation(800)]) == (1, 1)


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


# --- The classifier, which is trained with this project's own means, and lies beside the data ----


@pytest.fixture
def folder(tmp_path):
    """Of training and of test images, 1,000 of 5 x 4 pixels in three classes, told apart by their brightness."""
    labels = np.random.default_rng(0).integers(0, 3, 1000, dtype="uint8")
    images = np.random.default_rng(1).integers(0, 20, (1000, 5, 4), dtype="uint8") + 100 * labels[:, None, None]
    for split in ("train", "t10k"):
        (tmp_path / f"{split}-images-idx3-ubyte").write_bytes(idx(images.shape, images.tobytes()))
        (tmp_path / f"{split}-labels-idx1-ubyte").write_bytes(idx(labels.shape, labels.tobytes()))
    return tmp_path


def test_the_one_beside_the_data_is_right_on_98_percent_and_two_thousand_digits_teach_something():
    images, labels = load_images(split="test"), load_labels(split="test")
    assert classifier.accuracy(classifier.load(MNIST / classifier.FILE, 784), images, labels) >= 0.98
    assert (MNIST / classifier.FILE).stat().st_size < 500_000
    taught = classifier.train(images[:2000], labels[:2000], epochs=3)
    assert classifier.accuracy(taught, images[2000:4000], labels[2000:4000]) > 0.8


def test_a_look():
    trained, images = classifier.load(MNIST / classifier.FILE, 784), load_images(split="test")[:50]
    seen = classifier.predict(trained, images, block=7)
    assert (seen.features.shape, seen.features.dtype, seen.features.min()) == ((50, 64), "float32", 0)
    logits = trained(rows(images)).data
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(seen.probabilities, softmax, rtol=1e-4, atol=1e-7)
    assert seen.probabilities.dtype == "float32"


def test_the_command_makes_one_beside_any_data(folder, monkeypatch, capsys):
    """The same each time, whoever looks on, and by whatever names the classes go."""
    made, y = [], {name: load_labels(folder, name) for name in ("train", "test")}
    x = {f"x_{name}": load_images(folder, name) for name in y}
    for names in (np.arange(99), np.arange(99) * 1000 + 65, np.array([f"class {i:02}" for i in range(99)])):
        np.savez(folder / "a.npz", **x, **{f"y_{name}": names[labels] for name, labels in y.items()})
        monkeypatch.setattr(sys.stderr, "isatty", lambda seen=bool(made): seen)
        assert command.main(["--data", str(folder / "a.npz")]) == 0
        assert float(re.search(r"([\d.]+)% right on test images", capsys.readouterr().out)[1]) > 90
        made.append((folder / "a.classifier.npz").read_bytes())
    assert made[0] == made[1] == made[2]


def test_nothing_is_trained_that_cannot_be_written(folder, monkeypatch, capsys):
    """Nor is somebody's own file replaced."""
    own = folder / classifier.FILE
    np.savez(own, weights=np.ones(3))

    def refused(dir):
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr(command, "load_images", None)
    for message in (f"{own}: is no classifier that this wrote", "Permission denied"):
        with pytest.raises(SystemExit):
            command.main(["--data", str(folder)])
        assert message in capsys.readouterr().err.replace("\\", "/")
        own.unlink(missing_ok=True)
        monkeypatch.setattr(command, "TemporaryFile", refused)


def test_test_images_that_are_training_images_are_told_of():
    """And where real images are as near as can be there are no units."""
    rng = np.random.default_rng(0)
    few = Judge.__new__(Judge)
    few.repeated, few.copies, few.real = 7, 3, {name: None for name in METRICS}
    assert ("7 of the test images are training images too", "", "") in few.table(few.real)
    assert ("3 of the test images are copies of others", "", "") in few.table(few.real)
    images = rng.integers(0, 256, (40, 2, 2), dtype="uint8")
    assert repeated(images[:9], images) == 9
    assert repeated(images[:9], images[5:]) == 4


def test_without_the_right_files_it_says_so(folder, capsys):
    labels, images = folder / "train-labels-idx1-ubyte", folder / "t10k-images-idx3-ubyte"
    for spoil, message in (
        (lambda: labels.write_bytes(idx((7,), bytes(7))), "holds 1000 images and 7 labels of them"),
        (images.unlink, images.name),
        (labels.unlink, labels.name),
    ):
        spoil()
        with pytest.raises(SystemExit) as exit:
            command.main(["--data", str(folder)])
        error = capsys.readouterr().err
        assert (exit.value.code, error.count("\n")) == (2, 1)
        assert message in error


# --- All together -------------------------------------------------------------------------------

N = 1000
MEAN = MLP([784, 1], rng=0)
MEAN.layers[0].weight.array[:] = 1 / 784  # D is the mean pixel


@pytest.fixture(scope="module")
def judge():
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(judging, "SAMPLES", N)
        monkeypatch.setattr(judging, "FEWEST_FOR_DISTANCE", N)
        monkeypatch.setattr(judging, "NEIGHBOURS", 50)
        yield Judge(MNIST, train=load_images()[:12000])


def rows(images):
    return images.reshape(len(images), -1).astype("float32") / np.float32(255)


def test_other_real_images_are_worth_one_unit(judge):
    metrics, real = judge(rows(judge.train[-N:]), MEAN), judge.real
    shares, expected = ((told["precision"], told["recall"]) for told in (metrics, real))
    assert shares == pytest.approx(expected, abs=0.05)
    assert min(shares) > 0.7
    assert metrics["units"] < 1.5
    assert metrics["nearest"] == 0
    assert 3 < real["nearest"] < 6.5  # they are training images, and those are not


def test_images_that_are_sorted_by_their_class(judge, monkeypatch):
    """Those that stand for all are chosen at random, and the same each time."""
    order, test = load_labels()[:12000].argsort(), load_images(split="test")[load_labels(split="test").argsort()]
    monkeypatch.setattr(judging, "load_images", lambda *_: test)
    one, other = (Judge(MNIST, train=load_images()[:12000][order]).real for _ in range(2))
    assert one == other
    assert one["recall"] == pytest.approx(judge.real["recall"], abs=0.05)
    assert one["frechet"] < 2 * judge.real["frechet"]


def test_few_images(judge):
    """As many on each side, and no distance, which would be chance."""
    few = Judge(MNIST, train=load_images()[:500])
    assert len(few.test) == len(few.others) == 500
    told = few(rows(judge.train[:500]), MEAN)
    assert told["frechet"] is told["units"] is few.real["frechet"] is few.real["units"] is None
    assert told["precision"] > 0.7
    line = "no Frechet distance: it takes 1,000 training and test images"
    assert few.table(told)[1] == (line, "", "")
    assert len(few.table(told)) == len(METRICS)


def test_noise_is_far_away_and_one_digit_only_is_sharp_but_not_all(judge):
    noise = judge(np.random.default_rng(0).random((N, 784), dtype="float32"), MEAN)
    assert noise["units"] > 50
    assert noise["recall"] < 0.01
    assert noise["nearest"] > 10
    ones = judge(rows(judge.train[load_labels()[:12000] == 1][:N]), MEAN)
    assert ones["precision"] > 0.7
    assert ones["recall"] < 0.3
    assert ones["units"] > 20


def test_l1_on_training_and_test_images(judge):
    train, test = rows(judge.others), rows(judge.test)
    metrics = judge(0.5 + train / 1000, MEAN)
    l1 = 0.5 - 0.999 * train.mean(), 0.5 + train.mean() / 1000 - test.mean()
    assert (metrics["l1_train"], metrics["l1_test"]) == pytest.approx(l1, rel=1e-4)


def test_samples_that_are_not_finite(judge):
    with pytest.raises(DivergenceError, match="features of the samples are not finite"), np.errstate(all="ignore"):
        judge(np.full((N, 784), np.inf, "float32"), MEAN)


def test_the_table_has_every_figure(judge):
    head, *told = judge.table(judge.real | {"units": 2})
    assert (head, [what for what, _, _ in told]) == (("", "samples", "real"), [what for what, _ in METRICS.values()])
    assert [row for row in told if row[1] != row[2]] == [(METRICS["units"][0], "2.00", "1.00")]
