"""Train a WGAN-GP on MNIST, or generate digits from a trained one: ``python run_mnist.py --help``."""

import argparse
import csv
import json
import math
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy
from tqdm import tqdm

from minigan import backend, figures
from minigan.checkpoint import Checkpoint, CheckpointError, load, replacing, save
from minigan.cli import INTERRUPTED, InputError, Parser, number, one_line_errors
from minigan.data import MNIST, DataError, load_images, sampler
from minigan.losses import GAMES
from minigan.penalties import FORMS, SLOPES, WHERE
from minigan.training import CONSTRAINTS, DECAYS, NOISES, PRESETS, WGANGP, Diverged, History, Settings, generate

DIVERGED = 1  # the exit status
CHUNK = 10_000  # samples that --generate computes at a time


def parse(argv: list[str] | None) -> tuple[Parser, argparse.Namespace, dict[str, Any]]:
    """The parser, the flags about where and on what, and the settings that were given by preset or by flag."""
    count, positive = number(int, 1, 10**9), number(float, 0, above=True)  # beyond 10^9 NumPy's own sizes overflow
    parser = Parser(
        prog="run_mnist.py",
        description="Train a WGAN-GP on MNIST and watch the digits appear, or generate digits from a trained one.",
        epilog="In brackets: the default, and after a bar the value of --preset article.",
    )
    add = parser.add_argument
    add("--device", choices=("cpu", "gpu"), default="cpu", help="NumPy or CuPy [cpu]")
    add("--graph", action="store_true", help="on the GPU, replay an iteration as one CUDA graph (needs cuTENSOR)")
    add("--data", type=Path, default=MNIST, metavar="DIR", help="folder with train-images-idx3-ubyte[.gz] [MNIST]")
    add("--out", type=Path, default=Path("out"), metavar="DIR", help="folder for all that the run leaves [out]")
    add("--generate", type=count, metavar="N", help="no training: N samples from the checkpoint in --out")
    add("--preset", choices=PRESETS, help="where the settings below start from: digits fast, or the article's own")

    def setting(flag: str, help: str, name: str = "", **how: Any) -> None:
        name = name or flag[2:].replace("-", "_")
        values = [getattr(preset, name) for preset in PRESETS.values()]
        shown = [" ".join(map(str, v)) if isinstance(v, tuple) else str(v) for v in dict.fromkeys(values)]
        add(flag, dest=name, default=argparse.SUPPRESS, help=f"{help} [{' | '.join(shown)}]", **how)

    setting("--iterations", "generator steps to train for", type=count, metavar="N")
    setting("--batch-size", "samples in a batch", type=count, metavar="N")
    setting("--critic-steps", "critic steps for each generator step", type=number(int, 1, 10**4), metavar="N")
    setting("--learning-rate", "Adam's, for both networks", type=positive, metavar="X")
    setting("--decay", "of the learning rate: linear to 0, or constant", choices=DECAYS, metavar="HOW")
    setting("--betas", "Adam's, for both networks", type=number(float, 0, 1), nargs=2, metavar=("B1", "B2"))
    setting("--game", f"the two losses: {', '.join(GAMES)}", choices=GAMES, metavar="NAME")
    forms = [*FORMS, "none"]
    setting("--penalty", f"on the critic's slope: {', '.join(forms)}", choices=forms, metavar="FORM")
    setting("--where", f"where the penalty looks: {', '.join(WHERE)}", choices=WHERE, metavar="WHERE")
    setting("--slope", f"how the slope is measured: {', '.join(SLOPES)}", choices=SLOPES, metavar="HOW")
    setting("--constraint", f"besides the penalty: {', '.join(CONSTRAINTS)}", choices=CONSTRAINTS, metavar="NAME")
    setting("--lambda", "the penalty's weight", "penalty_weight", type=number(float, 0), metavar="X")
    setting("--critic", "widths of the critic's hidden layers", type=count, nargs="*", metavar="N")
    setting("--generator", "widths of the generator's hidden layers", type=count, nargs="*", metavar="N")
    setting("--noise-dim", "numbers of noise that make a sample", type=count, metavar="N")
    setting("--sample-every", "iterations between two sample grids", type=count, metavar="N")
    setting("--seed", "of everything random", type=number(int, 0), metavar="N")

    args = vars(parser.parse_args(argv))
    where = {name: args.pop(name) for name in ("device", "graph", "data", "out", "generate", "preset")}
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in args.items()}
    if where["preset"]:
        given = {**asdict(PRESETS[where["preset"]]), **given}
    return parser, argparse.Namespace(**where), given


@contextmanager
def ctrl_c() -> Iterator[list[bool]]:
    """Yields a list that fills on Ctrl-C, so that an iteration ends before the loop does; a second Ctrl-C kills."""
    pressed = []

    def note(*_: Any) -> None:
        pressed.append(True)
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


def train(settings: Settings, args: argparse.Namespace) -> int:
    """Train, leaving samples, curves, settings and a checkpoint in ``args.out``; returns the exit status."""
    out = args.out
    if any((out / name).exists() for name in ("settings.json", "checkpoint.npz")):
        raise InputError(f"--out {out} already holds a run; name another folder, or remove that one first")
    if args.graph and args.device == "cpu":
        raise InputError("--graph records what runs on a GPU; it needs --device gpu")
    images = load_images(args.data)
    shape = images.shape[1:]
    try:
        model = WGANGP(settings, sampler(images), math.prod(shape), args.graph)
    except ValueError as error:
        raise InputError(str(error)) from None
    noise = NOISES[settings.noise](numpy.random.default_rng([settings.seed, 1]), (settings.grid**2, settings.noise_dim))
    fixed_noise = backend.asarray(noise)
    history, snapshots, status = History(), [], 0
    slope_name = {"gradient": "gradient norm", "difference": "difference quotient"}[settings.slope]

    (out / "samples").mkdir(parents=True, exist_ok=True)
    with replacing(out / "settings.json") as part:
        part.write_text(
            json.dumps({**asdict(settings), "device": args.device, "data": str(args.data)}, indent=2) + "\n"
        )

    def snapshot(iteration: int) -> None:
        model.check_finite()
        samples = backend.to_numpy(generate(model.generator, fixed_noise)).reshape(-1, *shape)
        figures.save_grid(out / "samples" / f"{iteration:07d}.png", samples, settings.grid)
        save(out / "checkpoint.npz", Checkpoint(settings, iteration, shape, model.critic, model.generator))
        snapshots.append((iteration, samples[: figures.PANEL**2]))

    start, every = time.perf_counter(), min(100, max(1, settings.iterations // 500))
    with (
        open(out / "curves.csv", "w", newline="", buffering=1) as file,
        tqdm(total=settings.iterations, unit="it", disable=None) as bar,
        ctrl_c() as stopped,
        numpy.errstate(over="ignore", invalid="ignore"),  # divergence is found in the figures, and told in one line
    ):
        table = csv.writer(file)
        table.writerow(("iteration", "l1", slope_name.replace(" ", "_")))
        try:
            snapshot(0)
            for iteration in range(1, settings.iterations + 1):
                history.add(*model.iteration())
                last = iteration == settings.iterations or bool(stopped)
                due = last or iteration % settings.sample_every == 0
                if due or iteration % every == 0:
                    row = history.read()
                    table.writerow(row)
                    bar.set_postfix_str(f"L1 {row[1]:.3f}, {slope_name} {row[2]:.3f}", refresh=False)
                bar.update()
                if due:
                    snapshot(iteration)
                if last:
                    break
            status = INTERRUPTED if stopped else 0
        except Diverged as error:
            print(
                f"run_mnist.py: error: {error}; {out / 'checkpoint.npz'} keeps iteration {snapshots[-1][0]}",
                file=sys.stderr,
            )
            status = DIVERGED
    seconds = time.perf_counter() - start
    figures.save_progress(out / "progress.png", snapshots)
    figures.save_curves(out / "curves.png", history.rows, slope_name)
    if history.rows:
        iteration, l1, slope = history.rows[-1]
        print(
            f"{'interrupted after ' if status == INTERRUPTED else ''}{iteration:,} iterations in {seconds:.1f} s"
            f" ({1000 * seconds / iteration:.1f} ms each), L1 {l1:.3f}, {slope_name} {slope:.3f}:"
            f" see {out / 'progress.png'}"
        )
    return status


def sample(given: dict[str, Any], args: argparse.Namespace) -> int:
    """Write ``args.generate`` samples of the checkpoint in ``args.out``: generated.npy and a grid of the first 100."""
    path = args.out / "checkpoint.npz"
    checkpoint = load(path)
    settings = checkpoint.settings
    for name in ("critic", "generator", "noise", "noise_dim"):
        asked, held = given.get(name, getattr(settings, name)), getattr(settings, name)
        if asked != held:
            raise InputError(f"{path} is of another network: its {name} is {held}, not {asked}")
    rng = numpy.random.default_rng([given.get("seed", settings.seed), 2])
    images = numpy.empty((args.generate, *checkpoint.shape), "float32")
    for start in range(0, args.generate, CHUNK):
        part = images[start : start + CHUNK]
        noise = backend.asarray(NOISES[settings.noise](rng, (len(part), settings.noise_dim)))
        part[:] = backend.to_numpy(generate(checkpoint.generator, noise)).reshape(part.shape)
    with replacing(args.out / "generated.npy") as part:
        numpy.save(part, images)
    figures.save_grid(args.out / "generated.png", images[:100], columns=10)
    print(f"{args.generate:,} samples of iteration {checkpoint.iteration:,}: {args.out / 'generated.npy'} and .png")
    return 0


def main(argv: list[str] | None = None) -> int:
    parser, args, given = parse(argv)
    with one_line_errors(parser, args, DataError, CheckpointError):
        backend.use(args.device)
        return sample(given, args) if args.generate else train(replace(Settings(), **given), args)


if __name__ == "__main__":
    sys.exit(main())
