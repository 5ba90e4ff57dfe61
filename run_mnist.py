"""Train a WGAN-GP on MNIST, or generate digits from a trained one.

python run_mnist.py                               some minutes on one core; then look at out/report.html
python run_mnist.py --device gpu --out gpu        on a GPU, in another folder
python run_mnist.py --resume --iterations 30000   go on with the run in out/
python run_mnist.py --evaluate                    how good its samples are
python run_mnist.py --generate 1000               samples, as an array
python run_mnist.py --help                        all flags
"""

import sys
import warnings
from argparse import Namespace

try:
    import numpy

    from minigan import backend
    from minigan.fast import sharing
    from minigan.judge import find_judge
    from minigan.run import Run, cli, flags, opening, pictures
    from minigan.run.files import locked, replacing, write
    from minigan.run.page import write_page
    from minigan.run.progress import Bar, warn
    from minigan.training import WGANGP, DivergenceError
except ImportError as error:
    print(f"run_mnist.py: error: {error}; for what it needs: pip install -r requirements.txt", file=sys.stderr)
    sys.exit(2)


def train(run: Run, images: numpy.ndarray, args: Namespace) -> int:
    """Train, and write all files of the run to ``args.out``; returns the exit status."""
    settings, about, out, status = run.settings, run.metadata, args.out, 0
    judge = find_judge(run.source, about["size"], images)
    model = run.model(images)
    shared = sharing(model, about["workers"], about["threads"], not args.no_replay, args.graph)
    if args.device == "gpu":
        WGANGP(settings, model.sample_real, images[0].size).iteration()  # compiles kernels, which is no training yet
    with cli.endings() as signals, numpy.errstate(over="ignore", invalid="ignore"), Bar(run) as bar:
        try:
            if run.done == 0:
                run.draw_grid(out)
            run.save(out)
            with shared as (iteration, bring_together):
                while run.done < settings.iterations and not signals:
                    # iterate, and show L1 and the slope now and then
                    bar.show(run.advance(iteration))
                    sample_due, evaluation_due = run.due(settings.sample_every), run.due(settings.evaluate_every)
                    if not (sample_due or evaluation_due):
                        continue

                    # the same samples as before, by now; how good others are; and all that it takes to go on from here
                    bring_together()
                    run.gan.check_finite()
                    if sample_due:
                        run.draw_grid(out)
                    if evaluation_due and judge:
                        bar.waits_for("judging")
                        run.evaluate(out, judge)
                    run.save(out)

                    # a page to read meanwhile
                    if evaluation_due and run.done < settings.iterations:
                        bar.waits_for("drawing the page")
                        write_page(run, out, judge)
                        bar.say(run)
            if signals:
                status = 128 + signals[0]
                run.save(out)
        except DivergenceError as error:
            status, run = cli.FAILED, opening.as_saved(run, out, error)
        bar.waits_for("drawing the page")
        write_page(run, out, judge)
    if run.evaluations and judge:
        judge.print_table(run.evaluations[-1])
    if status == 0 and (line := run.collapse()):
        status = cli.FAILED
        warn(line)
    print(f"{'interrupted after ' if status > 128 else ''}{run.summary()}: see {out / 'report.html'}")
    return status


def report(run: Run, args: Namespace, seed: int | None) -> int:
    """Write the pictures and the page of a run, from its checkpoint; to evaluate, new metrics too."""
    judge = find_judge(run.source, run.metadata["size"], needed=args.mode == "evaluate")
    if judge:
        opening.refuse_other_images(args, run, judge.train)
    elif run.evaluations:
        warn(f"the page is without metrics: {run.source} has no classifier beside it, or is gone")
    if judge and args.mode == "evaluate":
        run.evaluate(args.out, judge, seed)
        run.save(args.out)
        judge.print_table(run.evaluations[-1])
    write_page(run, args.out, judge)
    print(f"{run.summary()}: see {args.out / 'report.html'}")
    return 0


def generate(run: Run, args: Namespace, seed: int | None) -> int:
    """Write ``args.generate`` samples of a run: generated.npy and a grid of the first 100."""
    path, images = args.out / "generated.npy", run.new_samples(args.generate, seed)
    with replacing(path) as part:
        numpy.save(part, images)
    write(path.with_suffix(".png"), pictures.grid(images[:100], columns=10))
    print(f"{args.generate:,} samples of iteration {run.done:,}: {path} and .png")
    return 0


def main(argv: list[str] | None = None) -> int:
    with cli.unbroken_output(), warnings.catch_warnings():
        warnings.showwarning = warn  # type: ignore[assignment]
        parser, args, given = flags.parse(argv)
        with cli.one_line_errors(parser, args):
            backend.use(args.device)
            if not args.mode:
                run, images = opening.begin(args, given)
                with locked(args.out):
                    opening.refuse_another_run(args.out)  # which may have begun meanwhile
                    return train(run, images, args)
            opening.find(args.out)
            with locked(args.out):
                run = opening.reopen(args, given)
                if args.mode == "resume":
                    return train(run, opening.its_images(args, run), args)
                return (generate if args.mode == "generate" else report)(run, args, given.get("seed"))


if __name__ == "__main__":
    sys.exit(main())
