"""A run that was stopped, by whatever, and goes on as though it never had been."""

import gc
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minigan.judge import judge as judging
from minigan.run import Run, load, opening
from minigan.settings import Settings
from tests.running import (
    ENDLESS,
    TINY,
    fails,
    files,
    grids,
    killed_at,
    posix_only,
    rows,
    run,
    run_until,
    started,
    state,
    until,
)


def stopped_at(iteration, *argv):
    assert run_until(iteration - 1, lambda _: signal.raise_signal(signal.SIGTERM), *argv) == 143


def finished_at(iteration, *argv):
    run(*argv, "--iterations", iteration)
    Path("out", "samples", f"{iteration:07d}.png").unlink()  # drawn because the run ended there


@pytest.mark.parametrize(
    "ended_at, iteration, flags",
    [
        (killed_at, 8, "--preset article"),
        (killed_at, 9, "--constraint spectral --penalty none --game hinge --no-replay"),
        (killed_at, 11, "--slope difference --decay linear --constraint clip --average 0 --critic-steps 2 --seed 3"),
        (finished_at, 7, ""),
        (stopped_at, 1017, "--iterations 1018 --sample-every 509 --evaluate-every 509"),  # a row is a mean of several
    ],
)
def test_whatever_it_ended_by_everything_is_as_in_one_go(ended_at, iteration, flags, judged, quick, clock):
    given = [*TINY, "--iterations", 12, "--evaluate-every", 8, *flags.split(), "--data", judged]
    run(*given, "--out", "once")
    once = files("once")
    ended_at(iteration, *given)
    assert len(load("out").pending) == (7 if ended_at == stopped_at else 0)
    Path("out", "samples", ".half.minigan-part.png").write_bytes(b"half")
    Path("out", ".a.minigan-part.b").mkdir()
    Path("out", ".movie.part.mp4").write_bytes(b"somebody's own")
    for _ in range(2):  # where nothing is left to do, nothing changes
        assert run("--resume", "--iterations", load("once").done) == 0
        assert files("out") == {**once, Path(".movie.part.mp4"): b"somebody's own"}


def test_the_page_is_made_again(ran, capsys):
    before, samples = files(ran), set(grids(ran))
    for path in samples | {*ran.glob("*.png"), *ran.glob("*.gif"), *ran.glob("*.html")}:
        path.unlink()
    assert run("--report") == 0
    assert files(ran) == {path: data for path, data in before.items() if ran / path not in samples}
    done = capsys.readouterr().out
    assert done.startswith("6 iterations in 6.0 s (1000.0 ms each), L1 ")
    assert done.endswith(": see out/report.html\n")


def test_a_hundred_grids_are_kept_at_most(monkeypatch):
    """Whatever a run was stopped at: which ones goes by the iteration alone."""
    monkeypatch.setattr("minigan.run.run.write_if_free", lambda *_: None)
    gan_run = Run(Settings(sample_every=10, critic=(2,), generator=(2,), grid=1), (2, 2), {})
    for gan_run.gan.done in range(0, 4010, 10):
        gan_run.draw_grid(Path("."))
        assert len(gan_run.snapshots) <= 101
    assert [i for i, _ in gan_run.snapshots] == [*range(0, 4000, 80), 4000]


def test_saves_that_fail_half_way_leave_the_old_checkpoint(ran):
    """After 0, 1009, 2018, ... bytes; and no part of a file stays."""
    resource = pytest.importorskip("resource", reason="this system has no limit on the size of files")
    before, saved, (soft, hard) = files(ran), load(ran), resource.getrlimit(resource.RLIMIT_FSIZE)
    for room in range(0, len(before[Path("checkpoint.npz")]), 1009):
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
        try:
            with pytest.raises(OSError, match="File too large"):
                saved.save(ran)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert files(ran) == before
    gc.collect()  # a file that was left open would fail once more


@pytest.mark.parametrize(
    "name", [name for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]
)
def test_a_signal_ends_a_run_that_saves_everything(name, images, quick, capsys):
    number = getattr(signal, name)
    assert run_until(4, lambda _: signal.raise_signal(number), *TINY, "--data", images) == 128 + number
    _, done = capsys.readouterr().out.splitlines()
    assert done.startswith("interrupted after 5 iterations in ")
    assert done.endswith(": see out/report.html")
    assert load("out").done == int(rows("out")[-1][0]) == 5
    assert Path("out", "report.html").exists()


def test_ctrl_c_while_the_page_is_made_lets_it_be_finished(images, quick, monkeypatch):
    monkeypatch.setattr("minigan.run.pictures.progress", lambda _: signal.raise_signal(signal.SIGINT) or b"")
    assert run(*TINY, "--data", images) == 0
    assert Path("out", "report.html").exists()


def test_output_that_nobody_takes_ends_nothing(images, quick):
    """Neither a full disk nor a pipe whose reader is gone."""
    reader, writer = os.pipe()
    os.close(reader)
    for taker in filter(os.path.exists, ("/dev/full", writer)):
        with open(taker, "w") as stream, pytest.MonkeyPatch.context() as patch:  # and at its end, nothing is left in it
            patch.setattr(sys, "stdout", stream)
            patch.setattr(sys, "stderr", stream)
            assert run(*TINY, "--data", images, "--out", out := Path(f"out{taker}")) == 0
        assert (out / "report.html").exists()


# --- Processes that are really there, and really end ---------------------------------------------


@posix_only
def test_kill_9(images, quick, capsys):
    """Nobody else writes there while it lives; its worker ends by itself, and it goes on as if nothing had happened."""
    given = [*ENDLESS, "--workers", 2, "--data", images]
    with started(*given) as process:
        until(process, lambda: len(grids("out")) > 3)
        process.send_signal(signal.SIGSTOP)
        assert "another run is writing there" in fails(capsys, "--resume", "--iterations", load("out").done + 1)
        assert "another run is writing there" in fails(capsys, "--generate", 1)
        for name in ("checkpoint.npz", "settings.json", "curves.csv", "samples"):
            Path("out", name).rename(name)  # as before the first are written
        assert "another run is writing there" in fails(capsys, *TINY, "--data", images)
        for name in ("checkpoint.npz", "settings.json", "curves.csv", "samples"):
            Path(name).rename(Path("out", name))
        process.kill()
        process.communicate(timeout=60)  # until the worker has closed its output, too
    end = (load("out").done // 20 + 2) * 20
    assert run("--resume", "--iterations", end) == run(*given, "--iterations", end, "--out", "once") == 0
    assert state("out") == state("once")
    assert [row[:3] for row in rows("out")] == [row[:3] for row in rows("once")]
    assert [path.read_bytes() for path in grids("out")] == [path.read_bytes() for path in grids("once")]


@pytest.mark.parametrize("command", [["--resume", "--iterations", 9], ["--evaluate"], ["--report"]])
def test_nobody_else_writes_while_it_reads(command, ran, quick, monkeypatch, capsys):
    """The lock comes before the checkpoint is read, so that no other run's iterations are lost."""
    other = []

    def meanwhile(*args):
        other.append(fails(capsys, "--resume", "--iterations", 12))
        return read(*args)

    module = opening if command[0] == "--resume" else judging
    read = module.load_images
    monkeypatch.setattr(module, "load_images", lambda *args, **named: meanwhile(*args))
    assert run(*command) == 0
    assert other and "another run is writing there" in other[0]


def test_a_finished_run_writes_what_a_killed_one_left_out(ran, quick):
    before = {name: (ran / name).read_bytes() for name in ("curves.csv", "settings.json")}
    for name in before:
        (ran / name).unlink()
    assert run("--resume") == 0
    assert {name: (ran / name).read_bytes() for name in before} == before


@posix_only
@pytest.mark.parametrize(
    "env",
    [
        {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "MATPLOTLIBRC": "."},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_whatever_the_environment_says(env, images):
    """As a notebook, which chooses a backend; by a matplotlibrc, and a name that is no text, a run leaves its page."""
    Path("matplotlibrc").write_text("text.usetex: True\nsavefig.dpi: 600\nsavefig.transparent: True\n")
    name = os.fsdecode(b"caf\xe9.npy")
    np.save(name, np.random.default_rng(0).integers(0, 256, (40, 6, 5), dtype="uint8"))
    with started(*TINY, "--data", name, env={**os.environ, **env}) as process:
        output = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "Traceback" not in output[1]
    assert {"curves.png", "report.html"} <= {path.name for path in Path("out").iterdir()}
    with Image.open("out/curves.png") as curves:
        assert curves.size == (1210, 330)


@posix_only
def test_a_process_whose_terminal_is_gone(images):
    """Its output is closed, and SIGHUP is ignored from the start, as under nohup; SIGTERM is still heard."""

    def let_go():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.close(1)
        os.close(2)

    with started(*ENDLESS, "--data", images, stdout=None, stderr=None, preexec_fn=let_go) as process:
        until(process, lambda: len(grids("out")) > 2)
        process.send_signal(signal.SIGHUP)
        seen = len(grids("out"))
        until(process, lambda: len(grids("out")) > seen + 1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert int(grids("out")[-1].stem) == load("out").snapshots[-1][0]
    assert Path("out", "report.html").exists()
