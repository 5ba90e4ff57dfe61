"""A training iteration that is recorded once, and replayed from then on.

A training iteration calls the same kernels on arrays of the same shapes each time. So one iteration is recorded
(``record``), and the recorded program is called from then on: no Tensors, no sweeps, no branches. On a GPU the record
may be a CUDA graph instead.

A record is proven before its first use, again at iterations 4, 8, 16, ..., and every thousand. From one saved state, a
replayed and an ordinary iteration must give the same, bit for bit (on a GPU, up to rounding):

    before = model.snapshot()
    replayed = record.replay(), model.snapshot()
    model.put_back(before)
    assert same((model.device_steps(), model.snapshot()), replayed)    # else a warning, and no replays

A model can be replayed if its ``device_steps()`` change the arrays of its ``state()`` in place and draw from its
``rng``, and if it can ``put_back`` a ``snapshot()`` of both. All else that the model depends on is fixed in a record.
So its ``dependencies()`` are compared before each replay; if one is another object, a new record is made:

    model.game = GAMES["hinge"]
    model.iteration()  # makes a new record

Only kernels may depend on the values in arrays. A branch outside of kernels that reads an array with NumPy, and has an
effect only between proofs, is not detected.
"""

import pickle
import warnings
from contextlib import suppress
from operator import is_
from typing import Any

import numpy

from . import backend
from .backend import Array
from .guards import changed
from .record import Tape, Unrecordable
from .tensor import Switch

PROVE_EVERY = 1000


class Replayed:
    """``model.device_steps()`` for many calls: the first makes a record, the second proves it, later ones replay it.

    If no record can be made, or a record fails a proof, there is a one-line warning, the changes by the record are
    undone, and all further calls run without a record. A copy begins without a record.
    """

    def __init__(self, graph: bool = False) -> None:
        if graph:
            backend.cutensor_matmul()  # raises its error at once
        self._kind, self._restless = Graph if graph else Program, False
        self._begin([])

    def __reduce__(self) -> tuple:
        return Replayed, (self._kind is Graph,)

    def _begin(self, dependencies: list[Any]) -> None:
        self._dependencies, self.calls, self.proven, self.refused = dependencies, 0, False, False
        self.recorded: Any = None

    def __call__(self, model: Any) -> Array:
        dependencies = model.dependencies()
        same = len(dependencies) == len(self._dependencies) and all(map(is_, dependencies, self._dependencies))
        if not (same or self._restless):
            self._restless = self.recorded is not None and not self.proven  # the last record was never used
            self._begin(dependencies)
            self._tensors = list(model.state().values())
            if self._restless:
                self._refuse("what they are made of is another each time")
        self.calls += 1
        if self.proven and self.calls % PROVE_EVERY and self.calls & (self.calls - 1):
            changed(*self._tensors)
            return self.recorded.replay()
        if not self.refused:
            before = model.snapshot()
            try:
                if self.recorded is None:
                    self.recorded = self._kind(model)
                else:
                    self._prove(model, before)
            except (Unrecordable, SyntaxError) as error:  # SyntaxError: an argument of a kernel has no literal
                self._refuse(f"{error}{'; so may have been those since the proof before' if self.proven else ''}")
            model.put_back(before)
        return model.device_steps()

    def _refuse(self, why: str) -> None:
        warnings.warn(f"iterations are not replayed, but run as they are: {why}", stacklevel=4)
        self.refused, self.proven = True, False

    def _prove(self, model: Any, before: dict[str, Any]) -> None:
        """Compare a replayed and an ordinary iteration from one state. Raises Unrecordable where they differ."""
        try:
            got = {"what it returns": self.recorded.replay().copy(), **model.snapshot()}
        except Exception as error:  # a wrong record may raise anything
            raise Unrecordable(f"a replayed one ends in {type(error).__name__} ({error})") from None
        model.put_back(before)
        expected = {"what it returns": model.device_steps(), **model.snapshot()}
        for name in expected:
            if not _same(expected[name], got[name]):
                raise Unrecordable(f"a replayed one comes to another result in {name}")
        self.proven = True


class Program:
    """The kernels of an iteration as a compiled function; ``str`` of a Program is its source."""

    def __init__(self, model: Any) -> None:
        arrays = {name.replace(".", "_"): tensor.array for name, tensor in model.state().items()}
        tape = Tape({"rng": model.rng, **arrays})
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
            backend.matmul = backend.cutensor_matmul()
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


def _same(x: Any, y: Any) -> bool:
    """Whether x and y are equal: bit for bit on the CPU; on a GPU up to rounding, which differs between kernels."""
    if backend.xp is numpy or not isinstance(x, backend.xp.ndarray):
        return pickle.dumps(x) == pickle.dumps(y)
    x, y = (backend.to_numpy(a).astype("float64") for a in (x, y))
    return bool(numpy.linalg.norm(x - y) <= 1e-3 * numpy.linalg.norm(x))
