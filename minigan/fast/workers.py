"""An iteration shared by processes: each computes on its rows of every batch, and updates its share of the parameters.

Worker 0 of 2, for batches of 64 rows and n parameters:

    gradients[0] = grad(loss(batch[:32]), parameters)       # worker 1 takes batch[32:]; then both wait
    parameters[: n // 2] -= step(mean(gradients)[: n // 2])  # worker 1 takes [n // 2 :]; then both wait

So processes wait for each other twice in each Adam step, twelve times in an iteration of the article's program; threads
of a matrix product would wait in every product. Every worker is a whole model, of which three things are replaced:

- its random generator draws for all workers, and returns this worker's rows of each batch, so that the batches are the
  same for any number of workers;
- its parameters and moments lie in memory that all workers share, one flat array each;
- its Adam step hands out the worker's gradients, waits for those of the others, and updates a piece of the flat arrays
  by the mean of all.
"""

import multiprocessing
import os
import pickle
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import numpy

from .. import backend, guards
from ..backend import Array, kernel
from ..data import sampler
from ..settings import Settings
from ..training import WGANGP
from .replay import Replayed, put_back, saved
from .threads import use_threads

ENDS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]  # ask to end
ROWS = 16  # of a batch, at least, for each worker: all of the Python code takes as long for fewer
SPINS = 300
PATIENCE = 1.0  # seconds between two checks that the others are alive


class WorkersLost(RuntimeError):
    """A worker has ended, or has drawn other random numbers than the others; the message says which."""


class Shared(NamedTuple):
    """The memory that workers share: flat arrays, and a semaphore for each worker to wait on."""

    semaphores: list[Any]
    networks: dict[str, list[Any]]  # parameters, first and second moments, and each worker's gradients, float32
    metrics: Any  # L1, the mean slope, and the state of the draws, of each worker, float64
    running: Any  # 0 once training is over
    message: Any  # the error that ended a worker, if known


def shared_by(number: int, model: WGANGP, context: Any) -> Shared:
    sizes = {name: sum(p.array.size for p in adam.parameters) for name, adam in _adams(model).items()}
    networks = {name: [context.RawArray("f", n) for _ in range(3 + number)] for name, n in sizes.items()}
    semaphores = [context.Semaphore(0) for _ in range(number)]
    metrics, running, message = context.RawArray("d", 3 * number), context.RawValue("i", 1), context.RawArray("c", 300)
    return Shared(semaphores, networks, metrics, running, message)


def _adams(model: WGANGP) -> dict[str, Any]:
    return {"critic": model.critic_adam, "generator": model.generator_adam}


class Rows:
    """A random generator that draws for ``number`` workers, and returns the rows of the worker ``rank``.

    The first axis of a requested shape counts rows; for several batches, a worker gets ``n`` rows of each:

        Rows(rng, rank=1, number=2, n=2).random(4)    # d[2:4] and d[6:8], for d = rng.random(8): two batches of 4
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


def join(
    model: WGANGP, shared: Shared, rank: int, check_alive: Callable[[], None], replay: bool = True
) -> WGANGP | Replayed:
    """Make ``model`` one of the workers; ``check_alive`` raises, or ends the process, if another worker has ended.

    Returns what has its iterations: a model that replays, or the model itself.
    """
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

    metrics_of, steps = model.metrics, model.device_steps

    @kernel
    def note(*seen: Array) -> None:  # read after the generator's step, in which all workers meet
        metrics[rank] = *metrics_of(*seen), model.rng.bit_generator.state["state"]["state"] % 2**50

    @kernel
    def mean_metrics() -> Array:
        l1, slope, draws = metrics.T
        if (draws != draws[0]).any():
            raise WorkersLost("two workers have drawn other random numbers: they no longer train on the same batches")
        return numpy.array((l1.mean(), slope.mean()), "float32")

    def all_steps() -> Array:
        steps()
        return mean_metrics()

    def put_back_together(model: WGANGP, before: dict[str, Any]) -> None:
        meet()  # nobody writes before all have saved theirs
        put_back(model, before)
        meet()

    vars(model).update(metrics=note, device_steps=all_steps)
    if not replay:
        return model
    replayed = Replayed(model)
    replayed._put_back = put_back_together
    return replayed


def lay_out(tensors: list[Any], flat: Array, write: bool) -> None:
    """Make the Tensors' arrays consecutive pieces of ``flat``; with ``write`` copy their values there first."""
    at = 0
    for x in tensors:
        piece = flat[at : at + x.array.size].reshape(x.shape)
        if write:
            piece[...] = x.array
        x.data, at = piece, at + x.array.size


def together(
    adam: Any, p: Array, m: Array, v: Array, gradients: list[Array], rank: int, meet: Callable[[], None]
) -> Callable[[list[Any]], None]:
    """An ``Adam.step`` by the mean gradient of all workers, in which each updates its share of the parameters."""
    ends = [len(p) * i // len(gradients) for i in (rank, rank + 1)]
    share, total = slice(*ends), numpy.empty(ends[1] - ends[0], "float32")

    @kernel
    def step_together(gs: list[Array], t: Array, rate: Array) -> None:
        numpy.concatenate([g.ravel() for g in gs], out=gradients[rank])
        meet()
        numpy.add(gradients[0][share], gradients[1][share], out=total)
        for other in gradients[2:]:
            numpy.add(total, other[share], out=total)
        numpy.multiply(total, 1 / len(gradients), out=total)
        backend.adam_step([total], [p[share]], [m[share]], [v[share]], t, rate, adam.betas, adam.eps)
        meet()

    def step(grads: list[Any]) -> None:
        grads = guards.checked_gradients(grads, adam.parameters, [*adam.m, *adam.v])
        step_together([g.array for g in grads], adam.t.array, adam.rate.array)
        guards.note_write(*adam.parameters, *adam.m, *adam.v, adam.t)

    return step


def wait(semaphore: Any, check_alive: Callable[[], None]) -> None:
    """Poll for a while, since waking up takes about as long; then sleep, to free the processor."""
    for _ in range(SPINS):
        if semaphore.acquire(False):
            return
    while not semaphore.acquire(True, PATIENCE):
        check_alive()


# --- Processes ----------------------------------------------------------------------------------


def workers_for(settings: Settings, most: int) -> int:
    """The largest number of workers, up to ``most``, that divides the batch evenly, into ``ROWS`` rows or more each."""
    try:
        import multiprocessing.synchronize  # noqa: F401 (missing on some systems: one process there)
    except ImportError:
        return 1
    batch = settings.batch_size
    return max(n for n in range(1, most + 1) if n == 1 or (batch % n == 0 and batch >= ROWS * n))


@contextmanager
def sharing(model: WGANGP, images: numpy.ndarray, number: int, threads: int, replay: bool = True) -> Iterator[Any]:
    """Yields an object whose every ``iteration()`` is the model's, shared by ``number`` processes.

    Each has ``threads`` threads. ``images`` (n, height, width), uint8, are the model's real images. Raises WorkersLost
    if a worker has ended.
    """
    if model.batch_size % number:
        raise ValueError(f"{number} workers cannot share batches of {model.batch_size} rows evenly")
    context = multiprocessing.get_context("spawn")
    with undisturbed():
        if os.name == "posix":
            from multiprocessing import resource_tracker

            resource_tracker.ensure_running()  # it removes the semaphores, should this process be killed
        shared, pixels = shared_by(number, model, context), context.RawArray("B", images.size)
    numpy.frombuffer(pixels, "uint8")[:] = images.ravel()
    state = context.RawArray("B", pickle.dumps(saved(model)))
    begin = (model.settings, pixels, images.shape, replay, threads, state, model.done)
    others = [context.Process(target=work, args=(shared, rank, *begin), daemon=True) for rank in range(1, number)]

    def check_alive() -> None:
        for process in others:
            if process.exitcode is not None:
                why = shared.message.value.decode(errors="replace") or f"with status {process.exitcode}"
                raise WorkersLost(f"a worker has ended, {why}")

    before = {owner: dict(vars(owner)) for owner in (model, *_adams(model).values())}
    joined = join(model, shared, 0, check_alive, replay)

    def iteration() -> Array:
        for semaphore in shared.semaphores[1:]:
            semaphore.release()
        return joined.iteration()

    try:
        with undisturbed(), alone():
            for process in others:
                process.start()
        for _ in others:
            wait(shared.semaphores[0], check_alive)  # all workers are ready
        with use_threads(threads):
            yield SimpleNamespace(iteration=iteration)
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
        for name in ("rng", "batch_size", "metrics"):
            setattr(model, name, before[model][name])
        for adam in _adams(model).values():
            for x in (*adam.parameters, *adam.m, *adam.v):
                x.data = x.array.copy()


@contextmanager
def undisturbed() -> Iterator[None]:
    """Processes started inside block the signals of a terminal or system to end: the first process handles these."""
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
    """Processes started inside import this module only, and not the main program again."""
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
    done: int,
) -> None:
    """The main function of a worker process: runs an iteration whenever the first process begins one."""
    for number in ENDS:
        signal.signal(number, signal.SIG_IGN)  # the first process handles it, and ends the others
    warnings.simplefilter("ignore")  # the first process gives the same warnings
    use_threads(threads)
    images = numpy.frombuffer(pixels, "uint8").reshape(shape)
    model = WGANGP(settings, sampler(images), images[0].size)
    put_back(model, pickle.loads(state))
    model.done = done

    parent: Any = multiprocessing.parent_process()

    def check_alive() -> None:
        if not (parent.is_alive() and shared.running.value):
            os._exit(1)

    joined = join(model, shared, rank, check_alive, replay)
    shared.semaphores[0].release()
    try:
        with numpy.errstate(over="ignore", invalid="ignore"):
            while True:
                wait(shared.semaphores[rank], check_alive)
                if not shared.running.value:
                    return
                joined.iteration()
    except Exception as error:
        shared.message.value = f"with {type(error).__name__}: {error}".encode()[:299]
        os._exit(1)
