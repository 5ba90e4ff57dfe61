"""How many threads a run takes, and what it says when it is not alone."""

from dataclasses import replace

import pytest
from threadpoolctl import threadpool_info

from minigan.settings import PRESETS, Settings
from minigan.tools import processor
from minigan.tools.processor import Crowding, threads_for, use_threads


def of_blas():
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


@pytest.mark.parametrize("cores", [1, 2, 64])
def test_no_more_threads_than_the_products_can_use(monkeypatch, cores):
    """On a machine with many cores: one for a toy, a few for digits, all for wide networks."""
    monkeypatch.setattr(processor, "_blas", lambda: [{"num_threads": cores}])
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


def notices(*milliseconds, threads=2):
    """What is said where 100 iterations at a time take so long each."""
    crowding, iterations, seconds, said = Crowding(threads), 0, 0.0, []
    for ms in milliseconds:
        iterations, seconds = iterations + 100, seconds + ms / 10
        said.append(crowding.notice(iterations, seconds))
    return said


def test_a_crowded_processor_is_noticed_once():
    assert notices(17, 16, 20, 47) == [None] * 4
    quiet, crowded, again = notices(20, 61, 90)
    assert quiet is again is None
    line = "an iteration takes 61 ms instead of 20: something else uses the processor"
    assert crowded == f"{line}; --threads 1 would be less in its way"
    assert notices(20, 61, threads=1)[1] == line


def test_a_moment_is_not_noticed():
    """One reading within a second says nothing of the others."""
    crowding = Crowding(2)
    assert crowding.notice(100, 1.5) is None
    assert crowding.notice(101, 1.9) is None
    assert crowding.notice(200, 3.0) is None
