"""Train a WGAN-GP on MNIST, or generate digits from a trained one: ``python run_mnist.py --help``."""

import argparse
import math
import os
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
from tqdm import tqdm

from minigan import backend
from minigan.data import MNIST
from minigan.fast import Replayed, sharing, threads
from minigan.fast.workers import WorkersLost, can_share
from minigan.judge import Judge, find_judge
from minigan.run import Run, cli, load, load_images, pictures
from minigan.run.cli import InputError
from minigan.run.files import locked, replacing, write
from minigan.run.images import SIZES, kind_of
from minigan.run.page import write_page
from minigan.run.run import FILE, LEFT, SLOPE_NAMES
from minigan.settings import COUNT, PRESETS, Settings
from minigan.training import WGANGP, DivergenceError

# The modes that begin no new run, and the flags that each takes besides --out.
READING = ("device", "workers", "threads", "data", "size")
MODES = {
    "resume": (*READING, "no_replay", "graph", "iterations", "sample_every", "evaluate_every"),
    "report": READING,
    "evaluate": (*READING, "seed"),
    "generate": ("device", "workers", "threads", "seed"),
}
BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"


def train(run: Run, images: numpy.ndarray, args: argparse.Namespace) -> int:
    """Train, and write all files of the run to ``args.out``; returns the exit status."""
    settings, out, status = run.settings, args.out, 0
    print(described(images, args.data), flush=True)
    if args.device == "cpu" and (line := threads.slower_kernels()):
        warn(line)
    judge = find_judge(args.data, args.size, images)
    run.model(images)
    with locked(out), cli.endings() as signals, numpy.errstate(over="ignore", invalid="ignore"):
        refuse_another_run(args)  # another run may have begun meanwhile
        with tqdm(total=settings.iterations, initial=run.done, desc="starting", bar_format=BAR, disable=None) as bar:
            try:
                if run.done == 0:
                    run.draw_grid(out)
                    run.save(out)
                with faster(run.gan, images, args) as (iteration, bring_together):
                    while run.done < settings.iterations and not signals:
                        if run.advance(iteration):
                            bar.set_postfix_str(measured(run), refresh=False)
                        bar.update()
                        last = run.done == settings.iterations
                        sample_due = last or run.done % settings.sample_every == 0
                        evaluation_due = last or run.done % settings.evaluate_every == 0
                        if sample_due or evaluation_due:
                            bring_together()
                            save_progress(run, args, bar, sample_due, judge if evaluation_due else None)
                        if evaluation_due and not last:
                            bar.set_description_str("drawing the page")
                            write_page(run, out, judge)  # to be read during training
                            say(run, bar)
                        bar.set_description_str("training", refresh=False)
                if signals:
                    status = 128 + signals[0]
                    run.save(out)
            except (DivergenceError, WorkersLost) as error:
                status, rows, run = cli.FAILED, run.rows, load(out)
                warn(f"error: {error}; {out / FILE} keeps iteration {run.done}")
                run.rows = rows
                run.write_curves(out)
            bar.set_description_str("drawing the page")
            write_page(run, out, judge)
            bar.set_description_str("done" if status == 0 else "ended")
        if run.evaluations and judge:
            print_table(run, judge)
        if status == 0 and (line := run.collapse()):
            status = cli.FAILED
            warn(line)
        print(f"{'interrupted after ' if status > 128 else ''}{run.summary()}: see {out / 'report.html'}")
    return status


@contextmanager
def faster(gan: WGANGP, images: numpy.ndarray, args: argparse.Namespace) -> Iterator[tuple[Callable, Callable]]:
    """The model's ``iteration()``, as fast as it gets; and what brings the shares of workers together."""
    if args.device == "gpu":  # so that the compilation of kernels does not count as training time
        WGANGP(gan.settings, gan.sample_real, images[0].size).iteration()
    if args.workers > 1:
        with sharing(gan, images, args.workers, args.threads, not args.no_replay) as shared:
            yield shared.iteration, shared.bring_together
    else:
        yield (gan if args.no_replay else Replayed(gan, args.graph)).iteration, lambda: None


def save_progress(run: Run, args: argparse.Namespace, bar: tqdm, sample: bool, judge: Judge | None) -> None:
    """Draw a grid of samples, if one is due, have them judged, if there is a judge, and save all."""
    with threads.use_threads(args.threads * args.workers):  # the other workers wait meanwhile
        run.gan.check_finite()
        if sample:
            run.draw_grid(args.out)
        if judge:
            bar.set_description_str("judging")
            run.evaluate(args.out, judge)
        run.save(args.out)


def measured(run: Run) -> str:
    _, l1, slope, _ = run.rows[-1]
    return f"L1 {l1:.3f}, {SLOPE_NAMES[run.settings.slope]} {slope:.3f}"


def say(run: Run, bar: tqdm) -> None:
    """A line: how far the run is, how good its samples are, and, where no bar tells, how long it will take."""
    whole, metrics = run.settings.iterations, run.evaluations[-1] if run.evaluations else {}
    shown = [measured(run), *(f"{name} {metrics[name]:.3f}" for name in ("precision", "recall") if metrics)]
    left = round(run.seconds * (whole - run.done) / run.done)
    to_go = f"; {left // 60}:{left % 60:02} min of training to go" if bar.disable else ""
    tqdm.write(f"{run.done:,} of {whole:,}: {', '.join(shown)}{to_go}")
    sys.stdout.flush()


def described(images: numpy.ndarray, source: Path) -> str:
    """A line about the images read. Pixels that use little of their range look like nothing, and train to nothing."""
    height, width = images.shape[1:]
    pixels = f"{images.min()} to {images.max()}{' only, of 0 to 255' if numpy.ptp(images) < 128 else ''}"
    return f"{len(images):,} images of {width} x {height}, {pixels} (mean {images.mean():.0f}), from {source}"


def begin(args: argparse.Namespace, given: dict[str, Any]) -> tuple[Run, numpy.ndarray]:
    """A new run, and its images."""
    refuse_another_run(args)
    try:
        settings = replace(PRESETS[args.preset], **given)
    except ValueError as error:
        raise InputError(str(error)) from None
    args.data = args.data or MNIST
    if kind_of(args.data) == "pictures" and args.out.resolve().is_relative_to(args.data.resolve()):
        raise InputError(f"--out {args.out} lies in --data {args.data}, which would then hold the run's own pictures")
    images = load_images(args.data, size=args.size)
    number = threads.threads_for(settings, images[0].size)
    args.workers = args.workers or (number if args.device == "cpu" and can_share() else 1)
    check_workers(args, settings, images[0].size)
    args.threads = args.threads or (number if args.workers == 1 else 1)
    threads.use_threads(args.threads * args.workers)
    return Run(settings, images.shape[1:], metadata(args, images)), images


def check_workers(args: argparse.Namespace, settings: Settings, pixels: int) -> None:
    """Raises InputError if so many workers cannot share an iteration; leaves one, with a line, for spectral layers."""
    if args.workers > 1 and args.device == "gpu":
        raise InputError(f"--workers {args.workers} share an iteration on the CPU; on the GPU it is one")
    if args.workers > pixels:
        raise InputError(f"--workers {args.workers}: expected at most {pixels}, one for each pixel of an image")
    if args.workers > 1 and settings.constraint == "spectral":
        warn("spectral layers train in one process, since each needs its whole weight")
        args.workers = 1


def refuse_another_run(args: argparse.Namespace) -> None:
    """Raises InputError where a new run would overwrite a run that has done an iteration, or somebody's own files."""
    if args.resume:
        return
    if (args.out / FILE).exists() and load(args.out / FILE).done:
        raise InputError(
            f"--out {args.out} already holds a run: --resume goes on with it; or name another folder, or remove it"
        )
    theirs = [name for name in LEFT if os.path.lexists(args.out / name)]
    theirs += [f"samples/{path.name}" for path in (args.out / "samples").glob("[!.]*") if path.stem != "0000000"]
    if theirs and not (args.out / FILE).exists():
        raise InputError(f"--out {args.out} holds {theirs[0]} and no run: it would be replaced; name another folder")


def metadata(args: argparse.Namespace, images: numpy.ndarray) -> dict[str, Any]:
    """The facts about a run that are saved besides its settings."""
    known = {"data": str(args.data.resolve()), "size": args.size, "crc32": zlib.crc32(images.data)}
    return {
        **known,
        "workers": args.workers,
        "threads": args.threads,
        "kernels": threads.kernels(),
        "device": args.device,
    }


def reopen(args: argparse.Namespace) -> Run:
    """The run in ``args.out``; its data, workers and threads are taken where none are given."""
    run = load(args.out / FILE)
    args.data = args.data or Path(run.metadata["data"])
    if args.mode != "generate" and args.data.exists() and kind_of(args.data) == "pictures":
        args.size = args.size or run.metadata["size"]
    args.workers = args.workers or (run.metadata["workers"] if args.device == "cpu" else 1)
    args.threads = args.threads or run.metadata["threads"]
    check_workers(args, run.settings, math.prod(run.shape))
    threads.use_threads(args.threads * args.workers)
    return run


def resume(args: argparse.Namespace, given: dict[str, Any]) -> tuple[Run, numpy.ndarray]:
    """The run in ``args.out``, to be continued with the given settings, and its images."""
    run = reopen(args)
    run.go_on(replace(run.settings, **given))
    if run.settings.iterations < run.done:
        raise InputError(f"--resume: the run in {args.out} is at iteration {run.done:,} already")
    images = load_images(args.data, size=args.size)
    refuse_other_images(args, run, images)
    if args.device == "cpu" and (before := run.metadata["kernels"]) != threads.kernels():
        warn(f"its matrices were multiplied by kernels for a {before}: it goes on up to rounding, not bit for bit")
    run.metadata = metadata(args, images)
    return run, images


def refuse_other_images(args: argparse.Namespace, run: Run, images: numpy.ndarray) -> None:
    """Raises InputError for images, or rows of them, that the run was not trained on."""
    shapes = run.shape, (run.shape[0] * run.shape[1],)
    if images.shape[1:] not in shapes or zlib.crc32(images.data) != run.metadata["crc32"]:
        raise InputError(f"--data {args.data} holds other images than the run in {args.out} was trained on")


def report_or_evaluate(args: argparse.Namespace, given: dict[str, Any]) -> int:
    """Write the pictures and the page of the run in ``args.out``, from its checkpoint; to evaluate, new metrics too."""
    run = reopen(args)
    judge = Judge(args.data, args.size) if args.mode == "evaluate" else find_judge(args.data, args.size)
    if judge:
        refuse_other_images(args, run, judge.train)
    with locked(args.out):
        if judge and args.mode == "evaluate":
            run.evaluate(args.out, judge, given.get("seed"))
            run.save(args.out)
            print_table(run, judge)
        write_page(run, args.out, judge)
    print(f"{run.summary()}: see {args.out / 'report.html'}")
    return 0


def write_samples(args: argparse.Namespace, given: dict[str, Any]) -> int:
    """Write ``args.generate`` samples of the run in ``args.out``: generated.npy and a grid of the first 100."""
    run, path = reopen(args), args.out / "generated.npy"
    with locked(args.out):
        images = run.new_samples(args.generate, given.get("seed"))
        with replacing(path) as part:
            numpy.save(part, images)
        write(path.with_suffix(".png"), pictures.grid(images[:100], columns=10))
    print(f"{args.generate:,} samples of iteration {run.done:,}: {path} and .png")
    return 0


def print_table(run: Run, judge: Judge) -> None:
    for what, samples, real in judge.table(run.evaluations[-1]):
        print(f"{what:<60} {samples:>8} {real:>8}")


def warn(line: object, *_: Any) -> None:
    """Print a line on standard error, above the progress bar."""
    tqdm.write(f"run_mnist.py: {line}", file=sys.stderr)


def parse(argv: list[str] | None) -> tuple[cli.Parser, argparse.Namespace, dict[str, Any]]:
    """The parser, the flags of this program, and the settings that were given."""
    parser = cli.Parser(
        prog="run_mnist.py",
        description="Train a WGAN-GP on MNIST and watch the digits appear, or generate digits from a trained one.",
        epilog="In brackets: the default, and after it what another --preset has instead.",
        argument_default=argparse.SUPPRESS,
    )
    count, add, instead = cli.number(COUNT), parser.add_argument, parser.add_mutually_exclusive_group().add_argument
    add("--device", choices=("cpu", "gpu"), help="NumPy or CuPy [cpu]")
    add("--workers", type=count, metavar="N", help="processes that share an iteration [what the sizes can use]")
    add("--threads", type=count, metavar="N", help="that multiply matrices in each [1, or of one, the same]")
    add("--no-replay", action="store_true", help="run each iteration anew, instead of replaying a recorded one")
    add("--graph", action="store_true", help="on the GPU, replay an iteration as one CUDA graph (needs cuTENSOR)")
    add("--data", type=cli.path, metavar="DATA", help="folder of IDX files or pictures, or .npy or .npz file [MNIST]")
    add("--size", type=cli.number(SIZES), metavar="N", help="pixels each way that pictures are brought to [28]")
    add("--out", type=cli.path, metavar="DIR", help="folder for all that the run leaves [out]")
    instead("--resume", action="store_true", help="go on with the run in --out, from its checkpoint")
    instead("--report", action="store_true", help="no training: the pictures and the page of the run in --out, anew")
    instead("--evaluate", action="store_true", help="no training: how good its samples are; and the page")
    instead("--generate", type=count, metavar="N", help="no training: N samples from the checkpoint")
    add("--preset", choices=PRESETS, help="where the settings below start from: digits fast, or well, or the article's")
    defaults = {"device": "cpu", "out": Path("out"), "preset": "default"}
    defaults |= dict.fromkeys(("workers", "threads", "no_replay", "graph", "data", "size", *MODES))  # None: not given
    cli.add_settings(parser)

    given = vars(parser.parse_args(argv))
    mode = next((name for name in MODES if name in given), None)
    names = {action.dest: action.option_strings[0] for action in parser._actions}
    for name in given:
        if mode and name not in (mode, "out", *MODES[mode]):
            takes = ", ".join(names[taken] for taken in MODES[mode])
            parser.error(f"--{mode} takes no {names[name]}; it takes {takes}")
    args = argparse.Namespace(mode=mode, **{name: given.pop(name, default) for name, default in defaults.items()})
    if args.graph and args.device == "cpu":
        parser.error("--graph records what runs on a GPU; it needs --device gpu")
    return parser, args, {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


def main(argv: list[str] | None = None) -> int:
    with cli.unbroken_output(), warnings.catch_warnings():
        warnings.showwarning = warn  # type: ignore[assignment]
        parser, args, given = parse(argv)
        with cli.one_line_errors(parser, args):
            backend.use(args.device)
            if args.mode in ("report", "evaluate"):
                return report_or_evaluate(args, given)
            if args.mode == "generate":
                return write_samples(args, given)
            run, images = resume(args, given) if args.resume else begin(args, given)
            return train(run, images, args)


if __name__ == "__main__":
    sys.exit(main())
