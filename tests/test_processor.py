"""How many threads a run takes, and by which kernels its matrices are multiplied."""

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest

import run_mnist
from minigan.fast import threads
from minigan.settings import PRESETS, Settings
from tests.running import TINY, run

TOY, WIDE = Settings(batch_size=32, critic=(32, 32)), Settings(batch_size=1024, critic=(2048, 2048))


@pytest.mark.parametrize("cores", [1, 2, 64])
def test_no_more_threads_than_the_products_can_use(monkeypatch, cores):
    """On a machine with many cores: one for a toy, a few for digits, all for wide networks."""
    monkeypatch.setattr(threads, "_blas", lambda: [{"num_threads": cores}])
    assert threads.threads_for(TOY, 2) == threads.threads_for(replace(TOY, critic=()), 10) == 1
    digits = [threads.threads_for(settings, 784) for settings in PRESETS.values()]
    assert min(cores, 3) <= min(digits) <= max(digits) < 8
    assert threads.threads_for(WIDE, 784) == cores


@pytest.mark.skipif(
    not threads._blas(), reason="threadpoolctl sees no BLAS here, as it does not see Apple's Accelerate"
)
def test_the_threads_are_those_that_were_asked_for():
    before = [library["num_threads"] for library in threads._blas()]
    with threads.use_threads(1):
        assert {library["num_threads"] for library in threads._blas()} == {1}
    assert [library["num_threads"] for library in threads._blas()] == before


@pytest.mark.parametrize(
    "chosen, flags, asked, said",
    [
        ("Haswell", "avx2 avx512f", {}, "takes this processor for a Haswell; faster, as a rule: OPENBLAS_CORETYPE="),
        ("Haswell", "avx2 avx512f", {"OPENBLAS_CORETYPE": "Haswell"}, "None"),
        ("SkylakeX", "avx2 avx512f", {}, "None"),
        ("Haswell", "avx2", {}, "None"),
    ],
)
def test_kernels_that_do_not_suit_the_processor(monkeypatch, chosen, flags, asked, said):
    monkeypatch.setattr(threads, "_blas", lambda: [{"architecture": chosen}])
    monkeypatch.setattr(threads, "Path", lambda path: SimpleNamespace(exists=lambda: True, read_text=lambda: flags))
    monkeypatch.setattr(threads.os, "environ", asked)
    assert said in str(threads.slower_kernels())


def test_another_processor_is_told_of(images, capsys, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(threads, "kernels", lambda: "Z80")
        run(*TINY, "--data", images)
    capsys.readouterr()
    run_mnist.resume(*run_mnist.parse(["--resume"])[1:])
    said = "by kernels for a Z80: it goes on up to rounding, not bit for bit"
    assert re.fullmatch(rf"run_mnist.py: .*{said}\n", capsys.readouterr().err)
