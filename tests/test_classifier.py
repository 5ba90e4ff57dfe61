"""The classifier that judges samples: it is trained with this project's own means, and lies beside the data."""

import numpy as np
import pytest

from minigan import judge
from minigan.data import MNIST, DataError, load_images, load_labels
from tests.test_data import idx


@pytest.fixture
def folder(tmp_path):
    """3,000 training and 100 test images of 5 x 4 pixels in three classes, told apart by their brightness."""
    rng = np.random.default_rng(0)
    for split, n in (("train", 3000), ("t10k", 100)):
        labels = rng.integers(0, 3, n, dtype="uint8")
        images = rng.integers(0, 50, (n, 5, 4), dtype="uint8") + 100 * labels[:, None, None]
        (tmp_path / f"{split}-images-idx3-ubyte").write_bytes(idx(images.shape, images.tobytes()))
        (tmp_path / f"{split}-labels-idx1-ubyte").write_bytes(idx(labels.shape, labels.tobytes()))
    return tmp_path


def run(*argv):
    return judge.main([str(a) for a in argv])


def test_the_one_beside_the_data_is_right_on_98_percent():
    classifier = judge.load(MNIST / judge.FILE, 784)
    assert judge.accuracy(classifier, load_images(split="test"), load_labels(split="test")) >= 0.98
    assert (MNIST / judge.FILE).stat().st_size < 500_000


def test_two_thousand_digits_teach_it_something():
    images, labels = load_images()[:4000], load_labels()[:4000]
    classifier = judge.train(images[:2000], labels[:2000], epochs=5)
    assert judge.accuracy(classifier, images[2000:], labels[2000:]) > 0.85


def test_a_look():
    classifier = judge.load(MNIST / judge.FILE, 784)
    images = load_images(split="test")[:50]
    seen = judge.predict(classifier, images, block=7)
    assert seen.features.shape == (50, 64) and seen.probabilities.shape == (50, 10)
    assert seen.features.dtype == seen.probabilities.dtype == "float32" and seen.features.min() == 0
    np.testing.assert_allclose(seen.probabilities.sum(axis=1), 1, rtol=1e-5)
    logits = classifier(images.reshape(50, -1).astype("float32") / np.float32(255)).data
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(seen.probabilities, softmax, rtol=1e-4, atol=1e-7)


def test_the_command_makes_one_beside_any_data(folder, capsys):
    assert run("--data", folder) == 0
    assert "100.00% right on test images" in capsys.readouterr().out
    first = (folder / judge.FILE).read_bytes()
    run("--data", folder)
    assert (folder / judge.FILE).read_bytes() == first


@pytest.mark.parametrize("missing", ["train-labels-idx1-ubyte", "t10k-images-idx3-ubyte"])
def test_without_the_files_it_says_which(folder, missing, capsys):
    (folder / missing).unlink()
    with pytest.raises(SystemExit) as exit:
        run("--data", folder)
    error = capsys.readouterr().err
    assert exit.value.code == 2 and error.count("\n") == 1 and missing in error


def test_labels_of_other_images(folder, capsys):
    (folder / "train-labels-idx1-ubyte").write_bytes(idx((7,), bytes(7)))
    with pytest.raises(SystemExit):
        run("--data", folder)
    assert "holds 3000 images and 7 labels of them" in capsys.readouterr().err


def test_bad_files(tmp_path):
    path = tmp_path / judge.FILE
    with pytest.raises(DataError, match=r"there is no classifier.*python -m minigan.judge --data"):
        judge.load(path, 784)
    path.write_bytes(b"not one")
    with pytest.raises(DataError, match="not a classifier, or a damaged one"):
        judge.load(path, 784)
    good = (MNIST / judge.FILE).read_bytes()
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(DataError, match="not a classifier, or a damaged one"):
        judge.load(path, 784)
    path.write_bytes(good)
    with pytest.raises(DataError, match="looks at images of 784 pixels; the ones beside it have 30"):
        judge.load(path, 30)
