"""An iteration shared by threads: each trains its share of the hidden units (``columns``) on the same batches.

    with sharing(model, number=2) as shared:
        shared.iteration()  # as model.iteration()
        shared.bring_together()  # the model's arrays are those of this iteration

While NumPy computes it lets go of the interpreter, so that the other threads can call it meanwhile.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from queue import SimpleQueue
from typing import Any, NamedTuple

from .. import backend
from ..backend import Array
from ..guards import note_write
from ..training import WGANGP
from .columns import collectives, split
from .replay import Replayed
from .threads import use_threads


class Shared(NamedTuple):
    iteration: Callable[[], Array]
    bring_together: Callable[[], None]


class Stopped(RuntimeError):
    """Another worker has ended."""


@contextmanager
def sharing(model: WGANGP, number: int, threads: int = 1, replay: bool = True, graph: bool = False) -> Iterator[Shared]:
    """Yields what has an ``iteration()`` as the model's, shared by ``number`` threads, the calling one among them.

    Each multiplies matrices with ``threads`` threads. What the model is made of is copied; its own arrays are those of
    the last iteration after ``bring_together()``, and at the end, and cannot be written to before. After an error in an
    iteration, which is that of the worker where it arose, all of the model is as it was brought together last. Raises
    ValueError for spectral layers, and for more workers than pixels.
    """
    if number == 1:
        yield Shared((Replayed(model, graph) if replay else model).iteration, lambda: None)
        return
    layers = [layer for network in (model.critic, model.generator) for layer in network.layers]
    if kinds := {type(layer).__name__ for layer in layers} - {"Linear"}:
        raise ValueError(f"{' and '.join(kinds)} layers train as a whole: each needs its whole weight")
    if not 1 <= number <= (dim := len(model.critic.layers[0].weight)):
        raise ValueError(f"{number} workers cannot share images of {dim} pixels")
    queues, tables = [SimpleQueue[bool]() for _ in range(number)], [[None] * number for _ in range(2)]
    errors = list[BaseException]()

    def meet(rank: int) -> None:
        for queue in queues:
            queue.put(True)
        for _ in queues:
            if not queues[rank].get():
                raise Stopped

    def failed(error: BaseException) -> None:
        errors.append(error)
        for queue in queues:  # so that nobody waits
            queue.put(False)

    shares = [split(model, i, number, collectives(i, number, tables, partial(meet, i))) for i in range(number)]
    parts = [Replayed(part) if replay else part for part, _ in shares]
    first, _ = shares[0]
    together = model.done  # the iteration that the model's arrays and random generator are of

    def train(part: Any) -> Array:
        try:
            return part.iteration()
        except BaseException as error:
            failed(error)
            raise

    def iteration() -> Array:
        try:
            others = [pool.submit(copy_context().run, train, part) for part in parts[1:]]
            metrics = copy_context().run(parts[0].iteration)
            for other in others:
                other.result()
        except BaseException as error:
            failed(error)
            raise errors[0] from None
        model.done = first.done
        return metrics

    def bring_together() -> None:
        nonlocal together
        together = first.done
        backend.set_rng_state(model.rng, backend.rng_state(first.rng))
        set_writeable(model, True)
        for _, write_back in shares:
            write_back()
        note_write(*model.state().values())
        set_writeable(model, False)

    with ThreadPoolExecutor(number) as pool, use_threads(threads):
        try:
            set_writeable(model, False)
            yield Shared(iteration, bring_together)
        finally:
            failed(Stopped())
            if len(errors) == 1:
                bring_together()
            model.done = together
            set_writeable(model, True)


def set_writeable(model: WGANGP, on: bool) -> None:
    for x in model.state().values():
        x.array.flags.writeable = on
