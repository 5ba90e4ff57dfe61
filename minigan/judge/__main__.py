"""``python -m minigan.judge``: train the classifier that judges samples, once for any images with classes."""

import argparse
import sys
import time
from tempfile import TemporaryFile

import numpy

from .. import backend
from ..data import MNIST, SPLITS, DataError
from ..run import cli
from ..run.images import SIZES, load_images, load_labels, nearby
from .classifier import BATCH, FILE, MOST, accuracy, is_another, load, save, train
from .judge import FEWEST, repeated


def main(argv: list[str] | None = None) -> int:
    parser = cli.Parser(prog="python -m minigan.judge", description="Train the classifier that judges samples.")
    parser.add_argument(
        "--data",
        type=cli.path,
        default=MNIST,
        metavar="DATA",
        help="images with labels, as of run_mnist.py; it is written there [MNIST]",
    )
    parser.add_argument("--size", type=cli.number(SIZES), metavar="N", help="pixels that pictures are brought to [28]")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="NumPy or CuPy [cpu]")
    with cli.unbroken_output():
        args = parser.parse_args(argv)
        with cli.one_line_errors(parser, args):
            return build(args)


def build(args: argparse.Namespace) -> int:
    backend.use(args.device)
    saved_to = nearby(args.data, FILE)
    if is_another(saved_to):
        raise DataError(f"{saved_to}: is no classifier that this wrote, and would be replaced; rename or remove it")
    TemporaryFile(dir=saved_to.parent).close()  # raises an error now if nothing can be written there
    splits = [(load_images(args.data, split, args.size), load_labels(args.data, split)) for split in SPLITS]
    for images, labels in splits:
        if len(images) != len(labels):
            raise DataError(f"{args.data}: holds {len(images)} images and {len(labels)} labels of them")
        if images.shape[1:] != splits[0][0].shape[1:]:
            raise DataError(f"{args.data}: its test images have another size than its training images")
    names, unknown = numpy.unique(splits[0][1]), set(splits[1][1].tolist()) - set(splits[0][1].tolist())
    few = len(splits[0][0]) < BATCH or len(splits[1][0]) < FEWEST
    if few or not 2 <= len(names) <= MOST or unknown:
        raise DataError(
            f"{args.data}: expected {BATCH} training images or more, of 2 to {MOST} classes, and {FEWEST} test images,"
            f" of classes among them; got {len(splits[0][0])}, of {len(names)}, and {len(splits[1][0])}"
        )
    splits = [(images, numpy.searchsorted(names, labels)) for images, labels in splits]
    start = time.perf_counter()
    classifier = train(*splits[0])
    seconds = time.perf_counter() - start
    save(saved_to, classifier)
    saved = load(saved_to, splits[0][0][0].size)
    right = [accuracy(saved, *split) for split in splits]
    print(f"{saved_to}: {right[1]:.2%} right on test images, {right[0]:.2%} on training images; {seconds:.0f} s")
    if right[1] < 0.5:
        print("it knows less than half of them: what it says of samples will mean little")
    if same := repeated(splits[1][0], splits[0][0]):
        print(f"{same:,} of the {len(splits[1][0]):,} test images are training images too")
    return 0


if __name__ == "__main__":
    sys.exit(main())
