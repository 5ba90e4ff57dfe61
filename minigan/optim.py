"""Adam, as published."""

from collections.abc import Sequence

from . import backend, guards
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
        guards.check_rates(lr, betas, eps)
        self.parameters, self.betas, self.eps = guards.checked_parameters(parameters), tuple(betas), eps
        self.m, self.v = ([Tensor(backend.zeros_kernel(p.shape, p.dtype)) for p in self.parameters] for _ in range(2))
        self.t, self.rate = (Tensor(backend.on_device(x, dtype="float64")) for x in (0, lr))

    @property
    def lr(self) -> float:
        """The learning rate (on the GPU, reading it waits for the device)."""
        return self.rate.item()

    @lr.setter
    def lr(self, lr: float) -> None:
        guards.check_rates(lr, self.betas, self.eps)
        self.rate.array.fill(lr)
        guards.note_write(self.rate)

    def step(self, grads: Sequence[Tensor]) -> None:
        """Update every parameter by its gradient; ``grads`` has a Tensor of the same shape for each parameter.

        Raises ValueError for other ``grads``.
        """
        grads = guards.checked_gradients(grads, self.parameters, [*self.m, *self.v])
        arrays = ([x.array for x in tensors] for tensors in (grads, self.parameters, self.m, self.v))
        backend.adam_step(*arrays, self.t.array, self.rate.array, self.betas, self.eps)
        guards.note_write(*self.parameters, *self.m, *self.v, self.t)
