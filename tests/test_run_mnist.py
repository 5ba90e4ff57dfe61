"""The command line: what a run leaves, and how it ends when something is wrong."""

import io
import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from minigan.run import cli, opening
from minigan.run import flags as program
from minigan.run.files import replacing
from minigan.run.run import FILE, LEFT, load
from minigan.settings import PRESETS, Settings
from minigan.training import WGANGP
from tests.running import EVALUATED, TINY, fails, files, link, posix_only, rows, run, run_until, state
from tests.test_data import idx

ARTICLE = PRESETS["article"]


def test_what_a_run_leaves(tmp_path, images, capsys):
    out = tmp_path / "some" / "where"
    assert run(*TINY, "--data", images, "--out", out) == 0
    output = capsys.readouterr()
    assert output.err == ""  # no progress bar where there is no terminal
    read, done = output.out.splitlines()
    assert read.startswith("40 images of 5 x 6, 0 to 255 (mean 12")
    assert read.endswith(f", from {images.as_posix()}")
    assert done.startswith("6 iterations in ")
    assert done.endswith(f": see {(out / 'report.html').as_posix()}")
    names = [".lock", "checkpoint.npz", "curves.csv", "settings.json", "report.html", "samples.png"]
    names += ["curves.png", "progress.png", "animation.gif"]
    assert {path.as_posix() for path in files(out)} == {*names, *(f"samples/000000{i}.png" for i in (0, 3, 6))}
    grid = matplotlib.image.imread(out / "samples" / "0000006.png")
    assert grid.shape[:2] == (2 * (10 * 8 + 2), 2 * (10 * 7 + 2))
    assert all((out / name).stat().st_size > 5000 for name in ("progress.png", "curves.png"))


def test_where_there_is_no_bar_each_evaluation_is_a_line(judged, quick, clock, capsys):
    run(*EVALUATED, "--data", judged, "--iterations", 9)
    _, first, second, *_ = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"3 of 9: L1 .*, slope .*, precision .*, recall .*; 0:06 min of training to go", first)
    assert second.startswith("6 of 9: ")


def test_in_a_thread_as_of_a_notebook(images, quick):
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(run, *TINY, "--data", images).result() == 0


def test_figures_of_every_iteration_and_the_seconds_of_the_training_alone(ran):
    head, *metrics = rows(ran)
    assert head == ["iteration", "l1", "slope", "seconds"]
    assert np.isfinite(np.array(metrics, float)).all()
    assert [(int(row[0]), float(row[3])) for row in metrics] == [(i, i) for i in range(1, 7)]


def test_another_seed_is_another_run(ran, judged_once, quick):
    run(*TINY, "--data", judged_once, "--out", "other", "--seed", 1)
    assert state("other") != state(ran)
    assert rows("other")[6][1:3] != rows(ran)[6][1:3]


def test_evaluation_during_a_run_and_after_it(ran, quick, capsys):
    def printed(*argv):
        capsys.readouterr()
        assert run(*argv) == 0
        return capsys.readouterr().out.splitlines()

    def held():
        return json.loads((ran / "evaluation.json").read_text())

    before = held()
    assert [(row["iteration"], row["seconds"]) for row in before["samples"]] == [(3, 3), (6, 6)]
    assert before["real"]["units"] is None
    assert before["real"]["recall"] <= 1
    assert "l1_test" in before["samples"][1]
    assert {path.name for path in ran.iterdir()} == {*LEFT, FILE, ".lock", "samples"}
    assert printed("--evaluate") == printed("--resume")[1:]  # by the images that it was trained on
    assert held() == before  # nothing of the run's is lost

    *_, nearest, _ = printed("--evaluate", "--seed", 7)  # another one takes its place, everywhere
    row = held()["samples"][1]
    assert (row["iteration"], f"{row['nearest']:.2f}") == (6, nearest.split()[-2])
    assert len(nearest) <= 79
    assert row["nearest"] != before["samples"][1]["nearest"]
    run("--report")
    page = (ran / "report.html").read_text()
    assert f"<td>{nearest.split()[-2]}</td>" in page
    assert "After 6 iterations" in page
    assert "recall: test images among samples" in page
    run("--resume", "--iterations", 8)
    assert held()["samples"][1] == row


def test_without_a_classifier_or_the_images(ran, judged, quick, capsys):
    (judged / "classifier.npz").unlink()
    assert "there is no classifier beside the data" in fails(capsys, "--evaluate", "--data", judged)
    for data in (judged, "moved"):
        assert run("--report", "--data", data) == 0
        assert "By class" not in (ran / "report.html").read_text()


def test_generate(ran, capsys):
    assert run("--generate", 23) == 0
    assert capsys.readouterr().out == "23 samples of iteration 6: out/generated.npy and .png\n"
    samples = np.load(ran / "generated.npy")
    assert (samples.shape, samples.dtype) == ((23, 6, 5), "float32")
    assert samples.min() >= 0
    assert samples.max() <= 1
    assert samples.std(axis=0).min() > 0
    assert matplotlib.image.imread(ran / "generated.png").shape[0] == 2 * (3 * 8 + 2)
    run("--generate", 23)
    assert (np.load(ran / "generated.npy") == samples).all()
    run("--generate", 23, "--seed", 1)
    assert (np.load(ran / "generated.npy") != samples).any()


def test_every_setting_has_a_flag():
    given = {program.flag(s): program.text(getattr(ARTICLE, s.name)) for s in fields(ARTICLE)}
    words = [word for flag, text in given.items() for word in (flag, *text.split())]
    assert Settings(**program.parse(words)[2]) == ARTICLE


def test_a_preset_and_flags_over_it(ran, images, quick, capsys):
    given = ["--betas", 0.1, 0.2, "--noise-dim", 3, "--slope", "difference", "--output", "none", "--threads", 2]
    assert run("--preset", "article", *TINY, *given, "--data", images, "--out", "other") == 0
    expected = {"iterations": 6, "sample_every": 3, "critic": (8,), "generator": (8,), "batch_size": 4}
    expected |= {"betas": (0.1, 0.2), "noise_dim": 3, "slope": "difference", "output": None}
    held, told = load("other"), json.loads(Path("other", "settings.json").read_text())
    assert (held.settings, held.done, held.shape) == (replace(ARTICLE, **expected), 6, (6, 5))
    assert [p.shape for p in held.gan.critic.parameters()] == [(30, 8), (8,), (8, 1), (1,)]
    assert [p.shape for p in held.gan.ema.parameters()] == [(3, 8), (8,), (8, 30), (30,)]
    typed = {program.flag(s)[2:].replace("-", "_"): getattr(held.settings, s.name) for s in fields(Settings)}
    assert told | json.loads(json.dumps(typed)) == told
    assert "lambda" in told
    assert (told["data"], told["workers"], told["threads"]) == (str(images), 1, 2)
    assert json.loads((ran / "settings.json").read_text())["threads"] == 1  # by rule, of so small products
    assert ", slope " in capsys.readouterr().out
    assert rows("other")[0][2] == "slope"


def test_help_reads_with_defaults(capsys):
    with pytest.raises(SystemExit) as exit:
        run("--help")
    text = capsys.readouterr().out
    for words in ("[0.0 0.9, article: 0.5 0.999]", "--generate N", "--device {cpu,gpu}", "[out]"):
        assert words in " ".join(text.split()), words
    assert exit.value.code == 0
    assert max(map(len, text.splitlines())) <= 80


def test_a_home_folder_by_its_sign(tmp_path, monkeypatch):
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    assert program.parse(["--data=~/images"])[1].data == tmp_path / "images"


def test_pixels_of_0_and_1_as_of_a_mask_would_look_like_nothing():
    line = opening.described(np.ones((2, 4, 4), "uint8") * np.eye(4, dtype="uint8"), Path("bits.npy"))
    assert line == "2 images of 4 x 4, 0 to 1 only, of 0 to 255 (mean 0), from bits.npy"


# --- Bad input: one line, status 2, nothing lost ------------------------------------------------

WHOLE = "expected a whole number of at least 1 and below 1000000000, got"


@pytest.mark.parametrize(
    "flags, message",
    [
        ("--iterations 0", f"argument --iterations: {WHOLE} '0'"),
        ("--batch-size 2.5", f"argument --batch-size: {WHOLE} '2.5'"),
        ("--generate 99999999999999999999", f"argument --generate: {WHOLE} '99999999999999999999'"),
        ("--learning-rate 0", "argument --learning-rate: expected a number above 0, got '0'"),
        ("--learning-rate nan", "argument --learning-rate: expected a number above 0, got 'nan'"),
        ("--learning-rate inf", "argument --learning-rate: expected a number above 0, got 'inf'"),
        ("--betas 0.5 1", "argument --betas: expected a number of at least 0 and below 1, got '1'"),
        ("--betas 0.5", "argument --betas: expected 2 arguments"),
        ("--lambda -1", "argument --lambda: expected a number of at least 0, got '-1'"),
        ("--seed -1", "argument --seed: expected a whole number of at least 0, got '-1'"),
        ("--penalty cubic", "argument --penalty: invalid choice: 'cubic' (choose from"),
        ("--preset fast", "argument --preset: invalid choice: 'fast' (choose from"),
        ("--device gpu", "--device gpu: CuPy is not installed; install it with: pip install"),
        ("--graph", "--graph records what runs on a GPU; it needs --device gpu"),
        ("--iteration-count 3", "unrecognized arguments: --iteration-count 3"),
        ("--evaluate --generate 5", "--generate: not allowed with argument --evaluate"),
        ("--slope difference --where real --out new", "a difference needs two points, and 'real' gives the same one"),
        ("--data nowhere --out new", "error: nowhere: there is no such file or folder; expected a folder of IDX files"),
        pytest.param("--data=~nosuchuser/x --out new", "error: ~nosuchuser/x: there is no such file", marks=posix_only),
        pytest.param(f"--data {'x' * 5000} --out new", f"error: {'x' * 100}...: File name too long", marks=posix_only),
        ("--data a\0b", "argument --data: expected a path, got 'a"),
        ("--out a\0b", "argument --out: expected a path, got 'a"),
        ("--data images --out file", "error: --out file: "),
        ("--data images --out file/in", "error: --out file/in: "),
        pytest.param("--data images --out /proc/out", "error: --out /proc/out: ", marks=posix_only),
        ("--data images --out theirs", "--out theirs holds report.html and no run: it would be replaced"),
        ("--data images --out pictures", "--out pictures holds samples/3.png and no run: it would be replaced"),
        ("--data images --out link", "error: --out link: is a link that leads nowhere"),
        ("--data images --out new --workers 999", "--workers 999: expected at most 30, one for each pixel of an image"),
        ("--data images", "--out out already holds a run: --resume goes on with it; or name another folder"),
        ("--resume --data images", "--data images holds other images than the run in out was trained on"),
        ("--evaluate --data images", "--data images holds other images than the run in out was trained on"),
        ("--resume --iterations 5", "--resume: the run in out is at iteration 6 already"),
        ("--resume --workers 999", "--workers 999: expected at most 30, one for each pixel of an image"),
        ("--resume --out new", "error: new/checkpoint.npz: "),
        ("--resume --seed 1", "--resume takes no --seed: it goes by the settings of the run"),
        ("--report --learning-rate 3", "--report takes no --learning-rate"),
        ("--generate 1 --critic 9 9", "--generate takes no --critic"),
    ],
    ids=lambda text: text[:40],
)
def test_what_is_refused(flags, message, ran, judged, capsys, monkeypatch):
    """Where there is a finished run, and other images."""
    monkeypatch.setitem(sys.modules, "cupy", None)
    (judged / "train-images-idx3-ubyte").write_bytes(idx((120, 6, 5), bytes(range(240)) * 15))
    Path("file").write_text("kept")
    Path("theirs").mkdir()
    Path("theirs", "report.html").write_text("kept")
    if "--out link" in flags:
        link(Path("link"), "nothing")
    Path("pictures", "samples").mkdir(parents=True)
    Path("pictures", "samples", "3.png").write_text("kept")
    before = files(".")
    assert message in fails(capsys, *flags.split())
    assert files(".") == before
    assert not Path("new").exists()


@pytest.mark.parametrize("flags", ["--critic 999999999 999999999", "--batch-size 999999999 --critic-steps 9999"])
def test_sizes_beyond_memory(flags, images, capsys):
    assert "not enough memory" in fails(capsys, *TINY, "--data", images, *flags.split())  # exbibytes


def test_a_disk_that_is_full(images, capsys, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    message = fails(capsys, *TINY, "--data", images)
    assert message.endswith("error: --out out: No space left on device (out/samples/0000000.png)\n")
    assert {path.name for path in Path("out").rglob("*")} == {"samples", ".lock"}


@pytest.mark.parametrize(
    "name, told", [("out/x", "--out out: no (out/x)"), ("a/b", "a/b: no"), (None, "--out out: no")]
)
def test_an_error_of_the_system_names_its_file(name, told, capsys):
    """And the flag only if the file belongs to it."""
    parser, args, _ = program.parse([])
    with pytest.raises(SystemExit), cli.one_line_errors(parser, args):
        raise OSError(13, "no", name)
    assert capsys.readouterr().err == f"run_mnist.py: error: {told}\n"


def test_a_name_that_cannot_be_printed_is_escaped(monkeypatch):
    """As text, and as the bytes that a path holds where the locale has no such letter."""
    monkeypatch.setattr(sys, "stdout", stream := io.TextIOWrapper(io.BytesIO(), encoding="ascii", newline=""))
    with cli.unbroken_output():
        print("f\xfcr", "f\udcc3\udcbcr")
    assert stream.buffer.getvalue() == b"f\\xfcr f\\udcc3\\udcbcr\n"


def test_an_interrupted_write_leaves_the_old_file():
    path = Path("file.npz")
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert files(".") == {path: b"old"}


# --- Trainings that come to nothing ---------------------------------------------------------------


@pytest.mark.filterwarnings("default")
def test_what_cannot_be_replayed_is_one_line(images, quick, capsys, monkeypatch):
    monkeypatch.setattr(WGANGP, "draw_noise", lambda model, n: np.zeros((n, model.settings.noise_dim), "float32"))
    assert run(*TINY, "--data", images) == 0
    assert capsys.readouterr().err == (
        "run_mnist.py: iterations are not replayed, but run as they are: linear got an array (4, 32) that no kernel"
        " made and the state does not hold\n"
    )


def infinite(model):
    model.critic.parameters()[0].array.fill(np.inf)


def spoiled_by_its_last_step(model):
    """L1 is taken before the step: no figure shows it."""
    model.generator_step = lambda: model.generator.parameters()[0].array.fill(np.nan)


@pytest.mark.parametrize(
    "iteration, spoil, metrics, why",
    [
        (4, infinite, 4, "L1 nan and slope nan at iteration 5"),
        (5, spoiled_by_its_last_step, 6, "the generator's parameters are no longer finite"),
    ],
)
def test_divergence_keeps_the_last_good_checkpoint(iteration, spoil, metrics, why, images, quick, capsys):
    assert run_until(iteration, spoil, *TINY, "--no-replay", "--data", images) == 1
    line = f"run_mnist.py: error: training diverged: {why}; out/checkpoint.npz keeps iteration 3\n"
    assert capsys.readouterr().err == line
    assert Path("out", "report.html").exists()
    saved = load("out")
    saved.gan.check_finite()
    assert (saved.done, len(rows("out")) - 1) == (3, metrics)
    samples = matplotlib.image.imread("out/samples.png")  # of the last good checkpoint
    assert len(np.unique(samples)) > 50  # what is not finite would be black


def test_somebodys_lock_file_stays_as_it_is(images, quick):
    Path("out").mkdir()
    Path("theirs").write_text("kept")
    link(Path("out", ".lock"), Path("theirs").absolute())
    assert run(*TINY, "--data", images) == 0
    assert Path("theirs").read_text() == "kept"
