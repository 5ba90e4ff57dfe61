"""Folders of small images that several files of tests train on."""

import os

import hypothesis
import numpy as np
import pytest

from minigan import cli, judge
from tests.test_data import idx

# A run says so where its kernels do not suit the processor: here it shall not, whatever this one is.
os.environ.setdefault("OPENBLAS_CORETYPE", cli.kernels())

hypothesis.settings.register_profile("long", max_examples=10_000)  # --hypothesis-profile=long


@pytest.fixture(autouse=True)
def in_its_own_folder(tmp_path, monkeypatch):
    """Whatever a test writes without saying where, it writes there, and nothing that it needs lies where it is run."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def capsys(capsys, monkeypatch):
    """What was printed, with the names of files as paths have them: in an ASCII locale, as bytes."""
    read = capsys.readouterr

    def readouterr():
        printed = read()
        return type(printed)(*(os.fsdecode(text.encode()) for text in printed))

    monkeypatch.setattr(capsys, "readouterr", readouterr)
    return capsys


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
    assert judge.main(["--data", str(images)]) == 0
    return images
