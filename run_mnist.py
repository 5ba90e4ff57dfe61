"""Train a WGAN-GP on MNIST, or generate digits from a trained one: ``python run_mnist.py --help``."""

import os
import signal
import sys

if __name__ == "__main__":  # the imports take a second, in which nothing can be lost
    signal.signal(signal.SIGINT, lambda *_: (print("interrupted", file=sys.stderr, flush=True), os._exit(130)))

import argparse
import math
import warnings
import zlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy
from tqdm import tqdm

from minigan import backend
from minigan.data import MNIST, DataError, sampler
from minigan.judge.classifier import FILE
from minigan.judge.evaluation import Judge, table
from minigan.runs.checkpoint import Checkpoint, load
from minigan.runs.folder import Folder
from minigan.runs.report import collapse, report, summary
from minigan.runs.run import SLOPE_NAMES, Run, draw, evaluate
from minigan.settings import COUNT, NAMES, NUMBERS, PRESETS, Settings
from minigan.tools import cli, pictures
from minigan.tools.cli import InputError, number, path, text
from minigan.tools.datasets import SIZES, beside, has_pictures, load_images
from minigan.tools.files import replacing, write_json
from minigan.tools.processor import Crowding, threads_for, use_threads
from minigan.training import WGANGP, Diverged

MAY_CHANGE = ("iterations", "sample_every", "evaluate_every")  # where a run is resumed


def parse(argv: list[str] | None) -> tuple[cli.Parser, argparse.Namespace, dict[str, Any]]:
    """The parser, the flags of this program, and the settings that were given by preset or by flag."""
    parser = cli.Parser(
        prog="run_mnist.py",
        description="Train a WGAN-GP on MNIST and watch the digits appear, or generate digits from a trained one.",
        epilog="In brackets: the default, and after it what another --preset has instead.",
    )
    add = parser.add_argument
    add("--device", choices=("cpu", "gpu"), default="cpu", help="NumPy or CuPy [cpu]")
    add("--threads", type=number(COUNT), metavar="N", help="that multiply matrices [as many as the sizes can use]")
    add("--no-replay", action="store_true", help="run each iteration anew, instead of replaying a recorded one")
    add("--graph", action="store_true", help="on the GPU, replay an iteration as one CUDA graph (needs cuTENSOR)")
    add("--data", type=path, metavar="DATA", help="folder of IDX files or of pictures, or .npy or .npz file [MNIST]")
    add("--size", type=number(SIZES), metavar="N", help="pixels each way that pictures are brought to [28]")
    add("--out", type=path, default=Path("out"), metavar="DIR", help="folder for all that the run leaves [out]")
    instead = parser.add_mutually_exclusive_group().add_argument
    instead("--resume", action="store_true", help="go on with the run in --out, from its checkpoint")
    instead("--report", action="store_true", help="no training: the pictures and the page of the run in --out, anew")
    instead("--evaluate", action="store_true", help="no training: how good the checkpoint's samples are, in figures")
    instead("--generate", type=number(COUNT), metavar="N", help="no training: N samples from the checkpoint in --out")
    add(
        "--preset",
        choices=PRESETS,
        help="where the settings below start from: digits fast, digits well, or the article's own",
    )
    flags = {action.dest for action in parser._actions}

    def setting(flag: str, help: str, metavar: Any = "N", name: str = "", nargs: Any = None) -> None:
        name = name or flag[2:].replace("-", "_")
        (_, default), *others = [(label, getattr(preset, name)) for label, preset in PRESETS.items()]
        shown = [text(default), *(f"{label}: {text(value)}" for label, value in others if value != default)]
        if name in NAMES:
            help, how = f"{help}: {', '.join(NAMES[name])}", {"choices": NAMES[name]}
        else:
            how = {"type": number(NUMBERS[name]), "nargs": nargs}
        add(flag, dest=name, default=argparse.SUPPRESS, help=f"{help} [{', '.join(shown)}]", metavar=metavar, **how)

    setting("--iterations", "generator steps to train for")
    setting("--batch-size", "samples in a batch")
    setting("--critic-steps", "critic steps for each generator step")
    setting("--learning-rate", "Adam's, for both networks", "X")
    setting("--decay", "of the learning rate over the run", "HOW")
    setting("--betas", "Adam's, for both networks", ("B1", "B2"), nargs=2)
    setting("--game", "the two losses", "NAME")
    setting("--penalty", "on the critic's slopes", "FORM")
    setting("--where", "where the penalty looks", "WHERE")
    setting("--slope", "how the slopes are measured", "HOW")
    setting("--constraint", "besides the penalty", "NAME")
    setting("--lambda", "the penalty's weight", "X", "penalty_weight")
    setting("--critic", "widths of the critic's hidden layers", nargs="*")
    setting("--generator", "widths of the generator's hidden layers", nargs="*")
    setting("--noise-dim", "numbers of noise that make a sample")
    setting("--average", "generator's weights kept in their running average", "X")
    setting("--sample-every", "iterations between two sample grids")
    setting("--evaluate-every", "iterations between two evaluations of the samples")
    setting("--seed", "of everything random")

    args = vars(parser.parse_args(argv))
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in args.items()}
    flags = {name: given.pop(name) for name in args if name in flags}
    if flags["preset"]:
        given = {**asdict(PRESETS[flags["preset"]]), **given}
    return parser, argparse.Namespace(**flags), given


def train(given: dict[str, Any], args: argparse.Namespace) -> int:
    """Train, or go on with it, and leave all that a run leaves in ``args.out``; returns the exit status."""
    folder, checkpoint = Folder(args.out), None
    if args.graph and args.device == "cpu":
        raise InputError("--graph records what runs on a GPU; it needs --device gpu")
    if args.resume:
        checkpoint = load(folder.checkpoint)
        settings = settings_to_resume(folder, checkpoint, given)
    else:
        folder.refuse_a_new_run()
        try:
            settings = Settings(**given)
        except ValueError as error:
            raise InputError(str(error)) from None
    data, size = source(args, folder if args.resume else None)
    if has_pictures(data) and args.out.resolve().is_relative_to(data.resolve()):
        raise InputError(f"--out {args.out} lies in --data {data}, which would then hold the run's own pictures")
    images = load_images(data, size=size)
    shape, crc = images.shape[1:], zlib.crc32(images)
    if checkpoint and (shape, crc) != (checkpoint.shape, checkpoint.images):
        raise InputError(f"--data {data} holds other images than the run in {args.out} was trained on")
    judge = judge_by(data, size, images)
    threads = set_threads(args, settings, shape, folder.threads() if args.resume else None)
    replay = "graph" if args.graph else not args.no_replay
    if checkpoint:
        model = replace(checkpoint, settings=settings).model(images, replay)
    else:
        model = WGANGP(settings, sampler(images), math.prod(shape), replay)
    if args.device == "gpu":  # so that kernels are compiled here, and not within the training's time
        WGANGP(settings, sampler(images), math.prod(shape), replay=False).iteration()

    with (
        folder.locked(),
        cli.endings() as asked,
        numpy.errstate(over="ignore", invalid="ignore"),  # divergence is found in the figures, and told in one line
    ):
        if not args.resume:
            folder.refuse_a_new_run()  # another one may have begun meanwhile
        about = {"device": args.device, "threads": threads, "data": str(data.resolve()), "size": size}
        run = Run(folder, model, shape, crc, about, judge, checkpoint)
        pixels = f"{images.min()} to {images.max()} (mean {images.mean():.0f})"
        print(f"{len(images):,} images of {shape[1]} x {shape[0]}, {pixels}, from {data}", flush=True)
        status, stopped, crowding = 0, False, Crowding(threads)
        with tqdm(total=settings.iterations, initial=model.iterations, unit="it", disable=None) as bar:
            try:
                if model.iterations in (0, settings.iterations):
                    run.keep(last=model.iterations > 0)
                while model.iterations < settings.iterations and not stopped:
                    run.history.add(model.iteration())
                    stopped = bool(asked)
                    row = run.keep(stopped, last=model.iterations == settings.iterations)
                    if row:
                        iteration, l1, slope, seconds = row
                        bar.set_postfix_str(f"L1 {l1:.3f}, {SLOPE_NAMES[settings.slope]} {slope:.3f}", refresh=False)
                        if args.device == "cpu" and (line := crowding.notice(iteration, seconds)):
                            tell(line)
                    if model.iterations % settings.evaluate_every == 0 and model.iterations < settings.iterations:
                        with run.watch.stopped():  # to be looked at meanwhile
                            report(folder, run.checkpoint(), judge)
                    bar.update()
                if stopped:
                    status = 128 + asked[0]
            except Diverged as error:
                status = cli.FAILED
                tell(f"error: {error}; {folder.checkpoint} keeps iteration {load(folder.checkpoint).iteration}")
        # Sound, also where the training ended in divergence; with the figures until then.
        checkpoint = replace(load(folder.checkpoint), rows=run.history.rows)
        if checkpoint.evaluations and judge:
            print_table(table(checkpoint.evaluations[-1], judge.real))
        report(folder, checkpoint, judge)
        if status == 0 and (line := collapse(checkpoint)):
            tell(line)
            status = cli.FAILED
        print(f"{'interrupted after ' if stopped else ''}{summary(checkpoint)}: see {folder.report}")
    return status


def settings_to_resume(folder: Folder, checkpoint: Checkpoint, given: dict[str, Any]) -> Settings:
    """Those of the run in ``folder``, with what was given and may change. Raises InputError for what may not."""
    for name, value in given.items():
        held = getattr(checkpoint.settings, name)
        if name not in MAY_CHANGE and value != held:
            raise InputError(
                f"--resume: {name} of the run in {folder.path} is {text(held)}, not {text(value)}; what may change is"
                f" {', '.join(MAY_CHANGE)}, threads and device"
            )
    settings = replace(checkpoint.settings, **{name: given[name] for name in MAY_CHANGE if name in given})
    if settings.iterations < checkpoint.iteration:
        raise InputError(f"--resume: the run in {folder.path} is at iteration {checkpoint.iteration:,} already")
    return settings


def source(args: argparse.Namespace, folder: Folder | None) -> tuple[Path, int | None]:
    """The images that were asked for, and the size of pictures; or those of the run in ``folder``, or MNIST."""
    if not folder or (args.data and not has_pictures(args.data)):
        return args.data or MNIST, args.size
    return args.data or folder.data(), args.size or folder.size()


def judge_by(data: Path, size: int | None, images: numpy.ndarray | None = None) -> Judge | None:
    """The judge, where there is a classifier beside the data."""
    return Judge(data, size, images) if beside(data, FILE).exists() else None


def tell(line: object, *_: Any) -> None:
    """Say something on the way, in a line above the progress bar."""
    tqdm.write(f"run_mnist.py: {line}", file=sys.stderr)


def set_threads(args: argparse.Namespace, settings: Settings, shape: tuple[int, int], before: int | None = None) -> int:
    """Let so many threads multiply matrices as ``--threads`` says, or as ``before``, or as the sizes can use."""
    threads = args.threads or before or threads_for(settings, math.prod(shape))
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
    _, generator = checkpoint.networks()
    images = draw(generator, checkpoint.settings, args.generate, given.get("seed"))
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
    data, size = source(args, folder)
    judge = Judge(data, size)
    if judge.train.shape[1] != math.prod(checkpoint.shape):
        raise InputError(f"--data {data} holds images of another size than the run in {args.out}")
    with folder.locked():
        figures = evaluate(judge, *checkpoint.networks(), checkpoint.settings, given.get("seed"))
        rows = {row["iteration"]: row for row in folder.evaluations()}
        known = rows.get(checkpoint.iteration, {"iteration": checkpoint.iteration})
        rows[checkpoint.iteration] = {**known, **figures}
        write_json(folder.evaluation, {"real": judge.real, "samples": list(rows.values())})
    print_table(table(figures, judge.real))
    return 0


def make_report(given: dict[str, Any], args: argparse.Namespace) -> int:
    """The pictures and the page of the run in ``args.out``, from its checkpoint."""
    folder = Folder(args.out)
    checkpoint = checkpoint_in(folder, given)
    data, size = source(args, folder)
    set_threads(args, checkpoint.settings, checkpoint.shape)
    judge = judge_by(data, size)
    with folder.locked():
        report(folder, checkpoint, judge)
    print(f"{summary(checkpoint)}: see {folder.report}")
    return 0


def print_table(rows: list[tuple[str, str, str]]) -> None:
    for what, samples, real in rows:
        print(f"{what:<66} {samples:>8} {real:>8}")


def main(argv: list[str] | None = None) -> int:
    with cli.unbroken_output(), warnings.catch_warnings():
        warnings.showwarning = tell
        parser, args, given = parse(argv)
        with cli.one_line_errors(parser, args, DataError):
            backend.use(args.device)
            if args.generate:
                return sample(given, args)
            if args.evaluate:
                return judge_checkpoint(given, args)
            return make_report(given, args) if args.report else train(given, args)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
