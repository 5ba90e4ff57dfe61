"""Every primitive: its values, its behaviour at the edges, its dtypes, its errors. Derivatives: ``test_gradients``."""

import tracemalloc
from enum import IntEnum
from fractions import Fraction
from functools import partial

import numpy as np
import pytest

import minigan as mg
from minigan import ops

SMALL, LONG, HALF = mg.tensor(np.ones((2, 3))), mg.tensor(np.ones((4, 5))), np.ones((1, 3), "float16")
both_dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


def operations(x, y):
    return [2 + x - y * 3 / x, 1 - x, 1 / x, -(x**1.5), x @ y, x.T, x[1:, [0, 2]], x.reshape(9), x.reshape(1, -1)]


def test_values_are_numpys():
    x, y = np.random.default_rng(0).uniform(0.5, 2, (2, 3, 3))
    t, u = mg.tensor(x), mg.tensor(y)
    got = [x @ u, x * u, t.sum(keepdims=True), t.mean(0, True), ops.norm(t, 1), ops.linear(t, b=x[0], w=u)]
    expected = [x @ y, x * y, x.sum(keepdims=True), x.mean(0, keepdims=True), np.linalg.norm(x, axis=1), x @ y + x[0]]
    for a, b in zip([*operations(t, u), *got], [*operations(x, y), *expected]):
        np.testing.assert_allclose(a.data, b, strict=True)
    np.testing.assert_allclose(ops.matmul_nt(t, u).data, x @ y.T)
    np.testing.assert_allclose(ops.matmul_tn(t, u).data, x.T @ y)


# --- At the edges -------------------------------------------------------------------------------

WIDE = np.array([-1e4, -40, -1, 0, 1, 40, 1e4])  # warnings are errors in this suite, so no overflow on the way either
SIGMOID = np.exp(-np.logaddexp(0, -WIDE))
KINK, A, INF, NAN = [-1, 0, 1], np.array([1.5, 0.7]), np.inf, np.nan
FIRST, SECOND, LARGER = [1, INF, -INF, INF], [INF, INF, -INF, 1], [INF, INF, -INF, INF]
N = np.float16(0.1).item()
EDGES = [  # a function, where, its value, its derivative
    (ops.sigmoid, WIDE, SIGMOID, SIGMOID * (1 - SIGMOID)),
    (ops.softplus, WIDE, np.logaddexp(0, WIDE), SIGMOID),
    (lambda x: ops.log(ops.sigmoid(x)), -50, -50, 1),
    (ops.relu, KINK, [0, 0, 1], [0, 0, 1]),
    (ops.relu, [NAN, 1, -1], [NAN, 1, 0], [1, 1, 0]),
    (ops.safe_reciprocal, [2, 0], [0.5, 0], [-0.25, 0]),
    (ops.leaky_relu, KINK, [-0.2, 0, 1], [0.2, 0.2, 1]),
    (lambda x: ops.leaky_relu(x, slope=0.5), KINK, [-0.5, 0, 1], [0.5, 0.5, 1]),
    (lambda x: ops.maximum(x, 0), KINK, [0, 0, 1], [0, 0, 1]),
    (lambda x: ops.maximum(0, x), KINK, [0, 0, 1], [0, 1, 1]),
    (lambda x: ops.maximum(x, np.array(SECOND, x.dtype)), FIRST, LARGER, [0, 0, 0, 1]),
    (lambda x: ops.maximum(np.array(FIRST, x.dtype), x), SECOND, LARGER, [1, 1, 1, 0]),
    (ops.logsumexp, [[1e6, 1e6]], 1e6 + np.log(2), [[0.5, 0.5]]),  # no digits lost
    (lambda x: (ops.norm(x, 1) - 1) ** 2, [[0, 0], [3, 4]], [1, 16], [[0, 0], [4.8, 6.4]]),  # zero in one row
    (lambda x: ops.norm(x), [[0, 0], [0, 0]], 0, [[0, 0], [0, 0]]),
    (lambda x: x ** np.array(2.0), A, A**2, 2 * A),
    (lambda x: x ** np.int8(-128), A, A**-128, -128 * A**-129),
    (lambda x: x ** np.float16(0.1), A, A**N, N * A ** (N - 1)),
    (lambda x: x ** np.uint8(0), A, [1, 1], [0, 0]),
    (lambda x: x ** Fraction(1, 2), A, A**0.5, 0.5 * A**-0.5),
    (lambda x: x[None], 3, [3], 1),
    (lambda x: x.sum(0), 3, 3, 1),  # CuPy refuses it
]


@both_dtypes
@pytest.mark.parametrize("f, x, value, derivative", EDGES)
def test_at_the_edges(f, x, value, derivative, dtype):
    """And the second derivatives are finite there."""
    x = mg.tensor(np.array(x, dtype), requires_grad=True)
    y = f(x)
    (g,) = mg.grad(y, x, grad_outputs=np.ones(y.shape, dtype), create_graph=True)
    rtol = 1e-4 if dtype == "float32" else 1e-7
    np.testing.assert_allclose(y.data, value, rtol)
    np.testing.assert_allclose(g.data, derivative, rtol)
    (h,) = mg.grad((g * np.arange(1, 1 + g.data.size, dtype=dtype).reshape(g.shape)).sum(), x, materialize_grads=True)
    assert np.isfinite(h.data).all()


def test_a_quotient_of_large_numbers():
    """Its derivative is finite where it can be."""
    a, b = (mg.tensor([x], requires_grad=True) for x in (1e20, 1e10))
    assert mg.grad(a / b, b, grad_outputs=np.float32([1e30]))[0].item() == pytest.approx(-1e30)


def test_many_pieces():
    """Their copies take no more than their number, times its logarithm."""
    pieces = [mg.tensor(np.full(10, i), requires_grad=True) for i in range(2000)]
    tracemalloc.start()
    y = ops.concatenate(pieces)
    assert [g.data[0] for g in mg.grad(y.sum(), pieces[:3])] == [1, 1, 1]
    assert y.shape == (20_000,)
    for given in (iter(pieces[:2]), dict(enumerate(pieces[:2])).values(), [np.zeros(20)]):
        assert isinstance(z := ops.concatenate(given), mg.Tensor)
        assert z.shape == (20,)
    assert tracemalloc.get_traced_memory()[1] < 1e7
    tracemalloc.stop()


def test_logsumexp_of_infinities():
    y = ops.logsumexp(np.array([[-INF, -INF], [-INF, 0], [INF, 0], [INF, INF], [INF, -INF]]), 1)
    assert y.data.tolist() == [-INF, 0, INF, INF, INF]


def test_the_second_derivative_of_a_squared_length():
    """At 0 the norm has none; the sum of the squares does, as its docstring says."""
    x = mg.tensor(np.zeros(2), requires_grad=True)
    for f, expected in ((lambda x: ops.norm(x) ** 2, 0), (lambda x: (x * x).sum(), 2)):
        (g,) = mg.grad(f(x), x, create_graph=True)
        assert mg.grad(g.sum(), x)[0].data.tolist() == [expected] * 2


# --- Dtypes -------------------------------------------------------------------------------------


@both_dtypes
@pytest.mark.parametrize("scalar", [2, 2.5, True, np.float64(2.5), np.float32(2.5), np.int64(2)])
def test_python_and_numpy_scalars_never_widen(scalar, dtype):
    x = mg.tensor(np.ones((2, 2), dtype), requires_grad=True)
    for y in (x + scalar, scalar - x, x * scalar, scalar / x, scalar * x, ops.maximum(x, scalar), x**scalar):
        assert (y.dtype, mg.grad(y.sum(), x)[0].dtype) == (dtype, dtype)


class Frame:
    """As pandas' tables: no array, but NumPy makes one of it."""

    shape, dtype = (2, 3), "mixed"

    def __array__(self, dtype=None, copy=None):
        return np.arange(1.0, 7).reshape(2, 3)


class Double(float):
    pass


TWO = IntEnum("TWO", {"A": 2}).A
CONSTANTS = [  # what is given, and as what it is taken
    *((f, Frame(), Frame().__array__()) for f in (ops.mul, ops.maximum, ops.div, lambda x, y: ops.matmul_nt(y, x))),
    (ops.mul, memoryview(np.ones((2, 3))), 1),
    (ops.mul, np.lib.stride_tricks.sliding_window_view(np.ones(4), 3), 1),
    *((f, c, 2) for f in (ops.mul, ops.power, ops.div, ops.maximum) for c in (TWO, Double(2), Fraction(2), np.int8(2))),
]


@pytest.mark.parametrize("f, given, meant", CONSTANTS)
def test_a_constant_is_taken_as_what_it_is(f, given, meant):
    """By the forward pass and by both sweeps alike."""
    results = []
    for constant in (given, meant):
        x = mg.tensor(2 * np.ones((2, 3)), requires_grad=True)
        y = f(x, constant)
        (g,) = mg.grad(y.sum(), x, create_graph=True)
        results.append([y, g, *mg.grad((g * g).sum(), x, materialize_grads=True)])
    for a, b in zip(*results):
        np.testing.assert_array_equal(a.data, b.data)


def test_dtypes_of_other_kinds():
    x = mg.tensor(np.array([1, 2], ">f4"), requires_grad=True)
    assert (x.dtype, mg.grad((x * x).sum(), x)[0].data.tolist()) == ("float32", [2, 4])
    assert (SMALL * np.ones(3, "int8")).dtype == SMALL.dtype
    assert (ops.safe_reciprocal(2).item(), ops.safe_reciprocal(0).item()) == (0.5, 0)
    if np.dtype(np.longdouble).itemsize > 8:
        with pytest.raises(TypeError, match=r"mul: got float64 and (longdouble|float128)"):
            SMALL * np.longdouble(2)


@pytest.mark.parametrize("dtype", ["int64", "uint16", "bool"])
@pytest.mark.parametrize("f", [ops.leaky_relu, ops.safe_reciprocal, ops.logsumexp, ops.softmax, ops.norm, ops.sum])
def test_whole_numbers_alone_are_refused(f, dtype):
    with np.errstate(all="ignore"), pytest.raises(TypeError, match=f"^{f.__name__}: .*expected"):
        f(np.array([1, 2, 3], dtype))


# --- Errors -------------------------------------------------------------------------------------

HALVES = "expected float32 or float64, got float16"
ERRORS = [
    (lambda: SMALL @ LONG, ValueError, r"matmul: got \(2, 3\), \(4, 5\); expected .*\(..., n, k\) @ \(..., k, m\)"),
    (lambda: SMALL @ np.ones(3), ValueError, r"matmul: got \(2, 3\), \(3,\)"),
    (lambda: SMALL @ 2, TypeError, r"matmul: got \(2, 3\), 2; expected x @ y"),
    (lambda: ops.matmul_nt(SMALL[:, :1], LONG[:, :2]), ValueError, r"matmul_nt: got \(2, 1\), \(4, 2\); .*transposed"),
    (lambda: ops.concatenate([]), ValueError, "concatenate: expected one Tensor or more"),
    (lambda: ops.concatenate([SMALL, LONG]), ValueError, r"concatenate\w*: got \(2, 3\), \(4, 5\).* axis"),
    (
        lambda: ops.concatenate([SMALL, SMALL], None),
        TypeError,
        r"concatenate_pair: got \(2, 3\), \(2, 3\), None; .* axis",
    ),
    (lambda: SMALL[mg.tensor([0, 1])], TypeError, r"getitem: got \(2, 3\), Tensor \(2,\); expected"),
    (lambda: SMALL * np.ones((1, 3)).view(np.matrix), TypeError, r"mul: got \(2, 3\), matrix \(1, 3\); expected x"),
    (
        lambda: ops.concatenate([[0.0], SMALL]),
        TypeError,
        r"concatenate_pair: got \[0.0\], \(2, 3\), 0; .*a list is no plain",
    ),
    (lambda: SMALL[7], IndexError, r"getitem: .*out of bounds"),
    (lambda: mg.primitive(None)(lambda x: None)(SMALL), TypeError, "expected floats, got float64, and a result of obj"),
    (lambda: SMALL * 1j, TypeError, "a complex is no plain array of real numbers"),
    (lambda: SMALL * np.array([None]), TypeError, r"mul: got \(2, 3\), \(1,\); expected x \* y"),
    (lambda: SMALL * {}, TypeError, "a dict is no plain array of real numbers"),
    (
        lambda: scaled(SMALL, [FREE]),
        TypeError,
        "a Tensor that requires a gradient is given where there is no vjp for it",
    ),
    (lambda: SMALL + LONG, ValueError, r"add: got \(2, 3\), \(4, 5\); expected .*broadcast"),
    (lambda: ops.linear(SMALL, LONG, LONG), ValueError, r"linear: got \(2, 3\), \(4, 5\), .*\(n, in\)"),
    (lambda: SMALL.reshape(4), ValueError, r"reshape: got \(2, 3\), 4; expected .*same size"),
    (lambda: SMALL.sum(2), ValueError, r"sum: got \(2, 3\), 2, .*axes"),
    (lambda: SMALL[:0].mean(), ValueError, r"mean: got \(0, 3\), None, False; expected .*not empty"),
    (lambda: ops.broadcast_to(SMALL, (3, 2)), ValueError, r"broadcast_to: got \(2, 3\), \(3, 2\)"),
    (lambda: ops.sum_to(SMALL, (5,)), ValueError, r"sum_to: got \(2, 3\), \(5,\)"),
    (lambda: SMALL[7], IndexError, r"getitem: got \(2, 3\), 7"),
    (
        lambda: SMALL**SMALL,
        TypeError,
        r"power: got \(2, 3\), Tensor \(2, 3\); expected x \*\* exponent, for a constant",
    ),
    (lambda: SMALL ** "3", TypeError, "power: got"),
    (lambda: ops.exp(SMALL, 1), TypeError, "exp: too many positional arguments"),
    (lambda: ops.linear(SMALL), TypeError, "linear: missing a required argument: 'w'"),
    (lambda: ops.linear(SMALL, SMALL.T, y=1), TypeError, "linear: missing a required argument: 'b'"),
    (lambda: SMALL * mg.tensor([[1.0, 2, 3]]), TypeError, "mul: got float64 and float32"),
    (lambda: mg.tensor(HALF), TypeError, HALVES),
    (lambda: ops.sum(HALF), TypeError, HALVES),
    (lambda: mg.nn.MLP([3, 1], dtype="float16")(HALF), TypeError, HALVES),
    # what is wrong with a primitive that somebody writes
    (lambda: swept(lambda g, out, x: g.data), TypeError, "^twice: a vjp returned ndarray; expected a Tensor"),
    (lambda: swept(lambda g, out, x: g[:1]), ValueError, r"a vjp returned shape \(1,\) for an operand of shape \(2,\)"),
    (lambda: swept(lambda g, out, x: mg.tensor([1, 1])), TypeError, "returned float32 for an operand of float64"),
    (lambda: mg.primitive(None)(lambda x: x.nothing)(SMALL), TypeError, r"got \(2, 3\) \(.*no attribute 'nothing'\)"),
    *(
        (lambda f=f: mg.primitive(None)(f), TypeError, r"expected a Python function, got .*; write lambda x: f\(x\)")
        for f in (np.exp, partial(np.sum, axis=0), np.vectorize(abs), None)
    ),
    (
        lambda: mg.primitive(None)(lambda *, x: x),
        TypeError,
        r"expected parameters by position or name, 1 or .*\(\*, x\)",
    ),
    (
        lambda: mg.primitive(None, None)(lambda x: x),
        TypeError,
        r"2 or more for as many vjps, got \(x\); write lambda x",
    ),
    (lambda: mg.primitive(twice), TypeError, r"twice is no vjp\(g, out, \*args\); write @mg\.primitive\(vjp, \.\.\.\)"),
]


FREE = mg.tensor([1.0], requires_grad=True)


@mg.primitive(lambda g, out, x, scale: g * 2)
def scaled(x, scale):
    return 2 * x


def twice(x):
    return 2 * x


def swept(vjp):
    x = mg.tensor(np.ones(2), requires_grad=True)
    mg.grad(mg.primitive(vjp)(twice)(x).sum(), x)


@pytest.mark.parametrize("f, error, message", ERRORS)
def test_an_error_names_the_op_the_shapes_and_what_was_expected(f, error, message):
    with pytest.raises(error, match=message):
        f()


def test_a_tensor_that_is_no_operand():
    """What has no vjp may be a Tensor, but none that a gradient should flow to; to change it spoils no later graph."""
    scaled = mg.primitive(lambda g, out, x, scale: g * scale)(lambda x, scale: x * scale.data)
    x, scale = mg.tensor(np.ones(2), requires_grad=True), mg.tensor(2 * np.ones(2))
    scale.data = 2 * scale.data
    y = scaled(x, scale)
    assert mg.grad(y.sum(), x)[0].data.tolist() == [4, 4]
    scale.data = 2 * scale.data
    with pytest.raises(ValueError, match="was changed in place since"):
        mg.grad(y.sum(), x)
    with pytest.raises(TypeError, match="a Tensor that requires a gradient is given where there is no vjp for it"):
        scaled(x, x)
