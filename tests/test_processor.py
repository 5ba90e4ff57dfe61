"""How many threads a run takes."""

from dataclasses import replace
from pathlib import Path

import pytest
from threadpoolctl import threadpool_info

from minigan import cli
from minigan.cli import threads_for, use_threads
from minigan.settings import PRESETS, Settings
from tests.running import TINY, run


def of_blas():
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


@pytest.mark.parametrize("cores", [1, 2, 64])
def test_no_more_threads_than_the_products_can_use(monkeypatch, cores):
    """On a machine with many cores: one for a toy, a few for digits, all for wide networks."""
    monkeypatch.setattr(cli, "_blas", lambda: [{"num_threads": cores}])
    toy, wide = Settings(batch_size=32, critic=(32, 32)), Settings(batch_size=1024, critic=(2048, 2048))
    few = {name: threads_for(settings, 784) for name, settings in PRESETS.items()}
    assert threads_for(toy, 2) == 1 and threads_for(wide, 784) == cores
    assert all(n == min(cores, n) and n == cores if cores < 3 else 2 < n < 8 for n in few.values()), few
    assert threads_for(replace(toy, critic=()), 10) == 1


def test_the_threads_are_those_that_were_asked_for():
    before = of_blas()
    with use_threads(1):
        assert set(of_blas()) == {1}
    assert of_blas() == before


def test_kernels_that_do_not_suit_the_processor(monkeypatch):
    said = []
    for chosen, flags, asked in (
        ("Haswell", "avx2 avx512f", None),
        ("Haswell", "avx2 avx512f", "Haswell"),
        ("SkylakeX", "avx2 avx512f", None),
        ("Haswell", "avx2", None),
    ):
        monkeypatch.setattr(cli, "_blas", lambda chosen=chosen: [{"num_threads": 2, "architecture": chosen}])
        monkeypatch.setattr(cli.Path, "read_text", lambda path, flags=flags: flags)
        monkeypatch.setenv("OPENBLAS_CORETYPE", asked) if asked else monkeypatch.delenv("OPENBLAS_CORETYPE", False)
        said.append(cli.slower_kernels())
    assert said[1:] == [None] * 3
    if Path("/proc/cpuinfo").exists():
        assert said[0].startswith("OpenBLAS takes this processor for a Haswell; faster, as a rule: OPENBLAS_CORETYPE=")


def test_another_processor_is_told_of(tmp_path, images, capsys, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(cli, "kernels", lambda: "Z80")
        run(*TINY, "--data", images, "--out", tmp_path)
    capsys.readouterr()
    assert run("--resume", "--out", tmp_path) == 0
    error = capsys.readouterr().err
    assert "by kernels for a Z80: it goes on up to rounding, not bit for bit" in error and error.count("\n") == 1
