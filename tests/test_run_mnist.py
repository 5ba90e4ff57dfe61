"""The command line: what a run leaves, and how it ends when something is wrong."""

import io
import json
import sys
import time
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from minigan.cli import unbroken_output
from minigan.data import MNIST
from minigan.files import replacing
from minigan.run import load
from minigan.training import WGANGP
from tests.running import TINY, fails, files, rows, run, state


def test_what_a_run_leaves(tmp_path, images, capsys):
    out = tmp_path / "some" / "where"
    assert run(*TINY, "--data", images, "--out", out, "--seed", 5) == 0
    output = capsys.readouterr()
    assert output.err == ""  # no progress bar where there is no terminal
    read, done = output.out.splitlines()
    assert read.startswith("40 images of 5 x 6, 0 to 255 (mean 12") and read.endswith(f", from {images}")
    assert done.startswith("6 iterations in ") and str(out / "report.html") in done
    names = [".lock", "checkpoint.npz", "curves.csv", "settings.json", "report.html", "samples.png"]
    names += ["curves.png", "progress.png", "animation.gif", "interpolations.png"]
    assert set(map(str, files(out))) == {*names, *(f"samples/000000{i}.png" for i in (0, 3, 6))}

    head, *metrics = rows(out)
    assert head == ["iteration", "l1", "gradient_norm", "seconds"]
    assert [int(row[0]) for row in metrics] == [1, 2, 3, 4, 5, 6]
    assert np.isfinite(np.array(metrics, float)).all()

    settings = json.loads((out / "settings.json").read_text())
    assert settings["seed"] == 5 and settings["critic"] == [8] and settings["data"] == str(images)

    grid = matplotlib.image.imread(out / "samples" / "0000006.png")
    assert grid.shape[:2] == (2 * (10 * 8 + 2), 2 * (10 * 7 + 2))
    assert all((out / name).stat().st_size > 5000 for name in ("progress.png", "curves.png"))


def test_the_same_seed_leaves_the_same_files(tmp_path, images):
    for name in ("a", "b"):
        run(*TINY, "--data", images, "--out", tmp_path / name)
    run(*TINY, "--data", images, "--out", tmp_path / "c", "--seed", 1)
    run(*TINY, "--data", images, "--out", tmp_path / "d", "--no-replay")

    def left(name):
        timed = ("curves.csv", "curves.png", "report.html", "checkpoint.npz")
        same = {path: data for path, data in files(tmp_path / name).items() if str(path) not in timed}
        return same, [row[:3] for row in rows(tmp_path / name)], state(tmp_path / name)

    assert left("a") == left("b") == left("d")
    assert left("a") != left("c")


def test_evaluation_during_a_run_and_after_it(tmp_path, judged, capsys):
    out = tmp_path / "out"
    capsys.readouterr()
    assert run(*TINY, "--data", judged, "--out", out, "--evaluate-every", 2) == 0
    printed = capsys.readouterr().out
    evaluation = json.loads((out / "evaluation.json").read_text())
    assert [row["iteration"] for row in evaluation["samples"]] == [2, 4, 6]
    assert 0 < evaluation["samples"][0]["seconds"] < evaluation["samples"][2]["seconds"]
    assert evaluation["real"]["units"] == 1 and "l1_test" in evaluation["samples"][2]
    page = (out / "report.html").read_text()
    assert "After 6 iterations" in page and "recall: test images among samples" in page
    assert (out / "classes.png").exists() and (out / "nearest.png").exists()

    assert run("--evaluate", "--out", out) == 0  # by the images that it was trained on
    assert capsys.readouterr().out.splitlines() == printed.splitlines()[1:]
    assert json.loads((out / "evaluation.json").read_text()) == evaluation  # nothing of the run's is lost

    run("--evaluate", "--data", judged, "--out", out, "--seed", 7)  # another one takes its place, everywhere
    other = capsys.readouterr().out.splitlines()[1].split()[-2]
    *_, row = json.loads((out / "evaluation.json").read_text())["samples"]
    assert row["iteration"] == 6 and f"{row['frechet']:.2f}" == other != f"{evaluation['samples'][2]['frechet']:.2f}"
    assert run("--report", "--out", out) == 0 and f"<td>{other}</td>" in (out / "report.html").read_text()
    assert run("--resume", "--iterations", 8, "--out", out) == 0
    assert json.loads((out / "evaluation.json").read_text())["samples"][2] == row


def test_a_damaged_classifier_is_found_before_the_training(tmp_path, judged, capsys):
    (judged / "classifier.npz").write_bytes(b"")
    capsys.readouterr()
    message = fails(capsys, *TINY, "--data", judged, "--out", tmp_path / "out")
    assert f"{judged / 'classifier.npz'}: not a classifier, or a damaged one" in message
    assert not (tmp_path / "out").exists()


def test_evaluation_without_a_classifier(tmp_path, images, judged, capsys):
    (judged / "classifier.npz").unlink()
    run(*TINY, "--data", judged, "--out", tmp_path / "out")
    assert not (tmp_path / "out" / "evaluation.json").exists()
    assert "By class" not in (tmp_path / "out" / "report.html").read_text()
    capsys.readouterr()
    message = fails(capsys, "--evaluate", "--data", judged, "--out", tmp_path / "out")
    assert "there is no classifier beside the data" in message
    message = fails(capsys, "--evaluate", "--data", MNIST, "--out", tmp_path / "out")
    assert "holds other images than the run in" in message
    message = fails(capsys, "--evaluate", "--generate", 5, "--out", tmp_path / "out")
    assert "--generate: not allowed with argument --evaluate" in message


def test_generate(tmp_path, images, capsys):
    out = tmp_path / "out"
    run(*TINY, "--data", images, "--out", out)
    assert run("--generate", 23, "--out", out) == 0
    assert "23 samples of iteration 6" in capsys.readouterr().out
    samples = np.load(out / "generated.npy")
    assert samples.shape == (23, 6, 5) and samples.dtype == "float32"
    assert samples.min() >= 0 and samples.max() <= 1 and samples.std(axis=0).min() > 0
    assert matplotlib.image.imread(out / "generated.png").shape[0] == 2 * (3 * 8 + 2)
    run("--generate", 23, "--out", out)
    assert (np.load(out / "generated.npy") == samples).all()
    run("--generate", 23, "--out", out, "--seed", 1)
    assert (np.load(out / "generated.npy") != samples).any()


def test_generate_gives_mnists_size(tmp_path):
    data = tmp_path / "data"  # the bundled images without their classifier, which would take seconds to judge them
    data.mkdir()
    (data / "train-images-idx3-ubyte.gz").symlink_to(MNIST / "train-images-idx3-ubyte.gz")
    run(*TINY, "--data", data, "--out", tmp_path / "out")
    run("--generate", 2, "--out", tmp_path / "out")
    assert np.load(tmp_path / "out" / "generated.npy").shape == (2, 28, 28)


def test_the_checkpoint_holds_the_networks(tmp_path, images):
    run(*TINY, "--data", images, "--out", tmp_path / "out", "--noise-dim", 3)
    saved = load(tmp_path / "out")
    assert (saved.iteration, saved.shape, saved.settings.noise_dim) == (6, (6, 5), 3)
    assert [p.shape for p in saved.gan.critic.parameters()] == [(30, 8), (8,), (8, 1), (1,)]
    assert [p.shape for p in saved.gan.ema.parameters()] == [(3, 8), (8,), (8, 30), (30,)]


def test_presets_and_flags_over_them(tmp_path, images):
    tiny = [*TINY, "--data", images, "--out", tmp_path / "out"]
    assert run("--preset", "article", *tiny, "--lambda", 5, "--betas", 0.1, 0.2) == 0
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert (settings["learning_rate"], settings["penalty"], settings["init"]) == (1e-4, "one-sided-relu", "uniform")
    assert (settings["penalty_weight"], settings["betas"], settings["iterations"]) == (5, [0.1, 0.2], 6)


def test_what_a_run_says_of_the_slope_is_what_it_measured(tmp_path, images, capsys):
    run(*TINY, "--data", images, "--out", tmp_path, "--slope", "difference")
    assert "difference quotient" in capsys.readouterr().out
    assert rows(tmp_path)[0][:3] == ["iteration", "l1", "difference_quotient"]


def test_help_reads_with_defaults(capsys):
    with pytest.raises(SystemExit) as exit:
        run("--help")
    text = capsys.readouterr().out
    assert exit.value.code == 0
    for words in ("[0.0 0.9, article: 0.5 0.999]", "--generate N", "--device {cpu,gpu}", "[out]"):
        assert words in " ".join(text.split()), words
    assert max(map(len, text.splitlines())) <= 80


# --- Bad input: one line, status 2, nothing lost ------------------------------------------------


@pytest.mark.parametrize(
    "flags, message",
    [
        (
            ["--iterations", "0"],
            "argument --iterations: expected a whole number of at least 1 and below 1000000000, got '0'",
        ),
        (
            ["--batch-size", "2.5"],
            "argument --batch-size: expected a whole number of at least 1 and below 1000000000, got '2.5'",
        ),
        (["--batch-size", "9" * 20], "at least 1 and below 1000000000, got '99999999999999999999'"),
        (["--generate", "9" * 20], "at least 1 and below 1000000000, got '99999999999999999999'"),
        (["--learning-rate", "0"], "argument --learning-rate: expected a number above 0, got '0'"),
        (["--learning-rate", "nan"], "argument --learning-rate: expected a number above 0, got 'nan'"),
        (["--learning-rate", "inf"], "argument --learning-rate: expected a number above 0, got 'inf'"),
        (["--betas", "0.5", "1"], "argument --betas: expected a number of at least 0 and below 1, got '1'"),
        (["--betas", "0.5"], "argument --betas: expected 2 arguments"),
        (["--lambda", "-1"], "argument --lambda: expected a number of at least 0, got '-1'"),
        (
            ["--critic", "8", "0"],
            "argument --critic: expected a whole number of at least 1 and below 1000000000, got '0'",
        ),
        (["--penalty", "cubic"], "argument --penalty: invalid choice: 'cubic' (choose from"),
        (["--game", "chess"], "argument --game: invalid choice: 'chess' (choose from"),
        (["--where", "here"], "argument --where: invalid choice: 'here' (choose from"),
        (["--slope", "steep"], "argument --slope: invalid choice: 'steep' (choose from"),
        (["--constraint", "tight"], "argument --constraint: invalid choice: 'tight' (choose from"),
        (["--preset", "fast"], "argument --preset: invalid choice: 'fast' (choose from"),
        (["--device", "tpu"], "argument --device: invalid choice: 'tpu'"),  # Python 3.15 suggests one here
        (["--seed", "-1"], "argument --seed: expected a whole number of at least 0, got '-1'"),
        (
            ["--generate", "0"],
            "argument --generate: expected a whole number of at least 1 and below 1000000000, got '0'",
        ),
        (["--iteration-count", "3"], "unrecognized arguments: --iteration-count 3"),
    ],
)
def test_a_bad_flag(capsys, flags, message):
    assert message in fails(capsys, *flags)


def test_bad_data(tmp_path, images, capsys):
    out = tmp_path / "out"
    message = fails(capsys, *TINY, "--data", tmp_path / "nowhere", "--out", out)
    assert f"{tmp_path / 'nowhere'}: there is no such file or folder; expected a folder of IDX files" in message
    path = images / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-20])
    assert f"{path}: the header announces 1200 bytes" in fails(capsys, *TINY, "--data", images, "--out", out)
    assert not out.exists()


def test_what_was_read_is_said(tmp_path, capsys):
    """Pixels of 0 and 1, as of a mask, would look like nothing."""
    np.save(tmp_path / "bits.npy", np.random.default_rng(0).integers(0, 2, (40, 6, 5), dtype="uint8"))
    run(*TINY, "--data", tmp_path / "bits.npy", "--out", tmp_path / "out")
    line = capsys.readouterr().out.splitlines()[0]
    assert line == f"40 images of 5 x 6, 0 to 1 only, of 0 to 255 (mean 0), from {tmp_path / 'bits.npy'}"


def test_a_disk_that_is_full(tmp_path, images, capsys, monkeypatch):
    monkeypatch.setattr(Path, "write_bytes", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    message = fails(capsys, *TINY, "--data", images, "--out", tmp_path / "out")
    assert message.endswith(f"No space left on device ({tmp_path / 'out' / 'samples' / '0000000.png'})\n")
    assert [path.name for path in (tmp_path / "out").rglob("*")] in (["samples", ".lock"], [".lock", "samples"])


def test_a_home_folder_by_its_sign(tmp_path, images, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run(*TINY, "--data=~/images", "--out", tmp_path / "out") == 0


def test_a_second_run_overwrites_nothing(tmp_path, images, capsys):
    run(*TINY, "--data", images, "--out", tmp_path / "out")
    before = files(tmp_path / "out")
    capsys.readouterr()
    message = fails(capsys, *TINY, "--data", images, "--out", tmp_path / "out", "--seed", 1)
    assert f"--out {tmp_path / 'out'} already holds a run" in message
    assert files(tmp_path / "out") == before


def test_a_folder_that_cannot_be_written(tmp_path, images, capsys):
    file = tmp_path / "file"
    file.write_text("kept")
    message = fails(capsys, *TINY, "--data", images, "--out", file)
    assert f"--out {file}: " in message and file.read_text() == "kept"
    assert f"--out {file / 'in'}: Not a directory" in fails(capsys, *TINY, "--data", images, "--out", file / "in")
    assert "--out /proc/out: " in fails(capsys, *TINY, "--data", images, "--out", "/proc/out")


def test_every_setting_has_a_flag(tmp_path, images):
    given = ["--grid", 3, "--clip", 0.5, "--hidden", "tanh", "--output", "none", "--critic-output", "tanh"]
    run(*TINY, "--data", images, "--out", tmp_path, *given, "--init", "uniform", "--noise", "uniform")
    held = load(tmp_path).settings
    assert (held.grid, held.clip, held.hidden, held.output, held.critic_output) == (3, 0.5, "tanh", None, "tanh")
    assert (held.init, held.noise) == ("uniform", "uniform")


def test_settings_that_make_no_sense_together(tmp_path, images, capsys):
    out = tmp_path / "out"
    message = fails(capsys, *TINY, "--data", images, "--out", out, "--slope", "difference", "--where", "real")
    assert "a difference needs two points, and 'real' gives the same one twice" in message and not out.exists()


def test_gpu_without_a_gpu(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert "--device gpu: CuPy is not installed; install it with: pip install" in fails(capsys, "--device", "gpu")


def test_a_graph_needs_a_gpu(tmp_path, images, capsys):
    message = fails(capsys, *TINY, "--data", images, "--out", tmp_path / "out", "--graph")
    assert "--graph records what runs on a GPU; it needs --device gpu" in message
    assert not (tmp_path / "out").exists()


def test_sizes_beyond_memory(tmp_path, images, capsys):
    out = tmp_path / "out"
    most = 10**9 - 1
    for flags in (["--critic", most, most], ["--batch-size", most, "--critic-steps", 9999]):  # exbibytes
        assert "not enough memory" in fails(capsys, *TINY, "--data", images, "--out", out / flags[0], *flags)


def test_a_checkpoint_that_cannot_be_used(tmp_path, images, capsys):
    out = tmp_path / "out"
    path = out / "checkpoint.npz"
    assert f"{path}: No such file" in fails(capsys, "--generate", 1, "--out", out)
    run(*TINY, "--data", images, "--out", out)
    capsys.readouterr()
    good = path.read_bytes()

    for mode in ("--generate=1", "--report", "--evaluate"):
        assert f"{mode.partition('=')[0]} takes no --noise-dim" in fails(capsys, mode, "--out", out, "--noise-dim", 7)
        assert "takes no --learning-rate; it takes --device" in fails(capsys, mode, "--out", out, "--learning-rate", 3)
        assert "takes no --preset" in fails(capsys, mode, "--out", out, "--preset", "article")

    for bad in (good[: len(good) // 2], b"", b"not a checkpoint", good[:200] + bytes(50) + good[250:]):
        path.write_bytes(bad)
        assert f"{path}: not a checkpoint, or a damaged one" in fails(capsys, "--generate", 1, "--out", out)
        assert path.read_bytes() == bad

    path.write_bytes(good)
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **{**arrays, "generator.weight2": arrays["generator.weight2"][:3]})
    message = fails(capsys, "--generate", 1, "--out", out)
    assert f"{path}: generator.weight2 is (3, 30); its settings say (8, 30)" in message
    for name, value in [("version", 9), ("settings", {"critic": "wide"}), ("shape", [6])]:
        header = json.loads(str(arrays["header"]))
        np.savez(path, **{**arrays, "header": json.dumps({**header, name: value})})
        assert f"{path}: " in fails(capsys, "--generate", 1, "--out", out)
    assert not (out / "generated.npy").exists()


# --- Divergence and interruption ----------------------------------------------------------------


def test_threads_are_as_many_as_asked_for_and_written_down(tmp_path, images):
    for n in (1, 2):
        run(*TINY, "--data", images, "--out", tmp_path / str(n), "--threads", n)
        assert json.loads((tmp_path / str(n) / "settings.json").read_text())["threads"] == n
    run(*TINY, "--data", images, "--out", tmp_path / "rule")
    assert json.loads((tmp_path / "rule" / "settings.json").read_text())["threads"] == 1  # of so small products


@pytest.mark.filterwarnings("default")
def test_what_cannot_be_replayed_is_one_line(tmp_path, images, capsys, monkeypatch):
    monkeypatch.setattr(WGANGP, "draw_noise", lambda model, n: np.zeros((n, model.settings.noise_dim), "float32"))
    assert run(*TINY, "--data", images, "--out", tmp_path) == 0
    error = capsys.readouterr().err
    assert error == (
        "run_mnist.py: iterations are not replayed, but run as they are: linear got an array (8, 32) that no kernel"
        " made and the state does not hold\n"
    )


def test_divergence_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path, images, capsys, monkeypatch):
    iteration, calls = WGANGP.iteration, []

    def diverging(model):
        calls.append(1)
        if len(calls) == 5:
            model.critic.parameters()[0].data[...] = np.inf
        return iteration(model)

    monkeypatch.setattr(WGANGP, "iteration", diverging)
    out = tmp_path / "out"
    assert run(*TINY, "--data", images, "--out", out) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "training diverged: L1 nan" in error
    assert "at iteration 5; " in error
    assert f"{out / 'checkpoint.npz'} keeps iteration 3" in error
    saved = load(out)
    assert saved.iteration == 3 and saved.gan.check_finite() is None
    assert len(rows(out)) == 5
    assert (out / "curves.png").exists() and (out / "progress.png").exists()
    between = matplotlib.image.imread(out / "interpolations.png")  # of the last good checkpoint
    assert len(np.unique(between)) > 50  # what is not finite would be black


def test_a_checkpoint_is_never_written_with_parameters_that_are_not_finite(tmp_path, images, capsys, monkeypatch):
    """L1 is taken before the step: the last update may spoil the parameters, and no figure show it."""
    iteration, calls = WGANGP.iteration, []

    def spoiling(model):
        metrics = iteration(model)
        calls.append(1)
        if len(calls) == 6:
            model.generator.parameters()[0].data[...] = np.nan
        return metrics

    monkeypatch.setattr(WGANGP, "iteration", spoiling)
    assert run(*TINY, "--data", images, "--out", tmp_path) == 1
    error = capsys.readouterr().err
    assert "the generator's parameters are no longer finite" in error and "keeps iteration 3" in error
    assert load(tmp_path).iteration == 3


def test_a_learning_rate_that_diverges_ends_in_one_line(tmp_path, images, capsys):
    assert run(*TINY, "--data", images, "--out", tmp_path, "--learning-rate", "1e30") == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "training diverged: " in error and "keeps iteration 0" in error


@pytest.mark.parametrize("flags", [["--learning-rate", 100], ["--lambda", 1e20], ["--lambda", 1e30]])
def test_what_a_run_that_blows_up_leaves_can_be_read(flags, tmp_path, images):
    """Where Adam's second moments overflow, the parameters stay finite for a while."""
    run(*TINY, "--iterations", 30, "--data", images, "--out", tmp_path, *flags)
    assert run("--generate", 1, "--out", tmp_path) == run("--report", "--out", tmp_path) == 0


def test_the_seconds_are_those_of_the_training_alone(tmp_path, images, monkeypatch):
    now = iter(range(1000))
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    run(*TINY, "--data", images, "--out", tmp_path)
    assert [float(row[3]) for row in rows(tmp_path)[1:]] == [1, 2, 3, 4, 5, 6]


def test_a_name_that_cannot_be_printed_is_escaped(monkeypatch):
    """As text, and as the bytes that a path holds where the locale has no such letter."""
    monkeypatch.setattr(sys, "stdout", stream := io.TextIOWrapper(io.BytesIO(), encoding="ascii", newline=""))
    with unbroken_output():
        print("f\xfcr", "f\udcc3\udcbcr")
    assert stream.buffer.getvalue() == b"f\\xfcr f\\udcc3\\udcbcr\n"


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.npz"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert files(tmp_path) == {Path("file.npz"): b"old"}
