"""An iteration shared by threads. What each of them computes is tested in ``test_columns``."""

import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minigan import ops
from minigan.data import sampler
from minigan.fast import workers
from minigan.losses import GAMES
from minigan.training import WGANGP
from tests.running import TINY, rows, run
from tests.test_columns import IMAGES, SMALL

TWO = [*TINY, "--workers", 2, "--learning-rate", 1e-4]


@pytest.mark.parametrize("number", [2, 3])
def test_a_run_of_several_threads(number, images, quick):
    """Its metrics are those of one."""
    run(*TWO, "--data", images, "--workers", 1, "--out", "one")
    run(*TWO, "--data", images, "--workers", number, "--out", "several")
    one, several = (np.array(rows(name)[1:], float)[:, :3] for name in ("one", "several"))
    np.testing.assert_allclose(several, one, rtol=1e-4, atol=1e-5)
    assert json.loads(Path("several", "settings.json").read_text())["workers"] == number
    assert run("--resume", "--workers", 1, "--iterations", 8, "--out", "several") == 0


def test_spectral_layers_train_by_one_worker(images, quick, capsys):
    assert run(*TWO, "--data", images, "--constraint", "spectral") == 0
    line = "run_mnist.py: spectral layers train by one worker, since each needs its whole weight\n"
    assert capsys.readouterr().err == line
    assert json.loads(Path("out", "settings.json").read_text())["workers"] == 1
    assert run("--resume", "--iterations", 8, "--workers", 2) == 0
    assert capsys.readouterr().err == line


def test_a_model_is_whole_when_brought_together_and_afterwards():
    one, two = (WGANGP(SMALL, sampler(IMAGES), 12) for _ in range(2))

    def assert_alike():
        for x, y in zip(one.state().values(), two.state().values()):
            np.testing.assert_allclose(x.data, y.data, rtol=1e-3, atol=1e-4)

    with workers.sharing(two, 2) as shared:
        for _ in range(3):
            one.iteration(), shared.iteration()
        shared.bring_together()
        assert_alike()
        one.iteration(), shared.iteration()
    assert_alike()
    np.testing.assert_allclose(one.iteration(), two.iteration(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "number, others, why",
    [(13, {}, "13 workers cannot share images of 12 pixels"), (2, {"constraint": "spectral"}, "train as a whole")],
)
def test_what_cannot_be_shared(number, others, why):
    model = WGANGP(replace(SMALL, **others), sampler(IMAGES), 12)
    with pytest.raises(ValueError, match=why), workers.sharing(model, number):
        pass


OWN = {  # what a model may be made of, that its settings do not say
    "a game": lambda model: setattr(model, "game", GAMES["hinge"]),
    "a penalty": lambda model: setattr(model, "penalty", lambda s: ops.mean(s**4)),
    "an activation": lambda model: setattr(model.critic, "hidden", ops.tanh),
    "betas": lambda model: setattr(model.critic_adam, "betas", (0.5, 0.5)),
    "a learning rate": lambda model: setattr(model.generator_adam, "lr", 0.1),
    "a parameter": lambda model: setattr(model.critic.layers[0].bias, "data", np.ones(6)),
    "images": lambda model: setattr(model, "sample_real", sampler(255 - IMAGES)),
}


@pytest.mark.parametrize("name", OWN)
def test_the_shares_are_of_the_model_that_was_given(name):
    settings = replace(SMALL, learning_rate=0.02)
    plain, whole, shared = (WGANGP(settings, sampler(IMAGES), 12) for _ in range(3))
    for model in (whole, shared):
        OWN[name](model)
    with workers.sharing(shared, 2, replay=False) as (iteration, _):
        metrics = [(model(), whole.iteration(), plain.iteration()) for model in [iteration] * 3][-1]
    np.testing.assert_allclose(metrics[0], metrics[1], rtol=1e-4, atol=1e-5)
    assert np.abs(metrics[2] - metrics[1]).max() > 1e-4


def test_what_is_shared_is_changed_before_or_afterwards():
    model = WGANGP(SMALL, sampler(IMAGES), 12)
    with workers.sharing(model, 2) as shared:
        shared.iteration()
        for change in (
            lambda: setattr(model.critic_adam, "lr", 1.0),
            lambda: model.restore({name: x.data for name, x in model.state().items()}),
            model.iteration,
        ):
            with pytest.raises(ValueError, match="read-only"):
                change()
    model.critic_adam.lr = 1.0


def fails_in(rank, error, at):
    """A step of the critic that fails in one worker, at an iteration."""
    first, step = threading.get_ident(), WGANGP.critic_step

    def critic_step(part, *rows):
        if (threading.get_ident() != first) == rank and part.done == at:
            raise error
        return step(part, *rows)

    return critic_step


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(3), workers.Stopped("itself")])
@pytest.mark.parametrize("number", [2, 3])
def test_an_error_in_one_worker_ends_all(rank, error, number, monkeypatch):
    """It is told as it is, nobody waits, and the model is what it was when it was brought together last."""
    model, same = (WGANGP(SMALL, sampler(IMAGES), 12) for _ in range(2))
    with workers.sharing(same, number, replay=False) as shared:
        shared.iteration(), shared.iteration()
    monkeypatch.setattr(WGANGP, "critic_step", fails_in(rank, error, 4))
    with pytest.raises(type(error)) as raised, workers.sharing(model, number, replay=False) as shared:
        shared.iteration(), shared.iteration()
        shared.bring_together()
        shared.iteration(), shared.iteration()
    assert raised.value is error
    assert model.done == same.done == 2
    assert model.rng.bit_generator.state == same.rng.bit_generator.state
    for x, y in zip(model.state().values(), same.state().values()):
        np.testing.assert_array_equal(x.data, y.data)


def test_an_error_between_iterations_loses_nothing():
    """And another model may be shared meanwhile."""
    model, same = (WGANGP(SMALL, sampler(IMAGES), 12) for _ in range(2))
    with pytest.raises(ZeroDivisionError), workers.sharing(model, 2) as one, workers.sharing(same, 2) as other:
        one.iteration(), other.iteration()
        raise ZeroDivisionError
    assert model.done == same.done == 1
    np.testing.assert_array_equal(model.iteration(), same.iteration())
