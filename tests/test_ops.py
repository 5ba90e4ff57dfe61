"""Every primitive: its derivatives, its dtypes, its behaviour at the edges, its errors."""

import inspect

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import minigan as mg
from minigan import ops
from tests.cases import CASES, cases
from tests.checking import check_derivatives

PUBLIC = [n for n, f in vars(ops).items() if inspect.isfunction(f) and f.__module__ == ops.__name__ and n[0] != "_"]

few = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def test_every_public_function_is_checked():
    assert sorted(CASES) == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
@given(data=st.data())
@few
def test_first_and_second_derivatives(name, data):
    f, arrays = data.draw(cases(name))
    check_derivatives(f, *arrays)


@pytest.mark.parametrize("name", PUBLIC)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(data=st.data())
@few
def test_dtype_is_kept_at_every_order(name, dtype, data):
    f, arrays = data.draw(cases(name))
    inputs = [mg.tensor(a.astype(dtype), requires_grad=True) for a in arrays]
    y = f(*inputs)
    assert isinstance(y.data, np.ndarray)
    for _ in range(3):
        assert y.dtype == dtype
        y = sum(g.sum() for g in mg.grad(y.sum(), inputs, create_graph=True, materialize_grads=True))


@pytest.mark.parametrize(
    "f",
    [
        lambda x: mg.ops.exp(mg.ops.tanh(x) * x) / (x**2 + 1),
        lambda x: mg.ops.softplus(x) * mg.ops.sigmoid(x),
        lambda x: mg.ops.norm(mg.ops.tanh(x @ x), axis=1) ** 3,
        lambda x: mg.ops.log(mg.ops.sqrt(x * x + 1))[1:],
    ],
)
def test_third_derivatives_of_smooth_compositions(f):
    check_derivatives(f, np.random.default_rng(0).uniform(0.5, 1.5, (2, 2)), order=3)


def test_third_derivative_of_a_polynomial_at_zero():
    x = mg.tensor(np.array([0.0, 2.0]), requires_grad=True)
    y = (x**2 + x**3).sum()
    values = []
    for _ in range(3):
        (g,) = mg.grad(y, x, create_graph=True)
        values.append(g.data)
        y = g.sum()
    np.testing.assert_allclose(values, [[0, 16], [2, 14], [6, 6]])


def test_values_are_numpys():
    x, y = np.random.default_rng(0).uniform(0.5, 2, (2, 3, 3))
    t, u = mg.tensor(x), mg.tensor(y)
    for got, expected in [
        (2 + t - u * 3 / t, 2 + x - y * 3 / x),
        (1 - t, 1 - x),
        (1 / t, 1 / x),
        (-(t**1.5), -(x**1.5)),
        (t @ u, x @ y),
        (x @ u, x @ y),
        (x * u, x * y),
        (t.T, x.T),
        (t[1:, [0, 2]], x[1:, [0, 2]]),
        (t.reshape(9), x.reshape(9)),
        (t.reshape(1, -1), x.reshape(1, -1)),
        (t.mean(0, True), x.mean(0, keepdims=True)),
        (t.sum((0, 1)), x.sum()),
        (ops.norm(t, 1), np.linalg.norm(x, axis=1)),
        (ops.matmul_nt(t, u), x @ y.T),
        (ops.matmul_tn(t, u), x.T @ y),
    ]:
        np.testing.assert_allclose(got.data, expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_python_and_numpy_scalars_never_widen(dtype):
    x = mg.tensor(np.ones((2, 2), dtype), requires_grad=True)
    for scalar in (2, 2.5, True, np.float64(2.5), np.float32(2.5), np.int64(2)):
        for y in (x + scalar, scalar - x, x * scalar, scalar / x, scalar * x, ops.maximum(x, scalar)):
            assert y.dtype == dtype
            assert mg.grad(y.sum(), x)[0].dtype == dtype
    assert (x ** np.float64(1.5)).dtype == dtype


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sigmoid_and_softplus_are_sound_for_any_argument(dtype):
    """Warnings are errors in this suite, so an overflow on the way would fail here."""
    x = mg.tensor(np.array([-1e4, -40, -1, 0, 1, 40, 1e4], dtype), requires_grad=True)
    exact = np.array([-1e4, -40, -1, 0, 1, 40, 1e4])
    sigmoid = np.exp(-np.logaddexp(0, -exact))
    np.testing.assert_allclose(ops.sigmoid(x).data, sigmoid, rtol=1e-6)
    np.testing.assert_allclose(ops.softplus(x).data, np.logaddexp(0, exact), rtol=1e-6)
    np.testing.assert_allclose(mg.grad(ops.softplus(x).sum(), x)[0].data, sigmoid, rtol=1e-6)
    (g,) = mg.grad(ops.sigmoid(x).sum(), x, create_graph=True)
    (h,) = mg.grad(g.sum(), x)
    assert np.isfinite(g.data).all() and np.isfinite(h.data).all()


def test_sigmoid_makes_no_denormal_numbers():
    """They would slow down every product of matrices that they enter."""
    y = ops.sigmoid(mg.tensor(np.linspace(-120, 0, 1000, dtype="float32"))).data
    assert (y[y < 1e-20] == 0).all() and (y > 0).sum() > 380 and (np.diff(y) >= 0).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cross_entropy_of_logits_of_any_size(dtype):
    logits = mg.tensor(np.array([[1e4, 0, -1e4], [0, 0, 0]], dtype), requires_grad=True)
    loss = ops.softmax_cross_entropy(logits, np.array([0, 2]))
    np.testing.assert_allclose(loss.data, np.log(3) / 2, rtol=1e-6)
    (g,) = mg.grad(loss, logits)
    np.testing.assert_allclose(g.data, np.array([[0, 0, 0], [1 / 6, 1 / 6, -1 / 3]]), atol=1e-6)


@pytest.mark.parametrize("axis", [None, 1, -1, (0, 1)])
def test_norm_is_safe_at_zero(axis):
    """Value, gradient and second gradient are finite where the vector is 0, and 0 there: the subgradient chosen."""
    x = mg.tensor(np.zeros((2, 3)), requires_grad=True)
    y = ops.norm(x, axis)
    (g,) = mg.grad(y.sum(), x, create_graph=True)
    (h,) = mg.grad((g * weights_like(g)).sum(), x)
    assert not y.data.any() and not g.data.any() and not h.data.any()


def test_norm_next_to_a_zero_row_is_right():
    data = np.array([[0.0, 0, 0], [3, 0, 4]])
    x = mg.tensor(data, requires_grad=True)
    (g,) = mg.grad(((ops.norm(x, 1) - 1) ** 2).sum(), x)
    np.testing.assert_allclose(g.data, [[0, 0, 0], [2 * 4 * 0.6, 0, 2 * 4 * 0.8]])


def weights_like(g):
    return np.arange(1.0, 1 + g.data.size).reshape(g.shape)


def test_kinks_take_the_documented_side():
    x = mg.tensor(np.array([-1.0, 0.0, 1.0]), requires_grad=True)
    assert mg.grad(ops.relu(x).sum(), x)[0].data.tolist() == [0, 0, 1]
    assert mg.grad(ops.maximum(x, 0).sum(), x)[0].data.tolist() == [0, 0, 1]
    assert mg.grad(ops.maximum(0, x).sum(), x)[0].data.tolist() == [0, 1, 1]
    assert mg.grad(ops.leaky_relu(x, 0.5).sum(), x)[0].data.tolist() == [0.5, 0.5, 1]


SMALL, LONG = mg.tensor(np.ones((2, 3))), mg.tensor(np.ones((4, 5)))


@pytest.mark.parametrize(
    "f, words",
    [
        (lambda: SMALL @ LONG, ["matmul", "(2, 3)", "(4, 5)", "(..., n, k) @ (..., k, m)"]),
        (lambda: SMALL @ np.ones(3), ["matmul", "(2, 3)", "(3,)"]),
        (lambda: ops.matmul_nt(SMALL[:, :1], np.ones((4, 2))), ["matmul_nt", "(2, 1)", "(4, 2)", "transposed"]),
        (lambda: SMALL + LONG, ["add", "(2, 3)", "(4, 5)", "broadcast"]),
        (lambda: ops.linear(SMALL, np.ones((4, 2)), np.zeros(2)), ["linear", "(2, 3)", "(4, 2)", "(n, in)"]),
        (lambda: SMALL.reshape(4), ["reshape", "(2, 3)", "4", "same size"]),
        (lambda: SMALL.sum(2), ["sum", "(2, 3)", "2", "axes"]),
        (lambda: ops.concatenate([SMALL, LONG]), ["concatenate", "(2, 3)", "(4, 5)", "axis"]),
        (lambda: ops.broadcast_to(SMALL, (3, 2)), ["broadcast_to", "(2, 3)", "(3, 2)"]),
        (lambda: ops.sum_to(SMALL, (5,)), ["sum_to", "(2, 3)", "(5,)"]),
    ],
)
def test_an_error_names_the_op_the_shapes_and_what_was_expected(f, words):
    with pytest.raises(ValueError) as error:
        f()
    assert all(word in str(error.value) for word in words), error.value


def test_mixed_dtypes_are_refused_by_name():
    with pytest.raises(TypeError, match="mul: got float64 and float32"):
        SMALL * mg.tensor([[1.0, 2, 3]])


def test_other_errors():
    with pytest.raises(IndexError, match=r"getitem: got \(2, 3\), 7"):
        SMALL[7]
    with pytest.raises(TypeError, match="power: expected a number as the exponent, got Tensor"):
        SMALL**SMALL
    assert (SMALL ** np.int64(2)).dtype == SMALL.dtype
    with pytest.raises(TypeError):
        ops.exp(SMALL, 1)
    with pytest.raises(TypeError, match="linear: missing a required argument: 'w'"):
        ops.linear(SMALL)
    with pytest.raises(TypeError, match="relu: got an unexpected keyword argument 'slope'"):
        ops.relu(SMALL, slope=1)
    with pytest.raises(ValueError, match=r"mean: got \(0, 3\), None; expected .* something there to reduce"):
        mg.tensor(np.zeros((0, 3))).mean()
    for labels in ([0, -1], [0, 3]):
        with pytest.raises(ValueError, match="softmax_cross_entropy: expected labels from 0 to 2"):
            ops.softmax_cross_entropy(SMALL, np.array(labels))


def test_operands_by_keyword():
    x, w, b = (mg.tensor(np.ones(shape), requires_grad=True) for shape in ((2, 3), (3, 4), (4,)))
    for g, h in zip(mg.grad(ops.linear(x, b=b, w=w).sum(), [x, w, b]), mg.grad(ops.linear(x, w, b).sum(), [x, w, b])):
        np.testing.assert_array_equal(g.data, h.data)
    assert ops.leaky_relu(x, slope=0.5).args == (x, 0.5) and ops.leaky_relu(x).args == (x, 0.2)


def test_nan_is_not_hidden():
    x = mg.tensor([np.nan, 1.0, -1.0], requires_grad=True)
    assert mg.grad(ops.relu(x).sum(), x)[0].data.tolist() == [1, 1, 0]
    assert np.isnan(ops.relu(x).data[0])
