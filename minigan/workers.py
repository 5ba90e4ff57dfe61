"""One iteration shared by processes: each takes its rows of every batch, and steps its share of the parameters.

Two processes meet twice for each Adam step, twelve times in an iteration of the article's; two threads of a matrix
product would meet in every product. Every worker is a whole model, which knows nothing of the others:

- its generator of random numbers draws for all, and gives it its rows of each batch, so that the batches are the same
  ones for any number of workers;
- its parameters and moments lie in memory that all of them see, one flat array each;
- where Adam would step, it hands its gradients out, waits for the others', and moves a piece of the flat arrays by the
  mean of them all.
"""

import multiprocessing
import os
import pickle
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NamedTuple

import numpy

from . import backend, guards
from .backend import Array, kernel
from .cli import ENDS, use_threads
from .data import sampler
from .settings import Settings
from .training import WGANGP

ROWS = 16  # of a batch, at least, that are worth another worker, which runs all the same Python
SPINS = 300
PATIENCE = 1.0  # seconds between two looks whether the others still live


class WorkersLost(RuntimeError):
    """A worker has ended, or has come to other numbers than the others; the message says which."""


class Shared(NamedTuple):
    """What the workers have in common: flat arrays in shared memory, and a semaphore for each to wait by."""

    semaphores: list[Any]
    networks: dict[str, list[Any]]  # parameters, first and second moments, and each worker's gradients, float32
    metrics: Any  # L1, the mean slope, and a checksum of the draws, of each worker, float64
    running: Any  # 0 once all is over
    message: Any  # why a worker has ended, if it can say


def shared_by(number: int, model: WGANGP, context: Any) -> Shared:
    sizes = {name: sum(p.data.size for p in adam.parameters) for name, adam in _adams(model).items()}
    networks = {name: [context.RawArray("f", n) for _ in range(3 + number)] for name, n in sizes.items()}
    semaphores = [context.Semaphore(0) for _ in range(number)]
    metrics, running, message = context.RawArray("d", 3 * number), context.RawValue("i", 1), context.RawArray("c", 300)
    return Shared(semaphores, networks, metrics, running, message)


def _adams(model: WGANGP) -> dict[str, Any]:
    return {"critic": model.critic_adam, "generator": model.generator_adam}


class Rows:
    """A generator of random numbers that draws for ``number`` workers, and returns the rows of one of them.

    Of a draw for several batches of ``n`` rows, a share of each: the first axis of what is asked for counts the rows.
    """

    def __init__(self, rng: Any, rank: int, number: int, n: int) -> None:
        self.rng, self.rank, self.number, self.n = rng, rank, number, n

    @property
    def bit_generator(self) -> Any:
        return self.rng.bit_generator

    def integers(self, low: int, high: int, size: int) -> Array:
        return self._mine(lambda shape: self.rng.integers(low, high, size=shape), size)

    def random(self, size: Any, dtype: str = "float64") -> Array:
        return self._mine(lambda shape: self.rng.random(shape, dtype=dtype), size)

    def standard_normal(self, size: Any, dtype: str = "float64") -> Array:
        return self._mine(lambda shape: self.rng.standard_normal(shape, dtype=dtype), size)

    def _mine(self, draw: Callable[[tuple], Array], size: Any) -> Array:
        rows, *others = size if isinstance(size, tuple) else (size,)
        drawn = draw((rows * self.number, *others)).reshape(-1, self.number, self.n, *others)
        return numpy.ascontiguousarray(drawn[:, self.rank]).reshape(rows, *others)


def join(model: WGANGP, shared: Shared, rank: int, check_alive: Callable[[], None]) -> None:
    """Let ``model`` be one of the workers; ``check_alive`` raises, or ends the process, where another one has ended."""
    number = len(shared.semaphores)
    metrics = numpy.frombuffer(shared.metrics).reshape(number, 3)

    def meet() -> None:
        for other in range(number):
            if other != rank:
                shared.semaphores[other].release()
        for _ in range(number - 1):
            wait(shared.semaphores[rank], check_alive)

    model.batch_size //= number
    model.rng = Rows(model.rng, rank, number, model.batch_size)
    for name, adam in _adams(model).items():
        p, m, v, *gradients = (numpy.frombuffer(x, "float32") for x in shared.networks[name])
        for tensors, flat in ((adam.parameters, p), (adam.m, m), (adam.v, v)):
            lay_out(tensors, flat, write=rank == 0)
        adam.step = together(adam, p, m, v, gradients, rank, meet)

    critic_step, steps, put_back = model.critic_step, model.device_steps, model.put_back

    @kernel
    def note(mine: Array) -> None:
        metrics[rank] = *mine, model.rng.bit_generator.state["state"]["state"] % 2**50

    @kernel
    def mean_figures() -> Array:
        l1, slope, draws = metrics.T
        if (draws != draws[0]).any():
            raise WorkersLost("two workers have drawn other random numbers: they no longer train on the same batches")
        return numpy.array((l1.mean(), slope.mean()), "float32")

    def noted(real: Array, fake: Array) -> Array:
        mine = critic_step(real, fake)
        note(mine)  # all have, once the generator has stepped
        return mine

    def all_steps() -> Array:
        steps()
        return mean_figures()

    def put_back_together(snapshot: dict[str, Any]) -> None:
        meet()  # all have read what they will write to
        put_back(snapshot)
        meet()

    vars(model).update(critic_step=noted, device_steps=all_steps, put_back=put_back_together)


def lay_out(tensors: list[Any], flat: Array, write: bool) -> None:
    """Let the Tensors' arrays be pieces of ``flat``, one after the other, after what they hold is written there."""
    at = 0
    for x in tensors:
        piece = flat[at : at + x.data.size].reshape(x.shape)
        if write:
            piece[...] = x.data
        x.data, at = piece, at + x.data.size


def together(
    adam: Any, p: Array, m: Array, v: Array, gradients: list[Array], rank: int, meet: Callable[[], None]
) -> Callable[[list[Any]], None]:
    """An ``Adam.step`` by the mean gradient of all workers, of which each moves its share of the parameters."""
    ends = [len(p) * i // len(gradients) for i in (rank, rank + 1)]
    share, total = slice(*ends), numpy.empty(ends[1] - ends[0], "float32")

    @kernel
    def step_together(gs: list[Array], t: Array, rate: Array) -> None:
        numpy.concatenate([g.ravel() for g in gs], out=gradients[rank])
        meet()
        numpy.copyto(total, gradients[0][share])
        for other in gradients[1:]:
            numpy.add(total, other[share], out=total)
        numpy.multiply(total, 1 / len(gradients), out=total)
        backend.adam_step([total], [p[share]], [m[share]], [v[share]], t, rate, adam.betas, adam.eps)
        meet()

    def step(grads: list[Any]) -> None:
        grads = guards.checked_gradients(grads, adam.parameters)
        step_together([g.data for g in grads], adam.t.data, adam.rate.data)
        guards.changed(*adam.parameters, *adam.m, *adam.v, adam.t)

    return step


def wait(semaphore: Any, check_alive: Callable[[], None]) -> None:
    """Try for a tenth of a millisecond, since to be woken takes half as long; then let others have the processor."""
    for _ in range(SPINS):
        if semaphore.acquire(False):
            return
    while not semaphore.acquire(True, PATIENCE):
        check_alive()


# --- Processes ----------------------------------------------------------------------------------


def workers_for(settings: Settings, most: int) -> int:
    """How many workers share an iteration, of at most ``most``: as divide the batch evenly, with ``ROWS`` for each."""
    try:
        import multiprocessing.synchronize  # noqa: F401 (some systems have none: there it is one process)
    except ImportError:
        return 1
    batch = settings.batch_size
    return max(n for n in range(1, most + 1) if n == 1 or (batch % n == 0 and batch >= ROWS * n))


@contextmanager
def sharing(model: WGANGP, images: numpy.ndarray, number: int, replay: bool | str, threads: int) -> Iterator[None]:
    """Inside, each ``model.iteration()`` is shared by ``number`` processes, each with so many ``threads``.

    ``images`` (n, height, width), uint8, are what the model draws from. Raises WorkersLost where one has ended.
    """
    if number == 1:
        yield
        return
    if model.batch_size % number:
        raise ValueError(f"{number} workers cannot share batches of {model.batch_size} rows evenly")
    context = multiprocessing.get_context("spawn")
    with undisturbed():
        shared, pixels = shared_by(number, model, context), context.RawArray("B", images.size)
    numpy.frombuffer(pixels, "uint8")[:] = images.ravel()
    state = context.RawArray("B", pickle.dumps(model.snapshot()))
    begin = (model.settings, pixels, images.shape, replay, threads, state, model.iterations)
    others = [context.Process(target=work, args=(shared, rank, *begin), daemon=True) for rank in range(1, number)]

    def check_alive() -> None:
        for process in others:
            if process.exitcode is not None:
                why = shared.message.value.decode(errors="replace") or f"with status {process.exitcode}"
                raise WorkersLost(f"a worker has ended, {why}")

    before = {owner: dict(vars(owner)) for owner in (model, *_adams(model).values())}
    join(model, shared, 0, check_alive)
    iteration = model.iteration

    def shared_iteration() -> Array:
        for semaphore in shared.semaphores[1:]:
            semaphore.release()
        return iteration()

    vars(model)["iteration"] = shared_iteration
    try:
        with undisturbed(), alone():
            for process in others:
                process.start()
        for _ in others:
            wait(shared.semaphores[0], check_alive)  # all are ready
        with use_threads(threads):
            yield
    finally:
        shared.running.value = 0
        for process, semaphore in zip(others, shared.semaphores[1:]):
            semaphore.release()
            if process.pid:
                process.join(1)
                process.kill()
        for owner, held in before.items():
            for name in vars(owner).keys() - held.keys():
                delattr(owner, name)
        model.rng, model.batch_size = before[model]["rng"], before[model]["batch_size"]
        for adam in _adams(model).values():
            for x in (*adam.parameters, *adam.m, *adam.v):
                x.data = x.data.copy()


@contextmanager
def undisturbed() -> Iterator[None]:
    """What is started inside hears of no end that a terminal or a system announces: the first process does."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def alone() -> Iterator[None]:
    """What is started inside imports this module only, and not the program over again that it was started by."""
    program, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = program


def work(
    shared: Shared,
    rank: int,
    settings: Settings,
    pixels: Any,
    shape: tuple[int, ...],
    replay: bool,
    threads: int,
    state: Any,
    iterations: int,
) -> None:
    """What a worker does, in a process of its own: an iteration whenever the first one begins one."""
    for number in ENDS:
        signal.signal(number, signal.SIG_IGN)  # the first one hears of it, and ends the others
    warnings.simplefilter("ignore")  # it says the same
    use_threads(threads)
    images = numpy.frombuffer(pixels, "uint8").reshape(shape)
    model = WGANGP(settings, sampler(images), images[0].size, replay)
    model.put_back(pickle.loads(state))
    model.iterations = iterations

    parent: Any = multiprocessing.parent_process()

    def check_alive() -> None:
        if not (parent.is_alive() and shared.running.value):
            os._exit(1)

    join(model, shared, rank, check_alive)
    shared.semaphores[0].release()
    try:
        with numpy.errstate(over="ignore", invalid="ignore"):
            while True:
                wait(shared.semaphores[rank], check_alive)
                if not shared.running.value:
                    return
                model.iteration()
    except Exception as error:
        shared.message.value = f"with {type(error).__name__}: {error}".encode()[:299]
        os._exit(1)
