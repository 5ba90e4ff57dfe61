"""The ground floor: which array library computes, and on which device.

This is the only file that knows NumPy from CuPy. Everything above takes array functions from ``backend.xp``, and from
here the few for which CuPy has one fused kernel where NumPy needs several passes, or which a recording replaces
(``replay``). ``use`` rebinds these names, so they are looked up at each call (``backend.sigmoid(x)``) and never
imported by name.
"""

from collections.abc import Callable
from contextlib import suppress
from types import ModuleType
from typing import Any

import numpy

Array = Any  # numpy.ndarray on the CPU, cupy.ndarray on the GPU

INSTALL = "pip install 'cupy-cuda13x[ctk]' (for a driver of CUDA 12: 'cupy-cuda12x[ctk]')"


class DeviceError(RuntimeError):
    """The device that was asked for cannot be used; the message says in one line what is missing."""


def use(device: str) -> None:
    """Choose where new Tensors live: ``"cpu"`` (NumPy) or ``"gpu"`` (CuPy).

    Raises ``DeviceError`` where CuPy or a usable CUDA device is missing; the device in use then stays as it was.
    """
    global xp, matmul, take, sigmoid, softplus, adam_step
    if device == "cpu":
        # glibc gives freed memory back to the system, and each iteration would fetch its megabytes anew, page by page,
        # unless a block of nearly 32 MiB has been freed: from then on it keeps them for the next array (mallopt(3)).
        numpy.empty(2**25 - 2**16, "uint8")
        xp, sigmoid, softplus, adam_step = numpy, _sigmoid, _softplus, _adam_step
    elif device == "gpu":
        cupy = _usable_cupy()
        xp, (sigmoid, softplus, adam_step) = cupy, _fused_kernels(cupy)
    else:
        raise DeviceError(f"unknown device {device!r}: expected 'cpu' or 'gpu'")
    matmul, take = xp.matmul, _take


def asarray(data: Any, dtype: Any = None) -> Array:
    """``data`` as an array on the device in use, copied only where it has to be."""
    return xp.asarray(data, dtype=dtype)


def to_numpy(x: Any) -> numpy.ndarray:
    """A Tensor or an array as a NumPy array. From the GPU this copies, and waits for the device."""
    x = x.data if hasattr(x, "requires_grad") else x
    return x.get() if hasattr(x, "get") else numpy.asarray(x)


def default_rng(seed: int) -> Any:
    """A random generator that draws on the device: ``random``, ``standard_normal`` and ``integers`` as in NumPy."""
    return xp.random.default_rng(seed)


def rng_state(rng: Any) -> Any:
    """A copy of what ``set_rng_state`` takes to draw the same numbers again."""
    return rng.bit_generator.state if xp is numpy else rng.bit_generator._state.copy()  # CuPy has no public way


def set_rng_state(rng: Any, state: Any) -> bool:
    """Let ``rng`` draw what it drew after ``state``, an array from a file too; False where it cannot.

    It is not moved then: the state is of another kind of device, or of a GPU with another number of multiprocessors.
    """
    if isinstance(state, dict) != (xp is numpy):
        return False
    if xp is numpy:
        rng.bit_generator.state = state
        return True
    held = rng.bit_generator._state
    if held.shape != state.shape:
        return False
    held[...] = xp.asarray(state)
    return True


def cutensor_matmul() -> Callable[[Array, Array], Array]:
    """The product of matrices by cuTENSOR, which a CUDA graph can record. Raises DeviceError where that is missing."""
    with suppress(Exception):  # CuPy finds the one library of an installed cuTENSOR, which needs this other one
        from cuda.pathfinder import load_nvidia_dynamic_lib

        load_nvidia_dynamic_lib("cutensorMg")
    try:
        from cupyx import cutensor
    except ImportError as error:
        raise DeviceError(
            f"a CUDA graph needs cuTENSOR, which does not import ({first_line(error)}); it comes with: pip install"
            " cutensor-cu13 (for a driver of CUDA 12: cutensor-cu12)"
        ) from None

    def matmul(x: Array, y: Array) -> Array:
        if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[0]:
            return xp.matmul(x, y)
        x, y = (a.copy() if 0 in a.strides else a for a in (x, y))  # it refuses to read a row twice
        out = xp.empty((x.shape[0], y.shape[1]), x.dtype)
        return cutensor.contraction(1.0, x, "ik", y, "kj", 0.0, out, "ij")

    return matmul


def _take(rows: Array, index: Array) -> Array:
    """The ``rows`` (n, ...) at an ``index`` (m,) of integers: (m, ...)."""
    return xp.take(rows, index, axis=0)


def _sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), accurate for every x, but 0 where it is below 1e-20.

    A pixel that is always black drifts down to there. What is computed with it then is denormal, on which a processor
    takes a hundred times as long.
    """
    y = numpy.exp(numpy.minimum(x, 88))  # where it has long been 1, and exp would overflow soon
    y /= y + 1
    y *= y > 1e-20
    return y


def _softplus(x: Array) -> Array:
    """log(1 + exp(x)), without forming exp of a large number."""
    y = numpy.log1p(numpy.exp(-numpy.abs(x)))
    y += numpy.maximum(x, 0)
    return y


def _adam_step(g: Array, beta1: float, beta2: float, rate: float, eps: float, p: Array, m: Array, v: Array) -> None:
    """m = beta1 m + g, v = beta2 v + g^2, p -= rate m / (sqrt(v) + eps): in place."""
    g, p, m, v = (numpy.atleast_1d(a) for a in (g, p, m, v))
    rows = max(1, 65536 * len(p) // max(1, p.size))  # that many of each array stay in the cache from pass to pass
    scratch = numpy.empty_like(p[:rows])
    for start in range(0, len(p), rows):
        gs, ps, ms, vs = (a[start : start + rows] for a in (g, p, m, v))
        t = scratch[: len(gs)]
        ms *= beta1
        ms += gs
        vs *= beta2
        numpy.multiply(gs, gs, out=t)
        vs += t
        numpy.sqrt(vs, out=t)
        t += eps
        numpy.divide(ms, t, out=t)
        t *= rate
        ps -= t


def _usable_cupy() -> ModuleType:
    try:
        import cupy
    except ImportError as error:
        installed = not isinstance(error, ModuleNotFoundError)
        raise DeviceError(
            (f"CuPy does not import ({first_line(error)})" if installed else "CuPy is not installed")
            + f"; install it with: {INSTALL}"
        ) from None
    try:  # a kernel compiled and a matrix product run: a device that is only listed is not yet usable
        ones = cupy.ones((2, 2), dtype=cupy.float32)
        float(((ones + 1) @ ones).sum())
    except (RuntimeError, ImportError, OSError, MemoryError, cupy.cuda.compiler.CompileException) as error:
        raise DeviceError(
            f"CuPy {cupy.__version__} finds no usable CUDA device ({first_line(error)}); it needs an NVIDIA GPU, its"
            f" driver, and CuPy with the libraries and headers of that driver's CUDA: {INSTALL}"
        ) from None
    return cupy


def first_line(error: Exception) -> str:
    """The first line that says something; where CuPy does not import, the one with the cause, which comes last."""
    text = str(error).rpartition("Original error:")[2]
    return next((line.strip() for line in text.splitlines() if line.strip(" =")), type(error).__name__)


def _fused_kernels(cupy: ModuleType) -> tuple[Any, Any, Any]:
    """The functions above as CUDA kernels, one pass over memory each; T is float32 or float64 as the arrays are.

    Denormal numbers cost a GPU nothing, so its sigmoid goes on below 1e-20.
    """
    return (
        cupy.ElementwiseKernel("T x", "T y", "y = 1 / (1 + exp(-x))", "sigmoid"),
        cupy.ElementwiseKernel("T x", "T y", "y = log1p(exp(-abs(x))) + max(x, T(0))", "softplus"),
        cupy.ElementwiseKernel(
            "T g, T beta1, T beta2, T rate, T eps",
            "T p, T m, T v",
            """
            m = beta1 * m + g;
            v = beta2 * v + g * g;
            p -= rate * m / (sqrt(v) + eps);
            """,
            "adam_step",
        ),
    )


use("cpu")
