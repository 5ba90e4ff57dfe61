"""An iteration, the metrics of a run, and a short real training."""

import functools
from dataclasses import replace

import numpy as np
import pytest

from minigan import backend
from minigan.data import load_images, sampler
from minigan.judge.metrics import frechet
from minigan.losses import GAMES
from minigan.penalties import FORMS, WHERE, slopes
from minigan.run import Run
from minigan.settings import DECAYS, NOISES, PRESETS, Settings
from minigan.training import WGANGP, DivergenceError, l1_and_mean_slope

SMALL = Settings(batch_size=8, critic=(16, 8), generator=(8, 16), noise_dim=4)
DRAW = sampler(np.random.default_rng(0).integers(0, 100, (1000, 6, 6), dtype="uint8"))


def gan(**others):
    return WGANGP(replace(SMALL, **others), DRAW, 36)


def arrays(network):
    return [p.data.copy() for p in network.parameters()]


def train(model, iterations):
    """The metrics of so many iterations, all finite as the model then is."""
    metrics = np.array([model.iteration().copy() for _ in range(iterations)])
    model.check_finite()
    assert np.isfinite(metrics).all()
    return metrics


def test_the_articles_preset_is_the_articles_program():
    s = PRESETS["article"]
    assert (s.critic, s.generator, s.noise_dim, s.hidden) == ((128, 32), (32, 128), 10, "relu")
    assert (s.batch_size, s.critic_steps, s.learning_rate, s.betas) == (100, 5, 1e-4, (0.5, 0.999))
    assert (s.penalty, s.lambda_, s.grid, s.sample_every) == ("one-sided-relu", 10, 6, 1000)
    assert (s.init, s.noise, s.decay, s.iterations) == ("uniform", "uniform", "constant", 400_000)
    noise = NOISES["uniform"](np.random.default_rng(0), (1000, 10))
    assert noise.dtype == "float32"
    assert (noise.min(), noise.max()) == pytest.approx((-1, 1), abs=0.01)


def test_the_generator_stands_still_during_the_critic_steps():
    """One forward of all the fakes is the same as one for each step, and each step sees its own rows."""
    model, seen = WGANGP(replace(SMALL, critic_steps=3), DRAW, 36), []
    step, before = model.critic_step, arrays(model.generator)

    def spy(real, fake):
        seen.extend((real, fake))
        np.testing.assert_equal(arrays(model.generator), before)
        expected = model.critic(fake).data.mean() - model.critic(real).data.mean()  # before the step
        *scores, slopes = step(real, fake)
        l1, slope = l1_and_mean_slope(*scores, slopes)
        assert l1 == pytest.approx(expected, rel=1e-4, abs=1e-6)
        assert slope == pytest.approx(slopes.mean())
        return *scores, slopes

    model.critic_step = spy
    model.iteration()
    assert [rows.shape for rows in seen] == [(8, 36)] * 6
    assert len({rows.tobytes() for rows in seen}) == 6
    assert not any(map(np.array_equal, arrays(model.generator), before))
    assert (model.critic_adam.t.item(), model.generator_adam.t.item()) == (3, 1)


def test_the_same_seed_gives_the_same_numbers_bit_for_bit():
    models = [gan(seed=seed) for seed in (0, 0, 1)]
    first, same, other = ((train(m, 5).tobytes(), *(p.tobytes() for p in arrays(m.generator))) for m in models)
    assert first == same != other


@pytest.mark.parametrize("decay, rates", [("linear", [1.0, 0.75, 0.5, 0.25, 0]), ("constant", [1.0] * 5)])
def test_the_learning_rate_decays_over_the_run(decay, rates):
    model = gan(iterations=4, learning_rate=1.0, decay=decay)
    for rate in rates:
        model.iteration()
        assert (model.critic_adam.lr, model.generator_adam.lr) == (rate, rate)


@pytest.mark.parametrize("name, valid", [("noise", NOISES), ("decay", DECAYS), ("penalty", FORMS)])
def test_an_unknown_name_is_refused(name, valid):
    with pytest.raises(ValueError, match=f"{name}: expected {valid}, got 'pink'"):
        replace(SMALL, **{name: "pink"})


PENALTIES = [name for name in FORMS if name != "none"]
CONSTRAINED = [(form, where, "gradient", "none") for form in PENALTIES for where in WHERE]
CONSTRAINED += [(form, "between", "difference", "none") for form in PENALTIES]
CONSTRAINED += [(form, "between", "gradient", kind) for form in ("two-sided", "none") for kind in ("clip", "spectral")]


@functools.cache
def trained(**others):
    """A model whose critic was steep to begin with."""
    model = gan(learning_rate=3e-3, **others)
    for p in model.critic.parameters():
        p.data = 2 * p.data
    train(model, 40)
    return model


@pytest.mark.parametrize("form, where, slope, constraint", CONSTRAINED)
def test_every_constraint_trains_and_moves_the_slope_the_right_way(form, where, slope, constraint):
    """Down, from where it is without any; measured as the penalty measures it."""
    models = trained(penalty="none"), trained(penalty=form, where=where, slope=slope, constraint=constraint)
    rng = np.random.default_rng(0)
    free, held = (slopes(m.critic, DRAW(200, rng), m.generate(200), rng, slope, where).data.mean() for m in models)
    assert held < free / 1.5, (held, free)
    assert free > 1.5, (held, free)
    assert constraint != "clip" or max(np.abs(p).max() for p in arrays(models[1].critic)) <= np.float32(SMALL.clip)


@pytest.mark.parametrize("name", GAMES)
def test_every_game_trains(name):
    """The critic tells real from generated: L1 is positive once it has learnt, whatever the loss."""
    assert train(gan(game=name), 40)[-5:, 0].mean() > 0.1


def run_of(metrics):
    """A run whose iterations come to these metrics, after a thousand."""
    run = Run(SMALL, (2, 2), {})
    run.gan.done = 1000

    def iteration():
        run.gan.done += 1
        return np.array(metrics[run.done - 1001], "float32")

    run.gan.iteration = iteration
    return run


def test_a_row_is_the_mean_since_the_one_before():
    run = run_of([(1.0, 2.0)] + [(3.0, 4.0)] * 9 + [(7.0, 8.0)] * 10)
    rows = [run.advance(run.gan.iteration) for _ in range(20)]
    assert [row and row[:3] for row in rows] == [*[None] * 9, (1010, 2.8, 3.8), *[None] * 9, (1020, 7.0, 8.0)]
    assert run.rows == [rows[9], rows[19]]
    assert 0 <= rows[9][3] <= rows[19][3] <= run.seconds


@pytest.mark.parametrize("bad, told", [((np.nan, 1.0), "L1 nan and slope 1"), ((1.0, -np.inf), "L1 1 and slope -inf")])
def test_the_first_figure_that_is_not_finite_is_found(bad, told):
    run = run_of([(1.0, 1.0)] * 6 + [bad, (np.inf, np.inf), bad, bad])
    with pytest.raises(DivergenceError, match=f"training diverged: {told} at iteration 1007"):
        for _ in range(10):
            run.advance(run.gan.iteration)
    assert (run.rows, run.done) == ([], 1010)


def test_the_generators_running_average():
    """Its early weights are forgotten; and without an average, the generator itself draws the samples."""
    model, none = gan(average=0.5), gan(average=0.0)
    expected = arrays(model.generator)
    for i in range(12):
        model.iteration()
        keep = min(0.5, (1 + i) / (9 + i))
        expected = [keep * e + (1 - keep) * p for e, p in zip(expected, arrays(model.generator))]
    for a, e, p in zip(arrays(model.ema), expected, arrays(model.generator)):
        np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-7)
        assert (a != p).any()
    assert none.ema is none.generator


def test_an_average_of_what_stands_still_is_what_stands_still():
    model = gan(average=0.9999)
    model.generator_step = lambda: None
    train(model, 50)
    np.testing.assert_equal(arrays(model.ema), arrays(model.generator))


@pytest.mark.parametrize("name", ["generator.weight1", "critic.m.bias1", "generator.lr", "critic.spectral.u1"])
def test_what_is_not_finite_is_named(name):
    model = gan(constraint="spectral")
    model.check_finite()
    model.state()[name].array.flat[-1] = np.inf
    told = "the generator's parameters are" if name == "generator.weight1" else f"{name} is"
    with pytest.raises(DivergenceError, match=f"training diverged: {told} no longer finite"):
        model.check_finite()


@pytest.mark.slow
def test_a_short_real_training():
    """L1 falls, the gradient norm approaches 1, and the samples leave noise far behind.

    The distance is Frechet's, in pixels, to held-out real digits. Two kinds of noise stand beside the samples: uniform
    pixels, and every pixel drawn by itself from the real ones at its place, which has all the means and variances of
    the digits and none of their strokes.
    """
    draw, rng = sampler(load_images()), np.random.default_rng(0)
    model = WGANGP(Settings(), draw, 784)
    metrics = train(model, 500)
    l1, slope = metrics.reshape(10, 50, 2).mean(axis=1).T
    assert 0 < l1.min() <= l1[-1] < 0.7 * l1[0]
    assert abs(slope[-1] - 1) < 0.1 < abs(metrics[0, 1] - 1)

    held_out, shuffled = sampler(load_images(split="test"))(2000, rng), rng.permuted(draw(2000, rng), axis=0)
    sets = backend.to_numpy(model.generate(2000)), shuffled, rng.random((2000, 784))
    distance = [frechet(x, held_out) for x in sets]
    assert distance[0] < distance[1] / 2 < distance[2] / 4, distance
