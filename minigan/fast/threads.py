"""How many threads multiply matrices, and by which kernels."""

import os
import sys
from itertools import pairwise
from pathlib import Path

from threadpoolctl import threadpool_info, threadpool_limits

from ..settings import Settings

AVX512 = ("SkylakeX", "Cooperlake", "SapphireRapids")
WORK = 10_000_000  # multiplications and additions of a product for each of its threads


def threads_for(settings: Settings, dim: int) -> int:
    """The number of threads that the products of a critic of rows (n, ``dim``) can use, at most one for each core.

    The number depends on the sizes alone, so that the same run on the same machine gives the same numbers: with another
    number of threads a product adds up in another order. OPENBLAS_NUM_THREADS and similar variables limit the number.
    """
    layers = pairwise([dim, *settings.critic, 1])
    largest = max(2 * (2 * settings.batch_size) * n * m for n, m in layers)  # real and generated rows together
    most = max([blas["num_threads"] for blas in _blas()], default=os.cpu_count() or 1)
    return min(most, max(1, largest // WORK))


def use_threads(number: int) -> threadpool_limits:
    """Let NumPy multiply matrices with ``number`` threads: from now on, or inside ``with use_threads(number):``."""
    return threadpool_limits(number, user_api="blas")


def kernels() -> str:
    """The processor type whose kernels multiply matrices: with other kernels the same run gives other bits."""
    known = sorted({str(blas.get("architecture", blas.get("internal_api"))) for blas in _blas()})
    return "".join(known) or ("Accelerate" if sys.platform == "darwin" else "")  # which threadpoolctl does not see


def slower_kernels() -> str | None:
    """A warning, if OpenBLAS does not know the processor and chose kernels without its widest registers; else None."""
    processor = Path("/proc/cpuinfo")
    chosen_by_hand = "OPENBLAS_CORETYPE" in os.environ or not any(blas.get("architecture") for blas in _blas())
    if chosen_by_hand or kernels() in AVX512 or not processor.exists() or "avx512f" not in processor.read_text():
        return None
    return f"OpenBLAS takes this processor for a {kernels()}; faster, as a rule: OPENBLAS_CORETYPE=SkylakeX in front"


def _blas() -> list[dict]:
    return [library for library in threadpool_info() if library["user_api"] == "blas"]
