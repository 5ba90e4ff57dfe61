"""The derivative of anything with respect to anything, by one reverse sweep."""

from collections.abc import Sequence
from operator import attrgetter
from typing import Any
from weakref import ref

from . import backend, ops
from .backend import Array
from .tensor import Tensor, recording


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Array | Sequence[Tensor | Array | None] | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
    materialize_grads: bool = False,
) -> tuple[Tensor | None, ...]:
    """The gradients of the sum of ``g * output`` over ``outputs`` and ``grad_outputs``, with respect to each input.

    Arguments mean what they do in ``torch.autograd.grad``. A missing ``grad_outputs`` stands for 1, for outputs of one
    element. With ``create_graph`` the sweep itself is recorded, so that the gradients can be differentiated in turn:
    this is the whole of double backprop. Each gradient has its input's shape and dtype; it may share its array with
    another, or with ``grad_outputs``. Only Tensors between the inputs and the outputs are visited, and of those only
    the operands on the way.

    An input that no output depends on is an error, unless ``allow_unused`` asks for None in its place, or
    ``materialize_grads`` for zeros, which is its derivative, also where an output is a constant.

    Raises ValueError for that, for an output without a graph, for a missing or misshapen ``grad_outputs``, for an array
    that was changed since the graph was made of it, and for a gradient on the way from an input to an output that was
    made without ``create_graph``, so that what flows through it would be missing.
    """
    outputs, inputs = _several(outputs), _several(inputs)
    grad_outputs = (None,) * len(outputs) if grad_outputs is None else _several(grad_outputs)
    if len(grad_outputs) != len(outputs):
        raise ValueError(f"grad: got {len(outputs)} outputs and {len(grad_outputs)} grad_outputs")
    for i, x in enumerate(inputs):
        if not x.requires_grad:
            raise ValueError(f"grad: input {i}, shape {x.shape}, has requires_grad=False")

    wanted = set(inputs)
    # What is older than all inputs was not made from any; but a gradient without a record notes all that it depends on.
    ancestors = _ancestors(outputs, min((x.birth for x in inputs), default=0) if create_graph else 0)
    for node in ancestors:
        if not wanted.isdisjoint(ref() for ref in node.unrecorded):
            raise ValueError(
                "grad: an output was made of a gradient that depends on an input but has no record, so that nothing"
                " flows back through it: make it with create_graph=True, or detach() it if a constant is meant"
            )
    path = _path(ancestors, wanted)
    seeds = [
        (output, _seed(i, output, g))
        for i, (output, g) in enumerate(zip(outputs, grad_outputs))
        if output.requires_grad or not materialize_grads
    ]
    for i, x in enumerate(inputs):
        if x not in path and not (allow_unused or materialize_grads):
            raise ValueError(
                f"grad: no output depends on input {i}, shape {x.shape} (allow_unused=True gives None,"
                " materialize_grads=True zeros)"
            )
    gradients = dict.fromkeys(inputs)
    with recording(create_graph):
        parts: dict[Tensor, list[Tensor]] = {node: [] for node in path}  # of each one's gradient, from each of its uses
        for output, seed in seeds:
            if output in path:
                parts[output].append(seed)
        for node in path:  # newest first: whatever uses a node is newer, so that all its parts are there
            g = ops.add_up(parts.pop(node))
            if node in wanted:
                gradients[node] = g
            if node.stale:
                raise ValueError(
                    f"grad: {node.op.__name__}, shape {node.shape}, or an operand of it was changed in place since;"
                    " call grad before the change, or compute anew after it"
                )
            for x, vjp in zip(node.args, node.op.vjps if node.op else ()):
                if isinstance(x, Tensor) and x in path:
                    parts[x].append(vjp(g, node, *node.args))
    of = frozenset(map(ref, [x for x in ancestors if x in wanted or not x.op]))
    of = of.union(*(x.unrecorded for x in ancestors if x.unrecorded))
    for x, g in gradients.items():
        if g is None and materialize_grads:
            gradients[x] = Tensor(backend.xp.zeros(x.shape, x.dtype))
        elif g is not None and not create_graph:
            gradients[x] = g.detach()
            gradients[x].unrecorded = of
    return tuple(gradients[x] for x in inputs)


def _several(x: Any) -> tuple:
    return tuple(x) if isinstance(x, (tuple, list)) else (x,)


def _ancestors(outputs: Sequence[Tensor], oldest: int) -> dict[Tensor, list[Tensor]]:
    """The outputs and all that they were made from, with their operands, but for what was born before ``oldest``."""
    operands: dict[Tensor, list[Tensor]] = {}
    stack = list(outputs)
    while stack:
        node = stack.pop()
        if node.birth >= oldest and node not in operands:
            operands[node] = node.operands
            stack += operands[node]
    return operands


def _path(operands: dict[Tensor, list[Tensor]], inputs: set[Tensor]) -> dict[Tensor, None]:
    """The Tensors on a way from an output back to an input, newest first."""
    path: dict[Tensor, None] = {}
    for node in sorted(operands, key=attrgetter("birth")):  # oldest first: it is known which operands are on the path
        if node in inputs or not path.keys().isdisjoint(operands[node]):
            path[node] = None
    return dict(reversed(path.items()))


def _seed(i: int, output: Tensor, g: Tensor | Array | float | None) -> Tensor:
    """The gradient that the sweep begins with at an output."""
    if not output.requires_grad:
        raise ValueError(
            f"grad: output {i}, shape {output.shape}, has no graph: nothing that it was made from has"
            " requires_grad=True, or it was made under no_grad()"
        )
    if g is None and output.data.size != 1:
        raise ValueError(f"grad: output {i} has shape {output.shape}; without grad_outputs it must have one element")
    if g is None:
        return Tensor(backend.xp.ones(output.shape, output.dtype))
    if not isinstance(g, Tensor):
        g = Tensor(g if isinstance(g, backend.xp.ndarray) else backend.asarray(g, dtype=output.dtype))
    if (g.shape, g.dtype) != (output.shape, output.dtype):
        raise ValueError(f"grad: grad_outputs {i} is {g.dtype} {g.shape}; its output is {output.dtype} {output.shape}")
    return g
