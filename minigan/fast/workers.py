"""An iteration shared by processes: each trains its share of the hidden units (``columns``) on the same batches.

    with sharing(model, images, number=2, threads=1) as shared:
        shared.iteration()  # as model.iteration()
        shared.bring_together()  # the model's arrays are those of this iteration

The first process is one of the workers. The others wait for it before each iteration.
"""

import multiprocessing
import os
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
from ..backend import Array
from ..data import sampler
from ..guards import note_write
from ..settings import Settings
from ..training import WGANGP
from .columns import collectives, split
from .replay import Replayed
from .threads import use_threads

ENDS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)
]  # ask to end
SPINS = 3000  # a third of a millisecond: most waits are shorter, and to wake up takes a tenth
PATIENCE = 1.0  # seconds between two checks that the others are alive
END, ITERATE, BRING_TOGETHER = range(3)  # what the first process has the others do


class WorkersLost(RuntimeError):
    """A worker has ended, or has drawn other random numbers than the others; the message says which."""


class Shared(NamedTuple):
    """What workers share: memory, and a semaphore for each worker to wait on."""

    semaphores: list[Any]
    state: Any  # of the whole model, its arrays one behind the other
    tables: list[Any]  # two, for what they tell each other, float32
    order: Any  # END, ITERATE or BRING_TOGETHER
    draws: Any  # where the first process's random generator is
    message: Any  # the error that ended a worker, if known


def shared_by(number: int, model: WGANGP, dim: int, context: Any) -> Shared:
    """Memory for so many workers, which from now on holds the model's arrays."""
    s = model.settings
    generated, hidden = s.batch_size * s.critic_steps, max([1, *s.critic, *s.generator])
    summed = number * max(s.batch_size * dim, max(generated, 2 * s.batch_size) * hidden)
    tables = [context.RawArray("f", max(summed, generated * dim)) for _ in range(2)]
    state = context.RawArray("d", sum(-(-x.array.nbytes // 8) for x in model.state().values()))
    for x, place in zip(model.state().values(), laid_out(state, model)):
        place[...] = x.array
        x.array = place
    semaphores = [context.Semaphore(0) for _ in range(number)]
    order, draws, message = context.RawValue("i", ITERATE), context.RawValue("Q"), context.RawArray("c", 300)
    return Shared(semaphores, state, tables, order, draws, message)


def laid_out(memory: Any, model: WGANGP) -> list[Array]:
    """Arrays as those of the model's state, in shared memory."""
    at, arrays = 0, []
    for x in model.state().values():
        arrays.append(numpy.frombuffer(memory, x.dtype, x.array.size, 8 * at).reshape(x.shape))
        at += -(-x.array.nbytes // 8)
    return arrays


def drawn(rng: Any) -> int:
    """A number that tells where a random generator is in its sequence."""
    return rng.bit_generator.state["state"]["state"] % 2**64


def joined(
    model: WGANGP, shared: Shared, rank: int, check_alive: Callable[[], None]
) -> tuple[Callable[[], None], Callable[[], None]]:
    """Make a model a worker's: its arrays become its share of those in shared memory.

    Returns a function that waits for all workers, and one that writes the share back. ``check_alive`` raises, or ends
    the process, if another worker has ended.
    """
    number = len(shared.semaphores)

    def meet() -> None:
        for other, semaphore in enumerate(shared.semaphores):
            if other != rank:
                semaphore.release()
        for _ in range(number - 1):
            wait(shared.semaphores[rank], check_alive)

    for x, whole in zip(model.state().values(), laid_out(shared.state, model)):
        x.array = whole
    tables = [numpy.frombuffer(table, "float32") for table in shared.tables]
    return meet, split(model, rank, number, collectives(rank, number, tables, meet))


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


def can_share() -> bool:
    """Whether this system has the semaphores that processes wait on."""
    try:
        import multiprocessing.synchronize  # noqa: F401
    except ImportError:
        return False
    return True


@contextmanager
def sharing(model: WGANGP, images: numpy.ndarray, number: int, threads: int, replay: bool = True) -> Iterator[Any]:
    """Yields an object whose every ``iteration()`` is the model's, shared by ``number`` processes.

    Each has ``threads`` threads. ``images`` (n, height, width), uint8, are the model's real images. The arrays of the
    model itself are those of the last iteration after ``bring_together()``, and at the end. Raises WorkersLost if a
    worker has ended, and ValueError for spectral layers and for more workers than pixels.
    """
    dim = images[0].size
    if model.settings.constraint == "spectral":
        raise ValueError("spectral layers train in one process: each needs its whole weight")
    if number > dim:
        raise ValueError(f"{number} workers cannot share images of {dim} pixels")
    context = multiprocessing.get_context("spawn")
    with undisturbed():
        if os.name == "posix":
            from multiprocessing import resource_tracker

            resource_tracker.ensure_running()  # it removes the semaphores, should this process be killed
        shared, pixels = shared_by(number, model, dim, context), context.RawArray("B", images.size)
    numpy.frombuffer(pixels, "uint8")[:] = images.ravel()
    begin = (model.settings, pixels, images.shape, replay, threads, model.done, backend.rng_state(model.rng))
    if sys.platform == "darwin":  # for Accelerate, which nobody can ask or tell later
        os.environ.setdefault("VECLIB_MAXIMUM_THREADS", str(threads))
    others = [context.Process(target=work, args=(shared, rank, *begin), daemon=True) for rank in range(1, number)]

    def check_alive() -> None:
        for process in others:
            if process.exitcode is not None:
                why = shared.message.value.decode(errors="replace") or f"with status {process.exitcode}"
                raise WorkersLost(f"a worker has ended, {why}")

    first = WGANGP(model.settings, model.sample_real, dim)
    first.rng, first.done = model.rng, model.done
    meet, write_back = joined(first, shared, 0, check_alive)
    trained = Replayed(first) if replay else first

    def iteration() -> Array:  # in which all meet again, so that nobody misses an order
        shared.order.value, shared.draws.value = ITERATE, drawn(first.rng)
        meet()
        metrics = trained.iteration()
        model.done = first.done
        return metrics

    def bring_together() -> None:
        shared.order.value = BRING_TOGETHER
        meet()
        write_back()
        meet()
        note_write(*model.state().values())

    try:
        with undisturbed(), alone():
            for process in others:
                process.start()
        meet()  # all workers are ready
        with use_threads(threads):
            yield SimpleNamespace(iteration=iteration, bring_together=bring_together)
        bring_together()
    finally:
        shared.order.value = END
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
    done: int,
    draws: Any,
) -> None:
    """The main function of a worker process: does what the first process orders."""
    for number in ENDS:
        signal.signal(number, signal.SIG_IGN)  # the first process handles it, and ends the others
    warnings.simplefilter("ignore")  # the first process gives the same warnings
    use_threads(threads)
    parent: Any = multiprocessing.parent_process()

    def check_alive() -> None:
        if shared.order.value == END or not parent.is_alive():
            os._exit(1)

    images = numpy.frombuffer(pixels, "uint8").reshape(shape)
    model = WGANGP(settings, sampler(images), images[0].size)
    backend.set_rng_state(model.rng, draws)
    model.done = done
    meet, write_back = joined(model, shared, rank, check_alive)
    trained = Replayed(model) if replay else model
    meet()
    try:
        with numpy.errstate(over="ignore", invalid="ignore"):
            while True:
                meet()
                if shared.order.value == END:
                    return
                if shared.order.value == BRING_TOGETHER:
                    write_back()
                    meet()
                elif shared.draws.value != drawn(model.rng):
                    raise WorkersLost("two workers have drawn other random numbers: they train on other batches")
                else:
                    trained.iteration()
    except Exception as error:
        shared.message.value = f"with {type(error).__name__}: {error}".encode()[:299]
        os._exit(1)
