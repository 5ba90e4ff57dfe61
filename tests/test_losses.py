"""The games: their values, their sign, and what they become of each other."""

import numpy as np
import pytest

import minigan as mg
from minigan import gradcheck
from minigan.losses import GAMES, critic_loss, distance, generator_loss, leaky_critic_loss, softmax_cross_entropy

RNG = np.random.default_rng(0)
D_REAL, D_FAKE = RNG.normal(size=(2, 5, 1))
REAL, FAKE = RNG.normal(size=(2, 5, 3))


def scores():
    return [mg.tensor(a, requires_grad=True) for a in (D_REAL, D_FAKE)]


def softplus(x):
    return np.log1p(np.exp(x))


def test_the_articles_losses():
    real, fake = mg.tensor([[1.0], [3.0]]), mg.tensor([[5.0], [9.0]])
    assert critic_loss(real, fake).item() == 2 - 7
    assert generator_loss(fake).item() == 7


MARGIN = np.sqrt(((REAL - FAKE) ** 2).sum(1, keepdims=True))
GAP = MARGIN + D_REAL - D_FAKE

FORMULAS = {
    "wgan": (D_REAL.mean() - D_FAKE.mean(), D_FAKE.mean()),
    "gan": ((softplus(D_REAL) + softplus(-D_FAKE)).mean(), softplus(D_FAKE).mean()),
    "gan-saturating": ((softplus(D_REAL) + softplus(-D_FAKE)).mean(), -softplus(-D_FAKE).mean()),
    "hinge": ((np.maximum(0, 1 + D_REAL) + np.maximum(0, 1 - D_FAKE)).mean(), D_FAKE.mean()),
    "ls-gan": (np.maximum(0, GAP).mean(), D_FAKE.mean()),
    "gls-gan": (np.maximum(0.5 * GAP, GAP).mean(), D_FAKE.mean()),
}


@pytest.mark.parametrize("name", GAMES)
def test_a_game_is_its_formula_and_has_its_derivatives(name):
    critic, generator = FORMULAS[name]
    d_real, d_fake = scores()
    assert GAMES[name].critic(d_real, d_fake, REAL, FAKE).item() == pytest.approx(critic)
    assert GAMES[name].generator(d_fake).item() == pytest.approx(generator)
    gradcheck(lambda r, f: GAMES[name].critic(r, f, REAL, FAKE), D_REAL, D_FAKE)
    gradcheck(GAMES[name].generator, D_FAKE)


@pytest.mark.parametrize("name", GAMES)
def test_every_game_has_the_articles_sign(name):
    """The critic lowers D on real samples and raises it on generated ones; the generator lowers it there."""
    d_real, d_fake = scores()
    on_real, on_fake = mg.grad(GAMES[name].critic(d_real, d_fake, REAL, FAKE), [d_real, d_fake])
    assert (on_real.data >= 0).all() and (on_fake.data <= 0).all() and on_real.data.any() and on_fake.data.any()
    (g,) = mg.grad(GAMES[name].generator(d_fake), d_fake)
    assert (g.data > 0).all()


@pytest.mark.parametrize("name", ["ls-gan", "gls-gan"])
def test_scores_that_would_broadcast_are_refused(name):
    d_real, d_fake = (mg.tensor(a[:, 0], requires_grad=True) for a in (D_REAL, D_FAKE))
    with pytest.raises(ValueError, match=r"expected scores and margins of one shape, got \(5,\), \(5,\), \(5, 1\)"):
        GAMES[name].critic(d_real, d_fake, REAL, FAKE)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cross_entropy_of_logits_of_any_size(dtype):
    logits = mg.tensor(np.array([[1e4, 0, -1e4], [0, 0, 0]], dtype), requires_grad=True)
    loss = softmax_cross_entropy(logits, np.array([0, 2]))
    np.testing.assert_allclose(loss.data, np.log(3) / 2, rtol=1e-6)
    (g,) = mg.grad(loss, logits)
    np.testing.assert_allclose(g.data, np.array([[0, 0, 0], [1 / 6, 1 / 6, -1 / 3]]), atol=1e-6)


@pytest.mark.parametrize("common", [0, 1e6, 1e8])
def test_what_logits_have_in_common_costs_no_digits(common):
    logits = mg.tensor(np.full((1, 2), common, "float32"), requires_grad=True)
    loss = softmax_cross_entropy(logits, np.array([0]))
    assert loss.item() == pytest.approx(np.log(2)) and mg.grad(loss, logits)[0].data.tolist() == [[-0.5, 0.5]]


def test_the_derivatives_of_cross_entropy():
    gradcheck(lambda x: softmax_cross_entropy(x, np.array([0, 3, 1])), RNG.normal(size=(3, 4)))


def test_labels_that_are_none():
    x = mg.tensor(np.ones((4, 3)))
    for labels in (np.zeros((4, 1), int), np.zeros(1, int), np.zeros(4), [0, 0, 0, 0]):
        with pytest.raises(ValueError, match="softmax_cross_entropy: expected an array of 4 whole numbers"):
            softmax_cross_entropy(x, labels)
    for label in (-1, 3):
        with pytest.raises(ValueError, match="softmax_cross_entropy: expected labels from 0 to 2"):
            softmax_cross_entropy(x, np.array([0, 1, 2, label]))


def test_the_original_gan_is_cross_entropy_on_the_other_sign():
    """-log sigmoid(D') on real and -log(1 - sigmoid(D')) on generated samples, for the discriminator D' = -D."""
    d_real, d_fake = scores()
    p_real, p_fake = 1 / (1 + np.exp(D_REAL)), 1 / (1 + np.exp(D_FAKE))
    expected = -np.log(p_real).mean() - np.log(1 - p_fake).mean()
    assert GAMES["gan"].critic(d_real, d_fake, REAL, FAKE).item() == pytest.approx(expected)
    assert GAMES["gan"].generator(d_fake).item() == pytest.approx(-np.log(p_fake).mean())
    assert GAMES["gan-saturating"].generator(d_fake).item() == pytest.approx(np.log(1 - p_fake).mean())


def test_the_saturating_generator_gets_no_gradient_from_a_sure_critic_and_the_other_does():
    sure = mg.tensor(np.full((5, 1), 40.0), requires_grad=True)
    assert np.abs(mg.grad(GAMES["gan-saturating"].generator(sure), sure)[0].data).max() < 1e-16
    np.testing.assert_allclose(mg.grad(GAMES["gan"].generator(sure), sure)[0].data, 1 / 5)


def test_gls_gan_contains_wgan_and_ls_gan_as_its_two_ends():
    d_real, d_fake = scores()
    margin = distance(REAL, FAKE)
    as_wgan = leaky_critic_loss(d_real, d_fake, margin, leak=1)
    assert as_wgan.item() == pytest.approx(critic_loss(d_real, d_fake).item() + margin.mean())
    as_ls_gan = leaky_critic_loss(d_real, d_fake, margin, leak=0)
    for got, expected in [
        (as_wgan, critic_loss(d_real, d_fake)),
        (as_ls_gan, GAMES["ls-gan"].critic(d_real, d_fake, REAL, FAKE)),
    ]:
        for g, h in zip(mg.grad(got, [d_real, d_fake]), mg.grad(expected, [d_real, d_fake])):
            np.testing.assert_allclose(g.data, h.data)


def test_ls_gan_asks_for_the_margin_and_no_more():
    d_real, margin = mg.tensor(np.zeros((5, 1)), requires_grad=True), distance(REAL, FAKE)
    np.testing.assert_allclose(margin, MARGIN)
    for beyond, expected in ((1.01, 0), (0.99, 1 / 5)):
        loss = GAMES["ls-gan"].critic(d_real, mg.tensor(beyond * margin), REAL, FAKE)
        np.testing.assert_allclose(mg.grad(loss, d_real)[0].data, expected)
