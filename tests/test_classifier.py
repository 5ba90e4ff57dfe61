"""The classifier that judges samples: it is trained with this project's own means, and lies beside the data."""

import numpy as np
import pytest

from minigan import judge
from minigan.data import MNIST, DataError, load_images, load_labels
from tests.test_data import idx


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
    assert judge.accuracy(judge.load(MNIST / judge.FILE, 784), images, labels) >= 0.98
    assert (MNIST / judge.FILE).stat().st_size < 500_000
    taught = judge.train(images[:2000], labels[:2000], epochs=3)
    assert judge.accuracy(taught, images[2000:4000], labels[2000:4000]) > 0.8


def test_a_look():
    classifier, images = judge.load(MNIST / judge.FILE, 784), load_images(split="test")[:50]
    seen = judge.predict(classifier, images, block=7)
    assert (seen.features.shape, seen.features.dtype, seen.features.min()) == ((50, 64), "float32", 0)
    logits = classifier(images.reshape(50, -1).astype("float32") / np.float32(255)).data
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(seen.probabilities, softmax, rtol=1e-4, atol=1e-7)
    assert seen.probabilities.dtype == "float32"


def test_the_command_makes_one_beside_any_data(folder, capsys):
    """The same each time."""
    made = []
    for _ in range(2):
        assert judge.main(["--data", str(folder)]) == 0
        assert "100.00% right on test images" in capsys.readouterr().out
        made.append((folder / judge.FILE).read_bytes())
    assert made[0] == made[1]


def test_without_the_right_files_it_says_so(folder, capsys):
    labels, images = folder / "train-labels-idx1-ubyte", folder / "t10k-images-idx3-ubyte"
    for spoil, message in (
        (lambda: labels.write_bytes(idx((7,), bytes(7))), "holds 1000 images and 7 labels of them"),
        (images.unlink, images.name),
        (labels.unlink, labels.name),
    ):
        spoil()
        with pytest.raises(SystemExit) as exit:
            judge.main(["--data", str(folder)])
        error = capsys.readouterr().err
        assert (exit.value.code, error.count("\n")) == (2, 1) and message in error


def test_bad_files(tmp_path):
    path, good = tmp_path / judge.FILE, (MNIST / judge.FILE).read_bytes()
    with pytest.raises(DataError, match=r"there is no classifier.*python -m minigan.judge --data"):
        judge.load(path, 784)
    for content, pixels, message in (
        (b"not one", 784, "not a classifier, or a damaged one"),
        (good[: len(good) // 2], 784, "not a classifier, or a damaged one"),
        (good, 30, "looks at images of 784 pixels; the ones beside it have 30"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            judge.load(path, pixels)
