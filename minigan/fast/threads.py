"""How many threads multiply matrices, and by which kernels."""

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from threadpoolctl import threadpool_info, threadpool_limits

from ..settings import Settings

GROUPS, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")  # by which Linux gives out processors
WORK = 10_000_000  # multiplications and additions of a product for each of its threads


def threads_for(settings: Settings, dim: int) -> int:
    """The number of threads that the products of a critic of rows (n, ``dim``) can use, on at most half of the cores.

    The other half is for whatever else runs: two threads that share a product wait for each other, and one without a
    core of its own keeps the other waiting. OPENBLAS_NUM_THREADS and similar variables limit the number further.
    """
    layers = pairwise([dim, *settings.critic, 1])
    largest = max(2 * (2 * settings.batch_size) * n * m for n, m in layers)  # real and generated rows together
    most = max([blas["num_threads"] for blas in _blas()], default=1)
    return max(1, min(most, cores() // 2, largest // WORK))


def cores() -> int:
    """The number of processors that this process may use: by its affinity, and by the quotas of its control groups."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([allowed, *quotas()])))


def quotas() -> Iterator[float]:
    """The processors that each control group allows: of version 2, or of version 1's groups for processors alone."""
    with suppress(OSError):
        for line in OWN_GROUPS.read_text().splitlines():
            _, kinds, path = line.split(":", 2)
            own = GROUPS / ("cpu" if kinds else "") / path.strip("/")
            if not kinds or "cpu" in kinds.split(","):
                yield from (n for folder in (own, *own.parents) for n in quota(folder))


def quota(folder: Path) -> Iterator[float]:
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        with suppress(OSError, ValueError):  # no such file, or "max"
            time, period = map(int, " ".join((folder / name).read_text() for name in names).split())
            if time > 0:  # -1: none
                yield time / period


def use_threads(number: int) -> threadpool_limits:
    """Let NumPy multiply matrices with ``number`` threads: from now on, or inside ``with use_threads(number):``."""
    return threadpool_limits(number, user_api="blas")


def kernels() -> str:
    """The processor type whose kernels multiply matrices: with other kernels the same run gives other bits."""
    names = sorted({str(blas.get("architecture", blas.get("internal_api"))) for blas in _blas()})
    return "".join(names) or ("Accelerate" if sys.platform == "darwin" else "")  # which threadpoolctl does not see


def _blas() -> list[dict]:
    return [library for library in threadpool_info() if library["user_api"] == "blas"]
