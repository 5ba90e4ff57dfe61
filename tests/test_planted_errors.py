"""The derivative checks can fail: each wrong derivative planted here must be caught by them."""

import numpy as np
import pytest

import minigan as mg
from minigan import gradcheck, ops

RNG = np.random.default_rng(0)
SQUARE, ROW, COLUMN = RNG.uniform(0.5, 1.5, (3, 3)), RNG.uniform(0.5, 1.5, (1, 3)), RNG.uniform(0.5, 1.5, (3, 1))
SIGNED = SQUARE * np.array([[1, -1, 1], [-1, -1, 1], [1, 1, -1]])

PLANTED = {
    "a missing term": (ops.tanh, 0, lambda g, out, x: g, [SQUARE]),
    "a missing power": (ops.tanh, 0, lambda g, out, x: g * (1 - out), [SQUARE]),
    "a wrong sign": (ops.sub, 1, lambda g, out, x, y: g, [SQUARE, SQUARE]),
    "a sum over the wrong axis": (ops.add, 1, lambda g, out, x, y: ops.sum(ops.transpose(g), 0, True), [SQUARE, ROW]),
    "a broadcast sum over one row only": (ops.mul, 1, lambda g, out, x, y: (g * x)[:1], [SQUARE, ROW]),
    "a broadcast mean for a sum": (ops.div, 1, lambda g, out, x, y: ops.mean(-g * out / y, 1, True), [SQUARE, COLUMN]),
    "a mask one element off": (ops.relu, 0, lambda g, out, x: g * np.roll(x.data > 0, 1), [SIGNED]),
    "a mask inverted": (ops.leaky_relu, 0, lambda g, out, x, slope: g * np.where(x.data > 0, slope, 1), [SIGNED]),
    "a transpose left out": (ops.matmul, 0, lambda g, out, x, y: ops.matmul(g, y), [SQUARE, SQUARE]),
    "a bias gradient not summed": (ops.linear, 2, lambda g, out, x, w, b: g[0], [SQUARE, SQUARE, ROW[0]]),
    "an error in the second order only": (
        ops.tanh,
        0,
        lambda g, out, x: g * (1 - out.detach() * out.detach()),
        [SQUARE],
    ),
    "a norm held constant in the second order": (
        ops.norm,
        0,
        lambda g, out, x, axis, keepdims: x * (g * ops.safe_reciprocal(out.detach())),
        [SQUARE],
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_error_is_caught(name, monkeypatch):
    f, i, wrong, arrays = PLANTED[name]
    gradcheck(f, *arrays)
    monkeypatch.setattr(f, "vjps", (*f.vjps[:i], wrong, *f.vjps[i + 1 :]))
    with pytest.raises((AssertionError, ValueError)):
        gradcheck(f, *arrays)


def test_a_planted_error_in_the_second_order_passes_the_first(monkeypatch):
    """So it is the second-order check that catches it."""
    _, _, wrong, arrays = PLANTED["an error in the second order only"]
    monkeypatch.setattr(ops.tanh, "vjps", (wrong,))
    gradcheck(ops.tanh, *arrays, order=1)


def test_a_vjp_that_loses_what_it_is_given():
    """It is right as a number, and of order 2 the derivative of a gradient with respect to the gradient is missing."""
    double = mg.primitive(lambda g, out, x: mg.tensor(g.data) * 2)(lambda x: x * 2.0)
    gradcheck(double, [1.0, 2.0], order=1)
    with pytest.raises(AssertionError, match="order 2, the gradient given to the vjps at"):
        gradcheck(double, [1.0, 2.0])


def test_what_is_wrong_is_told():
    def wrong(x, y):
        return x * y.data  # a constant where y should be

    wrong_at = r"gradcheck: wrong, order 1, input 1 at \(0,\): grad gives 0, the finite difference is -?\d\.\d+"
    with pytest.raises(AssertionError, match=wrong_at):
        gradcheck(wrong, [1, 2], np.float32([3, 4]))
    gradcheck(lambda x, y: x * y, [1, 2], np.float32([3, 4]), order=3)
    gradcheck(ops.exp, 1)


def test_a_check_of_nothing_is_none():
    seven = mg.primitive(lambda g, out, x: g * 7)(lambda x: np.log(x))
    with np.errstate(all="ignore"), pytest.raises(AssertionError, match=r"the finite difference is -?(inf|nan)"):
        gradcheck(seven, [1e-5])  # beside a pole
    for given, order in ((np.empty(0), 2), ([1.0], 0)):
        with pytest.raises(ValueError, match="expected an order of at least 1, and inputs with something in them"):
            gradcheck(seven, given, order=order)
    for f in (lambda x: x.data, lambda x: None):
        with pytest.raises(TypeError, match="gradcheck: expected a function of Tensors to a Tensor"):
            gradcheck(f, [1.0])
