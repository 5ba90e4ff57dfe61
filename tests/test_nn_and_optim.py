"""Networks, the spectral layers of a critic, and Adam."""

import re

import numpy as np
import pytest

import minigan as mg
from minigan.nn import ACTIVATIONS, MLP, OUTPUTS, SpectralLinear
from minigan.optim import Adam
from minigan.penalties import gradient_norm, gradient_penalty

X = np.random.default_rng(0).normal(size=(100, 6))
NUMPY = {
    "relu": lambda x: np.maximum(x, 0),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.2 * x),
    "tanh": np.tanh,
    "softplus": lambda x: np.log1p(np.exp(x)),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    None: lambda x: x,
}


@pytest.mark.parametrize("hidden", ACTIVATIONS)
@pytest.mark.parametrize("output", OUTPUTS)
def test_an_mlp_is_its_formula(hidden, output):
    assert {hidden, output} <= NUMPY.keys(), "give its formula in NumPy"
    net = MLP([6, 5, 4, 2], hidden=hidden, output=output, rng=0, dtype="float64")
    w1, b1, w2, b2, w3, b3 = (p.array for p in net.parameters())
    for b, n in ((b1, 5), (b2, 4), (b3, 2)):
        b += np.arange(n)
    by_formula = NUMPY[output](NUMPY[hidden](NUMPY[hidden](X @ w1 + b1) @ w2 + b2) @ w3 + b3)
    for given in (X, mg.tensor(X)):
        np.testing.assert_allclose(net(given).data, by_formula)


def test_initialisations():
    he, same, uniform = (MLP([400, 300, 10], init=init, rng=0).parameters() for init in ("he", "he", "uniform"))
    assert [w.data.std() for w in he[::2]] == pytest.approx([(2 / 400) ** 0.5, (2 / 300) ** 0.5], rel=0.02)
    drawn = uniform[0].data
    assert (drawn.min(), drawn.max(), drawn.std()) == pytest.approx((-0.05, 0.05, 0.1 / 12**0.5), rel=0.002)
    for p, q in zip(he, same):
        assert (p.dtype, p.requires_grad, p.data.any()) == ("float32", True, p.ndim == 2)
        np.testing.assert_array_equal(p.data, q.data)


def test_a_bad_network_is_refused():
    for sizes, kind, message in (
        ([3, 1], {"hidden": "gelu"}, f"unknown hidden activation 'gelu': expected {ACTIVATIONS}"),
        ([3, 1], {"output": "relu"}, "unknown output activation 'relu': expected one of None, sigmoid, tanh"),
        ([3, 1], {"init": "ones"}, "unknown init 'ones': expected one of he, uniform"),
        ([3], {}, "expected two sizes or more, each at least 1, got [3]"),
        ([3, 0, 1], {}, "got [3, 0, 1]"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            MLP(sizes, **kind)


def test_power_iteration_finds_the_largest_singular_value_and_the_slope_is_at_most_one():
    critic = MLP([6, 50, 50, 1], rng=0, dtype="float64", layer=SpectralLinear)
    for layer in critic.layers:
        for _ in range(200):
            layer.power_iteration()
        sigma = (layer.u @ layer.weight.data @ layer.v.T).item()
        assert sigma == pytest.approx(np.linalg.norm(layer.weight.data, 2))
    slopes = gradient_norm(critic, X).data
    assert 0.1 < slopes.max() <= 1 + 1e-9
    for layer in critic.layers:
        layer.weight.data = 100 * layer.weight.data
    np.testing.assert_allclose(gradient_norm(critic, X).data, slopes)


def test_spectral_normalisation_is_differentiated_as_published():
    """Through sigma = u^T W v for fixed u and v, first order and, with a penalty, second."""
    critic = MLP([6, 4, 1], rng=0, dtype="float64", layer=SpectralLinear)

    def loss(*parameters):
        for layer, weight, bias in zip(critic.layers, parameters[::2], parameters[1::2]):
            layer.weight, layer.bias = weight, bias
        penalty = gradient_penalty(critic, X[:5], X[5:10], np.random.default_rng(1))
        return mg.losses.critic_loss(critic(X[:5]), critic(X[5:10])) + penalty

    w, *others = critic.parameters()
    mg.gradcheck(loss, w, *others, order=1)
    # Miyato et al., equation 12: along W itself the normalised weight does not move
    assert (mg.grad(loss(w, *others), w)[0].data * w.data).sum() == pytest.approx(0, abs=1e-9)


def test_no_pixel_falls_so_low_that_products_with_it_would_be_denormal():
    pixels = mg.nn.pixel(np.array([-1000, -20, 0, 20, 1000], "float32")).data
    np.testing.assert_allclose(pixels, [1.125e-7, 1.125e-7, 0.5, 1, 1], rtol=1e-3)


# --- Adam ---------------------------------------------------------------------------------------


def published(p, gradients, lr, betas, eps):
    """Algorithm 1 of Kingma and Ba 2015, as printed."""
    m = v = 0.0
    for t, g in enumerate(map(np.float64, gradients), start=1):
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g * g
        m_hat = m / (1 - betas[0] ** t)
        v_hat = v / (1 - betas[1] ** t)
        p = p - lr * m_hat / (np.sqrt(v_hat) + eps)
    return p


SHAPES, LONGER_THAN_A_BLOCK = [(3, 2), (1, 2), (4,), ()], [(140_001,), (2, 65_536), (150_000, 2)]


@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-12), ("float32", 2e-6)])
@pytest.mark.parametrize("betas, eps", [((0.5, 0.9), 1e-8), ((0.9, 0.999), 0.1), ((0.0, 0.9), 1e-8)])
@pytest.mark.parametrize("steps, shapes", [(200, SHAPES), (1, LONGER_THAN_A_BLOCK)])
def test_adam_is_the_published_algorithm_in_place(dtype, tolerance, betas, eps, steps, shapes):
    """On arrays in any order: those of the parameters are the gradients' transposed."""
    rng = np.random.default_rng(0)
    gradients = [[np.asarray(rng.normal(size=shape), dtype) for shape in shapes] for _ in range(steps)]
    arrays = [np.asarray(rng.normal(size=shape[::-1]), dtype).T for shape in shapes]
    expected = [published(np.float64(a), g, 0.001, betas, eps) for a, g in zip(arrays, zip(*gradients))]
    adam = Adam([mg.Tensor(a, requires_grad=True) for a in arrays], lr=1, betas=betas, eps=eps)
    adam.lr = 0.001
    held = [*adam.parameters, *adam.m, *adam.v]
    written = [x.array for x in held]
    for given in gradients:
        adam.step(map(mg.tensor, given))
    for x, array in zip(held, written):
        assert x.array is array
        assert x.dtype == dtype
    for a, e in zip(arrays, expected):
        np.testing.assert_allclose(a, e, rtol=tolerance, atol=tolerance)


def test_what_decays_in_adam_does_not_stay_denormal():
    """And what is small, but beside eps not nothing, stays as it is."""
    adam = Adam([mg.tensor(np.ones(4, "float32"), requires_grad=True)], lr=0.1, betas=(0.9, 0.9))
    for i in range(1000):
        adam.step([mg.tensor(np.array([1, -1e-6, 0, i < 4], "float32"))])
    np.testing.assert_allclose(adam.m[0].data, [1, -1e-6, 0, 0], rtol=1e-4)
    np.testing.assert_allclose(adam.v[0].data, [1, 1e-12, 0, 0], rtol=1e-4)


def test_adam_takes_what_can_be_gone_through_and_what_was_assigned():
    """What NumPy computes of an array without axes is a number of its own, which cannot be written to."""
    for start in ([3.0, 4.0], 5.0):
        w = mg.tensor(start, requires_grad=True)
        for given in (w, (p for p in [w])):
            adam = Adam(given, lr=0.1)
            w.data = w.data - 0.5
            adam.step(g * 1 for g in mg.grad((w * w).sum(), w))
        np.testing.assert_allclose(w.data, np.array(start) - 2 * (0.5 + 0.1), rtol=1e-6)


def test_adam_notes_what_it_writes():
    x, p = (mg.tensor(np.ones(1), requires_grad=True) for _ in range(2))
    adam = Adam([p])
    made = [x * written for written in (adam.m[0], adam.v[0], adam.rate, p)]
    adam.step([mg.tensor(np.ones(1))])
    adam.lr = 7
    for y in made:
        with pytest.raises(ValueError, match="was changed in place since"):
            mg.grad(y, x)


def test_adam_refuses_what_it_would_move_wrongly():
    p, q = (mg.tensor(np.zeros(2), requires_grad=True) for _ in range(2))
    number, gradient = (
        "ValueError: Adam: expected {}, a number from 0 to below {}, got {}",
        "ValueError: Adam: gradient",
    )
    buffer, square = bytearray(32), mg.tensor(np.ones((2, 2)), requires_grad=True)
    one, other = (mg.Tensor(np.frombuffer(buffer)[i:], requires_grad=True) for i in (0, 1))
    for parameters, gradients, how, message in (
        ([np.zeros(3)], [], {}, "TypeError: Adam: expected Tensors, got ndarray"),
        ([p * 2], [], {}, "ValueError: Adam: a parameter is the result of mul"),
        ([p, q, p], [], {}, "ValueError: Adam: parameter 2 shares its array with one before it"),
        ([p, p.detach()], [], {}, "ValueError: Adam: parameter 1 shares its array with one before it"),
        ([mg.Tensor(p.data)], [], {}, "ValueError: Adam: the array of parameter 0 cannot be written to"),
        ([p, mg.Tensor(p.array[1:])], [], {}, "ValueError: Adam: parameter 1 shares its array"),
        ([one, other], [], {}, "ValueError: Adam: parameter 1 shares its array"),
        *(([], [], {"betas": b}, f"ValueError: Adam: expected two betas, got {b}") for b in (0.9, None, (0.5,))),
        ([], [], {"betas": (0.5, 1)}, number.format("beta2", 1, 1)),
        *(([], [], {"eps": x}, number.format("eps", "inf", x)) for x in (-1, None)),
        *(([p], [], {"lr": x}, number.format("lr", "inf", repr(x))) for x in (None, -1, np.nan, [1], np.array(0.1))),
        *(([p], g, {}, "ValueError: Adam: got gradients of shapes [") for g in ([], [None], [q[:1]], [q * 1, q * 1])),
        (
            [p, q],
            [q * 1, None],
            {},
            "ValueError: Adam: got gradients of shapes [(2,), 'NoneType']; expected [(2,), (2,)]; for None, which",
        ),
        ([p, q], [p * 1, p], {}, f"{gradient} 1 shares its array with a parameter"),
        ([q], [mg.tensor(np.float32(q.data))], {}, "TypeError: Adam: gradient 0 is float32, and its parameter float64"),
        ([q], [np.zeros(2)], {}, "ValueError: Adam: got gradients of shapes ['ndarray']"),
        ([square], mg.grad(square.T, square, grad_outputs=square), {}, f"{gradient} 0 shares"),
        ([one], [mg.Tensor(np.frombuffer(buffer))], {}, f"{gradient} 0 shares"),
    ):
        with pytest.raises((TypeError, ValueError)) as error:
            Adam(parameters, **how).step(gradients)
        assert f"{error.typename}: {error.value}".startswith(message)
