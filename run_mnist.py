"""Train a WGAN-GP on MNIST, or generate digits from a trained one: ``python run_mnist.py --help``."""

import argparse
import math
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy
from tqdm import tqdm

from minigan import backend
from minigan.data import MNIST, DataError, load_images, sampler
from minigan.judge.evaluation import Judge, table
from minigan.losses import GAMES
from minigan.nn import CONSTRAINTS
from minigan.penalties import SLOPES, WHERE
from minigan.runs.checkpoint import Checkpoint, load
from minigan.runs.folder import Folder
from minigan.runs.report import report
from minigan.runs.run import Run, draw, evaluate
from minigan.settings import DECAYS, PENALTIES, PRESETS, Settings
from minigan.tools import pictures
from minigan.tools.cli import INTERRUPTED, InputError, Parser, number, one_line_errors, text
from minigan.tools.files import replacing, write_json
from minigan.tools.processor import Crowding, threads_for, use_threads
from minigan.training import WGANGP, Diverged

DIVERGED = 1  # the exit status


def parse(argv: list[str] | None) -> tuple[Parser, argparse.Namespace, dict[str, Any]]:
    """The parser, the flags of this program, and the settings that were given by preset or by flag."""
    count, positive = number(int, 1, 10**9), number(float, 0, above=True)  # beyond 10^9 NumPy's own sizes overflow
    parser = Parser(
        prog="run_mnist.py",
        description="Train a WGAN-GP on MNIST and watch the digits appear, or generate digits from a trained one.",
        epilog="In brackets: the default, and after it what another --preset has instead.",
    )
    add = parser.add_argument
    add("--device", choices=("cpu", "gpu"), default="cpu", help="NumPy or CuPy [cpu]")
    add("--threads", type=count, metavar="N", help="that multiply matrices [as many as the sizes can use]")
    add("--no-replay", action="store_true", help="run each iteration anew, instead of replaying a recorded one")
    add("--graph", action="store_true", help="on the GPU, replay an iteration as one CUDA graph (needs cuTENSOR)")
    add("--data", type=Path, metavar="DIR", help="folder with train-images-idx3-ubyte[.gz] [MNIST]")
    add("--out", type=Path, default=Path("out"), metavar="DIR", help="folder for all that the run leaves [out]")
    instead = parser.add_mutually_exclusive_group().add_argument
    instead("--generate", type=count, metavar="N", help="no training: N samples from the checkpoint in --out")
    instead("--evaluate", action="store_true", help="no training: how good the checkpoint's samples are, in figures")
    add(
        "--preset",
        choices=PRESETS,
        help="where the settings below start from: digits fast, digits well, or the article's own",
    )

    def setting(flag: str, help: str, name: str = "", **how: Any) -> None:
        name = name or flag[2:].replace("-", "_")
        (_, default), *others = [(label, getattr(preset, name)) for label, preset in PRESETS.items()]
        shown = [text(default), *(f"{label}: {text(value)}" for label, value in others if value != default)]
        add(flag, dest=name, default=argparse.SUPPRESS, help=f"{help} [{', '.join(shown)}]", **how)

    setting("--iterations", "generator steps to train for", type=count, metavar="N")
    setting("--batch-size", "samples in a batch", type=count, metavar="N")
    setting("--critic-steps", "critic steps for each generator step", type=number(int, 1, 10**4), metavar="N")
    setting("--learning-rate", "Adam's, for both networks", type=positive, metavar="X")
    setting("--decay", "of the learning rate: linear to 0, or constant", choices=DECAYS, metavar="HOW")
    setting("--betas", "Adam's, for both networks", type=number(float, 0, 1), nargs=2, metavar=("B1", "B2"))
    setting("--game", f"the two losses: {', '.join(GAMES)}", choices=GAMES, metavar="NAME")
    setting("--penalty", f"on the critic's slopes: {', '.join(PENALTIES)}", choices=PENALTIES, metavar="FORM")
    setting("--where", f"where the penalty looks: {', '.join(WHERE)}", choices=WHERE, metavar="WHERE")
    setting("--slope", f"how the slopes are measured: {', '.join(SLOPES)}", choices=SLOPES, metavar="HOW")
    setting("--constraint", f"besides the penalty: {', '.join(CONSTRAINTS)}", choices=CONSTRAINTS, metavar="NAME")
    setting("--lambda", "the penalty's weight", "penalty_weight", type=number(float, 0), metavar="X")
    setting("--critic", "widths of the critic's hidden layers", type=count, nargs="*", metavar="N")
    setting("--generator", "widths of the generator's hidden layers", type=count, nargs="*", metavar="N")
    setting("--noise-dim", "numbers of noise that make a sample", type=count, metavar="N")
    setting("--average", "generator's weights kept in their running average", type=number(float, 0, 1), metavar="X")
    setting("--sample-every", "iterations between two sample grids", type=count, metavar="N")
    setting("--evaluate-every", "iterations between two evaluations of the samples", type=count, metavar="N")
    setting("--seed", "of everything random", type=number(int, 0), metavar="N")

    args = vars(parser.parse_args(argv))
    names = ("device", "threads", "no_replay", "graph", "data", "out", "generate", "evaluate", "preset")
    flags = {name: args.pop(name) for name in names}
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in args.items()}
    if flags["preset"]:
        given = {**asdict(PRESETS[flags["preset"]]), **given}
    return parser, argparse.Namespace(**flags), given


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


def train(given: dict[str, Any], args: argparse.Namespace) -> int:
    """Train, and leave all that a run leaves in ``args.out``; returns the exit status."""
    folder = Folder(args.out)
    if folder.taken:
        raise InputError(f"--out {args.out} already holds a run; name another folder, or remove that one first")
    if args.graph and args.device == "cpu":
        raise InputError("--graph records what runs on a GPU; it needs --device gpu")
    try:
        settings = Settings(**given)
    except ValueError as error:
        raise InputError(str(error)) from None
    data = args.data or MNIST
    images = load_images(data)
    shape = images.shape[1:]
    threads = set_threads(args, settings, shape)
    replay = args.graph if args.device == "gpu" else not args.no_replay
    model = WGANGP(settings, sampler(images), math.prod(shape), replay)
    run, status = Run(folder, model, shape, data.resolve(), args.device, threads), 0
    every, crowding = min(100, max(1, settings.iterations // 500)), Crowding(threads)
    with (
        tqdm(total=settings.iterations, unit="it", disable=None) as bar,
        ctrl_c() as stopped,
        numpy.errstate(over="ignore", invalid="ignore"),  # divergence is found in the figures, and told in one line
    ):
        try:
            run.snapshot()
            for iteration in range(1, settings.iterations + 1):
                run.history.add(model.iteration())
                last = iteration == settings.iterations or bool(stopped)
                due = last or iteration % settings.sample_every == 0
                if due or iteration % every == 0:
                    _, l1, slope, seconds = run.read()
                    if line := crowding.notice(iteration, seconds):
                        tell(line)
                    bar.set_postfix_str(f"L1 {l1:.3f}, {run.slope_name} {slope:.3f}", refresh=False)
                bar.update()
                if due:
                    run.snapshot()
                if run.judge and not stopped and (last or iteration % settings.evaluate_every == 0):
                    run.evaluate()
                if last:
                    break
            status = INTERRUPTED if stopped else 0
        except Diverged as error:
            kept = f"{folder.checkpoint} keeps iteration {run.snapshots[-1][0]}"
            print(f"run_mnist.py: error: {error}; {kept}", file=sys.stderr)
            status = DIVERGED
    summary = run.summary()
    if run.evaluations:
        print_table(table(run.evaluations[-1], run.judge.real))
    report(run, summary)
    print(f"{'interrupted after ' if status == INTERRUPTED else ''}{summary}: see {folder.report}")
    return status


def tell(line: object, *_: Any) -> None:
    """Say something on the way, in a line above the progress bar."""
    tqdm.write(f"run_mnist.py: {line}", file=sys.stderr)


def set_threads(args: argparse.Namespace, settings: Settings, shape: tuple[int, int]) -> int:
    """Let so many threads multiply matrices as ``--threads`` says, or as the sizes can use; returns their number."""
    threads = args.threads or threads_for(settings, math.prod(shape))
    use_threads(threads)
    return threads


def checkpoint_in(folder: Folder, given: dict[str, Any]) -> Checkpoint:
    """The checkpoint in ``folder``; an InputError where a flag asks for another network than it holds."""
    checkpoint = load(folder.checkpoint)
    for name in ("critic", "generator", "noise", "noise_dim"):
        held = getattr(checkpoint.settings, name)
        if given.get(name, held) != held:
            raise InputError(f"{folder.checkpoint} is of another network: its {name} is {held}, not {given[name]}")
    return checkpoint


def sample(given: dict[str, Any], args: argparse.Namespace) -> int:
    """Write ``args.generate`` samples of the checkpoint in ``args.out``: generated.npy and a grid of the first 100."""
    folder = Folder(args.out)
    checkpoint = checkpoint_in(folder, given)
    set_threads(args, checkpoint.settings, checkpoint.shape)
    images = draw(checkpoint.generator, checkpoint.settings, args.generate, given.get("seed"))
    images = images.reshape(-1, *checkpoint.shape)
    with replacing(folder.generated) as part:
        numpy.save(part, images)
    pictures.save_grid(folder.generated.with_suffix(".png"), images[:100], columns=10)
    print(f"{args.generate:,} samples of iteration {checkpoint.iteration:,}: {folder.generated} and .png")
    return 0


def judge_checkpoint(given: dict[str, Any], args: argparse.Namespace) -> int:
    """Print the figures of the checkpoint's samples, and put them beside those of the run in evaluation.json."""
    folder = Folder(args.out)
    checkpoint = checkpoint_in(folder, given)
    set_threads(args, checkpoint.settings, checkpoint.shape)
    data = args.data or folder.data()
    judge = Judge(data)
    if judge.train.shape[1] != math.prod(checkpoint.shape):
        raise InputError(f"--data {data} holds images of another size than the run in {args.out}")
    figures = evaluate(judge, checkpoint.critic, checkpoint.generator, checkpoint.settings, given.get("seed"))
    rows = {row["iteration"]: row for row in folder.evaluations()}
    rows[checkpoint.iteration] = {"iteration": checkpoint.iteration, **rows.get(checkpoint.iteration, {}), **figures}
    write_json(folder.evaluation, {"real": judge.real, "samples": list(rows.values())})
    print_table(table(figures, judge.real))
    return 0


def print_table(rows: list[tuple[str, str, str]]) -> None:
    for what, samples, real in rows:
        print(f"{what:<66} {samples:>8} {real:>8}")


def main(argv: list[str] | None = None) -> int:
    parser, args, given = parse(argv)
    with one_line_errors(parser, args, DataError), warnings.catch_warnings():
        warnings.showwarning = tell
        backend.use(args.device)
        if args.generate:
            return sample(given, args)
        return judge_checkpoint(given, args) if args.evaluate else train(given, args)


if __name__ == "__main__":
    sys.exit(main())
