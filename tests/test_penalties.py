"""The gradient penalty: its points, its slopes, and its gradient with respect to every weight and bias."""

import numpy as np
import pytest

import minigan as mg
from minigan.gradcheck import finite_differences
from minigan.guards import note_write
from minigan.nn import MLP
from minigan.penalties import FORMS, SLOPES, WHERE, difference_quotient, gradient_norm, interpolate, slopes

REAL, FAKE = np.random.default_rng(0).normal(size=(2, 12, 4))


def rng():
    """The same eps each time."""
    return np.random.default_rng(0)


def two_layer_relu():
    critic = MLP([4, 7, 1], rng=0, dtype="float64")
    critic.layers[0].bias.data = rng().normal(size=7)
    return critic


CRITIC = two_layer_relu()
PENALTIES = {name: form for name, form in FORMS.items() if name != "none"}
CASES = [("relu", "two-sided", "between", "gradient"), ("tanh", "one-sided-squared", "real", "gradient")]
CASES += [("relu", "two-sided", "between", "difference")]


@pytest.mark.parametrize("hidden, form, where, slope", CASES)
def test_gradient_for_every_weight_and_bias(hidden, form, where, slope):
    """Against finite differences, with slopes on both sides of 1."""
    critic = MLP([4, 6, 5, 1], hidden=hidden, rng=0, dtype="float64")
    w1, b1, w2, b2, w3, b3 = critic.parameters()
    b1.array[0], b2.array[:] = -10, 0.1  # of relus, one is dead
    w3.array /= slopes(critic, REAL, FAKE, rng(), slope, where).data.mean()

    def penalty(*parameters):
        for layer, weight, bias in zip(critic.layers, parameters[::2], parameters[1::2]):
            layer.weight, layer.bias = weight, bias
        return mg.penalties.gradient_penalty(critic, REAL, FAKE, rng(), form, where, slope)

    parameters = w1, b1, w2, b2, w3, b3
    mg.gradcheck(penalty, *parameters, order=1)
    gradient = mg.grad(penalty(*parameters), parameters, materialize_grads=True)
    counts = slope == "difference" or hidden in ("tanh", "softplus")  # whose second derivative is not zero
    assert [g.data.any() for g in gradient] == [True, counts, True, counts, True, False]
    assert gradient[0].data[:, 0].any() == (hidden != "relu")


def test_a_slope_of_zero_has_a_finite_penalty_and_gradient():
    """The norm's derivative at zero: NaN in a plain sqrt of a sum of squares."""
    dead, far, beside = two_layer_relu(), REAL * 3000, FAKE.copy()
    dead.layers[0].bias.array[:] = -1000
    far[0] = beside[0] = REAL[0]
    for critic, slope, others in (
        (dead, gradient_norm(dead, REAL), False),
        (dead, gradient_norm(dead, far), True),
        (CRITIC, difference_quotient(CRITIC, REAL, beside), True),
    ):
        assert (slope.data > 0).tolist() == [False, *[others] * 11]
        for form in PENALTIES.values():
            gradient = mg.grad(form(slope), critic.parameters(), create_graph=True, materialize_grads=True)
            assert [np.isfinite(x.data).all() for x in (form(slope), *gradient)] == [True] * 5


def test_the_norm_is_taken_for_each_row():
    """Slopes agree with finite differences row by row, images included, whatever the batch around them."""
    slope = gradient_norm(CRITIC, REAL).data
    for s, row in zip(slope, REAL[:, None]):
        by_differences = np.linalg.norm(finite_differences(lambda a: CRITIC(a).item(), [row], 0))
        np.testing.assert_allclose((s, gradient_norm(CRITIC, row).item()), by_differences)
    for n in (12, 0):
        images = gradient_norm(lambda x: CRITIC(mg.ops.reshape(x, (len(x), 4))), REAL[:n].reshape(n, 2, 2))
        np.testing.assert_allclose(images.data, slope[:n])


def test_slopes_at_points_that_are_a_tensor_are_guarded_as_all_is():
    critic = MLP([4, 3, 1], hidden="tanh", rng=0, dtype="float64")
    points = mg.tensor(REAL, requires_grad=True)
    (g,) = mg.grad(critic(points).sum(), points)  # no create_graph=True
    with pytest.raises(ValueError, match="computed without create_graph=True"):
        mg.grad(gradient_norm(critic, REAL + 10 * g).sum(), critic.layers[0].weight)
    slope = gradient_norm(critic, points.detach()).sum()
    points.array += 1
    note_write(points)
    with pytest.raises(ValueError, match="was changed in place since"):
        mg.grad(slope, critic.layers[0].weight)


def test_slopes_are_differentiable_at_the_points_too():
    critic, points = MLP([4, 6, 1], hidden="tanh", rng=0, dtype="float64"), (REAL[:2], FAKE[:2])
    for slope, given in ((gradient_norm, points[:1]), (difference_quotient, points)):
        as_tensors = slope(critic, *(mg.tensor(y, requires_grad=True) for y in given))
        np.testing.assert_array_equal(as_tensors.data, slope(critic, *given).data)
        mg.gradcheck(lambda *given, slope=slope: slope(critic, *given), *given, order=1)


def test_forms_on_known_slopes():
    s = mg.tensor(np.array([0.0, 0.5, 1.0, 3.0]))
    sums = {"two-sided": 5.25, "one-sided-max": 1 + 1 + 1 + 3, "one-sided-relu": 2, "one-sided-squared": 4}
    assert {name: 4 * form(s).item() for name, form in PENALTIES.items()} == sums


def test_where_slopes_are_taken():
    """At the samples themselves; or between them, where a difference is of two interpolates of the same pair."""
    same = rng()
    y1, y2 = interpolate(REAL, FAKE, same), interpolate(REAL, FAKE, same)
    rise = np.abs(CRITIC(y1).data - CRITIC(y2).data)[:, 0]
    for slope, where, expected in (
        ("gradient", "real", gradient_norm(CRITIC, REAL).data),
        ("gradient", "generated", gradient_norm(CRITIC, FAKE).data),
        ("gradient", "between", gradient_norm(CRITIC, y1).data),
        ("difference", "between", rise / np.linalg.norm(y1 - y2, axis=1)),
    ):
        np.testing.assert_allclose(slopes(CRITIC, REAL, FAKE, rng(), slope, where).data, expected)


def test_interpolates_have_one_eps_for_each_row_on_the_real_side():
    for shape, dtype in (((1000, 5), "float32"), ((1000, 2, 3), "float64")):
        y = interpolate(np.full(shape, 3, dtype), mg.tensor(np.full(shape, 2, dtype)), rng())
        assert (y.shape, y.dtype) == (shape, dtype)
        eps = rng().random(1000, dtype)
        np.testing.assert_allclose(y.reshape(1000, -1).T, [2 + eps] * y[0].size, rtol=1e-6)


def test_what_has_no_slopes_is_refused():
    one_point, rows = "a difference needs two points, and '{}' gives the same one twice", (CRITIC, REAL, FAKE, rng())
    for call, message in (
        (lambda: mg.penalties.gradient_penalty(*rows, form="cubic"), f"'cubic': expected {FORMS}"),
        (lambda: slopes(*rows, where="here"), f"'here': expected {WHERE}"),
        (lambda: slopes(*rows, slope="steep"), f"'steep': expected {SLOPES}"),
        (lambda: slopes(*rows, "difference", "real"), one_point.format("real")),
        (lambda: slopes(*rows, "difference", "generated"), one_point.format("generated")),
        (lambda: slopes(CRITIC, REAL[:1], FAKE, rng()), r"interpolate: .*got float64 \(1, 4\) and float64 \(12, 4\)"),
        (lambda: difference_quotient(CRITIC, REAL[:1], FAKE), r"difference_quotient: .*got float64 \(1, 4\)"),
        (lambda: interpolate(np.ones(3, int), np.ones(3, int), rng()), "interpolate: expected floats, .*got int64"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_the_place_samples_is_both_kinds():
    real, fake = np.zeros((2, 3)), np.ones((2, 3))
    np.testing.assert_array_equal(WHERE["samples"](real, fake, None), [[0] * 3] * 2 + [[1] * 3] * 2)
