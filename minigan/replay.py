"""An iteration recorded once, and replayed from then on.

A training iteration calls the same array functions on arrays of the same shapes each time. So one is recorded: on the
CPU as a list of those calls into ready buffers (``Record``), on the GPU as a CUDA graph (``Graph``). From then on the
record is replayed: no Tensor, no allocation, no Python but a loop.

Whatever depends on more than the arrays of ``Model.state`` and the draws of ``Model.rng`` is frozen into the record, in
silence: a number read off an array, another generator's draw, a call that went unseen. So a record proves itself before
it is relied on: from one state, an iteration as it is and a replayed one must come to the same (``Replayed``).
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import numpy

from . import backend
from .backend import Array
from .record import Record, Unrecordable
from .tensor import Tensor


class Model(Protocol):
    """What can be replayed: ``steps`` changes the arrays of ``state()``, in place, and draws from ``rng``."""

    rng: Any

    def steps(self) -> Array: ...

    def state(self) -> dict[str, Tensor]: ...


class Replayed:
    """``model.steps``, to be called many times over: at first as it is, then recorded, then proven, then replayed.

    A recording runs the iteration, and is undone. It proves itself in the next one, from another state: what is frozen
    would be right in its own. Returns what ``steps`` does, an array, which the next call may overwrite. Where no record
    can be made, or where it fails its proof, a warning of one line says so, and all goes on as it is.
    """

    def __init__(self, model: Model) -> None:
        self.model, self.state = model, model.state()
        self.record: Record | Graph = Record() if backend.xp is numpy else Graph()
        self.calls = 0
        self.proven = self.refused = False

    def __call__(self) -> Array:
        self.calls += 1
        if self.proven:
            return self._replay()
        if not self.refused and self.calls > self.record.warm_up:
            before = self._snapshot()
            try:
                if self.calls == self.record.warm_up + 1:
                    self._record()
                else:
                    return self._prove(before)
            except Unrecordable as error:
                warnings.warn(f"iterations are not replayed, but run as they are: {error}", stacklevel=2)
                self.refused = True
            self._restore(before)
        return self.record.run(self.model.steps)

    def _record(self) -> None:
        self.arrays = {name: tensor.data for name, tensor in self.state.items()}
        self.record.make(self.model, self.state)

    def _replay(self) -> Array:
        for name, tensor in self.state.items():
            if tensor.data is not self.arrays[name]:  # somebody assigned another; the record goes on with its own
                self.arrays[name][...] = tensor.data
            tensor.data = self.arrays[name]
        return self.record.replay()

    def _prove(self, before: dict[str, Any]) -> Array:
        """An iteration as it is and a replayed one, from the same state. Raises Unrecordable where they differ."""
        expected = {"what it returns": self.record.run(self.model.steps).copy(), **self._snapshot()}
        self._restore(before)
        try:
            got = {"what it returns": self._replay(), **self._snapshot()}
        except Exception as error:  # whatever a wrong record does
            raise Unrecordable(f"a replayed one ends in {type(error).__name__} ({error})") from None
        for name in expected:
            if not self.record.same(expected[name], got[name]):
                raise Unrecordable(f"a replayed one comes to another result in {name}")
        self.proven = True
        return got["what it returns"]

    def _snapshot(self) -> dict[str, Any]:
        arrays = {name: tensor.data.copy() for name, tensor in self.state.items()}
        return {**arrays, "the random generator": backend.rng_state(self.model.rng)}

    def _restore(self, snapshot: dict[str, Any]) -> None:
        for name, tensor in self.state.items():
            tensor.data[...] = snapshot[name]
        backend.set_rng_state(self.model.rng, snapshot["the random generator"])


class Graph:
    """All kernels of an iteration in one launch.

    CuPy refuses to record cuBLAS (cupy/cupy#6290), so cuTENSOR multiplies matrices here. Raises DeviceError without it.
    """

    warm_up = 3  # kernels are compiled, and products planned

    def __init__(self) -> None:
        cuda = backend.xp.cuda
        self._matmul = backend.cutensor_matmul()
        # The graph goes on using the addresses that it saw, so they come from a pool that nobody else allocates from.
        self._stream, self._pool = cuda.Stream(non_blocking=True), cuda.MemoryPool()

    @contextmanager
    def _aside(self) -> Iterator[None]:
        cuda = backend.xp.cuda
        cuda.Device().synchronize()
        before, backend.matmul = backend.matmul, self._matmul
        try:
            with self._stream, cuda.using_allocator(self._pool.malloc):
                yield
        finally:
            backend.matmul = before
            self._stream.synchronize()

    def run(self, steps: Callable[[], Array]) -> Array:
        with self._aside():
            return steps()

    def make(self, model: Model, state: dict[str, Tensor]) -> None:
        """Capture ``model.steps()``, which runs nothing yet. Raises Unrecordable."""
        try:
            with self._aside():
                self._stream.begin_capture()
                try:
                    self.result = model.steps()
                except BaseException:
                    with suppress(RuntimeError):  # of a capture cut short; what cut it short matters
                        self._stream.end_capture()
                    raise
                self._graph = self._stream.end_capture()
        except RuntimeError as error:
            raise Unrecordable(f"no CUDA graph can be captured ({backend.first_line(error)})") from None

    def replay(self) -> Array:
        self._graph.launch()
        return self.result

    @staticmethod
    def same(x: Array, y: Array) -> bool:
        """To rounding, which differs between kernels."""
        x, y = (backend.to_numpy(a).astype("float64") for a in (x, y))
        return bool(numpy.linalg.norm(x - y) <= 1e-3 * numpy.linalg.norm(x))
