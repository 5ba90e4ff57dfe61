"""A stand-in for CuPy on a machine without a GPU.

``DeviceArray`` computes with NumPy but behaves as a CuPy array does: it never turns into a NumPy array by itself, does
not mix with one, and a value is read off it by an explicit transfer only, which is counted. ``StandIn`` takes the place
of the module; where CuPy is installed, which imports without a device, every call is held against CuPy's signature.
Its stream captures as CUDA's does: what waits for the device, copies from or to the host, or calls cuBLAS is an error.
The graph is the calls that were noted, repeated on the same arrays.
"""

import inspect
import operator
import re
import sys
from contextlib import contextmanager, nullcontext
from functools import cache, partial
from types import SimpleNamespace

import numpy as np
import pytest

from minigan import backend

try:
    import cupy
except ImportError:
    cupy = None


@contextmanager
def standing_in():
    """Inside, ``backend.use("gpu")`` finds the stand-in, and it is in use; yields it."""
    standin = StandIn()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(backend, "_usable_cupy", lambda: standin)
        monkeypatch.setitem(sys.modules, "cupyx", SimpleNamespace(cutensor=SimpleNamespace(contraction=contraction)))
        backend.use("gpu")
        try:
            yield standin
        finally:
            backend.use("cpu")


class DeviceArray:
    __array_ufunc__ = None
    base = None
    transfers = 0

    def __init__(self, array):
        self._array = np.asarray(array)

    def __array__(self, *args, **kwargs):
        raise TypeError("implicit conversion of a device array to NumPy")

    def __len__(self):
        return len(self._array)

    @property
    def data(self):
        return SimpleNamespace(ptr=self._array.__array_interface__["data"][0])

    def __getattr__(self, name):
        if name.startswith("__"):  # NumPy would find __array_interface__ here, and convert
            raise AttributeError(name)
        value, reference = getattr(self._array, name), cupy and getattr(cupy.ndarray, name)
        return Function(value, reference, self) if callable(value) else wrap(value)


class Function:
    """A function or module of NumPy's, for DeviceArrays, and CuPy's of the same name to hold its calls against."""

    def __init__(self, numpys, reference, *owner):
        self._numpys, self._reference, self._owner = numpys, reference, owner

    def __call__(self, *args, **kwargs):
        if self._reference:
            check_call(self._reference, (*self._owner, *args), kwargs)
        out = run(self._numpys, *args, **kwargs)
        return kwargs.get("out", out)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Function(getattr(self._numpys, name), self._reference and getattr(self._reference, name))


class StandIn(Function):
    """The array module: NumPy's functions on DeviceArrays. ``array`` and ``asarray`` alone take from the host."""

    ndarray = DeviceArray

    def __init__(self):
        super().__init__(np, cupy)
        DeviceArray.transfers, Stream.asked, Stream.calls = 0, [], None
        self.random, self.asked, self.multiprocessors = self, Stream.asked, 1
        self.cuda = SimpleNamespace(Stream=Stream, MemoryPool=lambda: SimpleNamespace(malloc=nullcontext()))
        self.cuda.Device = lambda: SimpleNamespace(synchronize=Stream.synchronize)
        self.cuda.using_allocator = lambda malloc: malloc

    def asarray(self, data, make=np.asarray, **how):
        if not isinstance(data, DeviceArray):
            refuse_in_capture("a copy from the host")
        return DeviceArray(make(data._array if isinstance(data, DeviceArray) else data, **how))

    def array(self, data):
        return self.asarray(data, np.array)

    def matmul(self, x, y):
        refuse_in_capture("cuBLAS")
        return run(np.matmul, x, y)

    def default_rng(self, seed):
        return Generator(seed, self.multiprocessors)

    def ElementwiseKernel(self, inputs, outputs, operation, name):
        """A kernel whose loop body, which happens to be Python too, runs on whole arrays."""
        if cupy:
            cupy.ElementwiseKernel(inputs, outputs, operation, name)
        names = [parameter.split()[-1] for parameter in f"{inputs},{outputs}".split(",")]
        first, operation = inputs.count(",") + 1, inspect.cleandoc(operation)
        functions = {"exp": np.exp, "log1p": np.log1p, "sqrt": np.sqrt, "abs": np.abs, "max": np.maximum, "T": float}

        def kernel(*args):
            assert len(args) in (first, len(names)), name
            values = {**functions, **dict(zip(names, args))}
            with np.errstate(over="ignore"):  # on a GPU nothing warns
                exec(operation, values)
            for array, out in zip(args[first:], names[first:]):
                array[...] = values[out]
            return values[names[-1]]

        return Function(kernel, None)


class Generator:
    """NumPy's draws as DeviceArrays; its state is one too: a seed, and for each multiprocessor how often it drew."""

    def __init__(self, seed, multiprocessors):
        state = np.array([seed] + multiprocessors * [0], "uint64").view("int8")
        self.bit_generator = SimpleNamespace(_state=DeviceArray(state))

    def __getattr__(self, name):
        def draw(*args, **kwargs):
            if cupy:
                check_call(getattr(cupy.random.Generator, name), (self, *args), kwargs)
            return run(drawn, self.bit_generator._state, name, *args, **kwargs)

        return draw


def drawn(state, name, *args, **kwargs):
    numbers = state.view("uint64")
    rng = np.random.default_rng(numbers.tolist())
    numbers += np.array([0, *np.ones(len(numbers) - 1)], "uint64")
    return getattr(rng, name)(*args, **kwargs)


def contraction(alpha, a, ik, b, kj, beta, out, ij):
    """cuTENSOR's, as far as it is asked here."""
    assert (alpha, ik, kj, beta, ij) == (1, "ik", "kj", 0, "ij")
    assert a.dtype == b.dtype == out.dtype
    assert 0 not in a.strides + b.strides  # it refuses to read a row twice
    return run(np.matmul, a, b, out=out)


def check_call(function, args, kwargs):
    """Assert that a function of CuPy takes these arguments, without running it."""
    if not hasattr(function, "nin"):
        signature(function).bind(*args, **kwargs)
        return
    assert function.nin <= len(args) <= function.nin + function.nout, function
    assert set(kwargs) <= {"out", "dtype", "casting"}, (function, kwargs)
    dtypes = [x.dtype if isinstance(x, DeviceArray) else np.min_scalar_type(x) for x in args[: function.nin]]
    if not any(all(map(np.can_cast, dtypes, loop.partition("->")[0])) for loop in function.types):
        raise TypeError(f"{function.name} has no loop for {dtypes}")


@cache
def signature(function):
    try:
        return inspect.signature(function)
    except ValueError:  # compiled: it is the first line of its docstring
        parameters = re.match(r"[\w.]+(\(.*\))( ->|$)", function.__doc__.splitlines()[0])[1]
        parameters = re.sub(r"\b\w+ (\w+)(?=[,=)])", r"\1", parameters)  # less the C types
        scope = {"numpy": np}
        exec(f"def stub{parameters}: pass", scope)
        return inspect.signature(scope["stub"])


class Stream:
    """CUDA's, as far as a graph needs it; ``calls`` are those that it captures, if it does."""

    asked, calls = [], None

    def __init__(self, non_blocking):
        assert non_blocking  # CuPy captures on no other

    def __enter__(self):
        self.asked.append("aside")

    def __exit__(self, *_):
        self.asked.append("back")

    @staticmethod
    def synchronize():
        refuse_in_capture("waiting for the device")

    def begin_capture(self):
        Stream.calls = []
        self.asked.append("begin")

    def end_capture(self):
        calls, Stream.calls = Stream.calls, None
        self.asked.append("end")
        return SimpleNamespace(launch=partial(launch, calls))


def launch(calls):
    Stream.asked.append("launch")
    for function, args, kwargs, out in calls:
        new = function(*args, **kwargs)
        if isinstance(out, DeviceArray) and not np.shares_memory(new, out._array):
            out._array[...] = new


def run(function, *args, **kwargs):
    """Call a function of NumPy arrays with DeviceArrays; and note the call, where it is captured."""
    args, kwargs = unwrap(args), unwrap(kwargs)
    out = wrap(function(*args, **kwargs))
    if Stream.calls is not None:
        Stream.calls.append((function, args, kwargs, out))
    return out


def refuse_in_capture(what):
    if Stream.calls is not None:
        raise RuntimeError(f"{what} cannot be captured")


def wrap(x):
    return DeviceArray(x) if isinstance(x, (np.ndarray, np.generic)) else x


def unwrap(x):
    if isinstance(x, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")  # what CuPy says of one among its own
    if isinstance(x, DeviceArray):
        return x._array
    if isinstance(x, (tuple, list)):
        return type(x)(map(unwrap, x))
    return {name: unwrap(y) for name, y in x.items()} if isinstance(x, dict) else x


def in_place(function):
    def method(x, y):
        run(function, x, y)
        return x

    return method


def transfer(read):
    def method(x):
        refuse_in_capture("a copy to the host")
        DeviceArray.transfers += 1
        return read(x._array)

    return method


OPERATORS = "add sub mul truediv pow matmul eq ne lt le gt ge neg invert getitem setitem"
for _name in OPERATORS.split():
    _function = getattr(operator, _name)
    setattr(DeviceArray, f"__{_name}__", lambda x, *y, f=_function: run(f, x, *y))
    setattr(DeviceArray, f"__r{_name}__", lambda x, y, f=_function: run(f, y, x))
for _name in ("iadd", "isub", "imul", "itruediv"):
    setattr(DeviceArray, f"__{_name}__", in_place(getattr(operator, _name)))
for _name in ("item", "tolist", "__bool__", "__float__", "__int__", "__index__"):
    setattr(DeviceArray, _name, transfer(operator.methodcaller(_name)))
DeviceArray.get = transfer(np.copy)
