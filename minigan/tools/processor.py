"""The processor: how many threads multiply matrices, and whether something else wants it too."""

import os
from itertools import pairwise

from threadpoolctl import threadpool_info, threadpool_limits

from ..settings import Settings

WORK = 10_000_000  # multiplications and additions in a product that are worth another thread


def threads_for(settings: Settings, dim: int) -> int:
    """How many threads the products of a critic of rows (n, ``dim``) can use: so many cores or fewer.

    A rule of the sizes alone, so that the same run on the same machine gives the same numbers: with another number of
    threads a product adds up in another order. OPENBLAS_NUM_THREADS and its like are the most.
    """
    layers = pairwise([dim, *settings.critic, 1])
    largest = max(2 * (2 * settings.batch_size) * n * m for n, m in layers)  # real and generated rows together
    most = max([blas["num_threads"] for blas in _blas()], default=os.cpu_count() or 1)
    return min(most, max(1, largest // WORK))


def use_threads(number: int) -> threadpool_limits:
    """Let NumPy multiply matrices with ``number`` threads: from here on, or ``with use_threads(number):`` inside."""
    return threadpool_limits(number, user_api="blas")


def _blas() -> list[dict]:
    return [library for library in threadpool_info() if library["user_api"] == "blas"]


class Crowding:
    """Notices, once, that iterations take over three times as long as the best ones did, for a second or more."""

    def __init__(self, threads: int) -> None:
        self._hint = "; --threads 1 would be less in its way" if threads > 1 else ""
        self._best, self._before, self._told = float("inf"), (0, 0.0), False

    def notice(self, iterations: int, seconds: float) -> str | None:
        """What there is to say, after so many iterations and seconds of training in all."""
        took = (seconds - self._before[1]) / max(1, iterations - self._before[0])
        if self._told or seconds - self._before[1] < 1:
            return None
        self._best, self._before = min(self._best, took), (iterations, seconds)
        if took <= 3 * self._best:
            return None
        self._told = True
        times = f"{1000 * took:.0f} ms instead of {1000 * self._best:.0f}"
        return f"an iteration takes {times}: something else uses the processor{self._hint}"
