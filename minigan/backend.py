"""The ground floor: which array library computes, and on which device.

This is the only file that knows NumPy from CuPy. Everything above takes array functions from ``backend.xp``, and
from here the few for which CuPy has one fused kernel where NumPy needs several passes. ``use`` rebinds these names,
so they are looked up at each call (``backend.sigmoid(x)``) and never imported by name.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy

Array = Any  # numpy.ndarray on the CPU, cupy.ndarray on the GPU


class DeviceError(RuntimeError):
    """The device that was asked for cannot be used; the message says in one line what is missing."""


def use(device: str) -> None:
    """Choose where new Tensors live: ``"cpu"`` (NumPy) or ``"gpu"`` (CuPy).

    Raises ``DeviceError`` where CuPy or a usable CUDA device is missing; the device in use then stays as it was.
    """
    global xp, matmul, sigmoid, softplus, adam_step
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
    matmul = xp.matmul


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


def recorded(function: Callable[[], Any]) -> Callable[[], Any]:
    """``function``, which is to be called many times over: on the GPU as a CUDA graph, one launch for all its kernels.

    It takes nothing, keeps what it changes in arrays that stay where they are, and depends on nothing else that
    changes. Three calls go through as they are, to compile and to plan; the next is recorded, and from then on the
    record is replayed, into the arrays that were returned with it. On the CPU it is ``function`` itself. Raises
    DeviceError without cuTENSOR, which multiplies matrices here: CuPy refuses to record cuBLAS (cupy/cupy#6290).
    """
    if xp is numpy:
        return function
    cupy, calls, graph, result = xp, 0, None, None
    contraction = _cutensor_matmul(cupy)
    # The record goes on using the addresses it saw, so they come from a pool that nobody else allocates from.
    stream, pool = cupy.cuda.Stream(non_blocking=True), cupy.cuda.MemoryPool()

    @contextmanager
    def capturing() -> Iterator[None]:
        global matmul
        cupy.cuda.Device().synchronize()
        before, matmul = matmul, contraction
        try:
            with stream, cupy.cuda.using_allocator(pool.malloc):
                yield
        finally:
            matmul = before
            stream.synchronize()

    def replay() -> Any:
        nonlocal calls, graph, result
        calls += 1
        try:
            if calls <= 3:
                with capturing():
                    return function()
            if graph is None:
                with capturing():
                    stream.begin_capture()
                    try:
                        result = function()
                    finally:
                        graph = stream.end_capture()
            graph.launch()
        except RuntimeError as error:
            raise DeviceError(f"the iteration cannot be recorded as a CUDA graph: {_first_line(error)}") from None
        return result

    return replay


def _cutensor_matmul(cupy: ModuleType) -> Callable[[Array, Array], Array]:
    try:
        from cupyx import cutensor
    except ImportError as error:
        raise DeviceError(
            f"a CUDA graph needs cuTENSOR ({_first_line(error)}); install it with: pip install cutensor-cu13 (for a"
            " driver of CUDA 12: cutensor-cu12)"
        ) from None

    def matmul(x: Array, y: Array) -> Array:
        if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[0]:
            return cupy.matmul(x, y)
        x, y = (cupy.ascontiguousarray(a) if 0 in a.strides else a for a in (x, y))  # it refuses to read a row twice
        out = cupy.empty((x.shape[0], y.shape[1]), x.dtype)
        return cutensor.contraction(1.0, x, "ik", y, "kj", 0.0, out, "ij")

    return matmul


def _sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), accurate for every x, but 0 where it is below 1e-20.

    A pixel that is always black drifts down to there. What is computed with it then is denormal, on which a processor
    takes a hundred times as long.
    """
    with numpy.errstate(over="ignore"):  # exp(-x) may reach inf, and 1 / inf is the right answer
        y = numpy.exp(-x)
    y += 1
    y = 1 / y
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
    rows = max(1, 16384 * len(p) // max(1, p.size))  # that many of each array stay in the cache from pass to pass
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
            (f"CuPy does not import ({_first_line(error)})" if installed else "CuPy is not installed")
            + "; install it with: pip install 'cupy-cuda13x[ctk]' (for a driver of CUDA 12: 'cupy-cuda12x[ctk]')"
        ) from None
    try:  # a kernel compiled and a matrix product run: a device that is only listed is not yet usable
        ones = cupy.ones((2, 2), dtype=cupy.float32)
        float(((ones + 1) @ ones).sum())
    except (RuntimeError, ImportError, OSError, MemoryError, cupy.cuda.compiler.CompileException) as error:
        raise DeviceError(
            f"CuPy {cupy.__version__} finds no usable CUDA device ({_first_line(error)}); it needs an NVIDIA GPU, its"
            " driver, and the CuPy package for that driver's CUDA version"
        ) from None
    return cupy


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip(" =")), type(error).__name__)


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
