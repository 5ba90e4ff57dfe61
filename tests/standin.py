"""A stand-in for CuPy on a machine without a GPU.

``DeviceArray`` computes with NumPy but behaves as a CuPy array does: it never turns into a NumPy array by itself, does
not mix with one, and a value is read off it by an explicit transfer only, which is counted. ``StandIn`` takes the place
of the array module. Given CuPy itself, which imports without a device, both hold every call against CuPy's signature.
Its stream captures as CUDA's does: nothing is computed, and what waits for the device, copies from or to the host, or
calls cuBLAS is an error. The graph is the calls that were noted, repeated on the same arrays.
"""

import inspect
import json
import operator
import re
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace

import numpy as np

from minigan.record import leaves


class DeviceArray:
    __array_ufunc__ = None
    cupy: ModuleType | None = None
    transfers = 0

    def __init__(self, array):
        self._array = np.asarray(array)

    @property
    def base(self):
        """Where its memory is, for views of it as for itself."""
        array = self._array
        while isinstance(array.base, np.ndarray):
            array = array.base
        return array

    def __array__(self, *args, **kwargs):
        raise TypeError("implicit conversion of a device array to NumPy")

    def __len__(self):
        return len(self._array)

    def __getitem__(self, index):
        return run(operator.getitem, self, index)

    def __setitem__(self, index, value):
        run(operator.setitem, self, index, value)

    def __getattr__(self, name):
        if name.startswith("__"):  # NumPy would find __array_interface__ here, and convert
            raise AttributeError(name)
        reference = getattr(DeviceArray.cupy.ndarray, name) if DeviceArray.cupy else None
        value = getattr(self._array, name)
        if not callable(value):
            return wrap(value)
        return Function(value, reference and (lambda *args, **kwargs: check_call(reference, (self, *args), kwargs)))


class Function:
    """A function of NumPy's that works on DeviceArrays, after ``check`` has looked at the call."""

    def __init__(self, function, check=None):
        self._function, self._check = function, check

    def __call__(self, *args, **kwargs):
        if self._check:
            self._check(*args, **kwargs)
        out = run(self._function, *args, **kwargs)
        return kwargs.get("out", out)

    def __getattr__(self, name):  # add.at
        return Function(getattr(self._function, name))


class Namespace:
    """A module of NumPy's, with the same module of CuPy's to hold its calls against."""

    def __init__(self, numpy, cupy):
        self._numpy, self._cupy = numpy, cupy

    def __getattr__(self, name):
        value = getattr(self._numpy, name)
        reference = getattr(self._cupy, name) if self._cupy else None  # AttributeError: CuPy has no such function
        if isinstance(value, ModuleType):
            return Namespace(value, reference)
        return Function(value, reference and (lambda *args, **kwargs: check_call(reference, args, kwargs)))


class StandIn(Namespace):
    """The array module: NumPy's functions on DeviceArrays. ``array`` and ``asarray`` alone take from the host."""

    ndarray = DeviceArray

    def __init__(self, cupy=None):
        super().__init__(np, cupy)
        self.random, self.cuda, self.asked, self.multiprocessors = self, cuda(self), [], 1
        DeviceArray.cupy, DeviceArray.transfers = cupy, 0

    def array(self, data, **how):
        return DeviceArray(np.array(self._from(data), **how))

    def asarray(self, data, **how):
        return DeviceArray(np.asarray(self._from(data), **how))

    @staticmethod
    def _from(data):
        if isinstance(data, DeviceArray):
            return data._array
        refuse_in_capture("a copy from the host")
        return data

    def zeros_like(self, a, dtype=None, shape=None):
        return self.zeros(shape if shape else a.shape, dtype or a.dtype)  # so CuPy 14.2, for which () is no shape

    def matmul(self, x, y):
        refuse_in_capture("cuBLAS")
        return run(np.matmul, x, y)

    def default_rng(self, seed):
        return Generator(seed, self._cupy and self._cupy.random.Generator, self.multiprocessors)


class Generator:
    """A NumPy generator whose draws are DeviceArrays, and whose state is one too: so much for each multiprocessor."""

    def __init__(self, seed, cupy, multiprocessors):
        self._rng, self._cupy = np.random.default_rng(seed), cupy
        self.bit_generator = SimpleNamespace(_state=DeviceArray(np.empty(400 * multiprocessors, "int8")))
        self._keep()

    def _keep(self):
        memory = self.bit_generator._state._array
        memory[:] = np.frombuffer(json.dumps(self._rng.bit_generator.state).ljust(len(memory)).encode(), "int8")

    def __getattr__(self, name):
        def draw(*args, **kwargs):
            self._rng.bit_generator.state = json.loads(self.bit_generator._state._array.tobytes())
            drawn = getattr(self._rng, name)(*args, **kwargs)
            if _record is None:
                self._keep()
            return drawn

        reference = getattr(self._cupy, name) if self._cupy else None
        return Function(draw, reference and (lambda *args, **kwargs: check_call(reference, (self, *args), kwargs)))


def check_call(function, args, kwargs):
    """Assert that a function of CuPy takes these arguments, without running it."""
    if hasattr(function, "nin"):  # a ufunc
        assert function.nin <= len(args) <= function.nin + function.nout, function
        assert set(kwargs) <= {"out", "dtype", "casting"}, (function, kwargs)
        dtypes = [x.dtype if isinstance(x, DeviceArray) else np.min_scalar_type(x) for x in args[: function.nin]]
        loops = [loop.partition("->")[0] for loop in function.types]
        if not any(all(map(np.can_cast, dtypes, loop)) for loop in loops):
            raise TypeError(f"{function.name} has no loop for {dtypes}")
        return
    try:
        signature = inspect.signature(function)
    except ValueError:  # compiled: its signature is the first line of its docstring
        parameters = re.match(r"[\w.]+(\(.*\))( ->|$)", function.__doc__.splitlines()[0])[1]
        parameters = re.sub(r"\b\w+ (\w+)(?=[,=)])", r"\1", parameters)  # less the C types
        scope = {"numpy": np}
        exec(f"def stub{parameters}: pass", scope)
        signature = inspect.signature(scope["stub"])
    signature.bind(*args, **kwargs)


_record = None


def run(function, *args, **kwargs):
    """Call a function of NumPy arrays with DeviceArrays; where it is captured, note the call, and undo what it did."""
    args, kwargs = unwrap(args), unwrap(kwargs)
    if _record is None:
        return wrap(function(*args, **kwargs))
    arrays = [x for x in leaves([*args, *kwargs.values()]) if isinstance(x, np.ndarray)]
    before = [(x, x.copy()) for x in arrays if x.flags.writeable]
    out = wrap(function(*args, **kwargs))
    for x, old in before:
        x[...] = old
    _record.append((function, args, kwargs, out))
    if isinstance(out, DeviceArray) and not any(np.shares_memory(out._array, x) for x in arrays):
        out._array = np.full_like(out._array, np.nan if out.dtype.kind == "f" else 0)
    return out


def refuse_in_capture(what):
    if _record is not None:
        raise RuntimeError(f"{what} cannot be captured")


def cuda(standin):
    """``cupy.cuda`` as far as a graph needs it; what is asked of it is noted in ``standin.asked``."""

    class Stream:
        def __init__(self, non_blocking):
            assert non_blocking  # CuPy captures on no other

        def __enter__(self):
            standin.asked.append("aside")

        def __exit__(self, *_):
            standin.asked.append("back")

        def synchronize(self):
            refuse_in_capture("waiting for the device")

        def begin_capture(self):
            global _record
            _record = []
            standin.asked.append("begin")

        def end_capture(self):
            global _record
            calls, _record = _record, None
            standin.asked.append("end")
            return SimpleNamespace(launch=lambda: launch(calls))

    def launch(calls):
        standin.asked.append("launch")
        for call, args, kwargs, out in calls:
            new = call(*args, **kwargs)
            if isinstance(out, DeviceArray) and not np.shares_memory(new, out._array):
                out._array[...] = new

    @contextmanager
    def using_allocator(malloc):
        assert malloc == "malloc of its own pool"
        yield

    return SimpleNamespace(
        Stream=Stream,
        MemoryPool=lambda: SimpleNamespace(malloc="malloc of its own pool"),
        Device=lambda: SimpleNamespace(synchronize=lambda: refuse_in_capture("waiting for the device")),
        using_allocator=using_allocator,
    )


def wrap(x):
    return DeviceArray(x) if isinstance(x, (np.ndarray, np.generic)) else x


def unwrap(x):
    if isinstance(x, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")  # what CuPy says of one among its own
    if isinstance(x, DeviceArray):
        return x._array
    if isinstance(x, (tuple, list)):
        return type(x)(unwrap(y) for y in x)
    if isinstance(x, dict):
        return {name: unwrap(y) for name, y in x.items()}
    return x


def _operator(name):
    function = getattr(operator, f"__{name}__")
    setattr(DeviceArray, f"__{name}__", lambda x, *y: run(function, x, *y))
    setattr(DeviceArray, f"__r{name}__", lambda x, y: run(function, y, x))


def _in_place(name):
    function = getattr(operator, f"__i{name}__")

    def method(x, y):
        run(function, x, y)
        return x

    setattr(DeviceArray, f"__i{name}__", method)


def _transfer(name):
    def method(x):
        refuse_in_capture("a copy to the host")
        DeviceArray.transfers += 1
        return x._array if name == "get" else getattr(x._array, name)()

    setattr(DeviceArray, name, method)


for _name in ("add", "sub", "mul", "truediv", "pow", "matmul", "eq", "ne", "lt", "le", "gt", "ge", "neg", "invert"):
    _operator(_name)
for _name in ("add", "sub", "mul", "truediv"):
    _in_place(_name)
for _name in ("get", "item", "tolist", "__bool__", "__float__", "__int__", "__index__"):
    _transfer(_name)
