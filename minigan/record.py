"""What an iteration calls on the CPU, as a list of array calls into ready buffers."""

import operator
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy

from . import backend
from .tensor import Tensor


class Unrecordable(RuntimeError):
    """Something in an iteration cannot be recorded; the message says what."""


class Record:
    """Array calls in their order, each with its arrays bound; ``print`` lists them.

    While an iteration is recorded, its arrays are ``Traced``: what is called with them is called, and noted. Results
    live in blocks of memory on loan, which come back when the last array in them is gone. From there on the program
    cannot read them any more, so a later call may have the block: the record replays in the same order.
    """

    warm_up = 1

    def __init__(self) -> None:
        self.calls: list[partial] = []
        self.blocks: list[numpy.ndarray] = []
        self._free: dict[int, list[numpy.ndarray]] = defaultdict(list)
        self._names: dict[int, str] = {}  # of arrays, by address

    def run(self, steps: Callable[[], numpy.ndarray]) -> numpy.ndarray:
        return steps()

    def make(self, model: Any, state: dict[str, Tensor]) -> None:
        """Run ``model.steps()`` and record it. Raises Unrecordable."""
        arrays, rng, take = {name: tensor.data for name, tensor in state.items()}, model.rng, backend.take
        self._names = {_address(array): name for name, array in arrays.items()}
        try:
            model.rng = _Draws(self, rng)
            backend.take = self._take
            for tensor in state.values():
                tensor.data = self._traced(tensor.data)
            self._kept = model.steps()  # so that its memory is not lent again
        finally:
            model.rng, backend.take = rng, take
            for name, tensor in state.items():
                arrays[name][...] = _plain(tensor.data)  # itself, unless another was put in its place
                tensor.data = arrays[name]
        self.result = _plain(self._kept)

    def replay(self) -> numpy.ndarray:
        for call in self.calls:
            call()
        return self.result

    @staticmethod
    def same(x: Any, y: Any) -> bool:
        return x.tobytes() == y.tobytes() if isinstance(x, numpy.ndarray) else x == y

    def make_array(self, function: Callable, args: tuple, named: dict[str, Any], takes_out: bool) -> "Traced":
        """Call a function that returns a view of an argument, or else a new array, and note how that is made."""
        plain = _plain(args)
        result = function(*plain, **_plain(named))
        if not isinstance(result, (numpy.ndarray, numpy.generic)):
            raise Unrecordable(f"{function.__name__} returns no array, but {type(result).__name__}")
        result = numpy.asarray(result)
        if any(numpy.may_share_memory(result, x) for x in plain if isinstance(x, numpy.ndarray)):
            return self._traced(result)
        out = self.empty_like(result)
        if takes_out:
            self._note(function, args, {**named, "out": out})
        else:
            self._note(_put, (out, function, args, named), {})
        _plain(out)[...] = result
        return out

    def change_array(self, function: Callable, args: tuple, named: dict[str, Any]) -> None:
        """Call a function that writes into an argument, and note it."""
        function(*_plain(args), **_plain(named))
        self._note(function, args, named)

    def empty_like(self, array: numpy.ndarray) -> "Traced":
        """A new array on loan, of the shape, the dtype and the layout of ``array``."""
        free = self._free[array.nbytes]
        if not free:
            self.blocks.append(numpy.empty(max(1, array.nbytes), "uint8"))
            free.append(self.blocks[-1])
        memory = numpy.asarray(_Loan(free.pop(), free))
        strides = numpy.empty_like(array).strides
        return self._traced(numpy.ndarray(array.shape, array.dtype, memory, strides=strides))

    def _take(self, rows: numpy.ndarray, index: "Traced") -> "Traced":
        """``numpy.take`` does not look at the index to see whom to call."""
        return self.make_array(numpy.take, (rows, index), {"axis": 0}, takes_out=False)

    def _traced(self, array: numpy.ndarray) -> "Traced":
        traced = array.view(Traced)
        traced.record = self
        return traced

    def _note(self, function: Callable, args: tuple, named: dict[str, Any]) -> None:
        self.calls.append(partial(function, *_map(_without_loan, args), **_map(_without_loan, named)))

    def __str__(self) -> str:
        names = {**self._names, **{_address(block): f"b{i}" for i, block in enumerate(self.blocks)}}

        def text(x: Any) -> str:
            if isinstance(x, (tuple, list)):
                return f"({', '.join(map(text, x))})"
            if not isinstance(x, numpy.ndarray):
                return str(x)
            at = _address(_owner(x))
            name = names.setdefault(at, f"c{len(names) - len(self._names) - len(self.blocks)}")
            start = _address(x) - at
            return f"{name}{f'+{start}' if start else ''} {x.dtype}{list(x.shape)}"

        lines = []
        for call in self.calls:
            if call.func is _put:
                out, function, args, named = call.args
            else:
                function, args, named = call.func, call.args, dict(call.keywords)
                out = named.pop("out", None)
            got = [*map(text, args), *(f"{key}={text(x)}" for key, x in named.items())]
            made = "" if out is None else f"{text(out)} = "
            lines.append(f"{len(lines):5d}  {made}{function.__name__}({', '.join(got)})")
        size = sum(block.nbytes for block in self.blocks) / 2**20
        return "\n".join([*lines, f"{len(lines)} calls; {len(self.blocks)} blocks of memory (b), {size:.1f} MiB"])


class Traced(numpy.ndarray):
    """An array while it is recorded: what is called with it is noted in its ``record``, or refused."""

    record: Record | None = None

    def __array_finalize__(self, other: Any) -> None:
        self.record = getattr(other, "record", None)

    def __array_ufunc__(self, ufunc: Any, method: str, *args: Any, out: tuple = (), **named: Any) -> Any:
        record = next(x.record for x in (*args, *out) if isinstance(x, Traced))
        function = ufunc if method == "__call__" else getattr(ufunc, method)
        if ufunc.nout > 1:
            raise Unrecordable(f"{ufunc.__name__} has several results")
        if method == "at":
            return record.change_array(function, args, named)
        if not out:
            return record.make_array(function, args, named, takes_out=True)
        record.change_array(function, args, {**named, "out": out[0]})
        return out[0]

    def __array_function__(self, function: Callable, types: Any, args: tuple, named: dict[str, Any]) -> Any:
        if function is numpy.empty_like:
            return self.record.empty_like(function(*_plain(args), **named))
        if named.get("out") is None:
            return self.record.make_array(function, args, named, takes_out=function in TAKE_OUT)
        self.record.change_array(function, args, named)
        return named["out"]

    def __getitem__(self, index: Any) -> "Traced":
        index = index if isinstance(index, tuple) else (index,)
        if all(isinstance(i, int) for i in index):
            index = (*index, ...)  # what would be a number is an array of it
        return self.record.make_array(operator.getitem, (self, index), {}, takes_out=False)

    def __setitem__(self, index: Any, value: Any) -> None:
        self.record.change_array(operator.setitem, (self, index, value), {})

    def __iter__(self) -> Iterator["Traced"]:
        return (self[i] for i in range(len(self)))

    def astype(self, dtype: Any) -> "Traced":
        out = self.record.empty_like(numpy.empty(self.shape, dtype))
        self.record.change_array(numpy.copyto, (out, self), {"casting": "unsafe"})
        return out

    def reshape(self, *shape: Any) -> "Traced":
        return numpy.reshape(self, shape[0] if len(shape) == 1 else shape)


def _refuse(name: str) -> Callable:
    def method(self: Traced, *_: Any, **__: Any) -> Any:
        raise Unrecordable(f"ndarray.{name} of an array that changes")

    return method


# Methods that NumPy builds from functions that come here, or that give a view; every other would go unseen.
SEEN = {"all", "any", "clip", "max", "mean", "min", "prod", "squeeze", "sum", "swapaxes", "transpose", "view"}
UNSEEN = {name for name in dir(numpy.ndarray) if name[0] != "_" and callable(getattr(numpy.ndarray, name))}
UNSEEN |= {"__bool__", "__complex__", "__copy__", "__deepcopy__", "__float__", "__index__", "__int__", "__reduce__"}
for _name in UNSEEN - SEEN - vars(Traced).keys():
    setattr(Traced, _name, _refuse(_name))

TAKE_OUT = {numpy.concatenate, numpy.stack}


class _Draws:
    """A random generator whose draws are noted."""

    def __init__(self, record: Record, rng: numpy.random.Generator) -> None:
        self._record, self._rng = record, rng

    def __getattr__(self, name: str) -> Callable[..., Traced]:
        method = getattr(self._rng, name)
        takes_out = name in ("random", "standard_normal")
        return lambda *args, **named: self._record.make_array(method, args, named, takes_out)


class _Loan:
    """A block of memory, lent to the arrays in it: it returns to ``free`` when the last of them is gone."""

    def __init__(self, memory: numpy.ndarray, free: list[numpy.ndarray]) -> None:
        self.memory, self._free = memory, free
        self.__array_interface__ = memory.__array_interface__

    def __del__(self) -> None:
        self._free.append(self.memory)


def _put(out: numpy.ndarray, function: Callable, args: tuple, named: dict[str, Any]) -> None:
    out[...] = function(*args, **named)


def _map(function: Callable, x: Any) -> Any:
    """x with ``function`` of every array in it, in tuples, lists and dicts too."""
    if isinstance(x, numpy.ndarray):
        return function(x)
    if isinstance(x, (tuple, list)):
        return type(x)(_map(function, y) for y in x)
    return {name: _map(function, y) for name, y in x.items()} if isinstance(x, dict) else x


def _plain(x: Any) -> Any:
    """x with plain arrays for those that are traced."""
    return _map(lambda array: array.view(numpy.ndarray), x)


def _without_loan(x: numpy.ndarray) -> numpy.ndarray:
    """The same memory as a plain array that does not keep it on loan."""
    owner = x
    while isinstance(owner, numpy.ndarray):
        owner = owner.base
    if not isinstance(owner, _Loan):
        return x.view(numpy.ndarray)
    return numpy.ndarray(x.shape, x.dtype, owner.memory, _address(x) - _address(owner.memory), x.strides)


def _owner(x: numpy.ndarray) -> numpy.ndarray:
    while isinstance(x.base, numpy.ndarray):
        x = x.base
    return x


def _address(x: numpy.ndarray) -> int:
    return x.__array_interface__["data"][0]
