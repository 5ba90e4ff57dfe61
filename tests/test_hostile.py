"""Files, folders and flags that mean harm, or are just wrong: one line each, at once, and nothing is lost."""

import io
import json
import os
import shutil
import time
import zipfile
from contextlib import suppress
from pathlib import Path

import hypothesis
import matplotlib.image
import numpy as np
import pytest
from hypothesis import strategies as st

from minigan import judge
from minigan.data import DataError
from minigan.run import Run, load
from minigan.settings import Settings
from minigan.training import WGANGP
from tests import fuzz
from tests.running import TINY, fails, files, run, state
from tests.test_data import idx


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 6, 5), dtype="uint8")
    (folder / "train-images-idx3-ubyte").write_bytes(idx(pixels.shape, pixels.tobytes()))
    run(*TINY, "--data", folder, "--out", folder / "out")
    return folder / "out"


@pytest.fixture
def trained(tmp_path, trained_once, capsys):
    """The folder of a run."""
    capsys.readouterr()
    return Path(shutil.copytree(trained_once, tmp_path / "out"))


def rewrite(path, arrays):
    """A checkpoint with other arrays."""
    with np.load(path) as file:
        held = dict(file)
    np.savez(path, **{**held, **arrays})


def header_of(path):
    with np.load(path) as file:
        return json.loads(str(file["header"]))


def settings(**changed):
    return {"settings": {**vars(Settings(critic=(8,), generator=(8,))), **changed}}


@pytest.mark.parametrize(
    "header",
    [
        settings(seed="x"),
        settings(noise="pink"),
        settings(critic=[10**9, 10**9]),
        settings(critic=[0]),
        settings(critic=8),
        settings(average=2.0),
        settings(betas=[0.5]),
        settings(penalty_weight=float("nan")),
        settings(hidden=None),
        settings(learning_rate=True),
        {"settings": [1]},
        {"settings": {"unknown": 1}},
        {"shape": [-8, -8]},
        {"shape": [6.0, 5.0]},
        {"shape": [30]},
        {"shape": [10**6, 10**6]},
        {"iteration": -1},
        {"iteration": 1.5},
        {"seconds": "long"},
        {"seconds": float("nan")},
        {"iteration": True},
        {"crc32": None},
        {"threads": 0},
        {"workers": 1.0},
        {"size": -1},
        {"data": 3},
        {"version": 2},
        {"version": None},
    ],
    ids=str,
)
def test_what_a_checkpoint_says_is_not_believed(header, trained, capsys):
    path = trained / "checkpoint.npz"
    rewrite(path, {"header": json.dumps({**header_of(path), **header})})
    before = files(trained)
    for command in (["--generate", 1], ["--resume"], ["--report"]):
        assert f"error: {path}: " in fails(capsys, *command, "--out", trained)
    assert files(trained) == before


@pytest.mark.parametrize(
    "arrays, message",
    [
        (
            {"critic.weight1": np.full((30, 8), np.nan, "float32")},
            "critic.weight1 is float32, or holds numbers that are",
        ),
        ({"critic.weight1": np.zeros((30, 8))}, "critic.weight1 is float64"),
        ({"critic.weight1": np.zeros((30, 9), "float32")}, "critic.weight1 is (30, 9); its settings say (30, 8)"),
        ({"snapshots": np.zeros((3, 36, 9, 9), "uint8")}, "snapshots is (3, 36, 9, 9)"),
        ({"snapshots": np.zeros((3, 5, 6, 5), "uint8")}, "snapshots is (3, 5, 6, 5)"),
        ({"snapshots": np.zeros((2, 36, 6, 5), "uint8")}, "grids is (3,); its settings say (2,)"),
        ({"grids": np.array([0.0, 3.0, 6.0])}, "grids is float64"),
        ({"rows": np.zeros((6, 3))}, "rows is (6, 3)"),
        ({"evaluations": np.zeros((1, 3))}, "evaluations is (1, 3)"),
        ({"evaluations": np.full((1, 13), np.inf)}, "evaluations is"),
        ({"header": np.zeros(3)}, ""),
        ({"header": np.array("[" * 100_000)}, ""),
        ({"header": np.array('{"version": 1e999}')}, "version inf"),
        ({"ema.weight1": np.array([{}], dtype=object)}, ""),
        ({"rng": np.array('{"bit_generator": "PCG64"}')}, ""),
        ({"rng": np.array("null")}, ""),
    ],
)
def test_arrays_that_are_not_a_runs(arrays, message, trained, capsys):
    path = trained / "checkpoint.npz"
    rewrite(path, arrays)
    error = fails(capsys, "--generate", 1, "--out", trained)
    assert f"error: {path}: " in error and message in error


def test_many_rows_and_large_weights(tmp_path, judged, capsys):
    """What is read can be drawn and judged, or is told in one line."""
    path = tmp_path / "out" / "checkpoint.npz"
    run(*TINY, "--data", judged, "--out", tmp_path / "out")
    rewrite(path, {"rows": np.ones((10**6, 4))})
    assert run("--report", "--out", tmp_path / "out") == 0
    huge = np.float32(3e38)
    rewrite(path, {"ema.weight2": np.full((8, 30), huge), "ema.bias1": np.full(8, huge)})
    capsys.readouterr()
    with np.errstate(all="ignore"), suppress(SystemExit):
        run("--evaluate", "--out", tmp_path / "out")
    assert capsys.readouterr().err.count("\n") <= 1


@pytest.mark.parametrize(
    "flags",
    [
        ["--output", "none", "--penalty", "none", "--constraint", "clip", "--clip", 1e-6, "--learning-rate", 1e9],
        ["--penalty", "none", "--hidden", "leaky_relu", "--learning-rate", 4, "--critic", 8, 8, 8],
    ],
)
@pytest.mark.filterwarnings("default")
def test_nothing_is_saved_that_is_not_read(flags, tmp_path, judged, monkeypatch):
    """Figures that are infinite where the weights are not yet; a figure that no row has come to."""
    late = "leaky_relu" in flags
    if late:
        iteration = WGANGP.iteration
        monkeypatch.setattr(WGANGP, "iteration", lambda gan: iteration(gan) * (np.inf if gan.iterations == 1011 else 1))
    every = 10**4 if late else 5
    given = ["--data", judged, "--iterations", 1011 if late else 10, "--evaluate-every", every, "--sample-every", every]
    assert run(*TINY, *given, "--out", tmp_path, *flags) == 1
    assert run("--generate", 3, "--out", tmp_path) == run("--report", "--out", tmp_path) == 0


def test_what_is_somebodys_own_stays(tmp_path, images):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".movie.part.mp4").write_bytes(b"mine")
    run(*TINY, "--data", images, "--out", tmp_path / "out")
    assert (tmp_path / "out" / ".movie.part.mp4").exists()


def test_images_of_any_proportion(tmp_path):
    for name, shape in (("tall", (900, 700, 2)), ("wide", (900, 1, 800))):
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(0).integers(0, 256, shape, dtype="uint8"))
        assert run(*TINY, "--iterations", 1, "--data", tmp_path / f"{name}.npy", "--out", tmp_path / name) == 0
        assert max(matplotlib.image.imread(tmp_path / name / "animation.gif").shape) < 2100


def test_a_checkpoint_that_is_larger_than_it_says(trained):
    path = trained / "checkpoint.npz"
    honest = path.read_bytes()
    huge = io.BytesIO()
    np.lib.format.write_array_header_1_0(huge, {"descr": "<f4", "fortran_order": False, "shape": (10**7, 10**6)})
    with zipfile.ZipFile(io.BytesIO(honest)) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, huge.getvalue() if name == "critic.weight1.npy" else old.read(name))
    start = time.perf_counter()
    with pytest.raises(DataError):
        load(path)
    assert time.perf_counter() - start < 1


def test_an_encrypted_member(trained, capsys):
    path = trained / "checkpoint.npz"
    data = bytearray(path.read_bytes())
    for magic, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = -1
        while (start := data.find(magic, start + 1)) >= 0:
            data[start + flags] |= 1
    path.write_bytes(data)
    assert "not a checkpoint, or a damaged one (" in fails(capsys, "--generate", 1, "--out", trained)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_in_the_place_of_a_file(tmp_path, trained, images, capsys):
    for path in (images / "train-images-idx3-ubyte", trained / "checkpoint.npz"):
        path.unlink()
        os.mkfifo(path)
    assert "train-images-idx3-ubyte: not a regular file" in fails(capsys, "--data", images, "--out", tmp_path / "new")
    assert "checkpoint.npz: not a regular file" in fails(capsys, "--generate", 1, "--out", trained)


def test_the_page_needs_no_images(tmp_path, trained):
    held = load(trained)
    held.metadata["data"] = str(tmp_path / "moved")
    held.save(trained)
    assert run("--report", "--out", trained) == 0


def test_somebody_who_is_not_there(tmp_path, capsys):
    assert "error: ~nosuchuser/x: there is no such file or folder" in fails(capsys, "--data=~nosuchuser/x")
    message = fails(capsys, "--data", "x" * 5000)
    assert "File name too long" in message and "--out" not in message


@pytest.mark.parametrize("flag", ["--out", "--data"])
def test_a_path_with_a_zero_byte(flag, capsys):
    assert f"argument {flag}: expected a path, got 'a\\x00b'" in fails(capsys, flag, "a\0b")


# --- Data that a classifier lies beside, and that do not fit it -----------------------------------


def spoil_size(folder):
    for split, n in (("train", 40), ("t10k", 30)):
        (folder / f"{split}-images-idx3-ubyte").write_bytes(idx((n, 7, 7)))
    return "classifier.npz: looks at images of 30 pixels; the ones beside it have 49"


def spoil_sizes(folder):
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx((30, 7, 7)))
    return "its test images have another size than its training images"


def spoil_number(folder):
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx((29, 6, 5)))
    return "to judge samples takes 30 training and test images; remove classifier.npz there"


def spoil_light(folder):
    for split, n in (("train", 40), ("t10k", 30)):
        (folder / f"{split}-images-idx3-ubyte").write_bytes(idx((n, 6, 5), bytes(range(30)) * n))
    return "classifier.npz: sees no difference between the test images"


def spoil_weights(folder):
    with np.load(folder / judge.FILE) as file:
        arrays = dict(file)
    np.savez_compressed(folder / judge.FILE, **{**arrays, "arr_0": arrays["arr_0"] * np.float16("nan")})
    return "not a classifier, or a damaged one (arr_0 holds numbers that are not finite)"


def spoil_features(folder):
    shapes = [(30, 256), (256,), (256, 1), (1,), (1, 3), (3,)]
    np.savez_compressed(folder / judge.FILE, *(np.ones(shape, "float16") for shape in shapes))
    return "not a classifier, or a damaged one (arr_2 is float16 (256, 1); expected float16 (256, 64))"


@pytest.mark.parametrize(
    "spoil",
    [spoil_size, spoil_sizes, spoil_number, spoil_light, spoil_weights, spoil_features],
    ids=lambda f: f.__name__,
)
def test_a_classifier_that_does_not_fit(spoil, tmp_path, judged, capsys):
    message = spoil(judged)
    capsys.readouterr()
    assert message in fails(capsys, *TINY, "--data", judged, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- Folders ---------------------------------------------------------------------------------------


def test_a_run_that_never_came_to_anything_is_begun_anew(tmp_path, images, monkeypatch):
    run(*TINY, "--data", images, "--out", tmp_path / "once")
    for died_in in ("snapshot", "save", "iterate"):  # before its first file, and before its first iteration
        with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
            patch.setattr(Run, died_in, lambda *_: 1 // 0)
            run(*TINY, "--data", images, "--out", tmp_path / "twice", "--seed", 1)
    assert run(*TINY, "--data", images, "--out", tmp_path / "twice") == 0
    assert state(tmp_path / "once") == state(tmp_path / "twice")


def test_big_images_leave_small_pictures(tmp_path, capsys):
    folder, out = tmp_path / "images", tmp_path / "out"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (5, 300, 300), dtype="uint8")
    (folder / "train-images-idx3-ubyte").write_bytes(idx(pixels.shape, pixels.tobytes()))
    run(*TINY, "--iterations", 2, "--data", folder, "--out", out)
    assert (out / "samples" / "0000002.png").stat().st_size < 3 << 20
    assert matplotlib.image.imread(out / "samples" / "0000002.png").ndim == 2  # gray
    assert sum(path.stat().st_size for path in out.rglob("*")) < 40 << 20


# --- Trainings that come to nothing ----------------------------------------------------------------


@pytest.mark.filterwarnings("default")
def test_what_diverged_is_not_judged(tmp_path, judged, capsys):
    capsys.readouterr()
    given = ["--learning-rate", "1e30", "--evaluate-every", 7, "--data", judged, "--out", tmp_path]
    assert run(*TINY, "--iterations", 20, *given) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "training diverged" in error and (tmp_path / "report.html").exists()


def test_a_collapsed_run_says_so(tmp_path, images, capsys):
    tiny = [*TINY, "--data", images, "--penalty", "none", "--critic", 2, "--iterations", 600, "--sample-every", 600]
    assert run(*tiny, "--constraint", "clip", "--critic-steps", 1, "--out", tmp_path / "flat") == 1
    assert "error: " not in (line := capsys.readouterr().err) and line.count("\n") == 1
    assert "the critic is flat: L1 and its slope are 0" in line
    away = ["--learning-rate", 3, "--critic-steps", 20, "--critic", 64, 64, "--iterations", 30]
    assert run(*tiny, *away, "--out", tmp_path / "away") == 1
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "the critic has run away" in line


# --- Files that nobody would think of --------------------------------------------------------------


@st.composite
def changed(draw, honest):
    """The bytes with some of them changed, left out, doubled, or put elsewhere."""
    data = bytearray(honest)
    for _ in range(draw(st.integers(1, 4))):
        start, length = draw(st.integers(0, len(data))), draw(st.integers(0, 40))
        piece = draw(st.binary(max_size=8) | st.sampled_from([data[start : start + length] * 2, b"", b"\xff" * 8]))
        data[start : start + draw(st.integers(0, 8))] = piece
    return bytes(data)


@pytest.mark.parametrize("reader", fuzz.READERS)
def test_changed_files_are_read_or_refused_in_one_line(reader, tmp_path):
    """``python -m tests.fuzz`` does the same by the hundred thousand, led by what code was reached."""
    honest = fuzz.READERS[reader][1]
    assert fuzz.check(reader, honest, tmp_path)

    @hypothesis.settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @hypothesis.given(changed(honest))
    def check(data):
        fuzz.check(reader, data, tmp_path)

    check()
