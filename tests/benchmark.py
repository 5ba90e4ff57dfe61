"""How fast, against the libraries that are installed beside it: ``python -m tests.benchmark --help``."""

import argparse
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np

from minigan import backend, pictures
from minigan.cli import kernels, use_threads
from minigan.data import load_images, sampler
from minigan.files import write
from minigan.training import WGANGP
from minigan.workers import sharing, workers_for
from tests.floor import SIZES, Size, build_floor, build_minigan, minigan_gradients
from tests.peers import PEERS

BUILDERS = {
    "minigan": build_minigan,
    "minigan, eager": partial(build_minigan, replay=False),
    "floor": build_floor,
    **{name: peer.build for name, peer in PEERS.items()},
}
SECONDS = 0.4  # at least so long is every library timed in every round


def installed(device: str) -> list[str]:
    """The peers that can be compared with on this device."""
    return [name for name, p in PEERS.items() if device in p.devices and importlib.util.find_spec(p.package)]


def check_gradients(size: Size, peers: list[str]) -> None:
    """Assert that every library computes the same critic gradients, to float32 accuracy, on one batch."""
    rng, (critic, _) = np.random.default_rng(0), size.networks
    weights = [
        (rng.normal(0, (2 / a) ** 0.5, (a, b)).astype("float32"), rng.normal(0, 0.1, b).astype("float32"))
        for a, b in pairwise(critic)
    ]
    real, fake, eps = (rng.random((size.batch, d), dtype="float32") for d in (784, 784, 1))
    ours = flat(minigan_gradients(weights, real, fake, eps))
    for name in peers:
        theirs = flat(PEERS[name].gradients(weights, real, fake, eps))
        assert theirs.dtype == "float32", f"{name} computes in {theirs.dtype}"
        error = np.linalg.norm(ours - theirs) / np.linalg.norm(ours)
        assert error < 1e-3, f"{name}: the critic's gradients are {error:.1e} off"


def flat(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([a.ravel() for a in arrays])


def milliseconds(size: Size, names: list[str], device: str, rounds: int) -> dict[str, float]:
    """Median milliseconds an iteration of each library, timed in turn in each of ``rounds``."""
    built = {name: BUILDERS[name](size, device) for name in names}
    counts, times = {}, {name: [] for name in names}
    for name, (iteration, wait) in built.items():
        for _ in range(6):  # as it is, recorded, proven
            iteration()
        counts[name] = max(1, round(SECONDS / timed(iteration, wait, 2)))
    for _ in range(rounds):
        for name, (iteration, wait) in built.items():
            times[name].append(1000 * timed(iteration, wait, counts[name]))
    return {name: median(values) for name, values in times.items()}


def timed(iteration, wait, count: int) -> float:
    wait()
    start = time.perf_counter()
    for _ in range(count):
        iteration()
    wait()
    return (time.perf_counter() - start) / count


def process(name: str, device: str) -> tuple[float, float]:
    """Seconds and peak MiB of a whole process: imports, the data, 50 iterations of the article's size."""
    start = time.perf_counter()
    child = [sys.executable, "-m", "tests.benchmark", "--child", name, "--device", device]
    peak = subprocess.run(child, check=True, capture_output=True, text=True).stdout.split()[-1]
    return time.perf_counter() - start, int(peak) / 1024


def run_child(name: str, device: str) -> None:
    """What ``process`` times; prints the peak memory of this process in KiB, which Linux keeps for it."""
    iteration, wait = BUILDERS[name](SIZES["article"], device)
    for _ in range(50):
        iteration()
    wait()
    print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])


@contextmanager
def busy() -> Iterator[None]:
    """Beside a process that multiplies matrices on every core."""
    code = "import numpy as np; x = np.ones((1000, 1000), 'f'); y = x.copy()\nwhile True: np.matmul(x, x, out=y)"
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        time.sleep(1)
        yield
    finally:
        process.kill()
        process.wait()


def crowd(rounds: int) -> None:
    """Milliseconds an iteration by threads and by workers, in turn, alone and beside a busy process."""
    cores, images = os.cpu_count() or 1, load_images()
    print("\nmilliseconds an iteration, alone and beside a process that uses every core\n")
    print("| size | workers | threads of each | alone | beside |\n|---|---|---|---|---|")
    for label in ("article", "default", "middle"):
        settings = SIZES[label].settings
        ways = {(1, cores): [], (1, 1): [], (workers_for(settings, cores), 1): []}
        for _ in range(rounds):
            for (number, threads), took in ways.items():
                model = WGANGP(settings, sampler(images), 784)
                with use_threads(threads), sharing(model, images, number, True, threads):
                    for _ in range(6):
                        model.iteration()
                    alone = timed(model.iteration, int, 100)
                    with busy():
                        took.append((1000 * alone, 1000 * timed(model.iteration, int, 100)))
        for (number, threads), took in ways.items():
            alone, beside = map(median, zip(*took))
            print(f"| {label} | {number} | {threads} | {alone:.2f} | {beside:.1f} |", flush=True)


def growth(device: str, rounds: int, picture: Path) -> None:
    """Milliseconds an iteration over batch size and width, and memory over 20,000 iterations."""
    base = replace(SIZES["article"], critic=(128, 128), generator=(128, 128), steps=1)
    iteration, _ = build_minigan(replace(base, critic=(16,), generator=(16,), batch=8), device)
    memory = {}
    for i in range(1, 20_001):
        iteration()
        if i in (1_000, 5_000, 10_000, 20_000):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            memory[i] = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
            print(f"after {i:,} iterations: {memory[i]:.1f} MiB")
    panels = []
    for what, values in (("batch size", (32, 64, 128, 256, 512, 1024)), ("width", (128, 256, 512, 1024, 2048))):
        took = {}
        for n in values:
            size = replace(base, batch=n) if what == "batch size" else replace(base, critic=(n, n), generator=(n, n))
            took[n] = milliseconds(size, ["minigan", "floor"], device, rounds)
            print(f"{what} {n}: {took[n]['minigan']:.2f} ms, the floor {took[n]['floor']:.2f}")
        curves = {name: (list(took), [t[name] for t in took.values()]) for name in ("minigan", "floor")}
        panels.append(pictures.lines("", curves, what, "ms an iteration", scale=("log", "log")))
    panels.append(pictures.lines("", {"": (list(memory), list(memory.values()))}, "iterations", "MiB in use"))
    picture.parent.mkdir(parents=True, exist_ok=True)
    write(picture, pictures.panels(panels, columns=3))
    print(picture)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark", description=__doc__)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="[cpu]")
    parser.add_argument("--rounds", type=int, default=5, help="each times every library once [5]")
    parser.add_argument("--crowd", action="store_true", help="only: threads and workers, alone and beside other work")
    parser.add_argument("--growth", action="store_true", help="only: over batch size, width and iterations")
    parser.add_argument("--child", choices=BUILDERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return run_child(args.child, args.device)
    if args.crowd:
        return crowd(args.rounds)
    if args.growth:
        return growth(args.device, args.rounds, Path("out/growth.png"))

    peers = installed(args.device)
    missing = [name for name, peer in PEERS.items() if args.device in peer.devices and name not in peers]
    print(
        f"{os.cpu_count()} cores, NumPy {np.__version__}, kernels for {kernels()}"
        + (f"; not installed: {', '.join(missing)}" if missing else "")
    )
    names = ["minigan", "minigan, eager", "floor", *peers]
    if args.device == "gpu":
        backend.use("gpu")
        try:
            backend.cutensor_matmul()
        except backend.DeviceError as error:
            print(f"not replayed: {error}")
            names.remove("minigan")
    first = names[0]
    print(f"\nmilliseconds an iteration, and what {first} takes of it\n")
    print(f"| size | {' | '.join(names)} | outside products | {' | '.join(f'/ {name}' for name in names[1:])} |")
    print("|---" * (2 * len(names) + 1) + "|")
    for label, size in SIZES.items():
        check_gradients(size, peers)
        took = milliseconds(size, names, args.device, args.rounds)
        ours = took[first]
        cells = " | ".join(f"{took[name]:.2f}" for name in names)
        ratios = " | ".join(f"{ours / took[name]:.2f}" for name in names[1:])
        print(f"| {label} | {cells} | {1 - took['floor'] / ours:.0%} | {ratios} |", flush=True)
    if args.device == "cpu":
        crowd(args.rounds)
    print("\na whole process, 50 iterations of the article's size\n\n| | seconds | peak MiB |\n|---|---|---|")
    for name in (name for name in names if name != "floor"):
        seconds, peak = process(name, args.device)
        print(f"| {name} | {seconds:.1f} | {peak:.0f} |", flush=True)
    backend.use("cpu")


if __name__ == "__main__":
    main()
