"""What other systems lack, or do otherwise, put in the place of what this one has: a run, its end, its resumption."""

import errno
import io
import os
import signal
import sys
import time
import warnings
from pathlib import Path

import pytest

from minigan.fast import threads
from minigan.judge import __main__ as judge
from minigan.run import files, load
from minigan.run.files import write
from tests.running import TINY, fails, run, run_until, state


def without(patch, owner, name):
    patch.delattr(owner, name, raising=False)


def held_for_a_moment(patch):
    """As by a virus scanner: each file, the first time that it is to be replaced."""
    seen, replace = set(), os.replace

    def refused_once(part, path):
        if path not in seen:
            seen.add(path)
            raise PermissionError(errno.EACCES, "Access denied")
        replace(part, path)

    patch.setattr(os, "replace", refused_once)


def in_another_code_page(patch):
    for name in ("stdout", "stderr"):
        patch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), encoding="cp1252"))


SYSTEMS = {
    "no fcntl, no msvcrt": lambda patch: [patch.setattr(files, name, None) for name in ("fcntl", "msvcrt")],
    "locks that are not supported": lambda patch: patch.setattr(files, "_lock", unsupported),
    "no SIGHUP": lambda patch: without(patch, signal, "SIGHUP"),
    "no sched_getaffinity": lambda patch: without(patch, os, "sched_getaffinity"),
    "no BLAS to be found": lambda patch: patch.setattr(threads, "_blas", lambda: []),
    "output in cp1252": in_another_code_page,
    "files that are held for a moment": held_for_a_moment,
}


def unsupported(_):
    raise OSError(errno.ENOLCK, "No locks available")


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", SYSTEMS)
def test_a_run_its_end_and_its_resumption(name, images, quick, monkeypatch, clock):
    run(*TINY, "--data", images, "--workers", 2, "--out", "once")
    SYSTEMS[name](monkeypatch)
    given = [*TINY, "--data", images, "--workers", 2]
    assert run_until(4, lambda _: signal.raise_signal(signal.SIGINT), *given) == 130
    assert Path("out", "report.html").exists() and load("out").done == 5
    assert run("--resume") == 0
    assert state("out") == state("once")


@pytest.mark.filterwarnings("default")
def test_locks_that_are_not_there_are_told_of(images, quick, monkeypatch, capsys):
    monkeypatch.setattr(files, "_lock", unsupported)
    assert run(*TINY, "--data", images) == 0
    line = "run_mnist.py: out: no locks there (No locks available): two runs would not notice each other\n"
    assert capsys.readouterr().err == line


# --- Files that another program holds open, as Windows lets it ------------------------------------


@pytest.fixture
def held(monkeypatch):
    """The names of files that cannot be replaced."""
    names, replace = set(), os.replace

    def refused(part, path):
        if Path(path).name in names:
            raise PermissionError(errno.EACCES, "Access denied")
        replace(part, path)

    monkeypatch.setattr(os, "replace", refused)
    monkeypatch.setattr(files, "PATIENCE", 0.05)
    return names


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", ["curves.csv", "report.html", "samples.png", "settings.json", "0000003.png"])
def test_a_file_to_look_at_that_is_held_open_costs_a_line(name, held, images, quick, capsys):
    held.add(name)
    assert run(*TINY, "--data", images) == 0
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and f"{name}: another program holds it open, and it stays as it was" in told
    assert load("out").done == 6


@pytest.mark.filterwarnings("default")
def test_a_checkpoint_that_is_held_open_is_written_beside_it(held, images, quick, capsys):
    assert run(*TINY, "--data", images) == 0
    held.add("checkpoint.npz")
    capsys.readouterr()
    assert run("--resume", "--iterations", 9) == 0
    assert "checkpoint.npz: another program holds it open" in (told := capsys.readouterr().err)
    assert "the new one is out/checkpoint-new.npz: rename it to go on from there" in told
    assert (load("out").done, load(Path("out", "checkpoint-new.npz")).done) == (6, 9)


def test_where_not_even_that_can_be_written_the_run_ends(held, images, quick, capsys):
    assert run(*TINY, "--data", images) == 0
    held.update(("checkpoint.npz", "checkpoint-new.npz"))
    assert "another program holds it open (out/checkpoint-new.npz)" in fails(capsys, "--resume", "--iterations", 9)


def test_a_classifier_that_is_held_open_is_not_taken_for_the_new_one(held, judged, capsys):
    held.add("classifier.npz")
    with pytest.raises(SystemExit) as exit:
        judge.main(["--data", str(judged)])
    assert exit.value.code == 2
    assert "another program holds it open" in capsys.readouterr().err


def test_what_is_held_for_less_than_a_second_is_waited_for(held, monkeypatch):
    held.add("a")
    monkeypatch.setattr(files, "PATIENCE", 60)
    monkeypatch.setattr(time, "sleep", lambda _: held.clear())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write(Path("a"), "whole")
    assert Path("a").read_text() == "whole"


def test_where_no_blas_is_seen_it_is_apples(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(threads, "_blas", lambda: [])
    assert threads.kernels() == "Accelerate"
