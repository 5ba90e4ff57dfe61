"""``python -m minigan.judge``: train the classifier that judges samples, once for any images with classes."""

import argparse
import sys
import time

from .. import backend
from ..data import MNIST, SPLITS, DataError
from ..run import cli
from ..run.images import SIZES, load_images, load_labels, nearby
from .classifier import BATCH, FILE, accuracy, load, save, train
from .judge import FEWEST


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
    splits = [(load_images(args.data, split, args.size), load_labels(args.data, split)) for split in SPLITS]
    for images, labels in splits:
        if len(images) != len(labels):
            raise DataError(f"{args.data}: holds {len(images)} images and {len(labels)} labels of them")
        if images.shape[1:] != splits[0][0].shape[1:]:
            raise DataError(f"{args.data}: its test images have another size than its training images")
    known, tested = (set(labels.tolist()) for _, labels in splits)
    few = len(splits[0][0]) < BATCH or len(splits[1][0]) < FEWEST
    if few or len(known) < 2 or tested - known:
        raise DataError(
            f"{args.data}: expected {BATCH} training images or more, of two classes or more, and {FEWEST} test images,"
            f" of classes among them; got {len(splits[0][0])}, of {len(known)}, and {len(splits[1][0])}"
        )
    start = time.perf_counter()
    classifier = train(*splits[0])
    seconds = time.perf_counter() - start
    save(saved_to, classifier)
    saved = load(saved_to, splits[0][0][0].size)
    right = [accuracy(saved, *split) for split in splits]
    print(f"{saved_to}: {right[1]:.2%} right on test images, {right[0]:.2%} on training images; {seconds:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
