"""Adam, as published."""

from collections.abc import Sequence

from . import backend
from .tensor import Tensor


class Adam:
    """Kingma and Ba 2015 (arXiv 1412.6980), algorithm 1, in place.

    With the first step the parameters move into one flat buffer, of which their ``data`` become views, and each moment
    is one flat buffer too, so that a step is a few passes over long arrays however many parameters there are. Another
    array of the same shape may be assigned to a parameter's ``data`` at any time: the next step takes its values over.
    """

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
        self.flat = backend.xp.concatenate([p.data.reshape(-1) for p in self.parameters])
        self.m = backend.xp.zeros_like(self.flat)
        self.v = backend.xp.zeros_like(self.flat)
        self.gradient = backend.xp.empty_like(self.flat)
        self._views = []
        start = 0
        for p in self.parameters:
            end = start + p.data.size
            self._views.append(self.flat[start:end].reshape(p.shape))
            start = end

    def step(self, grads: Sequence[Tensor]) -> None:
        """Move every parameter against its gradient; ``grads`` has one Tensor of the same shape for each."""
        got, expected = [g.shape for g in grads], [p.shape for p in self.parameters]
        if got != expected:
            raise ValueError(f"Adam: got gradients of shapes {got}; expected {expected}")
        for p, view in zip(self.parameters, self._views):
            if p.data is not view:
                view[...] = p.data
                p.data = view
        backend.xp.concatenate([g.data.reshape(-1) for g in grads], out=self.gradient)
        self.steps += 1
        beta1, beta2 = self.betas
        # The published bias corrections m / c1 and v / c2, moved out of the pass over the arrays:
        # lr (m / c1) / (sqrt(v / c2) + eps) = (lr sqrt(c2) / c1) m / (sqrt(v) + eps sqrt(c2))
        c1, root_c2 = 1 - beta1**self.steps, (1 - beta2**self.steps) ** 0.5
        backend.adam_step(
            self.gradient, beta1, beta2, self.lr * root_c2 / c1, self.eps * root_c2, self.flat, self.m, self.v
        )
