"""Workers that share the hidden units: the same training for any number of them, up to rounding.

The workers are threads here, which are faster to begin than processes.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace

import numpy as np
import pytest

import minigan as mg
from minigan import nn, ops
from minigan.choices import Choices
from minigan.data import sampler
from minigan.fast import Replayed, columns
from minigan.losses import GAMES
from minigan.settings import Settings
from minigan.tensor import primitive
from minigan.training import WGANGP

IMAGES = np.random.default_rng(0).integers(0, 256, (50, 3, 4), dtype="uint8")
SMALL = Settings(iterations=9, batch_size=12, critic=(6,), generator=(5, 6), noise_dim=3, learning_rate=1e-4, clip=0.1)

# Every name of each choice, in as many variants as the longest of them has names; no spectral layers.
ALLOWED = {field.name: field.metadata["allowed"] for field in fields(Settings)}
CHOICES = {name: list(names) for name, names in ALLOWED.items() if isinstance(names, Choices) and name != "slope"}
CHOICES["constraint"].remove("spectral")
VARIANTS = [{name: names[i % len(names)] for name, names in CHOICES.items()} for i in range(len(GAMES))]
WIDTHS = [
    {"critic": (), "generator": ()},
    {"critic": (5, 2, 7), "generator": (4,)},
    {"critic": (2, 4, 3, 8), "generator": (3, 1, 5, 4)},
]


def together(number, work):
    """What ``work(rank, primitives)`` returns in each of so many threads."""
    barrier, tables = threading.Barrier(number), [[None] * number for _ in range(2)]

    def run(rank):
        try:
            given = columns.collectives(rank, number, tables, lambda: barrier.wait(60))
            return work(rank, given)
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(number) as pool:
        futures = [pool.submit(run, rank) for rank in range(number)]
        errors = [e for e in (future.exception() for future in futures) if e]
        for error in sorted(errors, key=lambda e: isinstance(e, threading.BrokenBarrierError)):
            raise error  # what broke the barrier, not who waited there
        return [future.result() for future in futures]


def trained(settings, number, iterations=4, replay=True):
    """The metrics, and the state of the whole model, after some iterations of so many workers."""
    whole = WGANGP(settings, sampler(IMAGES), 12)

    def work(rank, primitives):
        model, write_back = columns.split(whole, rank, number, primitives)
        fast = Replayed(model) if replay else model
        metrics = [fast.iteration().copy() for _ in range(iterations)]
        assert not replay or fast.proven
        write_back()
        alike = {name: x.data for name, x in model.state().items() if x.shape == whole.state()[name].shape}
        return np.array(metrics), alike

    results = together(number, work)
    for result in results:
        np.testing.assert_equal(result, results[0])
    return results[0][0], {name: x.data for name, x in whole.state().items()}


def flat(arrays):
    return np.concatenate([a.ravel() for a in arrays if a.dtype == "float32"])  # no counts


@pytest.mark.parametrize(
    "others", [*VARIANTS, *WIDTHS, {"slope": "difference", "critic_steps": 5, "average": 0.0}], ids=str
)
def test_any_number_of_workers_is_the_same_training(others):
    settings = replace(SMALL, **others)
    model = WGANGP(settings, sampler(IMAGES), 12)
    before = flat(x.data for x in model.state().values())
    expected = np.array([model.iteration().copy() for _ in range(4)])
    after = flat(x.data for x in model.state().values())
    for number in (2, 3):
        metrics, arrays = trained(settings, number)
        np.testing.assert_allclose(metrics, expected, rtol=1e-4, atol=1e-5)
        # Not each number: Adam moves by a whole step where a gradient is nothing but rounding.
        assert np.linalg.norm(flat(arrays.values()) - after) < 1e-2 * np.linalg.norm(after - before)


def test_a_replayed_one_is_the_eager_one_bit_for_bit():
    np.testing.assert_equal(trained(SMALL, 2, 8), trained(SMALL, 2, 8, replay=False))


def test_how_layers_are_shared():
    def names(widths, number, gather):
        return [kind.__name__[0] for kind in columns.kinds(nn.MLP(widths), number, gather)]

    assert names([784, 256, 128, 1], 2, gather=False) == ["C", "R", "L"]
    assert names([784, 256, 1], 2, gather=False) == ["C", "R"]
    assert names([784, 2, 8, 1], 3, gather=False) == ["L", "C", "R"]
    assert names([32, 128, 256, 784], 2, gather=True) == ["C", "R", "O"]
    assert names([32, 128, 784], 2, gather=True) == ["L", "O"]
    assert names([32, 2, 3], 4, gather=True) == ["L", "L"]


# --- Derivatives --------------------------------------------------------------------------------

X = np.random.default_rng(1).normal(size=(3, 5))
W = np.random.default_rng(2).normal(size=(5, 7))


def checked(say, rank, number):
    """Finite differences of functions of what all have alike, by way of what each has for itself."""
    part = columns.share(7, rank, number)
    mg.gradcheck(lambda x: say.summed(ops.tanh(say.copied(x) @ W[:, part]) @ W.T[part]), X, order=3)
    mg.gradcheck(lambda x: say.gathered(ops.tanh(say.copied(x) @ W[:, part]), 7), X, order=3)
    mg.gradcheck(lambda x: say.gathered(ops.exp(say.own_part(x)), 5), X, order=3)
    mg.gradcheck(lambda x: say.summed(ops.tanh(say.own_part(x)) @ W[columns.share(5, rank, number)]), X, order=3)


@pytest.mark.parametrize("number", [2, 3])
def test_finite_differences(number):
    together(number, lambda rank, say: checked(say, rank, number))


WRONG = {
    "copied": lambda say: primitive(lambda g, out, x: g)(lambda x: x),  # without its sum
    "summed": lambda say: primitive(lambda g, out, x: say.summed(g))(lambda x: say.summed(x).data),  # with one too many
    "gathered": lambda say: primitive(lambda g, out, x, n: 2 * say.own_part(g))(lambda x, n: say.gathered(x, n).data),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_derivative_is_caught(name):
    with pytest.raises(AssertionError, match="order 1"):
        together(2, lambda rank, say: checked(say._replace(**{name: WRONG[name](say)}), rank, 2))


@pytest.mark.parametrize("form", ["two-sided", "one-sided-max"])
def test_the_gradients_of_a_critic_with_its_penalty_are_those_of_one_process(form):
    def gradients(critic):
        real, fake = np.random.default_rng(3).random((2, 6, 12))
        penalty = mg.penalties.gradient_penalty(critic, real, fake, np.random.default_rng(4), form)
        loss = mg.losses.critic_loss(critic(real), critic(fake)) + 10 * penalty
        return [g.data for g in mg.grad(loss, critic.parameters(), materialize_grads=True)]

    def work(rank, primitives):
        critic, number = nn.MLP([12, 9, 8, 7, 1], "tanh", rng=0, dtype="float64"), 2
        axes = columns.share_layers(critic, number, False, primitives)
        cuts = [columns.cut(x, axis, rank, number) for x, axis in zip(critic.parameters(), axes)]
        for x, place in zip(critic.parameters(), cuts):
            x.array = x.array[place]
        return cuts, gradients(critic)

    expected = gradients(nn.MLP([12, 9, 8, 7, 1], "tanh", rng=0, dtype="float64"))
    for cuts, found in together(2, work):
        assert any(cut is not ... for cut in cuts)
        for whole, cut, g in zip(expected, cuts, found):
            np.testing.assert_allclose(g, whole[cut], rtol=1e-10, atol=1e-12)
