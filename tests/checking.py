"""Derivatives against central finite differences, in float64, to any order."""

import numpy as np

import minigan as mg

STEP = 1e-5


def numerical_gradient(f, arrays, i):
    """The gradient of ``f(*arrays)``, a float, with respect to ``arrays[i]``, two evaluations for each element."""
    x = arrays[i]
    gradient = np.empty_like(x)
    for at in np.ndindex(x.shape):
        sides = []
        for step in (STEP, -STEP):
            moved = x.copy()
            moved[at] += step
            sides.append(f(*arrays[:i], moved, *arrays[i + 1 :]))
        gradient[at] = (sides[0] - sides[1]) / (2 * STEP)
    return gradient


def weights(*shape):
    """Fixed weights of mixed sizes and signs: a weighted sum of outputs hides no mistake in one of them."""
    return np.random.default_rng(12345).uniform(0.5, 1.5, shape) * np.where(
        np.arange(np.prod(shape)) % 3, 1, -1
    ).reshape(shape)


def check_derivatives(f, *arrays, order=2):
    """Assert that every derivative of ``f`` (Tensors to a Tensor) up to ``order`` agrees with finite differences."""

    def total(*tensors):
        y = f(*tensors)
        return (y * mg.tensor(weights(*y.shape))).sum()

    def value(*moved):
        return total(*(mg.tensor(a, requires_grad=True) for a in moved)).item()

    inputs = [mg.tensor(a, requires_grad=True) for a in arrays]
    analytic = mg.grad(total(*inputs), inputs, materialize_grads=True)
    for i, g in enumerate(analytic):
        assert g.shape == arrays[i].shape, f"gradient {i} has shape {g.shape}, its input {arrays[i].shape}"
        numeric = numerical_gradient(value, arrays, i)
        np.testing.assert_allclose(mg.backend.to_numpy(g), numeric, rtol=1e-5, atol=1e-6, err_msg=f"gradient {i}")
    if order > 1:

        def slope(*tensors):
            parts = mg.grad(total(*tensors), tensors, create_graph=True, materialize_grads=True)
            return sum((g * mg.tensor(weights(*g.shape))).sum() for g in parts)

        check_derivatives(slope, *arrays, order=order - 1)
