"""How it is known that the gradients are right: each section checks more of the engine at once.

1. Every primitive, over its shapes, axes and broadcasting, on every device.
2. The critic's loss with its gradient penalty, for every weight and bias: what the engine is there for.
3. Random programs, in which primitives use each other's results.
4. Planted errors: the check can fail, and says where.

All is held by ``gradcheck`` against central differences in float64, and of second order too, that is, the derivatives
of the derivatives. ``python -m pytest tests/test_gradients.py --hypothesis-profile=long`` tries ten thousand programs.
"""

from functools import partial

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import minigan as mg
from minigan import backend, gradcheck, ops
from tests.cases import CASES, ways


@pytest.fixture(params=["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
def device(request):
    try:
        backend.use(request.param)
    except backend.DeviceError as error:
        pytest.skip(str(error))
    yield
    backend.use("cpu")


# --- 1. Every primitive -------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_every_primitive(name, device):
    """Its derivatives of order 1 and 2 are right, and those up to order 3 keep the dtype."""
    for f, arrays in CASES[name]:
        gradcheck(f, *arrays, name=name)
        for dtype in ("float32", "float64"):
            inputs = [mg.tensor(a.astype(dtype), requires_grad=True) for a in arrays]
            y = f(*inputs)
            assert isinstance(y.data, backend.xp.ndarray)
            for _ in range(3):
                assert y.dtype == dtype
                y = sum(g.sum() for g in mg.grad(y.sum(), inputs, create_graph=True, materialize_grads=True))


def test_no_primitive_is_left_out():
    assert sorted(CASES) == sorted(["concatenate", *(name for name, f in vars(ops).items() if hasattr(f, "vjps"))])


COMPOSITIONS = [
    lambda x: ops.exp(ops.tanh(x) * x) / (x**2 + 1),
    lambda x: ops.softplus(x) * ops.sigmoid(x),
    lambda x: ops.norm(ops.tanh(x @ x), axis=1) ** 3,
    lambda x: ops.log(ops.sqrt(x * x + 1))[1:],
    lambda x: (x - 1) ** 2 + (x - 1) ** 3,  # a power is all there at 0
    lambda x: (1e6 * x) ** 3 / 1e18,
    lambda x: x * 0 + 1,
]


@pytest.mark.parametrize("f", COMPOSITIONS)
def test_the_third_derivatives_of_compositions(f, device):
    gradcheck(f, [[1.5, 0.6], [1.0, 0.9]], order=3)


# --- 2. The critic's loss -----------------------------------------------------------------------


@pytest.mark.parametrize("hidden", ["relu", "leaky_relu", "tanh", "softplus"])
def test_the_critics_loss_for_every_weight_and_bias(hidden, device):
    """Its gradient goes through the gradient at the points of the penalty, and its second derivatives once more.

    The same points are drawn each time, by the generator's seed.
    """
    real, fake = map(backend.on_device, np.random.default_rng(0).normal(size=(2, 3, 3)))
    critic = mg.nn.MLP([3, 4, 2, 1], hidden=hidden, rng=1, dtype="float64")

    def loss(*parameters):
        for layer, weight, bias in zip(critic.layers, parameters[::2], parameters[1::2]):
            layer.weight, layer.bias = weight, bias
        penalty = mg.penalties.gradient_penalty(critic, real, fake, backend.default_rng(2))
        return mg.losses.critic_loss(critic(real), critic(fake)) + 10 * penalty

    gradcheck(loss, *critic.parameters())


# --- 3. Random programs -------------------------------------------------------------------------

SMOOTH = [ops.tanh, ops.sigmoid, ops.softplus, ops.neg, lambda x: 2 - x, lambda x: 0.1 * x**3]
SMOOTH += [lambda x: ops.exp(ops.tanh(x)), lambda x: ops.sqrt(1 + x * x), lambda x: ops.log(1.5 + ops.sigmoid(x))]
KINKED = (ops.relu, lambda x: ops.leaky_relu(x, 0.2), lambda x: ops.maximum(x, 0.5 - x))
PAIRS = (ops.add, ops.sub, ops.mul, lambda x, y: x / (1.5 + ops.tanh(y)), lambda x, y: ops.tanh(x) * y)
REDUCTIONS = [partial(f, keepdims=k) for f in (ops.sum, ops.mean, ops.logsumexp, ops.norm) for k in (True, False)]


def functions_of(x, y):
    """Functions that are smooth around the first, or around both, by kinds, each with the number of its operands."""
    yield 1, SMOOTH
    yield 1, [ops.transpose, *ways(ops.reshape, shape=[(-1,), (1, -1), (-1, 1), x.shape[::-1]])]
    yield 1, ways(ops.broadcast_to, shape=[x.shape, (2, *x.shape)])
    if (np.abs(x.data) > 0.01).all() and (np.abs(2 * x.data - 0.5) > 0.01).all():
        yield 1, KINKED
    if x.ndim:
        yield (
            1,
            ways(ops.getitem, index=[*range(-len(x), len(x)), slice(None, None, -1), np.arange(-1, len(x)), [0, 0]]),
        )
        reductions = [way for f in REDUCTIONS for way in ways(f, axis=[None, *range(-x.ndim, x.ndim)])]
        yield 1, [f for f in reductions if f.func is not ops.norm or (f(x).data > 0.1).all()]
    if all(1 in sides or len(set(sides)) == 1 for sides in zip(x.shape[::-1], y.shape[::-1])):
        yield 2, PAIRS
    if x.ndim and x.ndim == y.ndim and x.shape[1:] == y.shape[1:]:
        yield 2, [lambda x, y: ops.concatenate((x, y, x))]
    if x.ndim == y.ndim == 2 and x.shape[1] == y.shape[0]:
        yield 2, [lambda x, y: ops.tanh(x @ y)]


def run(steps, values):
    """The last of the values, each step making one of some before it."""
    for f, operands in steps:
        values = [*values, f(*(values[i] for i in operands))]
    return values[-1]


@st.composite
def programs(draw):
    """A function of some Tensors to one, and arrays to check its derivatives at."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    shapes = draw(st.lists(st.sampled_from([(), (1,), (2,), (2, 2), (1, 2), (2, 1), (3,)]), min_size=1, max_size=3))
    arrays = [np.asarray(rng.uniform(-1.5, 1.5, shape)) for shape in shapes]
    values, steps = [mg.tensor(a) for a in arrays], []
    for _ in range(draw(st.integers(2, 8))):
        i, j = (draw(st.integers(0, len(values) - 1)) for _ in range(2))
        n, functions = draw(st.sampled_from([*functions_of(values[i], values[j])]))
        step = draw(st.sampled_from(functions)), (i, j)[:n]
        value = run([step], values)
        if value.data.size <= 24 and np.abs(value.data).max() < 20:
            values.append(value)
            steps.append(step)
    return lambda *tensors: run(steps, tensors), arrays


@hypothesis.given(programs())
@hypothesis.settings(deadline=None, derandomize=True, suppress_health_check=list(hypothesis.HealthCheck))
def test_random_programs(program):
    f, arrays = program
    try:
        gradcheck(f, *arrays)
    except ValueError as error:
        hypothesis.assume("none was compared" not in str(error))
        raise


# --- 4. The checks can fail ---------------------------------------------------------------------

RNG = np.random.default_rng(0)
SQUARE, ROW, COLUMN = RNG.uniform(0.5, 1.5, (3, 3)), RNG.uniform(0.5, 1.5, (1, 3)), RNG.uniform(0.5, 1.5, (3, 1))
SIGNED = SQUARE * np.array([[1, -1, 1], [-1, -1, 1], [1, 1, -1]])

PLANTED = {
    "a missing term": (ops.tanh, 0, lambda g, out, x: g, [SQUARE]),
    "a wrong sign": (ops.sub, 1, lambda g, out, x, y: g, [SQUARE, SQUARE]),
    "a sum over the wrong axis": (ops.add, 1, lambda g, out, x, y: ops.sum(g.T, 0, True), [SQUARE, ROW]),
    "a broadcast mean for a sum": (ops.div, 1, lambda g, out, x, y: ops.mean(-g * out / y, 1, True), [SQUARE, COLUMN]),
    "a mask one element off": (ops.relu, 0, lambda g, out, x: g * np.roll(x.data > 0, 1), [SIGNED]),
    "a mask inverted": (ops.leaky_relu, 0, lambda g, out, x, slope: g * np.where(x.data > 0, slope, 1), [SIGNED]),
    "a transpose left out": (ops.matmul, 0, lambda g, out, x, y: ops.matmul(g, y), [SQUARE, SQUARE]),
    "a bias gradient not summed": (ops.linear, 2, lambda g, out, x, w, b: g[0], [SQUARE, SQUARE, ROW[0]]),
    "a result held constant": (ops.tanh, 0, lambda g, out, x: g * (1 - out.detach() * out.detach()), [SQUARE]),
    "a norm held constant": (ops.norm, 0, lambda g, out, x, *_: x * (g / out.detach()), [SQUARE]),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_error_is_caught(name, monkeypatch):
    """Those that hold something constant are right as numbers: it is the second order that catches them."""
    f, i, wrong, arrays = PLANTED[name]
    gradcheck(f, *arrays)
    monkeypatch.setattr(f, "vjps", (*f.vjps[:i], wrong, *f.vjps[i + 1 :]))
    if name.endswith("held constant"):
        gradcheck(f, *arrays, order=1)
    with pytest.raises((AssertionError, ValueError)):
        gradcheck(f, *arrays)


SEVEN = mg.primitive(lambda g, out, x: g * 7)(lambda x: np.log(x))
ZERO = mg.primitive(lambda g, out, x: g * 0)(lambda x: x * 1.0)
DOUBLE = mg.primitive(lambda g, out, x: mg.tensor(g.data) * 2)(lambda x: x * 2.0)
NOTHING, NO_TENSOR = (
    "expected an order of at least 1, and inputs with something in them",
    "expected a function of Tensors",
)
WRONG = [
    (
        lambda x, y: x * y.data,
        ([1], [3]),
        1,
        AssertionError,
        r"<lambda>, order 1, input 1 at \(0,\): grad gives 0, the",
    ),
    (DOUBLE, ([1.0, 2.0],), 2, AssertionError, "order 2, the gradient given to the vjps at"),
    (SEVEN, ([1e-5],), 2, AssertionError, r"the finite difference is -?(inf|nan)"),  # beside a pole
    (
        lambda x: ZERO(1e-9 * x),
        ([1.0],),
        1,
        ValueError,
        "input 0: no derivative is above atol, 1e-06, so none was comp",
    ),
    (SEVEN, ([],), 2, ValueError, NOTHING),
    (SEVEN, ([1.0],), 0, ValueError, NOTHING),
    (lambda x: x.data, ([1.0],), 2, TypeError, NO_TENSOR),
]


@pytest.mark.parametrize("f, given, order, error, message", WRONG)
def test_what_is_wrong_is_told(f, given, order, error, message):
    with np.errstate(all="ignore"), pytest.raises(error, match=f"^gradcheck: .*{message}"):
        gradcheck(f, *given, order=order)


def test_the_step_follows_the_size_of_an_input():
    gradcheck(lambda x: x**3, [1e6])


@pytest.mark.parametrize("factor", [1, 5, 100])
def test_a_derivative_that_is_zero(factor):
    """What a finite difference makes of it shrinks with the step."""
    gradcheck(lambda x: factor * x**3, [0.0], order=3)
