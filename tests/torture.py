"""Kill a run at random moments, and let its saves fail after every so many bytes: ``python -m tests.torture``.

Each time the run has to go on to the same end, bit for bit, as one that nothing happened to. It takes some seconds for
each kill.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from tqdm import tqdm

from minigan.run import FILE, load
from tests.running import SMALL, run, started, state

RUN = [*SMALL, "--sample-every", 3, "--workers", 2, "--learning-rate", "1e-5"]


def kills(folder: Path, data: Path, times: int, seed: int) -> None:
    """SIGKILL at ``times`` random moments between the start of the process and some way into the training."""
    rng, out = np.random.default_rng(seed), folder / "killed"
    for _ in tqdm(range(times), desc="kills", disable=None):
        before = load(out).iteration if (out / FILE).exists() else -1
        begin = ["--resume"] if before >= 0 else [*RUN, "--data", data, "--iterations", 10**6]
        with started(*begin, "--out", out) as process:
            time.sleep(rng.uniform(0.3, 2.5))
            process.kill()
            _, error = process.communicate(timeout=60)
        assert process.returncode == -9, error
        assert before < 0 or load(out).iteration >= before  # it is whole, and not older
    last = load(out).iteration // 3 * 3 + 3
    assert run("--resume", "--out", out, "--iterations", last) == 0
    assert run(*RUN, "--data", data, "--out", folder / "whole", "--iterations", last) == 0
    assert state(out) == state(folder / "whole"), "it came to another end"
    assert not [*out.rglob("*minigan-part*")]
    print(f"{times} kills: iteration {last} is bit for bit the same")


def failing_saves(path: Path, step: int) -> None:
    """A save that may write 0, ``step``, 2 ``step``... bytes leaves the old checkpoint as it was, and no part of it."""
    saved = load(path)
    saved.save(path.parent)
    good, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    for room in tqdm(range(0, len(good), step), desc="saves", disable=None):
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                saved.save(path.parent)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert path.read_bytes() == good and not [*path.parent.glob(".*minigan-part*")]
    print(f"saves that fail after 0, {step}, {2 * step}... of {len(good)} bytes: each left the old checkpoint whole")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200, metavar="N")
    parser.add_argument("--step", type=int, default=1, metavar="BYTES", help="more for each save [1]")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data, out = Path(folder) / "images.npy", Path(folder) / "short"
        np.save(data, np.random.default_rng(0).integers(0, 256, (40, 6, 5), dtype="uint8"))
        kills(Path(folder), data, args.kills, args.seed)
        assert run(*RUN, "--data", data, "--out", out, "--iterations", 6) == 0
        failing_saves(out / FILE, args.step)


if __name__ == "__main__":
    main()
