"""Folders of small images that several files of tests train on."""

import hypothesis
import numpy as np
import pytest

from minigan.judge import classifier
from tests.test_data import idx

hypothesis.settings.register_profile("long", max_examples=10_000)  # --hypothesis-profile=long


@pytest.fixture
def images(tmp_path):
    """A folder of 40 images of 6 x 5 pixels."""
    folder = tmp_path / "images"
    folder.mkdir()
    data = np.random.default_rng(0).integers(0, 256, (40, 6, 5), dtype="uint8")
    (folder / "train-images-idx3-ubyte").write_bytes(idx(data.shape, data.tobytes()))
    return folder


@pytest.fixture
def judged(images):
    """The same folder with more images, test images, labels and a classifier."""
    rng = np.random.default_rng(1)
    for name, array in {
        "train-images-idx3-ubyte": rng.integers(0, 256, (120, 6, 5), dtype="uint8"),
        "t10k-images-idx3-ubyte": rng.integers(0, 256, (30, 6, 5), dtype="uint8"),
        "train-labels-idx1-ubyte": rng.integers(0, 3, 120, dtype="uint8"),
        "t10k-labels-idx1-ubyte": rng.integers(0, 3, 30, dtype="uint8"),
    }.items():
        (images / name).write_bytes(idx(array.shape, array.tobytes()))
    assert classifier.main(["--data", str(images)]) == 0
    return images
