"""``python -m minigan.explain``: a minimal critic, its gradient penalty, and both sweeps, as recorded."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .. import ops
from ..autodiff import grad
from ..fast.standalone import program, source
from ..run.cli import Parser, one_line_errors, path, unbroken_output
from ..run.files import write
from ..settings import PRESETS
from ..tensor import primitive, tensor
from .drawing import draw
from .story import explain

ACTIVATIONS = {"relu": ops.relu, "tanh": ops.tanh}
FORGOTTEN = ", create_graph forgotten"
CASES = [("relu", False), ("tanh", False), ("relu", True)]  # that a page shows: which activation, and that


def penalty(activation: str = "relu", create_graph: bool = True) -> dict[str, Any]:
    """The gradient penalty P of D(u) = act(u W + b) v + c at one point u, and its derivatives."""
    W, b = tensor([[3.0, 2.0], [4.0, -1.0]], requires_grad=True), tensor([-10.0, -1.0], requires_grad=True)
    v, c = tensor([[1.0], [2.0]], requires_grad=True), tensor([0.5], requires_grad=True)
    u = tensor([[1.0, 2.0]], requires_grad=True)
    h = ops.linear(u, W, b)
    a = ACTIVATIONS[activation](h)
    D = ops.linear(a, v, c)
    (g,) = grad(D, u, create_graph=create_graph)
    s = ops.norm(g, axis=1, keepdims=True)
    P = (s - 1) ** 2
    dW, db, dv, dc = grad(P, [W, b, v, c], materialize_grads=True)
    return locals()


@primitive(lambda g, out, x: g * 0)
def _step(x: Any) -> Any:
    """Where x > 0, with the derivative 0 of that: what a mask would be that is not a constant."""
    return (x > 0).astype(x.dtype)


@contextmanager
def carrying_zeros() -> Iterator[None]:
    """Inside, relu's mask is recorded like any Tensor, and its zero derivative is carried through every sweep."""
    relu: Any = ops.relu
    masked, relu.vjps = relu.vjps, (lambda g, out, x: g * _step(x),)
    try:
        yield
    finally:
        relu.vjps = masked


def main(argv: list[str] | None = None) -> int:
    parser = Parser(
        prog="python -m minigan.explain",
        description="Show how the gradient penalty of the smallest critic is differentiated, from the engine's record.",
    )
    add = parser.add_argument
    add("--activation", choices=ACTIVATIONS, default="relu", help="of the hidden layer [relu]")
    add("--no-graph", action="store_true", help="what if create_graph=True is forgotten")
    add("--iteration", action="store_true", help="instead: a whole training iteration, as a program")
    add("--preset", choices=PRESETS, default="default", help="of whose settings that is [default]")
    add("--out", type=path, metavar="FILE", help="a drawing .svg, a page .html that plays it; or the program, .py")
    with unbroken_output():
        args = parser.parse_args(argv)
        kinds = (".py",) if args.iteration else (".svg", ".html")
        if args.out and args.out.suffix.lower() not in kinds:
            parser.error(f"argument --out: expected a file {' or '.join(kinds)}, got {str(args.out)!r}")
        with one_line_errors(parser, args):
            if args.iteration:
                result: Any = program(PRESETS[args.preset])
                if args.out:
                    write(args.out, source(result, PRESETS[args.preset]))
            else:
                result = explain(penalty, args.activation, not args.no_graph)
                if args.out:
                    title = f"Double backprop of a {args.activation} critic's gradient penalty"
                    others = {
                        f"{name}{FORGOTTEN * forgotten}": explain(penalty, name, not forgotten)
                        for name, forgotten in CASES
                    }
                    draw({f"{args.activation}{FORGOTTEN * args.no_graph}": result} | others, args.out, title)
            print(args.out or result)
            if not (args.iteration or args.out or args.no_graph):
                with carrying_zeros():
                    zeros = f"; with the zeros of its mask's derivative carried along, {explain(penalty).products}"
                print(f"\n{result.products} matrix products{zeros if args.activation == 'relu' else ''}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
