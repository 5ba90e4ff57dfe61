"""The hidden units of both networks shared out among workers, who speak to each other by primitives of the engine.

Of a pair of layers each worker holds some columns of the first weight and the same rows of the second: its share of the
hidden units between the two (Shoeybi et al. 2019, arXiv 1909.08053, figure 3). Every worker draws the same batch u:

    u -> copied -> u W1[:, share] + b1[share] -> relu -> h W2[share] -> summed -> + b2

``copied`` does nothing, since all have u alike; its gradient is the sum of what comes back in each. ``summed`` adds up
what each has; its gradient is alike in all. So each is the other's vjp, as ``broadcast_to`` and ``sum_to`` are, and a
sweep, and a sweep through that sweep, come out right with nothing more. Of the generator's last layer each worker holds
columns, and ``gathered`` puts the images together: with ``own_part`` it is a second such pair. No gradient of a weight
is exchanged, and Adam is Adam.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import reduce
from itertools import cycle
from operator import add
from typing import Any, NamedTuple

from .. import backend, ops
from ..backend import Array
from ..nn import MLP, Linear, identity
from ..tensor import Tensor, primitive
from ..training import WGANGP


class Collectives(NamedTuple):
    """Primitives in which all workers meet: all call the same ones in the same order."""

    summed: Callable[[Tensor], Tensor]
    copied: Callable[[Tensor | Array], Tensor]
    gathered: Callable[[Tensor, int], Tensor]
    own_part: Callable[[Tensor], Tensor]


def share(n: int, rank: int, number: int) -> slice:
    """Which of n units the worker ``rank`` of ``number`` holds."""
    return slice(n * rank // number, n * (rank + 1) // number)


def collectives(rank: int, number: int, tables: Sequence[list], meet: Callable[[], Any]) -> Collectives:
    """The primitives of the worker ``rank`` of ``number``; ``meet()`` waits for all.

    ``tables`` are two lists, taken by turns, in which all lay their arrays: who lays one down again has met all others
    since they read it.
    """
    next_table = cycle(tables).__next__

    def all_laid(x: Array) -> list[Array]:
        table = next_table()
        table[rank] = x
        meet()
        return table

    def all_sum(x: Array) -> Array:
        """the sum of x over the workers, added up in one order by each"""
        return reduce(add, all_laid(x))

    def copy(x: Array) -> Array:
        """x, which all have alike"""
        return x

    def gather(x: Array, width: int) -> Array:
        """the columns of all workers, beside each other"""
        return backend.xp.concatenate(all_laid(x), axis=1)

    def part(x: Array) -> Array:
        """this worker's columns of x, which all have alike"""
        return x[:, share(x.shape[1], rank, number)]

    summed = primitive(lambda g, out, x: copied(g))(all_sum)
    copied = primitive(lambda g, out, x: summed(g))(copy)
    gathered = primitive(lambda g, out, x, width: own_part(g))(gather)
    own_part = primitive(lambda g, out, x: gathered(g, x.shape[1]))(part)
    return Collectives(summed, copied, gathered, own_part)


class Columns:
    """A worker's columns of a layer: its share of the hidden units."""

    def __init__(self, layer: Linear, primitives: Collectives) -> None:
        self.weight, self.bias, self.primitives = layer.weight, layer.bias, primitives

    def __call__(self, x: Tensor | Array) -> Tensor:
        return ops.linear(self.primitives.copied(x), self.weight, self.bias)


class Rows(Columns):
    """The next layer's rows for these hidden units: each worker has a part of every sum."""

    def __call__(self, h: Tensor | Array) -> Tensor:
        return self.primitives.summed(ops.matmul(h, self.weight)) + self.bias


class Outputs(Columns):
    """A worker's columns of the generator's last layer, and of its activation; the columns of all come together."""

    def __init__(self, layer: Linear, primitives: Collectives) -> None:
        super().__init__(layer, primitives)
        self.activation, self.width = identity, len(layer.bias)

    def __call__(self, x: Tensor | Array) -> Tensor:
        return self.primitives.gathered(self.activation(super().__call__(x)), self.width)


# The axes of weight and bias that are shared out; of a Linear, and of the bias of Rows, each worker has the whole.
AXES: dict[type, tuple] = {Linear: (None, None), Columns: (1, 0), Rows: (0, None), Outputs: (1, 0)}


def kinds(network: MLP, number: int, gather: bool) -> list[type]:
    """What stands for each layer: Columns and Rows in pairs, from the first on; with ``gather``, Outputs at the end.

    Layers with fewer units than there are workers stay whole.
    """
    widths = [len(layer.bias) for layer in network.layers]
    parts: list[type] = [Linear for _ in widths]
    i, end = 0, len(widths) - gather
    while i < end - 1:
        pair = widths[i] >= number
        if pair:
            parts[i : i + 2] = Columns, Rows
        i += 1 + pair
    if gather and widths[-1] >= number:
        parts[-1] = Outputs
    return parts


def share_layers(network: MLP, number: int, gather: bool, primitives: Collectives) -> list[int | None]:
    """Put shared layers in the place of a network's own; returns the axis of each parameter that is to be cut."""
    parts = kinds(network, number, gather)
    network.layers = [x if kind is Linear else kind(x, primitives) for x, kind in zip(network.layers, parts)]
    if parts[-1] is Outputs:
        network.layers[-1].activation, network.output = network.output, identity
    return [axis for kind in parts for axis in AXES[kind]]


def cut(x: Tensor, axis: int | None, rank: int, number: int) -> Any:
    """The index of a worker's share of x."""
    return ... if axis is None else (*[slice(None)] * axis, share(x.shape[axis], rank, number))


def split(whole: WGANGP, rank: int, number: int, primitives: Collectives) -> tuple[WGANGP, Callable[[], None]]:
    """A copy of a whole model, of which it has the share of a worker; and a function that writes the share back.

    The first worker writes what all have alike too.
    """
    model = deepcopy(whole)
    critic, generator = model.critic_adam, model.generator_adam
    networks: list[tuple] = [(model.critic, critic.m, critic.v), (model.generator, generator.m, generator.v)]
    axes: dict[Tensor, int | None] = {}
    for network, *moments in networks + [(model.ema,)] * (model.ema is not model.generator):
        cuts = share_layers(network, number, network is not model.critic, primitives)
        for tensors in (network.parameters(), *moments):
            axes |= zip(tensors, cuts)

    places = []
    for x, its in zip(model.state().values(), whole.state().values()):
        axis = axes.get(x)
        place = its.array[cut(x, axis, rank, number)]
        x.array = place.copy()
        if axis is not None or rank == 0:
            places.append((place, x))

    def write_back() -> None:
        for place, x in places:
            place[...] = x.array

    return model, write_back
