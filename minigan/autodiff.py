"""The derivative of anything with respect to anything, by one reverse sweep."""

from collections.abc import Sequence
from functools import reduce
from operator import attrgetter

from . import backend, ops
from .backend import Array
from .tensor import Tensor, recording


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Array | Sequence[Tensor | Array | None] | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> tuple[Tensor | None, ...]:
    """The gradients of ``sum(g * y for y, g in zip(outputs, grad_outputs))`` with respect to each input.

    Arguments mean what they do in ``torch.autograd.grad``. A missing ``grad_outputs`` stands for 1, for outputs of one
    element. With ``create_graph`` the sweep itself is recorded, so that the gradients can be differentiated in turn:
    this is the whole of double backprop. Each gradient has its input's shape and dtype. Only Tensors between the
    inputs and the outputs are visited, and of those only the operands on the way.

    Raises ValueError for an output without a graph, for a missing or misshapen ``grad_outputs``, and for an input that
    no output depends on, unless ``allow_unused`` asks for None in its place.
    """
    outputs = (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
    inputs = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    if grad_outputs is None:
        grad_outputs = (None,) * len(outputs)
    elif hasattr(grad_outputs, "shape"):
        grad_outputs = (grad_outputs,)
    if len(grad_outputs) != len(outputs):
        raise ValueError(f"grad: got {len(outputs)} outputs and {len(grad_outputs)} grad_outputs")
    for i, x in enumerate(inputs):
        if not x.requires_grad:
            raise ValueError(f"grad: input {i}, shape {x.shape}, has requires_grad=False")

    with recording(create_graph):
        path = _path(outputs, inputs)
        parts: dict[Tensor, list[Tensor | ops.RowProduct]] = {y: [] for y in path}
        for i, (y, g) in enumerate(zip(outputs, grad_outputs)):
            parts.setdefault(y, []).append(_seed(i, y, g))
        for i, x in enumerate(inputs):
            if x not in path and not allow_unused:
                raise ValueError(
                    f"grad: no output depends on input {i}, shape {x.shape} (allow_unused=True gives None)"
                )
        gradients: dict[Tensor, Tensor] = {}
        for y in path:  # newest first, so that all parts of its gradient are there
            g = _sum(parts.pop(y))
            if y in inputs:
                gradients[y] = g
            for x, vjp in zip(y.args, y.op.vjps if y.op else ()):
                if isinstance(x, Tensor) and x in path:
                    parts[x].append(vjp(g, y, *y.args, **y.static))
    return tuple(gradients.get(x) for x in inputs)


def _sum(parts: list[Tensor | ops.RowProduct]) -> Tensor:
    """The sum of what the uses of one Tensor contribute to its gradient."""
    tensors = [p for p in parts if isinstance(p, Tensor)]
    products = [p for p in parts if isinstance(p, ops.RowProduct)]
    if products:
        x, y = zip(*products)
        tensors.append(ops.matmul_tn(ops.concatenate(x), ops.concatenate(y)))
    return reduce(ops.add, tensors)


def _path(outputs: Sequence[Tensor], inputs: Sequence[Tensor]) -> dict[Tensor, None]:
    """The Tensors on a way from an output back to an input, newest first: a Tensor's operands are older than it."""
    oldest = min((x.birth for x in inputs), default=0)
    operands: dict[Tensor, list[Tensor]] = {}
    stack = list(outputs)
    while stack:
        y = stack.pop()
        if y.birth >= oldest and y not in operands:
            operands[y] = y.inputs
            stack += operands[y]
    path: dict[Tensor, None] = {}
    for y in sorted(operands, key=attrgetter("birth")):
        if y in inputs or not path.keys().isdisjoint(operands[y]):
            path[y] = None
    return dict(reversed(path.items()))


def _seed(i: int, y: Tensor, g: Tensor | Array | None) -> Tensor:
    if not y.requires_grad:
        raise ValueError(
            f"grad: output {i}, shape {y.shape}, has no graph: nothing that it was made from has requires_grad=True,"
            " or it was made under no_grad() or as a gradient without create_graph=True"
        )
    if g is None:
        if y.data.size != 1:
            raise ValueError(f"grad: output {i} has shape {y.shape}; without grad_outputs it must have one element")
        return Tensor(backend.xp.ones(y.shape, y.dtype))
    g = g if isinstance(g, Tensor) else Tensor(g)
    if (g.shape, g.dtype) != (y.shape, y.dtype):
        raise ValueError(f"grad: grad_outputs {i} is {g.dtype} {g.shape}; its output is {y.dtype} {y.shape}")
    return g
