"""Every primitive: its derivatives, its dtypes, its behaviour at the edges, its errors."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import minigan as mg
from minigan import gradcheck, ops
from tests.cases import CASES, cases

PUBLIC = [n for n, f in vars(ops).items() if hasattr(f, "vjps")] + ["concatenate"]

few = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def test_every_public_function_is_checked():
    assert sorted(CASES) == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
@given(data=st.data())
@few
def test_first_and_second_derivatives(name, data):
    f, arrays = data.draw(cases(name))
    gradcheck(f, *arrays)


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
    gradcheck(f, np.random.default_rng(0).uniform(0.5, 1.5, (2, 2)), order=3)


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


def test_the_logarithm_of_a_small_sigmoid():
    x = mg.tensor(np.array(-50.0), requires_grad=True)
    y = ops.log(ops.sigmoid(x))
    assert y.item() == pytest.approx(-50) and mg.grad(y, x)[0].item() == pytest.approx(1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("common", [0, 1e6, 1e8, -1e8])
def test_logsumexp_loses_no_digits_of_its_derivative(common, dtype):
    x = mg.tensor(np.array([[common, common]], dtype), requires_grad=True)
    np.testing.assert_allclose(mg.grad(ops.logsumexp(x), x)[0].data, [[0.5, 0.5]], rtol=1e-6)


def test_logsumexp_of_infinities():
    inf = np.inf
    with np.errstate(divide="ignore"):
        y = ops.logsumexp(np.array([[-inf, -inf], [-inf, 0], [inf, 0], [inf, inf], [inf, -inf]]), 1)
    assert y.data.tolist() == [-inf, 0, inf, inf, inf]


def test_an_exponent_of_numpys():
    for exponent in (np.int8(-128), np.int8(100), np.float16(0.1), np.uint8(0)):
        x = mg.tensor(np.array([1.5, 0.7]), requires_grad=True)
        n = exponent.item()
        np.testing.assert_allclose(mg.grad((x**exponent).sum(), x)[0].data, n * x.data ** (n - 1.0))


def test_half_precision_is_refused():
    half = np.ones(3, "float16")
    for f in (lambda: mg.tensor(half), lambda: ops.sum(half), lambda: mg.nn.MLP([3, 1], dtype="float16")(half[None])):
        with pytest.raises(TypeError, match="expected float32 or float64, got float16"):
            f()


def test_the_second_derivative_of_a_squared_length():
    """At 0 the norm has none; the sum of the squares does, as its docstring says."""
    x = mg.tensor(np.zeros(2), requires_grad=True)
    for f, expected in ((lambda x: ops.norm(x) ** 2, 0), (lambda x: (x * x).sum(), 2)):
        (g,) = mg.grad(f(x), x, create_graph=True)
        assert mg.grad(g.sum(), x)[0].data.tolist() == [expected] * 2


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
        (lambda: ops.concatenate([]), ["concatenate: expected one Tensor or more"]),
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
    with pytest.raises(TypeError, match=r"power: got \(2, 3\), \(2, 3\); expected x \*\* exponent, for a constant"):
        SMALL**SMALL
    for f, message in (
        (lambda: SMALL @ 2, r"matmul: got \(2, 3\), 2; expected x @ y"),
        (lambda: ops.sum([1.0]), r"sum: got \[1.0\], None, False; expected The sum of an array"),
    ):
        with pytest.raises(TypeError, match=message):
            f()
    assert (SMALL ** np.int64(2)).dtype == SMALL.dtype
    with pytest.raises(TypeError):
        ops.exp(SMALL, 1)
    with pytest.raises(TypeError, match="linear: missing a required argument: 'w'"):
        ops.linear(SMALL)
    with pytest.raises(TypeError, match="relu: got an unexpected keyword argument 'slope'"):
        ops.relu(SMALL, slope=1)
    with pytest.raises(ValueError, match=r"mean: got \(0, 3\), None, False; expected .* something there to reduce"):
        mg.tensor(np.zeros((0, 3))).mean()


def test_axes_in_an_array():
    p = [2, 0, 1]
    x = mg.tensor(np.arange(24.0).reshape(2, 3, 4), requires_grad=True)
    y = ops.transpose(x, np.argsort(p))
    w = np.arange(24.0).reshape(y.shape)
    np.testing.assert_array_equal(mg.grad((y * w).sum(), x)[0].data, w.transpose(p))


def test_a_tensor_that_is_no_operand():
    """What has no vjp may be a Tensor, but none that a gradient should flow to; to change it spoils no later graph."""

    @mg.primitive(lambda g, out, x, scale: g * scale)
    def scaled(x, scale):
        return x * scale.data

    x, scale = mg.tensor(np.ones(2), requires_grad=True), mg.tensor(2 * np.ones(2))
    scale.data *= 2
    assert mg.grad(scaled(x, scale).sum(), x)[0].data.tolist() == [4, 4]
    y = scaled(x, scale)
    scale.data *= 2
    with pytest.raises(ValueError, match="was changed in place since"):
        mg.grad(y.sum(), x)
    with pytest.raises(TypeError, match="scaled: argument 1 is a Tensor that requires a gradient, and there is no vjp"):
        scaled(x, x)


@pytest.mark.parametrize(
    "vjp, error, message",
    [
        (lambda g, out, x: g.data, TypeError, "twice: a vjp returned ndarray; expected a Tensor"),
        (lambda g, out, x: g[:1], ValueError, r"twice: a vjp returned shape \(1,\) for an operand of shape \(3,\)"),
        (
            lambda g, out, x: mg.tensor(np.float32(g.data)),
            TypeError,
            "twice: a vjp returned float32 for an operand of float64",
        ),
    ],
)
def test_a_vjp_that_returns_something_else(vjp, error, message):
    @mg.primitive(vjp)
    def twice(x):
        return 2 * x

    x = mg.tensor(np.ones(3), requires_grad=True)
    with pytest.raises(error, match=message):
        mg.grad(twice(x).sum(), x)


def test_operands_by_keyword():
    x, w, b = (mg.tensor(np.ones(shape), requires_grad=True) for shape in ((2, 3), (3, 4), (4,)))
    for g, h in zip(mg.grad(ops.linear(x, b=b, w=w).sum(), [x, w, b]), mg.grad(ops.linear(x, w, b).sum(), [x, w, b])):
        np.testing.assert_array_equal(g.data, h.data)
    assert ops.leaky_relu(x, slope=0.5).args == (x, 0.5) and ops.leaky_relu(x).args == (x, 0.2)


def test_a_primitive_without_a_docstring_says_what_its_function_said():
    broken = mg.primitive(lambda g, out, x: g)(lambda x: x.nothing)
    with pytest.raises(TypeError, match=r"got \(2, 3\): .*no attribute 'nothing'"):
        broken(SMALL)


def test_a_primitive_takes_no_keyword_alone():
    with pytest.raises(TypeError, match=r"f: a primitive takes its arguments by position or name, not as scale=1.0"):

        @mg.primitive(lambda g, out, x, scale=1.0: g * scale)
        def f(x, *, scale=1.0):
            return x * scale


def test_the_larger_of_infinities():
    inf = np.inf
    x, y = (mg.tensor(np.array(a), requires_grad=True) for a in ([1, inf, -inf, inf], [inf, inf, -inf, 1]))
    gx, gy = mg.grad(ops.maximum(x, y), [x, y], grad_outputs=np.ones(4))
    assert gx.data.tolist() == [0, 0, 0, 1] and gy.data.tolist() == [1, 1, 1, 0]


def test_whole_numbers_alone_are_refused():
    for f in (ops.leaky_relu, ops.safe_reciprocal, ops.logsumexp, ops.softmax, ops.norm, ops.sum):
        for dtype in ("int64", "uint16", "bool"):
            with np.errstate(all="ignore"), pytest.raises(TypeError, match=f"^{f.__name__}: .*expected"):
                f(np.array([1, 2, 3], dtype))
    assert ops.safe_reciprocal(2).item() == 0.5 and ops.safe_reciprocal(0).item() == 0
    assert (SMALL * np.ones(3, "int8")).dtype == SMALL.dtype


def test_dtypes_of_other_kinds():
    x = mg.tensor(np.array([1, 2], ">f4"), requires_grad=True)
    assert x.dtype == "float32" and mg.grad((x * x).sum(), x)[0].data.tolist() == [2, 4]
    if np.longdouble is not np.float64 and np.dtype(np.longdouble).itemsize > 8:
        with pytest.raises(TypeError, match=r"mul: got float64 and (longdouble|float128)"):
            SMALL * np.longdouble(2)
    x = mg.tensor(np.float32([1, 2]), requires_grad=True)
    assert mg.grad((x ** np.array(2.0)).sum(), x)[0].data.tolist() == [2, 4]
    with pytest.raises(TypeError, match="power: got"):
        x ** "3"


def test_nan_is_not_hidden():
    x = mg.tensor([np.nan, 1.0, -1.0], requires_grad=True)
    assert mg.grad(ops.relu(x).sum(), x)[0].data.tolist() == [1, 1, 0]
    assert np.isnan(ops.relu(x).data[0])
