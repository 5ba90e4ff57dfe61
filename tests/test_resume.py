"""A run that was stopped, by whatever, and goes on as though it never had been."""

import gc
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from minigan.run import Run, load
from minigan.settings import Settings
from minigan.training import WGANGP
from tests.running import ROOT, TINY, fails, files, rows, run, state
from tests.test_data import idx

TWELVE = [*TINY, "--iterations", 12, "--evaluate-every", 8]


class Killed(BaseException):
    """What nothing in the program catches: as though it were gone."""


@pytest.fixture
def no_clock(monkeypatch):
    """Without seconds, all that a run leaves is the same bit for bit."""
    monkeypatch.setattr(time, "perf_counter", lambda: 1.0)


def killed_at(iteration, monkeypatch, *argv):
    step = WGANGP.iteration

    def dies(model):
        if model.iterations == iteration:
            raise Killed
        return step(model)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(WGANGP, "iteration", dies)
        run(*argv)


@pytest.mark.parametrize(
    "iteration, flags",
    [
        (8, ["--preset", "article", *TWELVE]),
        (9, ["--constraint", "spectral", "--penalty", "none", "--game", "hinge", "--no-replay"]),
        (11, ["--slope", "difference", "--decay", "linear", "--constraint", "clip", "--average", 0, "--seed", 3]),
    ],
)
def test_after_a_kill_everything_is_as_in_one_go(iteration, flags, tmp_path, judged, monkeypatch, no_clock):
    given = [*TWELVE, *flags, "--data", judged]
    run(*given, "--out", tmp_path / "once")
    out = tmp_path / "twice"
    killed_at(iteration, monkeypatch, *given, "--out", out)
    (out / "samples" / ".half.minigan-part.png").write_bytes(b"half")
    (out / ".a.minigan-part.b").mkdir()
    assert run("--resume", "--out", out) == 0
    assert files(out) == files(tmp_path / "once")


def test_after_a_kill_and_a_stop_late_in_a_run(tmp_path, images, monkeypatch, no_clock):
    """Where a row is the mean of several iterations: a stop reads none, draws nothing, and keeps what is pending."""
    given = [*TINY, "--iterations", 1060, "--sample-every", 530, "--data", images]
    run(*given, "--out", tmp_path / "once")
    out, iterate = tmp_path / "twice", Run.iterate

    def stops(run):
        row = iterate(run)
        if run.iteration == 1037:
            os.kill(os.getpid(), signal.SIGTERM)
        return row

    with monkeypatch.context() as patch:
        patch.setattr(Run, "iterate", stops)
        assert run(*given, "--out", out) == 143
    assert load(out).iteration == 1037 and len(load(out).pending) == 7
    assert run("--resume", "--out", out) == 0
    assert files(out) == files(tmp_path / "once")


def test_a_finished_run_goes_on(tmp_path, judged, no_clock):
    run(*TWELVE, "--data", judged, "--out", tmp_path / "once")
    out = tmp_path / "twice"
    run(*TWELVE, "--data", judged, "--out", out, "--iterations", 7, "--threads", 1)
    assert run("--resume", "--out", out, "--iterations", 12, "--no-replay") == 0
    (out / "samples" / "0000007.png").unlink()  # drawn because the run ended there
    assert files(out) == files(tmp_path / "once")
    assert run("--resume", "--out", out) == 0  # where nothing is left to do, nothing changes
    assert files(out) == files(tmp_path / "once")


def test_the_page_is_made_again(tmp_path, judged, capsys):
    run(*TWELVE, "--data", judged, "--out", tmp_path / "out")
    before = files(tmp_path / "out")
    grids = {path for path in before if path.parts[0] == "samples"}
    shutil.rmtree(tmp_path / "out" / "samples")
    for path in (tmp_path / "out").iterdir():
        if path.suffix in (".png", ".gif", ".html"):
            path.unlink()
    printed = capsys.readouterr().out
    assert run("--report", "--out", tmp_path / "out") == 0
    assert files(tmp_path / "out") == {path: data for path, data in before.items() if path not in grids}
    assert capsys.readouterr().out == printed.splitlines(keepends=True)[-1]


def test_a_hundred_grids_are_kept_at_most(tmp_path):
    """Whatever a run was stopped at: which ones goes by the iteration alone."""
    gan_run = Run(Settings(sample_every=10, critic=(2,), generator=(2,), grid=1), (2, 2), {})
    for i in range(0, 4010, 10):
        gan_run.gan.iterations = i
        gan_run.snapshot(tmp_path)
        assert len(gan_run.snapshots) <= 101
    assert [i for i, _ in gan_run.snapshots] == [*range(0, 4000, 80), 4000]


def test_what_may_not_change_is_named(tmp_path, images, capsys):
    out = tmp_path / "out"
    assert "checkpoint.npz: No such file" in fails(capsys, "--resume", "--out", out)
    run(*TINY, "--data", images, "--out", out)
    before = files(out)
    capsys.readouterr()

    message = fails(capsys, "--resume", "--out", out, "--seed", 1)
    assert "--resume takes no --seed; it takes --device, --workers, --threads, --data" in message
    assert "--resume takes no --critic" in fails(capsys, "--resume", "--out", out, "--critic", 9, 9)
    assert "is at iteration 6 already" in fails(capsys, "--resume", "--out", out, "--iterations", 5)
    (images / "train-images-idx3-ubyte").write_bytes(idx((40, 6, 5), bytes(range(200)) * 6))
    assert f"--data {images} holds other images than the run" in fails(capsys, "--resume", "--out", out)
    assert files(out) == before


def test_a_checkpoint_of_a_gpu_is_read_and_written(tmp_path, images):
    run(*TINY, "--data", images, "--out", tmp_path)
    with np.load(tmp_path / "checkpoint.npz") as file:
        np.savez(tmp_path / "checkpoint.npz", **{**file, "rng": np.arange(9, dtype="int8")})
    assert run("--resume", "--out", tmp_path, "--iterations", 8) == 0  # with other draws


def test_saves_that_fail_half_way_leave_the_old_checkpoint(tmp_path, images):
    """``python -m tests.torture`` does it for every byte, and kills runs at random moments besides."""
    torture = pytest.importorskip("tests.torture", reason="this system has no limit on the size of files")
    run(*TINY, "--data", images, "--out", tmp_path)
    torture.failing_saves(tmp_path / "checkpoint.npz", step=1009)
    gc.collect()  # a file that was left open would fail once more


# --- Processes that are really there, and really end ---------------------------------------------

ENDLESS = ["--iterations", 1_000_000, "--batch-size", 4, "--critic", 8, "--generator", 8, "--sample-every", 20]


def start(*argv, **kind):
    command = [sys.executable, ROOT / "run_mnist.py", *map(str, argv)]
    kind = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "errors": "surrogateescape", **kind}
    return subprocess.Popen(command, **kind)


def until(process, happened):
    """Wait for it, while the process lives."""
    deadline = time.monotonic() + 60
    while not happened():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)


def grids(out):
    return sorted((out / "samples").glob("0*.png"))


def test_after_kill_9(tmp_path, images):
    process = start(*ENDLESS, "--data", images, "--out", tmp_path / "a")
    until(process, lambda: len(grids(tmp_path / "a")) > 3)
    process.kill()
    process.communicate()
    end = (load(tmp_path / "a").iteration // 20 + 2) * 20
    assert run("--resume", "--out", tmp_path / "a", "--iterations", end) == 0
    run(*ENDLESS, "--data", images, "--out", tmp_path / "b", "--iterations", end)
    assert state(tmp_path / "a") == state(tmp_path / "b")
    assert [row[:3] for row in rows(tmp_path / "a")] == [row[:3] for row in rows(tmp_path / "b")]
    for name in ("progress.png", "animation.gif", "interpolations.png", f"samples/{end:07d}.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_ends_a_run_that_saves_everything(name, tmp_path, images):
    number = getattr(signal, name)
    process = start(*ENDLESS, "--data", images, "--out", tmp_path)
    until(process, lambda: len(grids(tmp_path)) > 2)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (128 + number, "")
    read, done = stdout.splitlines()
    assert read.startswith("40 images of ") and done.startswith("interrupted after ") and str(tmp_path) in done
    stopped = load(tmp_path)
    assert stopped.iteration == int(rows(tmp_path)[-1][0]) + len(stopped.pending)
    assert stopped.snapshots[-1][0] == int(grids(tmp_path)[-1].stem) and (tmp_path / "report.html").exists()

    assert run("--resume", "--out", tmp_path, "--iterations", stopped.iteration + 3) == 0


def test_what_was_ignored_at_the_start_stays_ignored(tmp_path, images):
    """So nohup keeps a run from its terminal's end."""
    ignore = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    process = start(*ENDLESS, "--data", images, "--out", tmp_path, **ignore)
    until(process, lambda: len(grids(tmp_path)) > 2)
    process.send_signal(signal.SIGHUP)
    seen = len(grids(tmp_path))
    until(process, lambda: len(grids(tmp_path)) > seen + 1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM


def test_ctrl_c_while_the_page_is_made_lets_it_be_finished(tmp_path, images):
    process = start(*TINY, "--iterations", 60, "--data", images, "--out", tmp_path)
    until(process, lambda: (tmp_path / "curves.png").exists())
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert stderr == "" and "report.html" in stdout and (tmp_path / "report.html").exists()


def test_output_that_nobody_takes_ends_nothing(tmp_path, images):
    given = [*TINY, "--data", images, "--out"]
    for name, stream in (("closed", None), ("full", "/dev/full"), ("broken", None)):
        if stream and not os.path.exists(stream):
            continue
        out = tmp_path / name
        if name == "broken":
            reader, writer = os.pipe()
            os.close(reader)
            process = start(*given, out, stdout=writer, stderr=writer)
            os.close(writer)
        elif name == "full":
            with open(stream, "w") as full:
                process = start(*given, out, stdout=full, stderr=full)
        else:
            process = start(*given, out, stdout=None, stderr=None, preexec_fn=lambda: [os.close(fd) for fd in (1, 2)])
        assert process.wait(timeout=60) == 0, name
        assert (out / "report.html").exists(), name


def test_two_runs_in_one_folder(tmp_path, images, capsys):
    out = tmp_path / "out"
    process = start(*ENDLESS, "--data", images, "--out", out)
    until(process, lambda: len(grids(out)) > 1)
    process.send_signal(signal.SIGSTOP)  # as it is now
    assert "another run is writing there" in fails(capsys, "--resume", "--out", out)
    (out / "checkpoint.npz").rename(tmp_path / "checkpoint.npz")  # as before the first is written
    assert "another run is writing there" in fails(capsys, *TINY, "--data", images, "--out", out)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    process.communicate(timeout=60)
    assert process.returncode == 143
    iterations = [int(row[0]) for row in rows(out)[1:]]
    assert iterations == sorted(set(iterations))  # one run's rows
