"""How many threads a run takes, and by which kernels its matrices are multiplied."""

import contextlib
import re
from dataclasses import replace
from pathlib import Path

import pytest

from minigan.fast import threads
from minigan.run import flags, opening
from minigan.settings import PRESETS, Settings
from tests import benchmark
from tests.running import TINY, run

TOY, WIDE = Settings(batch_size=32, critic=(32, 32)), Settings(batch_size=1024, critic=(2048, 2048))


@pytest.mark.parametrize("cores", [1, 2, 64])
def test_no_more_threads_than_the_products_can_use(monkeypatch, cores):
    """On a machine with many cores: one for a toy, a few for digits, half of all for wide networks."""
    monkeypatch.setattr(threads, "_blas", lambda: [{"num_threads": cores}])
    monkeypatch.setattr(threads, "cores", lambda: cores)
    half = max(1, cores // 2)
    assert threads.threads_for(TOY, 2) == threads.threads_for(replace(TOY, critic=()), 10) == 1
    digits = [threads.threads_for(settings, 784) for settings in PRESETS.values()]
    assert min(half, 3) <= min(digits) <= max(digits) < 8
    assert threads.threads_for(WIDE, 784) == half


@pytest.mark.skipif(
    not threads._blas(), reason="threadpoolctl sees no BLAS here, as it does not see Apple's Accelerate"
)
def test_the_threads_are_those_that_were_asked_for():
    before = [library["num_threads"] for library in threads._blas()]
    with threads.use_threads(1):
        assert {library["num_threads"] for library in threads._blas()} == {1}
    assert [library["num_threads"] for library in threads._blas()] == before


QUOTA = {"quota": 200_000, "period": 100_000}
CONTAINERS = {  # control groups of both versions, in a container and out of one; and the cores of 64 that they leave
    "none": ("4:pids:/", {}, 64),
    "version 2": ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "350000 100000"}, 3),
    "in a container": ("0::/docker/1", {"cpu.max": "50000 100000"}, 1),
    "version 1": ("3:cpuset:/\n2:cpu,cpuacct:/a\n0::/", {f"cpu/a/cpu.cfs_{x}_us": n for x, n in QUOTA.items()}, 2),
    "no quota": ("1:cpu:/", {f"cpu/cpu.cfs_{x}_us": n for x, n in (QUOTA | {"quota": -1}).items()}, 64),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_quota_of_processors_counts_as_their_number(name, tmp_path, monkeypatch):
    own, files, expected = CONTAINERS[name]
    for path, text in {"own": own, **files}.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(f"{text}\n")
    monkeypatch.setattr(threads, "GROUPS", tmp_path)
    monkeypatch.setattr(threads, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _: range(64), raising=False)
    assert threads.cores() == expected


def test_another_processor_is_told_of(images, capsys, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(threads, "kernels", lambda: "Z80")
        run(*TINY, "--data", images)
    capsys.readouterr()
    opening.reopen(*flags.parse(["--resume"])[1:])
    said = "by kernels for a Z80: it goes on up to rounding, not bit for bit"
    assert re.fullmatch(rf"run_mnist.py: .*{said}\n", capsys.readouterr().err)


@pytest.mark.parametrize("flags", [["--crowd"], ["--growth"]])
def test_the_benchmark_runs(flags, monkeypatch, capsys):
    """Every library that is installed, small and short, in this process, and beside nothing."""
    monkeypatch.setattr(benchmark, "timed", lambda library, count: library.iteration() or 1.0)
    monkeypatch.setattr(benchmark, "busy", contextlib.nullcontext)
    monkeypatch.setattr(benchmark, "waiting", contextlib.contextmanager(lambda name, *_: iter([lambda: 2.0])))
    for size, device in ((benchmark.SIZES["article"], "cpu"),):
        for name in ("minigan", "--workers 2", "eager", "products"):
            monkeypatch.setattr(benchmark.sys, "stdin", [""])
            benchmark.take_turns(name, size, device)
    benchmark.main([*flags, "--rounds", "1"])
    printed = capsys.readouterr().out
    assert ("beside a busy process" in printed) == (flags == ["--crowd"])
    assert Path("out", "growth.png").exists() == (flags == ["--growth"])
