"""What several files of tests train on, and a run that is made once for all of them."""

import itertools
import os
import shutil
import time

import hypothesis
import numpy as np
import pytest

from minigan.judge import __main__ as judge
from minigan.run import pictures
from tests.running import EVALUATED, run
from tests.test_data import idx

hypothesis.settings.register_profile("long", max_examples=10_000)  # --hypothesis-profile=long


@pytest.fixture(autouse=True)
def in_its_own_folder(tmp_path, monkeypatch):
    """Whatever a test writes without saying where, it writes there, and nothing that it needs lies where it is run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda file: None)  # no test ends the machine, and a disk takes its time


@pytest.fixture
def capsys(capsys, monkeypatch):
    """What was printed, with the names of files as tests have them: of an ASCII locale's bytes, and with slashes."""
    read = capsys.readouterr

    def readouterr():
        printed = read()
        return type(printed)(*(os.fsdecode(text.encode()).replace(os.sep, "/") for text in printed))

    monkeypatch.setattr(capsys, "readouterr", readouterr)
    return capsys


@pytest.fixture
def quick(monkeypatch):
    """Runs leave empty pictures in the place of those that take most of their time."""
    for name in ("progress", "curves"):
        monkeypatch.setattr(pictures, name, lambda *_: b"")


@pytest.fixture
def clock(monkeypatch):
    """Every iteration takes a second, so that all that a run leaves is the same bit for bit."""
    monkeypatch.setattr(time, "perf_counter", itertools.count().__next__)


@pytest.fixture
def images(tmp_path):
    """A folder of 40 images of 6 x 5 pixels."""
    folder = tmp_path / "images"
    folder.mkdir()
    data = np.random.default_rng(0).integers(0, 256, (40, 6, 5), dtype="uint8")
    (folder / "train-images-idx3-ubyte").write_bytes(idx(data.shape, data.tobytes()))
    return folder


@pytest.fixture(scope="session")
def judged_once(tmp_path_factory):
    rng, folder = np.random.default_rng(1), tmp_path_factory.mktemp("judged")
    for name, values, size in (("images-idx3-ubyte", 256, (6, 5)), ("labels-idx1-ubyte", 3, ())):
        for split, n in (("train", 120), ("t10k", 30)):
            content = rng.integers(0, values, (n, *size), dtype="uint8").tobytes()
            (folder / f"{split}-{name}").write_bytes(idx((n, *size), content))
    assert judge.main(["--data", str(folder)]) == 0
    return folder


@pytest.fixture
def judged(images, judged_once):
    """The same folder with more images, test images, labels and a classifier."""
    return shutil.copytree(judged_once, images, dirs_exist_ok=True)


@pytest.fixture(scope="session")
def ran_once(tmp_path_factory, judged_once):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "perf_counter", itertools.count().__next__)
        run(*EVALUATED, "--data", judged_once, "--out", out := tmp_path_factory.mktemp("ran") / "out")
    return out


@pytest.fixture
def ran(tmp_path, ran_once):
    """A finished run on ``judged_once``, in the folder ``out``, where the program looks by default."""
    return shutil.copytree(ran_once, tmp_path / "out")
