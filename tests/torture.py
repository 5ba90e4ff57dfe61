"""Kill a run at random moments, and let its saves fail after every so many bytes: ``python -m tests.torture``.

Each time the run has to go on to the same end, bit for bit, as one that nothing happened to. It takes some seconds for
each kill.
"""

import argparse
import errno
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from minigan.run import load
from tests.running import ROOT
from tests.test_data import idx

RUN = [
    "--workers",
    "2",
    "--learning-rate",
    "1e-5",
    "--critic",
    "8",
    "--generator",
    "8",
    "--batch-size",
    "4",
    "--sample-every",
    "3",
]


def start(*argv: object) -> subprocess.Popen:
    command = [sys.executable, ROOT / "run_mnist.py", *map(str, argv)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def state(out: Path) -> tuple[int, dict[str, bytes]]:
    saved = load(out)
    return saved.iteration, {name: x.data.tobytes() for name, x in saved.gan.state().items()}


def kills(folder: Path, data: Path, times: int, seed: int) -> None:
    """SIGKILL at ``times`` random moments between the start of the process and some way into the training."""
    rng, out, went_on = np.random.default_rng(seed), folder / "killed", 0
    given = [*RUN, "--data", data, "--out", out, "--iterations", 10**6]
    for _ in tqdm(range(times), desc="kills", disable=None):
        before = state(out) if (out / "checkpoint.npz").exists() else None
        process = start(*(["--resume", "--out", out] if before else given))
        time.sleep(rng.uniform(0.3, 2.5))
        process.kill()
        _, error = process.communicate()
        assert process.returncode == -9, error
        if before:
            went_on += state(out)[0] > before[0]
            assert state(out)[0] >= before[0]  # it is whole, and not older
    last = state(out)[0] // 3 * 3 + 3
    for argv in (["--resume", "--out", out], [*RUN, "--data", data, "--out", folder / "whole"]):
        process = start(*argv, "--iterations", last)
        _, error = process.communicate()
        assert process.returncode == 0, error
    assert state(out) == state(folder / "whole"), "it came to another end"
    assert not [*out.rglob("*minigan-part*")]
    print(f"{times} kills: {went_on} of the runs had saved since; iteration {last} is bit for bit the same")


def failing_saves(path: Path, step: int) -> None:
    """A save that may write 0, ``step``, 2 ``step``... bytes leaves the old checkpoint as it was, and no part of it."""
    saved = load(path)
    saved.save(path.parent)
    good, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    for room in tqdm(range(0, len(good), step), desc="saves", disable=None):
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
        try:
            saved.save(path.parent)
        except OSError as error:
            assert error.errno == errno.EFBIG
        else:
            raise AssertionError(f"a file of {len(good)} bytes was written in {room}")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert path.read_bytes() == good and not [*path.parent.glob(".*minigan-part*")]
    saved.save(path.parent)
    assert path.read_bytes() == good
    print(f"saves that fail after 0, {step}, {2 * step}... of {len(good)} bytes: each left the old checkpoint whole")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200, metavar="N")
    parser.add_argument("--step", type=int, default=1, metavar="BYTES", help="more for each save [1]")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "images"
        data.mkdir()
        images = np.random.default_rng(0).integers(0, 256, (40, 6, 5), dtype="uint8")
        (data / "train-images-idx3-ubyte").write_bytes(idx(images.shape, images.tobytes()))
        kills(Path(folder), data, args.kills, args.seed)
        out = Path(folder) / "short"
        assert start(*RUN, "--data", data, "--out", out, "--iterations", 6).wait() == 0
        failing_saves(out / "checkpoint.npz", args.step)


if __name__ == "__main__":
    main()
