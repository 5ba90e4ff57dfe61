"""An iteration shared by processes: each computes on its rows of every batch, and updates its share of the parameters.

Worker 0 of 2, for batches of 64 rows and n parameters:

    gradients[0] = grad(loss(batch[:32]), parameters)       # worker 1 takes batch[32:]; then both wait
    parameters[: n // 2] -= step(mean(gradients)[: n // 2])  # worker 1 takes [n // 2 :]; then both wait

So processes wait for each other twice in each Adam step, twelve times in an iteration of the article's program; threads
of a matrix product would wait in every product. A ``Worker`` is a model like any other, but for what it is made of:

- its random generator draws for all workers, and returns this worker's rows of each batch, so that the batches are the
  same for any number of workers;
- its parameters and moments lie in memory that all workers share, one flat array each;
- its Adam applies an update by the mean gradient of all workers, each to a piece of the flat arrays.
"""

import multiprocessing
import os
import pickle
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import numpy

from .. import backend
from ..backend import Array, kernel
from ..data import sampler
from ..optim import Adam
from ..settings import Settings
from ..training import WGANGP
from .replay import Replayed, saved
from .threads import use_threads

ENDS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)
]  # ask to end
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
    """Memory for so many workers, which from now on holds the model's parameters and moments."""
    sizes = {name: sum(p.array.size for p in adam.parameters) for name, adam in _adams(model).items()}
    networks = {name: [context.RawArray("f", n) for _ in range(3 + number)] for name, n in sizes.items()}
    for name, adam in _adams(model).items():
        lay_out(adam, networks[name], write=True)
    semaphores = [context.Semaphore(0) for _ in range(number)]
    metrics, running, message = context.RawArray("d", 3 * number), context.RawValue("i", 1), context.RawArray("c", 300)
    return Shared(semaphores, networks, metrics, running, message)


def _adams(model: WGANGP) -> dict[str, Adam]:
    return {"critic": model.critic_adam, "generator": model.generator_adam}


def lay_out(adam: Adam, memory: list[Any], write: bool = False) -> list[Array]:
    """Make parameters and moments pieces of shared memory, one flat array each; with ``write`` of their values there.

    Returns the flat arrays: parameters, first and second moments, and each worker's gradients.
    """
    flat = [numpy.frombuffer(x, "float32") for x in memory]
    for tensors, whole in zip((adam.parameters, adam.m, adam.v), flat):
        at = 0
        for x in tensors:
            piece = whole[at : at + x.array.size].reshape(x.shape)
            if write:
                piece[...] = x.array
            x.data, at = piece, at + x.array.size
    return flat


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


class Worker(WGANGP):
    """One of the workers: the same model as that of all others, on its rows of every batch.

    ``check_alive`` raises, or ends the process, if another worker has ended.
    """

    def __init__(
        self, settings: Settings, sample_real: Any, dim: int, shared: Shared, rank: int, check_alive: Callable[[], None]
    ) -> None:
        super().__init__(settings, sample_real, dim)
        self.semaphores, self.rank, self.check_alive = shared.semaphores, rank, check_alive
        number = len(shared.semaphores)
        self.batch_size //= number
        self.rng = Rows(self.rng, rank, number, self.batch_size)
        self.mean = mean_metrics(numpy.frombuffer(shared.metrics).reshape(number, 3), rank, self.meet, self.rng)
        for name, adam in _adams(self).items():
            adam.apply = update_together(*lay_out(adam, shared.networks[name]), rank=rank, meet=self.meet)

    def meet(self) -> None:
        """Wait for all workers."""
        for other, semaphore in enumerate(self.semaphores):
            if other != self.rank:
                semaphore.release()
        for _ in self.semaphores[1:]:
            wait(self.semaphores[self.rank], self.check_alive)

    def device_steps(self) -> Array:
        return self.mean(super().device_steps())

    def restore(self, arrays: dict[str, Array]) -> None:
        self.meet()  # nobody writes before all have saved theirs
        super().restore(arrays)
        self.meet()


def mean_metrics(metrics: Array, rank: int, meet: Callable[[], None], rng: Rows) -> Callable[[Array], Array]:
    """A kernel that writes a worker's metrics into its row of those of all, and returns their mean."""

    @kernel
    def mean(own: Array) -> Array:
        metrics[rank] = *own, rng.bit_generator.state["state"]["state"] % 2**50
        meet()
        l1, slope, draws = metrics.T
        if (draws != draws[0]).any():
            raise WorkersLost("two workers have drawn other random numbers: they no longer train on the same batches")
        return numpy.array((l1.mean(), slope.mean()), "float32")

    return mean


def update_together(
    p: Array, m: Array, v: Array, *gradients: Array, rank: int, meet: Callable[[], None]
) -> Callable[..., None]:
    """A kernel that applies an update of Adam by the mean gradient of all workers, to this worker's share of ``p``."""
    ends = [len(p) * i // len(gradients) for i in (rank, rank + 1)]
    share, total = slice(*ends), numpy.empty(ends[1] - ends[0], "float32")

    @kernel
    def update(
        gs: list[Array], ps: Any, ms: Any, vs: Any, t: Array, rate: Array, betas: tuple[float, float], eps: float
    ) -> None:
        numpy.concatenate([g.ravel() for g in gs], out=gradients[rank])
        meet()
        numpy.add(gradients[0][share], gradients[1][share], out=total)
        for other in gradients[2:]:
            numpy.add(total, other[share], out=total)
        numpy.multiply(total, 1 / len(gradients), out=total)
        backend.adam_step([total], [p[share]], [m[share]], [v[share]], t, rate, betas, eps)
        meet()

    return update


def wait(semaphore: Any, check_alive: Callable[[], None]) -> None:
    """Poll for a while, since waking up takes about as long; then sleep, to free the processor."""
    for _ in range(SPINS):
        if semaphore.acquire(False):
            return
    while not _acquired(semaphore):
        check_alive()


def _acquired(semaphore: Any) -> bool:
    """Whether the semaphore can be acquired within PATIENCE seconds."""
    if sys.platform != "darwin":
        try:
            return semaphore.acquire(True, PATIENCE)
        except InterruptedError:  # on Windows by Ctrl-C, although a handler has heard it
            return False
    end = time.monotonic() + PATIENCE  # macOS has no timed wait; Python's own looks every 20 ms
    while not (acquired := semaphore.acquire(False)) and time.monotonic() < end:
        time.sleep(1e-4)
    return acquired


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
    if sys.platform == "darwin":  # for Accelerate, which nobody can ask or tell later
        os.environ.setdefault("VECLIB_MAXIMUM_THREADS", str(threads))
    others = [context.Process(target=work, args=(shared, rank, *begin), daemon=True) for rank in range(1, number)]

    def check_alive() -> None:
        for process in others:
            if process.exitcode is not None:
                why = shared.message.value.decode(errors="replace") or f"with status {process.exitcode}"
                raise WorkersLost(f"a worker has ended, {why}")

    first = Worker(model.settings, model.sample_real, images[0].size, shared, 0, check_alive)
    first.rng.rng, first.done = model.rng, model.done
    for x, whole in zip(first.state().values(), model.state().values()):
        x.data = whole.array  # so that whoever looks at the model sees it trained
    trained = Replayed(first) if replay else first

    def iteration() -> Array:
        for semaphore in shared.semaphores[1:]:
            semaphore.release()
        metrics = trained.iteration()
        model.done = first.done
        return metrics

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
        for x in model.state().values():
            x.data = x.array.copy()  # its own again


@contextmanager
def undisturbed() -> Iterator[None]:
    """Processes started inside block the signals of a terminal or system to end: the first process handles these."""
    if hasattr(signal, "pthread_sigmask"):
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    elif sys.platform == "win32":
        import ctypes

        ignore_ctrl_c = ctypes.windll.kernel32.SetConsoleCtrlHandler
        ignore_ctrl_c(None, True)  # which processes inherit
        try:
            yield
        finally:
            ignore_ctrl_c(None, False)
    else:
        yield


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
    parent: Any = multiprocessing.parent_process()

    def check_alive() -> None:
        if not (parent.is_alive() and shared.running.value):
            os._exit(1)

    images = numpy.frombuffer(pixels, "uint8").reshape(shape)
    model = Worker(settings, sampler(images), images[0].size, shared, rank, check_alive)
    before = pickle.loads(state)
    WGANGP.restore(model, before)  # alone: nobody meets yet
    backend.set_rng_state(model.rng, before["the draws"])
    model.done = done
    trained = Replayed(model) if replay else model
    shared.semaphores[0].release()
    try:
        with numpy.errstate(over="ignore", invalid="ignore"):
            while True:
                wait(shared.semaphores[rank], check_alive)
                if not shared.running.value:
                    return
                trained.iteration()
    except Exception as error:
        shared.message.value = f"with {type(error).__name__}: {error}".encode()[:299]
        os._exit(1)
