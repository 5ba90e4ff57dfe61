"""The gradient penalty: its points, its slopes, and its gradient with respect to every weight and bias."""

import numpy as np
import pytest

import minigan as mg
from minigan import ops
from minigan.gradcheck import finite_differences
from minigan.penalties import (
    FORMS,
    SLOPES,
    WHERE,
    difference_quotient,
    gradient_norm,
    gradient_penalty,
    interpolate,
    slopes,
)

ONE_SIDED = ["one-sided-max", "one-sided-relu"]


def batch(n=6, d=4, seed=0):
    return np.random.default_rng(seed).normal(size=(2, n, d))


def check_every_parameter(critic, *names):
    """The penalty's gradient against finite differences for every weight and bias, with the same eps each time."""
    real, fake = batch(d=critic.layers[0].weight.shape[0])
    parameters = critic.parameters()

    def penalty(*arrays):
        for p, a in zip(parameters, arrays):
            p.data = a
        return gradient_penalty(critic, real, fake, np.random.default_rng(1), *names)

    arrays = [p.data for p in parameters]
    analytic = mg.grad(penalty(*arrays), parameters, materialize_grads=True)
    for i, g in enumerate(analytic):
        numeric = finite_differences(lambda *a: penalty(*a).item(), arrays, i)
        np.testing.assert_allclose(g.data, numeric, rtol=1e-5, atol=1e-8, err_msg=f"parameter {i}")
    return analytic


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("hidden", ["relu", "leaky_relu", "tanh", "softplus"])
def test_gradient_for_every_weight_and_bias(hidden, form):
    critic = mg.nn.MLP([4, 6, 5, 1], hidden=hidden, rng=0, dtype="float64")
    analytic = check_every_parameter(critic, form)
    assert all(g.data.any() for g in analytic[0:5:2])
    biases = [g.data.any() for g in analytic[1:5:2]]
    assert biases == [hidden in ("tanh", "softplus")] * 2  # where the second derivative is not zero


def two_layer_relu(seed=0):
    rng = np.random.default_rng(seed)
    critic = mg.nn.MLP([4, 7, 1], rng=rng, dtype="float64")
    critic.layers[0].bias.data = rng.normal(size=7)
    return critic


def penalty_gradient_by_hand(critic, y):
    """dP/dW and dP/dv for P = mean_i (s_i - 1)^2 of the critic D(y) = relu(y W + b) v + c, with s_i = ||g_i||.

    With the mask m_i = 1[y_i W + b > 0], the gradient at row i is g_i = dD/dy_i = W (m_i * v), since the relu's
    derivative is the mask. The mask itself has derivative zero, so

        dP = mean_i 2 (s_i - 1) g_i . dg_i / s_i,    dg_i = dW (m_i * v) + W (m_i * dv),

    and collecting what multiplies dW and dv, with r_i = dP/dg_i = 2 (s_i - 1) g_i / (n s_i):

        dP/dW = sum_i r_i (m_i * v)^T,    dP/dv = sum_i m_i * (W^T r_i),    dP/db = dP/dc = 0.
    """
    w, b, v, _ = (p.data for p in critic.parameters())
    m = (y @ w + b > 0) * 1.0
    mv = m * v[:, 0]
    g = mv @ w.T
    s = np.linalg.norm(g, axis=1, keepdims=True)
    r = 2 * (s - 1) * g / (len(y) * s)
    return r.T @ mv, (m * (r @ w)).sum(axis=0)[:, None]


def penalty_gradient(critic, y):
    penalty = FORMS["two-sided"](gradient_norm(critic, y))
    return [g.data for g in mg.grad(penalty, critic.parameters(), materialize_grads=True)]


def test_a_two_layer_relu_critic_against_the_formula_by_hand():
    critic, (y, _) = two_layer_relu(), batch()
    w, b, v, c = penalty_gradient(critic, y)
    by_hand = penalty_gradient_by_hand(critic, y)
    np.testing.assert_allclose(w, by_hand[0])
    np.testing.assert_allclose(v, by_hand[1])
    assert not b.any() and not c.any()


def test_the_formula_by_hand_catches_a_mask_one_element_off(monkeypatch):
    critic, (y, _) = two_layer_relu(), batch()
    monkeypatch.setattr(ops.relu, "vjps", (lambda g, out, x: g * np.roll(x.data > 0, 1, axis=1),))
    assert not np.allclose(penalty_gradient(critic, y)[0], penalty_gradient_by_hand(critic, y)[0])


def test_where_some_relus_are_dead():
    critic = mg.nn.MLP([4, 6, 5, 1], rng=0, dtype="float64")
    critic.layers[0].bias.data = np.array([-100.0, 0, -100, 0, 0, 0.5])
    critic.layers[1].bias.data = np.array([0, -100.0, 0, 0, 0.5])
    analytic = check_every_parameter(critic)
    assert not analytic[0].data[:, 0].any() and analytic[0].data[:, 1].any()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("flat", ["all weights zero", "every relu dead", "dead for one row"])
def test_a_flat_critic_has_a_finite_penalty_and_gradient(flat, form):
    """The norm's derivative at zero: NaN in a plain sqrt of a sum of squares."""
    critic = two_layer_relu()
    y = np.abs(batch()[0])
    if flat == "all weights zero":
        for p in critic.parameters():
            p.data = np.zeros(p.shape)
    else:
        critic.layers[0].weight.data = np.abs(critic.layers[0].weight.data)
        critic.layers[0].bias.data = np.full(7, -1000.0)
        if flat == "dead for one row":
            y[1:] += 2000
    slope = gradient_norm(critic, y)
    assert slope.data[0] == 0 and (flat != "dead for one row" or (slope.data[1:] > 0).all())
    penalty = FORMS[form](slope)
    assert np.isfinite(penalty.item())
    assert all(
        np.isfinite(g.data).all()
        for g in mg.grad(penalty, critic.parameters(), create_graph=True, materialize_grads=True)
    )


def test_a_linear_critic_has_its_weights_norm_as_slope_everywhere():
    critic = mg.nn.MLP([4, 1], rng=0, dtype="float64")
    slope = gradient_norm(critic, batch()[0])
    np.testing.assert_allclose(slope.data, np.linalg.norm(critic.layers[0].weight.data))


def test_the_norm_is_taken_for_each_row():
    """Slopes agree with finite differences row by row, images included, whatever the batch around them."""
    critic, (y, _) = two_layer_relu(), batch()
    slope = gradient_norm(critic, y)
    for i, row in enumerate(y):
        (by_differences,) = [finite_differences(lambda a: critic(a).item(), [row[None]], 0)]
        assert slope.data[i] == pytest.approx(np.linalg.norm(by_differences))
        assert slope.data[i] == pytest.approx(gradient_norm(critic, row[None]).item())
    images = gradient_norm(lambda x: critic(ops.reshape(x, (6, 4))), y.reshape(6, 2, 2))
    np.testing.assert_allclose(images.data, slope.data)


def test_slopes_at_points_that_are_a_tensor_are_guarded_as_all_is():
    critic = mg.nn.MLP([3, 4, 1], hidden="tanh", rng=0, dtype="float64")
    y = mg.tensor(np.ones((2, 3)), requires_grad=True)
    (g,) = mg.grad(critic(y).sum(), y)  # no create_graph=True
    with pytest.raises(ValueError, match="computed without create_graph=True"):
        mg.grad(gradient_norm(critic, y.data + 10 * g).sum(), critic.parameters()[:1])
    points = mg.tensor(np.ones((2, 3)))
    s = gradient_norm(critic, points).sum()
    points.data += 1
    with pytest.raises(ValueError, match="was changed in place since"):
        mg.grad(s, critic.parameters()[:1])


def test_slopes_of_no_rows():
    critic = mg.nn.MLP([16, 6, 1], rng=0)
    slope = gradient_norm(lambda x: critic(ops.reshape(x, (len(x), 16))), np.zeros((0, 4, 4), "float32"))
    assert slope.shape == (0,)


def test_a_difference_quotient_of_tensors_is_that_of_their_arrays():
    """And it can be differentiated at the points too."""
    critic, (y, z) = two_layer_relu(), batch()
    expected = difference_quotient(critic, y, z)
    points = [mg.tensor(a, requires_grad=True) for a in (y, z)]
    np.testing.assert_array_equal(difference_quotient(critic, *points).data, expected.data)
    mg.gradcheck(lambda a, b: difference_quotient(critic, a, b), y[:2], z[:2], order=1)


def test_the_slope_is_differentiable_at_the_points_too():
    critic = mg.nn.MLP([4, 6, 1], hidden="tanh", rng=0, dtype="float64")
    y = mg.tensor(batch()[0], requires_grad=True)
    (g,) = mg.grad(gradient_norm(critic, y).sum(), y)
    numeric = finite_differences(lambda a: gradient_norm(critic, a).sum().item(), [y.data], 0)
    np.testing.assert_allclose(g.data, numeric, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("form", ONE_SIDED)
def test_both_one_sided_writings_have_the_same_gradient(form):
    for scale in (0.1, 1.0, 10.0):
        critic, (y, _) = two_layer_relu(), batch()
        critic.layers[1].weight.data *= scale
        slope = gradient_norm(critic, y)
        other = mg.grad(FORMS["one-sided-max"](slope), critic.parameters(), materialize_grads=True)
        for g, h in zip(mg.grad(FORMS[form](slope), critic.parameters(), materialize_grads=True), other):
            np.testing.assert_allclose(g.data, h.data)


def test_forms_on_known_slopes():
    s = mg.tensor(np.array([0.0, 0.5, 1.0, 3.0]))
    assert FORMS["two-sided"](s).item() == pytest.approx((1 + 0.25 + 0 + 4) / 4)
    assert FORMS["one-sided-max"](s).item() == pytest.approx((1 + 1 + 1 + 3) / 4)
    assert FORMS["one-sided-relu"](s).item() == pytest.approx(2 / 4)
    assert FORMS["one-sided-squared"](s).item() == pytest.approx(4 / 4)


def test_an_unknown_form_lists_the_valid_ones():
    for names in ({"form": "cubic"}, {"where": "here"}, {"slope": "steep"}):
        ((what, name),) = names.items()
        valid = ", ".join({"form": FORMS, "where": WHERE, "slope": SLOPES}[what])
        with pytest.raises(ValueError, match=f"'{name}': expected one of {valid}"):
            gradient_penalty(two_layer_relu(), *batch(), np.random.default_rng(0), **names)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_interpolates_have_one_eps_for_each_row(dtype):
    real, fake = (a.astype(dtype) for a in batch(200, 5))
    y = interpolate(real, fake, np.random.default_rng(0))
    assert y.shape == real.shape and y.dtype == dtype
    eps = (y - fake) / (real - fake)
    np.testing.assert_allclose(eps, np.broadcast_to(np.median(eps, axis=1, keepdims=True), eps.shape), atol=1e-2)
    rows = np.median(eps, axis=1)
    assert rows.min() >= 0 and rows.max() <= 1 and 0.25 < rows.std() < 0.33 and 0.4 < rows.mean() < 0.6


def test_eps_is_on_the_real_side():
    class Always:
        def random(self, shape, dtype):
            return np.full(shape, 0.75, dtype)

    real, fake = np.ones((2, 3)), np.zeros((2, 3))
    np.testing.assert_allclose(interpolate(real, fake, Always()), 0.75)
    np.testing.assert_allclose(interpolate(mg.tensor(real), mg.tensor(fake), Always()), 0.75)
    assert interpolate(np.ones((2, 3, 3)), np.zeros((2, 3, 3)), np.random.default_rng(0)).shape == (2, 3, 3)


def test_rows_that_do_not_match_are_refused():
    critic, (real, fake) = two_layer_relu(), batch()
    with pytest.raises(
        ValueError, match=r"interpolate: expected floats, as many .*, got float64 \(1, 4\) and float64 \(6, 4\)"
    ):
        gradient_penalty(critic, real[:1], fake, np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"difference_quotient: expected floats, as many .*float64 \(1, 4\)"):
        difference_quotient(critic, real[:1], fake)
    with pytest.raises(ValueError, match=r"interpolate: expected floats, .*got uint8"):
        interpolate(np.ones((2, 3), "uint8"), np.ones((2, 3), "uint8"), np.random.default_rng(0))


# --- The other places and the other slope -------------------------------------------------------


@pytest.mark.parametrize("where", ["real", "generated"])
@pytest.mark.parametrize("form", FORMS)
def test_the_penalty_at_the_samples_themselves(where, form):
    critic = mg.nn.MLP([4, 6, 5, 1], hidden="tanh", rng=0, dtype="float64")
    check_every_parameter(critic, form, where)
    real, fake = batch()
    points = {"real": real, "generated": fake}[where]
    expected = FORMS[form](gradient_norm(critic, points)).item()
    assert gradient_penalty(critic, real, fake, None, form, where).item() == expected


@pytest.mark.parametrize("hidden", ["relu", "tanh"])
@pytest.mark.parametrize("form", FORMS)
def test_the_difference_penalty_for_every_weight_and_bias(hidden, form):
    """The article's (c) and (d): no double backprop, but the biases count."""
    critic = mg.nn.MLP([4, 6, 5, 1], hidden=hidden, rng=0, dtype="float64")
    for p in critic.parameters():
        p.data = 3 * p.data + 0.1  # slopes above 1, so that the one-sided forms see some; no kink beside a point
    analytic = check_every_parameter(critic, form, "between", "difference")
    assert all(g.data.any() for g in analytic[:4])


def test_the_difference_is_between_two_interpolates_of_the_same_pair():
    critic, (real, fake) = two_layer_relu(), batch()
    got = slopes(critic, real, fake, np.random.default_rng(3), "difference")
    rng = np.random.default_rng(3)
    y1, y2 = interpolate(real, fake, rng), interpolate(real, fake, rng)
    rise = np.abs(critic(y1).data - critic(y2).data)[:, 0]
    np.testing.assert_allclose(got.data, rise / np.linalg.norm(y1 - y2, axis=1))
    direction = (real - fake) / np.linalg.norm(real - fake, axis=1, keepdims=True)
    np.testing.assert_allclose(np.abs(((y1 - y2) * direction).sum(1)), np.linalg.norm(y1 - y2, axis=1))


def test_the_difference_of_a_linear_critic_is_its_slope_along_the_line():
    critic = mg.nn.MLP([1, 1], rng=0, dtype="float64")
    y = batch(d=1)
    np.testing.assert_allclose(difference_quotient(critic, *y).data, gradient_norm(critic, y[0]).data)


def test_the_difference_where_the_two_points_coincide():
    critic, (y, z) = two_layer_relu(), batch()
    z[0] = y[0]
    slope = difference_quotient(critic, y, z)
    assert slope.data[0] == 0 and (slope.data[1:] > 0).all()
    penalty = FORMS["two-sided"](slope)
    assert all(np.isfinite(g.data).all() for g in mg.grad(penalty, critic.parameters(), materialize_grads=True))


@pytest.mark.parametrize("where", ["real", "generated"])
def test_a_difference_at_one_point_makes_no_sense(where):
    with pytest.raises(ValueError, match=f"a difference needs two points, and '{where}' gives the same one twice"):
        gradient_penalty(two_layer_relu(), *batch(), np.random.default_rng(0), where=where, slope="difference")
