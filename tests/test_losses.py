"""The games: their values, their sign, and their derivatives; and cross-entropy."""

import numpy as np
import pytest

import minigan as mg
from minigan.judge.classifier import softmax_cross_entropy
from minigan.losses import GAMES, distance, leaky_critic_loss

RNG = np.random.default_rng(0)
REAL, FAKE = RNG.normal(size=(2, 5, 3))
D_REAL, D_FAKE = 3 * RNG.normal(size=(2, 5, 1))
P_REAL, P_FAKE = 1 / (1 + np.exp(D_REAL)), 1 / (1 + np.exp(D_FAKE))  # by the original GAN's discriminator, D' = -D
MARGIN = np.sqrt(((REAL - FAKE) ** 2).sum(1, keepdims=True))
GAP = MARGIN + D_REAL - D_FAKE  # below 0 in two rows
FORMULAS = {
    "wgan": (D_REAL.mean() - D_FAKE.mean(), D_FAKE.mean()),
    "gan": (-np.log(P_REAL).mean() - np.log(1 - P_FAKE).mean(), -np.log(P_FAKE).mean()),
    "gan-saturating": (-np.log(P_REAL).mean() - np.log(1 - P_FAKE).mean(), np.log(1 - P_FAKE).mean()),
    "hinge": (np.maximum(0, 1 + D_REAL).mean() + np.maximum(0, 1 - D_FAKE).mean(), D_FAKE.mean()),
    "ls-gan": (np.maximum(0, GAP).mean(), D_FAKE.mean()),
    "gls-gan": (np.maximum(0.5 * GAP, GAP).mean(), D_FAKE.mean()),
}


@pytest.mark.parametrize("name", GAMES)
def test_a_game_is_its_formula_and_has_its_derivatives_and_the_articles_sign(name):
    """The critic lowers D on real samples and raises it on generated ones; the generator lowers it there."""
    scores, game = [mg.tensor(a, requires_grad=True) for a in (D_REAL, D_FAKE)], GAMES[name]
    critic, generator = game.critic(*scores, REAL, FAKE), game.generator(scores[1])
    assert name in FORMULAS, "give the losses that it comes to on these scores, by hand or in NumPy, in FORMULAS"
    assert (critic.item(), generator.item()) == pytest.approx(FORMULAS[name])
    mg.gradcheck(lambda d_real, d_fake: game.critic(d_real, d_fake, REAL, FAKE), D_REAL, D_FAKE)
    mg.gradcheck(game.generator, D_FAKE)
    gradients = *mg.grad(critic, scores), *mg.grad(generator, scores[1])
    assert [np.sign(g.data.sum()) for g in gradients] == [1, -1, 1]


def test_gls_gan_contains_wgan_as_one_end():
    wgan, margin = FORMULAS["wgan"][0], distance(REAL, FAKE)
    loss = leaky_critic_loss(mg.tensor(D_REAL), mg.tensor(D_FAKE), margin, leak=1)
    assert loss.item() == pytest.approx(wgan + MARGIN.mean())


def test_scores_that_would_broadcast_are_refused():
    for name in ("ls-gan", "gls-gan"):
        with pytest.raises(ValueError, match=r"scores and margins of one shape, got \(5,\), \(5,\), \(5, 1\)"):
            GAMES[name].critic(mg.tensor(D_REAL[:, 0]), mg.tensor(D_FAKE[:, 0]), REAL, FAKE)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cross_entropy_of_logits_of_any_size(dtype):
    """What logits have in common costs no digits."""
    for logits, label, loss, gradient in (
        ([1e4, 0, -1e4], 0, 0, [0, 0, 0]),
        ([0, 0, 0], 2, np.log(3), [1 / 3, 1 / 3, -2 / 3]),
        ([1e6, 1e6], 0, np.log(2), [-0.5, 0.5]),
        ([1e8, 1e8], 1, np.log(2), [0.5, -0.5]),
    ):
        x = mg.tensor(np.array([logits, logits], dtype), requires_grad=True)
        y = softmax_cross_entropy(x, np.array([label, label]))
        np.testing.assert_allclose(y.data, loss, rtol=1e-6)
        np.testing.assert_allclose(2 * mg.grad(y, x)[0].data, [gradient] * 2, atol=1e-6)
    mg.gradcheck(lambda x: softmax_cross_entropy(x, np.array([0, 3, 1])), RNG.normal(size=(3, 4)))


def test_labels_that_are_none():
    whole, within = "an array of 4 whole numbers, a label for each row", "labels from 0 to 2, got others among them"
    cases = [(labels, whole) for labels in (np.zeros((4, 1), int), np.zeros(1, int), np.zeros(4), [0, 0, 0, 0])]
    for labels, message in [*cases, (np.array([0, 1, 2, -1]), within), (np.array([0, 1, 2, 3]), within)]:
        with pytest.raises(ValueError, match=f"softmax_cross_entropy: expected {message}"):
            softmax_cross_entropy(mg.tensor(np.ones((4, 3))), labels)
