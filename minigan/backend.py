"""The array library in use, NumPy or CuPy, and the device that it computes on.

This file alone chooses between NumPy and CuPy. Other files take array functions from ``backend.xp``, and from here two
that are computed otherwise on each. ``use`` rebinds these names, so callers look them up at each call
(``backend.matmul(x, y)``) and never import them by name.

A function that computes on arrays inside a training iteration is marked as a ``kernel``, so that the iteration can be
written down as the list of its kernel calls.
"""

import sys
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy

if sys.version_info < (3, 10) or int(numpy.__version__.split(".")[0]) < 2:
    raise ImportError(
        f"minigan needs Python 3.10 and NumPy 2; this is {sys.version.split()[0]} and {numpy.__version__}"
    )

Array = Any  # numpy.ndarray on the CPU, cupy.ndarray on the GPU

INSTALL = "pip install 'cupy-cuda13x[ctk]' (for a driver of CUDA 12: 'cupy-cuda12x[ctk]')"

xp: Any  # numpy or cupy; ``use`` sets xp and the functions below
matmul: Callable[[Array, Array], Array]
fused_adam_step: Callable[..., None] | None  # on a GPU; on the CPU Adam's step is ``optim``'s own

tape: ContextVar[Any] = ContextVar("tape", default=None)  # of each thread: what records its kernel calls, if anything


class DeviceError(RuntimeError):
    """The requested device cannot be used; the message says in one line what is missing."""


def use(device: str) -> None:
    """Choose the device of new Tensors: ``"cpu"`` (NumPy) or ``"gpu"`` (CuPy).

    Raises ``DeviceError`` where CuPy or a usable CUDA device is missing; the device in use then stays the same.
    """
    global xp, matmul, fused_adam_step
    if device == "cpu":
        # glibc gives freed memory back to the system, and each iteration would fetch megabytes again, page by page.
        # Once a block of nearly 32 MiB has been freed, glibc keeps freed memory for the next array (mallopt(3)).
        numpy.empty(2**25 - 2**16, "uint8")
        xp, matmul, fused_adam_step = numpy, _matmul, None
    elif device == "gpu":
        xp = _usable_cupy()
        matmul, fused_adam_step = xp.matmul, kernel(_fused_adam_step(*_adam_kernels(xp)))
    else:
        raise DeviceError(f"unknown device {device!r}: expected 'cpu' or 'gpu'")


def kernel(function: Callable[..., Array | None]) -> Callable[..., Array]:
    """Mark a function of arrays that a training iteration may call.

    The function returns an array, or writes into arrays among its arguments and returns None; it keeps no state.
    """

    @wraps(function)
    def call(*args: Any) -> Array:
        recorder = tape.get()
        return function(*args) if recorder is None else recorder.call(function, args)

    return call


@kernel
def ones_kernel(shape: tuple[int, ...], dtype: Any) -> Array:
    return xp.ones(shape, dtype)


@kernel
def zeros_kernel(shape: tuple[int, ...], dtype: Any) -> Array:
    return xp.zeros(shape, dtype)


def unwrap(x: Any) -> Any:
    """The array of a Tensor; anything else unchanged."""
    return x.array if hasattr(x, "birth") else x


def to_array(x: Any) -> Array:
    """``x`` as an array: for an array without axes NumPy may return a scalar."""
    return x if type(x) is xp.ndarray else xp.asarray(x)


def read_only(x: Array) -> Array:
    """``x`` as a NumPy array that cannot be written to; on the GPU, where CuPy has no such arrays, ``x`` itself."""
    if xp is numpy:
        x = x.view()
        x.flags.writeable = False
    return x


def is_read_only(x: Array) -> bool:
    return xp is numpy and not x.flags.writeable


def place(x: Array) -> tuple:
    """Where ``x`` lies: the addresses of its first byte and behind its last, and how its elements lie between them."""
    start = x.data.ptr if hasattr(x, "get") else x.__array_interface__["data"][0]
    if x.flags.c_contiguous or x.flags.f_contiguous:
        return start, start + x.nbytes, start, (x.nbytes,), (1,), 1
    steps = [(n - 1) * step for n, step in zip(x.shape, x.strides)]
    low, high = sum(step for step in steps if step < 0), sum(step for step in steps if step > 0)
    return start + low, start + high + x.itemsize, start, x.shape, x.strides, x.itemsize


def overlap(x: tuple, y: tuple) -> bool:
    """Whether arrays at two places share memory. Nothing is read there: the arrays may be gone, or on the GPU."""
    if max(x[0], y[0]) >= min(x[1], y[1]):
        return False
    arrays = (
        {"data": (start, True), "shape": shape, "strides": strides, "typestr": f"|V{itemsize}", "version": 3}
        for _, _, start, shape, strides, itemsize in (x, y)
    )
    return numpy.shares_memory(*(SimpleNamespace(__array_interface__=array) for array in arrays))  # type: ignore[arg-type]


def checked_read(x: Array) -> Array:
    """``x``, of which a value will be read: an error while an iteration is recorded, unless ``x`` is a constant."""
    if (recorder := tape.get()) is not None:
        recorder.check_read(x)
    return x


def on_device(data: Any, dtype: Any = None) -> Array:
    """``data`` as an array on the device in use, copied only where necessary."""
    return xp.asarray(data, dtype=dtype)


def to_numpy(x: Any) -> numpy.ndarray:
    """A Tensor or an array as a NumPy array. From the GPU this copies, and waits for the device."""
    x = unwrap(x)
    return x.get() if hasattr(x, "get") else numpy.asarray(x)


def default_rng(seed: int) -> Any:
    """A random generator on the device, with ``random``, ``standard_normal`` and ``integers`` as in NumPy."""
    return xp.random.default_rng(seed)


def rng_state(rng: Any) -> Any:
    """A copy of the state of ``rng``, with which ``set_rng_state`` makes it draw the same numbers again."""
    return rng.bit_generator.state if xp is numpy else rng.bit_generator._state.copy()  # CuPy has no public way


def set_rng_state(rng: Any, state: Any) -> bool:
    """Set ``rng`` to ``state``, which may be an array from a file too; False, with no change, where that is impossible.

    It is impossible for a state of another kind of device, or of a GPU with another number of multiprocessors.
    """
    if isinstance(state, dict) != (xp is numpy):
        return False
    if xp is numpy:
        rng.bit_generator.state = state
        return True
    own = rng.bit_generator._state
    if own.shape != state.shape:
        return False
    own[...] = xp.asarray(state)
    return True


def _matmul(x: Array, y: Array) -> Array:
    """x @ y. If y is transposed and x has few rows, OpenBLAS takes down to half the time for (y.T @ x.T).T."""
    if x.ndim == y.ndim == 2 and 4 * len(x) <= len(y) and y.flags.f_contiguous and not y.flags.c_contiguous:
        return numpy.ascontiguousarray(numpy.matmul(y.T, x.T).T)
    return numpy.matmul(x, y)


def _usable_cupy() -> ModuleType:
    try:
        import cupy
    except ImportError as error:
        installed = not isinstance(error, ModuleNotFoundError)
        raise DeviceError(
            (f"CuPy does not import ({first_line(error)})" if installed else "CuPy is not installed")
            + f"; install it with: {INSTALL}"
        ) from None
    try:  # compile a kernel and run a matrix product: a device that is listed may still be unusable
        ones = cupy.ones((2, 2), dtype=cupy.float32)
        float(((ones + 1) @ ones).sum())
    except (RuntimeError, ImportError, OSError, MemoryError, cupy.cuda.compiler.CompileException) as error:
        raise DeviceError(
            f"CuPy {cupy.__version__} finds no usable CUDA device ({first_line(error)}); it needs an NVIDIA GPU, its"
            f" driver, and CuPy with the libraries and headers of that driver's CUDA: {INSTALL}"
        ) from None
    return cupy


def first_line(error: Exception) -> str:
    """The first line of words in an error's text; of CuPy's import error, the line with the cause, at the end."""
    text = str(error).rpartition("Original error:")[2]
    return next((line.strip() for line in text.splitlines() if line.strip(" =")), type(error).__name__)


def _adam_kernels(cupy: ModuleType) -> tuple[Any, Any]:
    """A step of Adam as two CUDA kernels; T is the arrays' type, float32 or float64."""
    next_step = cupy.ElementwiseKernel(
        "float64 lr, float64 beta1, float64 beta2, float64 eps",
        "float64 t, raw T rates",
        """
        t += 1;
        rates[0] = lr * sqrt(1 - pow(beta2, t)) / (1 - pow(beta1, t));
        rates[1] = eps * sqrt(1 - pow(beta2, t));
        """,
        "adam_next_step",
    )
    move = cupy.ElementwiseKernel(
        "T g, T beta1, T beta2, T rate, T eps",
        "T p, T m, T v",
        """
        m = beta1 * m + (1 - beta1) * g;
        v = beta2 * v + (1 - beta2) * g * g;
        p -= rate * m / (sqrt(v) + eps);
        """,
        "adam_step",
    )
    return next_step, move


def _fused_adam_step(next_step: Any, move: Any) -> Callable[..., None]:
    """``optim._adam_step`` by CUDA kernels: ``next_step`` counts the step, and ``move`` updates one parameter."""

    def _adam_step(
        gs: Any, ps: Any, ms: Any, vs: Any, t: Array, lr: Array, betas: tuple[float, float], eps: float
    ) -> None:
        rates = xp.empty(2, ps[0].dtype)
        next_step(lr, *betas, eps, t, rates)
        for g, p, m, v in zip(gs, ps, ms, vs):
            move(g, *betas, rates[0], rates[1], p, m, v)

    return _adam_step


use("cpu")
