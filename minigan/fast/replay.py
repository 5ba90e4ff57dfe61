"""A training iteration that is recorded once, and replayed from then on.

A training iteration calls the same kernels on arrays of the same shapes each time. So one iteration is recorded
(``record``), and the recorded program is called from then on: no Tensors, no sweeps, no branches. On a GPU the record
may be a CUDA graph instead.

    replayed = Replayed(model)
    replayed.iteration()  # as model.iteration(); the first call makes a record, the second proves it

A record is proven before its first use, again at iterations 4, 8, 16, ..., and every thousand. From one saved state, a
replayed and an ordinary iteration must give the same, bit for bit (on a GPU, up to rounding):

    before = saved(model)
    replayed = record.replay(), saved(model)
    put_back(model, before)
    assert same((model.device_steps(), saved(model)), replayed)    # else a warning, and no replays

A model can be replayed if its ``device_steps()`` change the arrays of its ``state()`` in place and draw from its
``rng``. All else that the model depends on is fixed in a record. So its ``dependencies`` are compared before each
replay; if one is another object, the iteration runs as it is, and the next one makes a new record:

    model.game = GAMES["hinge"]

Only kernels may depend on the values in arrays. Not seen before the next proof: a branch outside of kernels that reads
an array with NumPy; and a change of what is behind one of these objects, as a number that a penalty's closure, globals,
a dict, or a layer within a layer holds, or an entry of WHERE. Another object renews the record:

    model.penalty = lambda s: ops.mean((s - 2) ** 2)
"""

import pickle
import warnings
from collections.abc import Callable
from contextlib import suppress
from operator import is_
from typing import Any

import numpy

from .. import backend
from ..backend import Array
from ..guards import note_write
from ..tensor import Switch, Tensor
from .record import Tape, Unrecordable

PROVE_EVERY = 1000


def dependencies(model: Any) -> list[Any]:
    """All objects that ``device_steps`` depends on, besides the numbers in arrays: a record is for these alone."""
    networks, adams = (model.critic, model.generator, model.ema), (model.critic_adam, model.generator_adam)
    owners = [*adams, *networks, *(layer for net in networks for layer in net.layers)]
    held = [x for name, x in vars(model).items() if name != "done"]
    held += [x for owner in owners for x in (type(owner), *vars(owner).values())]
    tensors = [x for adam in adams for x in (*adam.parameters, *adam.m, *adam.v)]
    tensors += [x for x in held if isinstance(x, Tensor)]
    return [*held, *tensors, *(x.array for x in tensors)]


def saved(model: Any) -> dict[str, Any]:
    """A copy of all that ``device_steps`` changes, for ``put_back``: the arrays, and the state of ``rng``."""
    return {name: x.array.copy() for name, x in model.state().items()} | {"the draws": backend.rng_state(model.rng)}


def put_back(model: Any, before: dict[str, Any]) -> None:
    model.restore(before)
    backend.set_rng_state(model.rng, before["the draws"])


class Replayed:
    """A model whose iterations are replayed: by a ``Program``, or, with ``graph``, by a CUDA graph.

    If no record can be made, or a record fails a proof, there is a one-line warning, the changes by the record are
    undone, and all further iterations run without a record.
    """

    def __init__(self, model: Any, graph: bool = False) -> None:
        if graph:
            cutensor_matmul()  # raises its error at once
        self.model, self._kind = model, Graph if graph else Program
        self._begin()

    def _begin(self) -> None:
        self._dependencies, self._tensors = dependencies(self.model), list(self.model.state().values())
        self._calls, self.stage = 0, self._make
        self.record: Any = None

    @property
    def proven(self) -> bool:
        return self.stage == self._replay

    def iteration(self) -> Array:
        """An iteration of the model, in one of four stages: a record is made, is proven, replays, or is refused."""
        self.model.prepare()
        now = dependencies(self.model)
        if len(now) != len(self._dependencies) or not all(map(is_, now, self._dependencies)):
            self._begin()
            return self.model.device_steps()
        self._calls += 1
        return self.stage()

    def _make(self) -> Array:
        before = saved(self.model)
        try:
            self.record = self._kind(self.model)
            self.stage = self._prove
        except (Unrecordable, SyntaxError) as error:  # SyntaxError: an argument of a kernel has no literal
            self._refuse(str(error))
        put_back(self.model, before)
        return self.model.device_steps()

    def _prove(self) -> Array:
        """Compare a replayed and an ordinary iteration from one state."""
        model, before, again = self.model, saved(self.model), self.proven
        got, why = dict[str, Any](), ""
        try:
            got = {"what it returns": self.record.replay().copy(), **saved(model)}
        except Exception as error:  # a wrong record may raise anything
            why = f"a replayed one ends in {type(error).__name__} ({error})"
        put_back(model, before)
        returned = model.device_steps()
        for name, x in {"what it returns": returned, **saved(model)}.items():
            if not why and not _same(x, got[name]):
                why = f"a replayed one comes to another result in {name}"
        self.stage = self._replay
        if why:
            self._refuse(f"{why}{'; so may have been those since the proof before' if again else ''}")
        return returned

    def _replay(self) -> Array:
        if self._calls % PROVE_EVERY == 0 or self._calls & (self._calls - 1) == 0:
            return self._prove()
        note_write(*self._tensors)
        return self.record.replay()

    def _plain(self) -> Array:
        return self.model.device_steps()

    def _refuse(self, why: str) -> None:
        warnings.warn(f"iterations are not replayed, but run as they are: {why}", stacklevel=4)
        self.stage = self._plain


class Program:
    """The kernels of an iteration as a compiled function; ``str`` of a Program is its source.

    If it is to be ``readable``, it has the names of the variables of ``training``, and its lines as headings.
    """

    def __init__(self, model: Any, readable: bool = False) -> None:
        arrays = {name.replace(".", "_"): tensor.array for name, tensor in model.state().items()}
        tape = Tape({"rng": model.rng, **arrays}, readable)
        with Switch(backend.tape, tape):
            returned = model.device_steps()
        self.functions, self.given, self._source = tape.functions, tape.given, tape.source(returned)
        scope: dict[str, Any] = {"inf": float("inf"), "nan": float("nan"), **tape.functions}
        exec(compile(tape.source(returned, forget=True), "<an iteration>", "exec"), scope)
        self._function = scope["iteration"]

    def replay(self) -> Array:
        return self._function(*self.given.values())

    def __str__(self) -> str:
        return self._source


class Graph:
    """All kernels of an iteration in one launch, as a CUDA graph.

    CuPy refuses to record cuBLAS (cupy/cupy#6290): cuTENSOR multiplies matrices. Raises DeviceError without cuTENSOR.
    """

    def __init__(self, model: Any) -> None:
        cuda, before = backend.xp.cuda, backend.matmul
        # The graph keeps using the addresses of its arrays, so these come from a pool that nothing else allocates from.
        stream, self._pool = cuda.Stream(non_blocking=True), cuda.MemoryPool()
        cuda.Device().synchronize()
        try:
            backend.matmul = cutensor_matmul()
            with stream, cuda.using_allocator(self._pool.malloc):
                for _ in range(3):  # compiles the kernels, and plans the products
                    model.device_steps()
                stream.begin_capture()
                try:
                    self._result = model.device_steps()
                except BaseException:
                    with suppress(RuntimeError):  # of the broken capture; the first error matters
                        stream.end_capture()
                    raise
                self._graph = stream.end_capture()
        except RuntimeError as error:
            raise Unrecordable(f"no CUDA graph can be captured ({backend.first_line(error)})") from None
        finally:
            backend.matmul = before
            stream.synchronize()

    def replay(self) -> Array:
        self._graph.launch()
        return self._result


def cutensor_matmul() -> Callable[[Array, Array], Array]:
    """A matrix product by cuTENSOR, which a CUDA graph can record. Raises DeviceError where cuTENSOR is missing."""
    with suppress(Exception):  # CuPy finds cuTENSOR's main library, which needs this second library
        from cuda.pathfinder import load_nvidia_dynamic_lib

        load_nvidia_dynamic_lib("cutensorMg")
    try:
        from cupyx import cutensor
    except ImportError as error:
        raise backend.DeviceError(
            f"a CUDA graph needs cuTENSOR, which does not import ({backend.first_line(error)}); it comes with: pip"
            " install cutensor-cu13 (for a driver of CUDA 12: cutensor-cu12)"
        ) from None

    def matmul(x: Array, y: Array) -> Array:
        if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[0]:
            return backend.xp.matmul(x, y)
        x, y = (a.copy() if 0 in a.strides else a for a in (x, y))  # cuTENSOR refuses to read a row twice
        out = backend.xp.empty((x.shape[0], y.shape[1]), x.dtype)
        return cutensor.contraction(1.0, x, "ik", y, "kj", 0.0, out, "ij")

    return matmul


def _same(x: Any, y: Any) -> bool:
    """Whether x and y are equal: bit for bit on the CPU; on a GPU up to rounding, which differs between kernels."""
    if backend.xp is numpy or not isinstance(x, backend.xp.ndarray):
        return pickle.dumps(x) == pickle.dumps(y)
    x, y = (backend.to_numpy(a).astype("float64") for a in (x, y))
    return bool(numpy.linalg.norm(x - y) <= 1e-3 * numpy.linalg.norm(x))
