"""Adam, as published."""

from collections.abc import Sequence

from . import backend
from .backend import Array
from .tensor import Tensor


class Adam:
    """Kingma and Ba 2015 (arXiv 1412.6980), algorithm 1, in place: a step writes into each parameter's own array."""

    def __init__(
        self,
        parameters: Sequence[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        self.parameters = list(parameters)
        self.lr, self.betas, self.eps = lr, betas, eps
        self.steps = 0
        self.m = [Tensor(backend.xp.zeros(p.shape, p.dtype)) for p in self.parameters]
        self.v = [Tensor(backend.xp.zeros(p.shape, p.dtype)) for p in self.parameters]

    def next_step(self) -> tuple[float, float]:
        """Count a step, and return the rate and the eps to take it with: what changes from step to step."""
        self.steps += 1
        if self.steps % 1000 == 0:
            # Where no gradient comes any more, v decays to denormal numbers and stays there, and a processor takes a
            # hundred times as long for those. Beside eps they are nothing.
            for v in self.v:
                v.data[...] *= v.data > 1e-30
        beta1, beta2 = self.betas
        # To save passes over the arrays, ``m`` and ``v`` are the published moments divided by 1 - beta. That factor and
        # the bias correction are then one, c = (1 - beta^t) / (1 - beta), and leave the arrays as well:
        # lr (m / c1) / (sqrt(v / c2) + eps) = (lr sqrt(c2) / c1) m / (sqrt(v) + eps sqrt(c2))
        c1 = (1 - beta1**self.steps) / (1 - beta1)
        root_c2 = ((1 - beta2**self.steps) / (1 - beta2)) ** 0.5
        return self.lr * root_c2 / c1, self.eps * root_c2

    def step(self, grads: Sequence[Tensor], rate_and_eps: Array | None = None) -> None:
        """Move every parameter against its gradient; ``grads`` has one Tensor of the same shape for each.

        ``rate_and_eps`` (2,) is what ``next_step`` returned, if it was asked before, as an array on the device.
        """
        got, expected = [g.shape for g in grads], [p.shape for p in self.parameters]
        if got != expected:
            raise ValueError(f"Adam: got gradients of shapes {got}; expected {expected}")
        rate, eps = self.next_step() if rate_and_eps is None else rate_and_eps
        for p, g, m, v in zip(self.parameters, grads, self.m, self.v):
            backend.adam_step(g.data, *self.betas, rate, eps, p.data, m.data, v.data)
            p.version += 1
