"""Files, folders and flags that mean harm, or are just wrong: one line each, at once, and nothing is lost."""

import gzip
import io
import os
import re
import tempfile
import time
import zipfile
from pathlib import Path

import hypothesis
import matplotlib.image
import numpy as np
import pytest
from hypothesis import strategies as st

from minigan.data import DataError, read_idx
from minigan.judge import classifier as judge
from minigan.run.files import in_memory
from minigan.run.run import EVALUATION, FILE, Run, load
from minigan.settings import Settings
from minigan.training import DivergenceError
from tests.running import TINY, fails, files, posix, run, state
from tests.test_data import idx


def checkpoint():
    about = {"data": "x", "size": None, "crc32": 7, "workers": 1, "threads": 1, "kernels": "", "device": "cpu"}
    run = Run(Settings(critic=(3,), generator=(2,), batch_size=4, noise_dim=2, constraint="spectral"), (2, 3), about)
    run.rows, run.pending = [(1, 0.5, 1.0, 0.1)], [np.ones(2, "float32")]
    run.snapshots = [(i, np.full((run.samples_kept, 2, 3), i, "uint8")) for i in (0, 1)]
    run.evaluations = [dict.fromkeys(EVALUATION, 1)]
    with tempfile.TemporaryDirectory() as folder:
        run.save(Path(folder))
        return Path(folder, FILE).read_bytes()


def classifier(pixels, features=64, weight=1.0):
    layers = ((pixels, 256), (256, features), (features, 3))
    parts = (np.full(shape, weight, "float16") for n, m in layers for shape in ((n, m), (m,)))
    return in_memory(np.savez_compressed, *parts)


def member(archive, name, encode=bytes):
    """A member of a zip file, and the function that puts what is encoded of other bytes in its place."""
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        held = {n: file.read(n) for n in file.namelist()}

    def replaced(data):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as file:
            for n, content in {**held, name: encode(data)}.items():
                file.writestr(n, content)
        return out.getvalue()

    return held[name], replaced


def as_text(data):
    return in_memory(np.save, data.decode("latin-1").rstrip("\0"))


CHECKPOINT = Path("out", "checkpoint.npz")  # in the folder of the run that is looked at, and where the program looks


def rewrite(arrays):
    """The checkpoint with other arrays."""
    with np.load(CHECKPOINT) as file:
        held = dict(file)
    np.savez(CHECKPOINT, **{**held, **arrays})


# --- A checkpoint is not believed -----------------------------------------------------------------

FORGED = {  # all that a run would go on from
    "critic.weight1": [np.full((30, 8), np.nan, "float32"), np.zeros((30, 8)), np.zeros((30, 9), "float32")],
    "snapshots": [np.zeros((3, 36, 9, 9), "uint8"), np.zeros((2, 36, 6, 5), "uint8")],
    "rows": [np.zeros((6, 3)), np.ones((6, 4))],
    "rng": [np.array("null")],
    "header": [np.zeros(3), np.array("[" * 100_000), np.array('{"version": 1e999}')],
    "ema.weight1": [np.array([{}], dtype=object)],
    "seal": [np.zeros(2)],
}


@pytest.mark.parametrize("name, array", [(name, array) for name in FORGED for array in FORGED[name]])
def test_what_was_not_saved_by_a_run_is_refused(name, array, ran, capsys):
    rewrite({name: array})
    before = files(ran)
    for command in (["--generate", 1], ["--resume"], ["--report"]):
        assert "error: out/checkpoint.npz: " in fails(capsys, *command)
    assert files(ran) == before


def test_bytes_that_are_not_a_checkpoints(ran, capsys):
    good = CHECKPOINT.read_bytes()
    encrypted = bytearray(good)
    for found in re.finditer(rb"PK\x03\x04|PK\x01\x02", good):
        encrypted[found.start() + (6 if found[0] == b"PK\x03\x04" else 8)] |= 1
    told = {"descr": "<f4", "fortran_order": False, "shape": (10**7, 10**6)}
    _, replaced = member(good, "critic.weight1.npy")
    huge = replaced(in_memory(np.lib.format.write_array_header_1_0, told))
    for bad in (good[:999], b"", b"not a checkpoint", good[:200] + bytes(50) + good[250:], encrypted, huge):
        CHECKPOINT.write_bytes(bad)
        start = time.perf_counter()
        message = fails(capsys, "--generate", 1)
        assert "error: out/checkpoint.npz: not a checkpoint, or a damaged one (" in message
        assert CHECKPOINT.read_bytes() == bad
        assert time.perf_counter() - start < 1 or not posix  # Windows reserves memory before it says no


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_in_the_place_of_a_file(ran, images, capsys):
    pixels = images / "train-images-idx3-ubyte"
    for path, flags in ((pixels, ["--data", images, "--out", "new"]), (CHECKPOINT, ["--report"])):
        path.unlink()
        os.mkfifo(path)
        assert f"{path}: not a regular file" in fails(capsys, *flags)


# --- Whatever is saved can be read ----------------------------------------------------------------


def test_a_figure_that_is_not_finite_is_not_saved(ran):
    held, before = load(ran), files(ran)
    held.pending = [np.full(2, np.inf)]
    with pytest.raises(DivergenceError, match="pending holds numbers that are no longer finite"):
        held.save(ran)
    assert files(ran) == before


INFINITE = "--output none --penalty none --constraint clip --clip 1e-6 --learning-rate 1e9"  # metrics before weights
OVERFLOW = "--lambda 1e20"  # Adam's second moments: the parameters stay finite for a while


@pytest.mark.parametrize("flags", [INFINITE, OVERFLOW, "--lambda 1e30", "--learning-rate 100", "--learning-rate 1e30"])
@pytest.mark.filterwarnings("default")
def test_a_run_that_blows_up(flags, judged, quick, capsys):
    given = ["--data", judged, "--iterations", 20, "--evaluate-every", 5, "--sample-every", 5]
    run(*TINY, *given, *flags.split())
    assert capsys.readouterr().err.count("\n") <= 1
    assert run("--generate", 3) == run("--report") == 0


def test_a_collapsed_run_says_so(images, quick, capsys):
    tiny = [*TINY, "--data", images, "--penalty", "none", "--critic-steps", 1, "--sample-every", 600]
    assert run(*tiny, "--critic", 2, "--iterations", 600, "--constraint", "clip", "--out", "flat") == 1
    flat = capsys.readouterr().err
    assert (
        flat
        == "run_mnist.py: the critic is flat: L1 and its slope are 0, and the generator has nothing to learn from\n"
    )
    away = ["--learning-rate", 3, "--critic-steps", 20, "--critic", 64, 64, "--iterations", 30]
    assert run(*tiny, *away, "--out", "away") == 1
    away = capsys.readouterr().err
    assert away.count("\n") == 1
    assert "the critic has run away" in away


def test_many_rows_and_large_weights(ran, quick):
    """What is read can be drawn and judged, or is told in one line."""
    held = load(ran)
    held.rows = [(i, 1.0, 1.0, 1.0) for i in range(10**5)]
    held.gan.ema.layers[1].weight.data = np.full((8, 30), 3e38)
    held.gan.ema.layers[0].bias.data = np.full(8, 3e38)
    held.save(ran)
    with np.errstate(all="ignore"):
        assert run("--report") == 0
        assert run("--evaluate") == 0


def test_a_run_that_never_came_to_anything_is_begun_anew(images, quick, monkeypatch):
    run(*TINY, "--data", images, "--out", "once")
    for died_in in ("draw_grid", "save", "advance"):  # before its first file, and before its first iteration
        with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
            patch.setattr(Run, died_in, lambda *_: 1 // 0)
            run(*TINY, "--data", images, "--seed", 1)
    assert run(*TINY, "--data", images) == 0
    assert state("once") == state("out")


@pytest.mark.parametrize("shape", [(900, 700, 2), (900, 1, 800), (300, 300, 300)], ids=str)
def test_images_of_any_size_leave_pictures_of_a_fair_one(shape):
    np.save("images.npy", np.random.default_rng(0).integers(0, 256, shape, dtype="uint8"))
    assert run(*TINY, "--iterations", 1, "--data", "images.npy") == 0
    grid = Path("out", "samples", "0000001.png")
    assert max(matplotlib.image.imread("out/animation.gif").shape) < 2100
    assert grid.stat().st_size < 3 << 20
    assert matplotlib.image.imread(grid).ndim == 2  # gray
    assert sum(map(len, files("out").values())) < 40 << 20


# --- Files that do not fit -------------------------------------------------------------------------

TRAIN, TEST, CLASSIFIER = "train-images-idx3-ubyte", "t10k-images-idx3-ubyte", "classifier.npz"


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    "others, message",
    [
        ({TRAIN: idx((40, 7, 7)), TEST: idx((30, 7, 7))}, "looks at images of 30 pixels; the ones beside it have 49"),
        ({TEST: idx((30, 7, 7))}, "its test images have another size than its training images"),
        ({TEST: idx((29, 6, 5))}, "to judge samples takes 30 training and test images"),
        ({TEST: idx((30, 6, 5), bytes(range(30)) * 30)}, "classifier.npz: sees no difference between the test images"),
        ({CLASSIFIER: b""}, "classifier.npz: not a classifier, or a damaged one"),
        ({CLASSIFIER: classifier(30, weight=np.nan)}, "damaged one (arr_0 holds numbers that are not finite)"),
        ({CLASSIFIER: classifier(30, features=1)}, "(arr_2 is float16 (256, 1); expected float16 (256, 64))"),
    ],
)
def test_a_classifier_that_does_not_fit_is_told_and_keeps_no_run_from_training(others, message, judged, quick, capsys):
    for name, content in others.items():
        (judged / name).write_bytes(content)
    assert run(*TINY, "--data", judged) == 0
    how = re.escape(f"; remove the classifier, or make it anew: python -m minigan.judge --data {judged}\n")
    assert re.fullmatch(f"run_mnist.py: no metrics of samples: .*{re.escape(message)}.*{how}", capsys.readouterr().err)
    assert load("out").done == 6


HONEST_IMAGES, HONEST_RUN, HONEST_CLASSIFIER = idx((3, 4, 5)), checkpoint(), classifier(6)
HONEST_HEADER = str(np.load(io.BytesIO(HONEST_RUN))["header"]).encode("latin-1")

# each: the file's name, honest bytes, what makes a file of them, and who reads it with what besides
READERS = {
    "idx": ("images", HONEST_IMAGES, bytes, read_idx, 3),
    "idx-gz": ("images.gz", gzip.compress(HONEST_IMAGES), bytes, read_idx, 3),
    "idx-in-gz": ("images.gz", HONEST_IMAGES, gzip.compress, read_idx, 3),
    "checkpoint": ("checkpoint.npz", HONEST_RUN, bytes, load),
    "checkpoint-header": ("checkpoint.npz", HONEST_HEADER, member(HONEST_RUN, "header.npy", as_text)[1], load),
    "checkpoint-array": ("checkpoint.npz", *member(HONEST_RUN, "ema.weight1.npy"), load),
    "checkpoint-snapshots": ("checkpoint.npz", *member(HONEST_RUN, "snapshots.npy"), load),
    "classifier": ("classifier.npz", HONEST_CLASSIFIER, bytes, judge.load, 6),
    "classifier-array": ("classifier.npz", *member(HONEST_CLASSIFIER, "arr_5.npy"), judge.load, 6),
}


def takes(reader, data, folder):
    """Whether the reader takes what is made of ``data``; raises all but the one line that names the file."""
    name, _, made, read, *given = READERS[reader]
    path = folder / name
    path.write_bytes(made(data))
    try:
        read(path, *given)
    except DataError as error:
        assert str(error).startswith(f"{path}"), error
        assert "\n" not in str(error), error
        return False
    return True


# Some bytes changed, left out, or put in: (where, a share of the file; how many go; what comes)
EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 40), st.binary(max_size=8)), min_size=1, max_size=4)


@pytest.mark.parametrize("reader", READERS)
def test_changed_files_are_read_or_refused_in_one_line(reader, tmp_path):
    """``--hypothesis-profile=long`` tries ten thousand of each."""
    honest = READERS[reader][1]
    assert takes(reader, honest, tmp_path)

    @hypothesis.settings(deadline=None, derandomize=True, database=None)
    @hypothesis.given(EDITS)
    def check(edits):
        data = bytearray(honest)
        for share, gone, piece in edits:
            start = int(share * len(data))
            data[start : start + gone] = piece
        takes(reader, bytes(data), tmp_path)

    check()
