"""The derivatives of Tensors with respect to Tensors that they were made of, by one reverse sweep."""

from collections.abc import Sequence
from contextvars import ContextVar
from operator import attrgetter
from typing import Any

from . import backend, guards, ops
from .backend import Array
from .tensor import Operator, Switch, Tensor, is_recording

watcher: ContextVar[Any] = ContextVar("watcher", default=None)  # is told of this thread's sweeps


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Array | Sequence[Tensor | Array | None] | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
    materialize_grads: bool = False,
) -> tuple[Tensor, ...]:
    """The gradients of the sum of ``g * output`` over ``outputs`` and ``grad_outputs``, with respect to each input.

    >>> x = mg.tensor([3.0], requires_grad=True)
    >>> (g,) = mg.grad(x**3, x, create_graph=True)  # 3 x^2, recorded: it can be differentiated in turn
    >>> (h,) = mg.grad(g, x)  # 6 x
    >>> print(g.item(), h.item())
    27.0 18.0

    Arguments mean, by their names, what they do in ``torch.autograd.grad``. A missing ``grad_outputs`` stands for 1,
    for outputs of one element; an array is held, not copied. With ``create_graph`` the sweep itself is recorded, so
    that the gradients can be differentiated in turn: this is the whole of double backprop. Each gradient has its
    input's shape and dtype, and may share its array with another gradient, or with ``grad_outputs``. Only Tensors
    between the inputs and the outputs are visited.

    An input that no output depends on is an error, unless ``allow_unused`` asks for None in its place, or
    ``materialize_grads`` for zeros, which is its derivative, also where an output is a constant.

    Raises ValueError for that, for an output without a graph, for a missing or misshapen ``grad_outputs``, for an array
    that was changed since the graph was made of it, and for an output made of a gradient without a record, one without
    ``create_graph``, that is younger than an input: what flows through it would be missing. (Whatever it was a gradient
    of: where it is to be a constant, as the target of another network, ``detach`` says so.)
    """
    outputs, inputs = guards.as_tuple(outputs), guards.as_tuple(inputs)
    grad_outputs = guards.as_tuple(grad_outputs) if grad_outputs is not None else (None,) * len(outputs)
    if watch := watcher.get():
        watch.begin_sweep(inputs)
    guards.check_asked(outputs, inputs, grad_outputs, materialize_grads)

    # an output without a graph is an error unless zeros are asked for
    seeds = [(y, seed(i, y, g)) for i, (y, g) in enumerate(zip(outputs, grad_outputs)) if y.requires_grad]
    gradients = sweep(seeds, set(inputs), create_graph)

    for i, x in enumerate(inputs):
        if x not in gradients and materialize_grads:
            gradients[x] = Tensor(backend.zeros_kernel(x.shape, x.dtype))
        elif x not in gradients and not allow_unused:
            guards.refuse_unused(i, x)
    return tuple(map(gradients.get, inputs))  # type: ignore[arg-type]  # None only under allow_unused


def seed(i: int, y: Tensor, g: Tensor | Array | None) -> Tensor:
    """The gradient at output ``i``, y, that a sweep starts with: 1 if none is given."""
    if g is None:
        g = backend.ones_kernel(y.shape, y.dtype)
    if not isinstance(g, Tensor):
        g = Tensor(g if isinstance(g, backend.xp.ndarray) else backend.on_device(g, y.dtype))
    guards.check_seed(i, y, g)
    return g


def sweep(seeds: Sequence[tuple[Tensor, Tensor]], inputs: set[Tensor], create_graph: bool) -> dict[Tensor, Tensor]:
    """The gradients of those inputs that the sweep reaches from ``seeds``: outputs, each with the gradient there."""
    nodes, gradients, watch = between(inputs, [y for y, _ in seeds]), dict[Tensor, Tensor](), watcher.get()

    def contribute(x: Tensor, g: Tensor) -> None:
        g = g if g.shape == x.shape else ops.sum_to(g, x.shape)  # where x was broadcast, its copies' gradients add up
        gradients[x] = gradients[x] + g if x in gradients else g

    with Switch(is_recording, create_graph):
        for y, g in seeds:
            if y in nodes:  # another output may not depend on any input
                contribute(y, g)
        for node, ways in nodes.items():  # newest first: what uses a node is newer, and has contributed to its gradient
            g = gradients[node] if node in inputs else gradients.pop(node)  # what is used up is freed
            if watch:
                watch.visit(node, g)
            guards.check_unchanged(node)
            for x, vjp in ways:
                result = guards.check_gradient(vjp(g, node, *node.args), node, x)
                contribute(x, result)
                if watch:
                    watch.vjp(node, x, result)
    return gradients if create_graph else {x: g.without_record() for x, g in gradients.items()}


def between(inputs: set[Tensor], outputs: Sequence[Tensor]) -> dict[Tensor, list[tuple[Tensor, Operator]]]:
    """The Tensors on a way from an output back to an input, newest first; each with its operands there, and vjps."""
    oldest = min((x.birth for x in inputs), default=0)
    found, stack, nodes = dict[Tensor, list](), list(outputs), dict[Tensor, list]()
    while stack:
        x = stack.pop()
        if x.birth >= oldest and x not in found:  # what is older than every input was made of none
            found[x] = x.operands()
            stack += [operand for operand, _ in found[x]]
    for x in sorted(found, key=attrgetter("birth")):  # oldest first: operands before what was made of them
        ways = [(operand, vjp) for operand, vjp in found[x] if operand in nodes]
        if ways or x in inputs:
            nodes[x] = ways
    return dict(reversed(nodes.items()))
