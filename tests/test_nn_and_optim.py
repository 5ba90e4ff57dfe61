"""Networks, losses and Adam."""

import math

import numpy as np
import pytest

import minigan as mg
from minigan.gradcheck import finite_differences
from minigan.nn import ACTIVATIONS, OUTPUTS

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
    net = mg.nn.MLP([3, 5, 4, 2], hidden=hidden, output=output, rng=0, dtype="float64")
    parameters = [p.data for p in net.parameters()]
    assert [p.shape for p in parameters] == [(3, 5), (5,), (5, 4), (4,), (4, 2), (2,)]
    x = h = np.random.default_rng(0).normal(size=(6, 3))
    for w, b in zip(parameters[0:4:2], parameters[1:4:2]):
        h = NUMPY[hidden](h @ w + b)
    np.testing.assert_allclose(net(x).data, NUMPY[output](h @ parameters[4] + parameters[5]))
    np.testing.assert_allclose(net(mg.tensor(x)).data, net(x).data)


def test_initialisations():
    he = mg.nn.MLP([400, 300, 10], init="he", rng=0)
    assert he.layers[0].weight.data.std() == pytest.approx(math.sqrt(2 / 400), rel=0.02)
    uniform = mg.nn.MLP([400, 300, 10], init="uniform", rng=0).layers[0].weight.data
    assert -0.05 <= uniform.min() < -0.0499 and 0.0499 < uniform.max() <= 0.05
    assert uniform.std() == pytest.approx(0.1 / math.sqrt(12), rel=0.02)
    assert all(p.dtype == "float32" and p.requires_grad for p in he.parameters())
    assert not any(layer.bias.data.any() for layer in he.layers)
    same = mg.nn.MLP([400, 300, 10], rng=0)
    assert all((p.data == q.data).all() for p, q in zip(he.parameters(), same.parameters()))


@pytest.mark.parametrize(
    "sizes, kind, message",
    [
        (
            [3, 1],
            {"hidden": "gelu"},
            "unknown hidden activation 'gelu': expected one of relu, leaky_relu, tanh, softplus",
        ),
        ([3, 1], {"output": "relu"}, "unknown output activation 'relu': expected one of None, sigmoid, tanh"),
        ([3, 1], {"init": "ones"}, "unknown init 'ones': expected one of he, uniform"),
        ([3], {}, r"expected two sizes or more, each at least 1, got \[3\]"),
        ([3, 0, 1], {}, r"got \[3, 0, 1\]"),
    ],
)
def test_a_bad_network_is_refused(sizes, kind, message):
    with pytest.raises(ValueError, match=message):
        mg.nn.MLP(sizes, **kind)


def spectral(*sizes):
    return mg.nn.MLP(sizes, rng=0, dtype="float64", layer=mg.nn.SpectralLinear)


def iterate(critic, steps):
    for _ in range(steps):
        for layer in critic.layers:
            layer.power_iteration()


def test_power_iteration_finds_the_largest_singular_value():
    critic = spectral(6, 5, 1)
    iterate(critic, 200)
    for layer in critic.layers:
        sigma = (layer.u @ layer.weight.data @ layer.v.T).item()
        assert sigma == pytest.approx(np.linalg.norm(layer.weight.data, 2))


def test_a_spectrally_normalised_critic_has_slope_at_most_one():
    critic = spectral(6, 50, 50, 1)
    x = np.random.default_rng(0).normal(size=(100, 6))
    iterate(critic, 200)
    slopes = mg.penalties.gradient_norm(critic, x).data
    assert 0.1 < slopes.max() <= 1 + 1e-9
    for p in critic.parameters()[::2]:
        p.data = 100 * p.data
    np.testing.assert_allclose(mg.penalties.gradient_norm(critic, x).data, slopes)


@pytest.mark.parametrize("penalty", [False, True])
def test_spectral_normalisation_is_differentiated_as_published(penalty):
    """Through sigma = u^T W v for fixed u and v, first order and, with a penalty, second."""
    critic = spectral(3, 4, 1)
    real, fake = np.random.default_rng(0).normal(size=(2, 5, 3))
    parameters = critic.parameters()

    def loss(*arrays):
        for p, a in zip(parameters, arrays):
            p.data = a
        y = mg.losses.critic_loss(critic(real), critic(fake))
        return y + mg.penalties.gradient_penalty(critic, real, fake, np.random.default_rng(1)) if penalty else y

    arrays = [p.data for p in parameters]
    for i, g in enumerate(mg.grad(loss(*arrays), parameters, materialize_grads=True)):
        numeric = finite_differences(lambda *a: loss(*a).item(), arrays, i)
        np.testing.assert_allclose(g.data, numeric, rtol=1e-5, atol=1e-8)
    layer = critic.layers[0]
    sigma = (layer.u @ layer.weight.data @ layer.v.T).item()
    # Miyato et al., equation 12: along W itself the normalised weight does not move
    (g,) = mg.grad(loss(*arrays), layer.weight)
    assert abs((g.data * layer.weight.data).sum()) < 1e-9 and sigma > 0


def scalar_adam(p, gradients, lr, beta1, beta2, eps):
    """Algorithm 1 of Kingma and Ba 2015 for one number, as printed."""
    m = v = 0.0
    for t, g in enumerate(gradients, start=1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        p = p - lr * m_hat / (math.sqrt(v_hat) + eps)
    return p


@pytest.mark.parametrize("eps", [1e-8, 0.1])
@pytest.mark.parametrize("betas", [(0.5, 0.9), (0.9, 0.999), (0.0, 0.9)])
def test_adam_against_a_scalar_reimplementation(betas, eps):
    rng = np.random.default_rng(0)
    start = [rng.normal(size=(3, 2)), rng.normal(size=4)]
    steps = [[rng.normal(size=(3, 2)), 1e-3 * rng.normal(size=4)] for _ in range(20)]
    parameters = [mg.tensor(a, requires_grad=True) for a in start]
    adam = mg.optim.Adam(parameters, lr=0.05, betas=betas, eps=eps)
    for grads in steps:
        adam.step([mg.tensor(g) for g in grads])
    for i, p in enumerate(parameters):
        for at in np.ndindex(p.shape):
            expected = scalar_adam(start[i][at], [g[i][at] for g in steps], 0.05, *betas, eps)
            assert p.data[at] == pytest.approx(expected, rel=1e-12)


def test_adam_on_more_than_one_block():
    """The update goes through a parameter in blocks; one that is longer is updated to its end."""
    n = 140_001
    p = mg.tensor(np.zeros(n), requires_grad=True)
    g = np.random.default_rng(0).normal(size=n)
    mg.optim.Adam([p], lr=0.1).step([mg.tensor(g)])
    np.testing.assert_allclose(p.data, [scalar_adam(0.0, [x], 0.1, 0.9, 0.999, 1e-8) for x in g])


def test_adam_on_arrays_that_are_not_contiguous():
    data, g = np.arange(12.0).reshape(3, 4), np.random.default_rng(0).normal(size=(4, 3))
    p = mg.Tensor(data.T, requires_grad=True)
    mg.optim.Adam([p], lr=0.1).step([mg.tensor(g)])
    expected = [[scalar_adam(i + 4.0 * j, [g[i, j]], 0.1, 0.9, 0.999, 1e-8) for j in range(3)] for i in range(4)]
    np.testing.assert_allclose(data.T, expected)
    scalar = mg.tensor(1.0, requires_grad=True)
    mg.optim.Adam([scalar], lr=0.5).step([mg.tensor(3.0)])
    assert scalar.item() == pytest.approx(0.5)


def test_adam_works_in_place():
    net = mg.nn.MLP([3, 4, 1], rng=0)
    adam = mg.optim.Adam(net.parameters())
    arrays = [t.data for t in (*adam.m, *adam.v, *net.parameters())]
    before = [a.copy() for a in arrays]
    adam.step([mg.tensor(np.ones(p.shape, "float32")) for p in net.parameters()])
    assert all(t.data is a for t, a in zip((*adam.m, *adam.v, *net.parameters()), arrays))
    assert all(a.dtype == "float32" and (a != b).all() for a, b in zip(arrays, before))


@pytest.mark.parametrize("n", [1, 65536, 150_000])
def test_adam_moves_every_element_of_arrays_in_any_order(n):
    p = mg.tensor(np.zeros((2, n)).T, requires_grad=True)
    p.data = np.zeros((2, n)).T
    mg.optim.Adam([p], lr=0.1).step([mg.tensor(np.ones((2, n)).T)])
    np.testing.assert_allclose(p.data, np.full((n, 2), -0.1))


@pytest.mark.parametrize("beta1", [0, 0.5, 0.9])
def test_what_decays_in_adam_does_not_stay_denormal(beta1):
    """And what is small, but beside eps not nothing, stays as it is."""
    p = mg.tensor(np.ones(4, "float32"), requires_grad=True)
    adam = mg.optim.Adam([p], lr=0.1, betas=(beta1, 0.9))
    for i in range(1, 2001):
        adam.step([mg.tensor(np.array([1, -1e-6, 0, i < 5], "float32"))])
    for moment, expected in ((adam.m[0], [1, -1e-6, 0, 0]), (adam.v[0], [1, 1e-12, 0, 0])):
        np.testing.assert_allclose(moment.data, expected, rtol=1e-4)


def test_adam_refuses_what_it_would_move_wrongly():
    p, q = (mg.tensor(np.zeros(2), requires_grad=True) for _ in range(2))
    with pytest.raises(ValueError, match="Adam: a parameter is there twice"):
        mg.optim.Adam([p, q, p])
    with pytest.raises(ValueError, match=r"Adam: got gradients of shapes \[\(2,\), None\]; expected"):
        mg.optim.Adam([p, q]).step(mg.grad((p * 2).sum(), [p, q], allow_unused=True))


def test_adam_takes_gradients_in_whatever_can_be_gone_through():
    w = mg.tensor([1.0, 2.0], True)
    for given in (w, (p for p in [w])):
        adam = mg.optim.Adam(given, lr=0.1)
        adam.step(g * 1 for g in mg.grad((w * w).sum(), w))
    np.testing.assert_allclose(w.data, [0.8, 1.8], rtol=1e-4)


def test_adam_notes_what_it_writes():
    x = mg.tensor(np.ones(1), True)
    adam = mg.optim.Adam([mg.tensor(np.ones(1), True)])
    moments, rate = x * adam.m[0], x * adam.rate
    adam.step([mg.tensor(np.ones(1))])
    adam.lr = 7
    for y in (moments, rate):
        with pytest.raises(ValueError, match="was changed in place since"):
            mg.grad(y, x)


def test_adam_moves_a_number_that_was_assigned():
    """What NumPy computes of an array without axes is a number of its own, which cannot be written to."""
    x = mg.tensor(2.0, requires_grad=True)
    adam = mg.optim.Adam([x], lr=0.1)
    x.data = x.data - 0.5
    adam.step(mg.grad(x * x, x))
    assert x.item() == pytest.approx(1.4)


def test_adam_refuses_what_it_cannot_step_by():
    with pytest.raises(TypeError, match="Adam: expected Tensors, got ndarray"):
        mg.optim.Adam([np.zeros(3)])
    with pytest.raises(ValueError, match=r"Adam: expected two betas from 0 to below 1, got \(1, 1\)"):
        mg.optim.Adam([], betas=(1, 1))
    p, q = (mg.tensor(np.zeros(2), requires_grad=True) for _ in range(2))
    with pytest.raises(ValueError, match="Adam: a parameter is the result of mul"):
        mg.optim.Adam([p * 2])
    with pytest.raises(ValueError, match="Adam: a parameter is there twice"):
        mg.optim.Adam([p, p.detach()])
    with pytest.raises(ValueError, match="Adam: a gradient shares its array with a parameter"):
        mg.optim.Adam([p, q]).step(mg.grad(p + q, [p, q], grad_outputs=p))
    for lr in (None, -1, np.nan, [1, 2]):
        with pytest.raises(ValueError, match="Adam: expected a learning rate of at least 0, got"):
            mg.optim.Adam([p], lr)


def test_adam_after_200_steps_is_the_published_algorithm_in_single_precision_too():
    rng = np.random.default_rng(0)
    p = mg.tensor(np.float32(rng.normal(size=50)), requires_grad=True)
    start, gradients = p.data.copy(), np.float32(rng.normal(size=(200, 50)))
    adam = mg.optim.Adam([p], lr=1e-3, betas=(0.5, 0.999))
    for g in gradients:
        adam.step([mg.tensor(g)])
    expected = [scalar_adam(float(x), g.tolist(), 1e-3, 0.5, 0.999, 1e-8) for x, g in zip(start, gradients.T)]
    np.testing.assert_allclose(p.data, expected, atol=2e-6)


def test_adam_takes_over_assigned_parameters():
    p = mg.tensor(np.zeros(2), requires_grad=True)
    adam = mg.optim.Adam([p], lr=0.1)
    p.data = np.array([5.0, 6.0])
    adam.step([mg.tensor(np.ones(2))])
    np.testing.assert_allclose(p.data, [4.9, 5.9])


def test_adam_minimises():
    x = mg.tensor(np.array([3.0, -2.0]), requires_grad=True)
    adam = mg.optim.Adam([x], lr=0.1)
    for _ in range(500):
        adam.step(mg.grad(((x - np.array([1.0, 2.0])) ** 2).sum(), x))
    np.testing.assert_allclose(x.data, [1, 2], atol=1e-3)


@pytest.mark.parametrize("shapes", [[(3,)], [(2,), (2,)], []])
def test_adam_refuses_misshapen_gradients(shapes):
    adam = mg.optim.Adam([mg.tensor(np.zeros(2), requires_grad=True)])
    with pytest.raises(ValueError, match=r"Adam: got gradients of shapes \[.*\]; expected \[\(2,\)\]"):
        adam.step([mg.tensor(np.zeros(shape)) for shape in shapes])
