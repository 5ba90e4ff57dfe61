"""Adam, as published."""

import math
from collections.abc import Sequence
from typing import Any

import numpy

from . import backend
from .backend import Array, kernel
from .guards import as_tuple, is_tensor, note_write
from .tensor import Tensor


class Adam:
    """Kingma and Ba 2015 (arXiv 1412.6980), algorithm 1, in place: a step writes into each parameter's own array.

    >>> x = mg.tensor([3.0], requires_grad=True)
    >>> adam = mg.optim.Adam([x], lr=0.1)
    >>> for _ in range(200):
    ...     adam.step(mg.grad((x - 1) ** 2, x))
    >>> print(f"{x.item():.3f}")
    1.000

    ``m`` and ``v`` are the moments, ``t`` the number of steps, and ``lr`` can be set between steps. All are arrays on
    the device, so that a replayed step uses the current values. Raises ValueError for a parameter given twice.
    """

    def __init__(
        self, parameters: Sequence[Tensor], lr: float = 1e-3, betas: Sequence[float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        _check_rates(lr, betas, eps)
        self.parameters, self.betas, self.eps = _checked_parameters(parameters), tuple(betas), eps
        self.m, self.v = ([Tensor(backend.zeros_kernel(p.shape, p.dtype)) for p in self.parameters] for _ in range(2))
        self.t, self.rate = (Tensor(backend.on_device(x, dtype="float64")) for x in (0, lr))

    @property
    def lr(self) -> float:
        """The learning rate (on the GPU, reading it waits for the device)."""
        return self.rate.item()

    @lr.setter
    def lr(self, lr: float) -> None:
        _check_rates(lr, self.betas, self.eps)
        self.rate.array.fill(lr)
        note_write(self.rate)

    def step(self, grads: Sequence[Tensor]) -> None:
        """Update every parameter by its gradient; ``grads`` has a Tensor of the same shape for each parameter.

        Raises ValueError for other ``grads``.
        """
        grads = _checked_gradients(grads, self.parameters, [*self.m, *self.v])
        arrays = ([x.array for x in tensors] for tensors in (grads, self.parameters, self.m, self.v))
        (backend.fused_adam_step or _adam_step)(*arrays, self.t.array, self.rate.array, self.betas, self.eps)
        note_write(*self.parameters, *self.m, *self.v, self.t)


@kernel
def _adam_step(
    gs: list[Array],
    ps: list[Array],
    ms: list[Array],
    vs: list[Array],
    t: Array,
    lr: Array,
    betas: tuple[float, float],
    eps: float,
) -> None:
    """One step, in place: gradients ``gs``, parameters ``ps``, moments ``ms`` and ``vs``.

    ``t``, the number of steps, and ``lr``, the learning rate, are float64 of shape (). The bias corrections are made on
    numbers instead of arrays, as the end of section 2 of the paper proposes.
    """
    t += 1
    beta1, beta2 = betas
    root = (1 - beta2 ** float(t)) ** 0.5
    rate, eps = float(lr) * root / (1 - beta1 ** float(t)), eps * root
    for arrays in zip(gs, ps, ms, vs):
        g, p, m, v = (numpy.atleast_1d(a) for a in arrays)
        rows = max(1, 65536 * len(p) // max(1, p.size))  # so many rows of each array stay in the cache between passes
        scratch = numpy.empty_like(p[:rows])
        for start in range(0, len(p), rows):
            gi, pi, mi, vi = (a[start : start + rows] for a in (g, p, m, v))
            s = scratch[: len(gi)]
            if beta1:
                mi *= beta1
                numpy.multiply(gi, 1 - beta1, out=s)
                mi += s
            else:
                mi = gi  # and m, of which nothing would be read, stays 0
            vi *= beta2
            numpy.multiply(gi, gi, out=s)
            s *= 1 - beta2
            vi += s
            numpy.sqrt(vi, out=s)
            s += eps
            numpy.divide(mi, s, out=s)
            s *= rate
            pi -= s
        if t % 1000 == 0:  # where the gradient stays 0, moments become denormal numbers, which are slow
            tiny = numpy.finfo(m.dtype).tiny
            m *= numpy.abs(m) >= tiny
            v *= v >= tiny


# --- What is refused ----------------------------------------------------------------------------


def _checked_parameters(parameters: Any) -> list[Any]:
    """``parameters`` as a list. Raises TypeError or ValueError for what Adam cannot update, or would update twice."""
    parameters = list(as_tuple(parameters))
    for i, p in enumerate(parameters):
        if not is_tensor(p):
            raise TypeError(f"Adam: expected Tensors, got {type(p).__name__}")
        if p.op:
            raise ValueError(f"Adam: a parameter is the result of {p.op.__name__}, and not what it was made of")
        if backend.is_read_only(p.array):
            raise ValueError(f"Adam: the array of parameter {i} cannot be written to; mg.tensor copies it")
        if _share(p, parameters[:i]):
            raise ValueError(f"Adam: parameter {i} shares its array with one before it, and would be moved twice")
    return parameters


def _share(x: Tensor, tensors: Sequence[Tensor]) -> bool:
    """Whether some memory of ``x`` is also that of one of ``tensors``; two arrays of their own memory are told fast."""
    views = (
        tensors if x.array.base is not None else [y for y in tensors if y.array is x.array or y.array.base is not None]
    )
    return any(backend.overlap(x.place, y.place) for y in views)


def _check_rates(lr: Any, betas: Any, eps: Any) -> None:
    ranges = {"lr": (lr, math.inf), "eps": (eps, math.inf)}
    if not hasattr(betas, "__len__") or len(betas) != 2:
        raise ValueError(f"Adam: expected two betas, got {betas!r}")
    for name, (x, end) in (ranges | {f"beta{i}": (beta, 1) for i, beta in enumerate(betas, 1)}).items():
        if not (isinstance(x, (int, float, numpy.number)) and 0 <= x < end):
            raise ValueError(f"Adam: expected {name}, a number from 0 to below {end}, got {x!r}")


def _checked_gradients(gradients: Any, parameters: Sequence[Any], moments: Sequence[Any]) -> list[Any]:
    """``gradients`` as a list. Raises ValueError for others, and for a part of the memory that a step writes to."""
    gradients = list(as_tuple(gradients))
    got = [g.shape if is_tensor(g) else type(g).__name__ for g in gradients]
    expected = [p.shape for p in parameters]
    if got != expected:
        hint = "; for None, which no output depends on, materialize_grads=True gives zeros" if "NoneType" in got else ""
        raise ValueError(f"Adam: got gradients of shapes {got}; expected {expected}{hint}")
    for i, (g, p) in enumerate(zip(gradients, parameters)):
        if g.dtype != p.dtype:
            raise TypeError(f"Adam: gradient {i} is {g.dtype}, and its parameter {p.dtype}")
        if _share(g, [*parameters, *moments]):
            raise ValueError(f"Adam: gradient {i} shares its array with a parameter; expected a copy of it")
    return gradients
