"""How many threads a run takes."""

from dataclasses import replace

import pytest
from threadpoolctl import threadpool_info

from minigan import cli
from minigan.cli import threads_for, use_threads
from minigan.settings import PRESETS, Settings


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
