"""An iteration, the metrics of a run, and a short real training."""

import numpy as np
import pytest

from minigan import backend, judge, training
from minigan.data import load_images, sampler
from minigan.losses import GAMES
from minigan.nn import CONSTRAINTS
from minigan.penalties import FORMS, SLOPES, WHERE, slopes
from minigan.run import Run
from minigan.settings import NOISES, PRESETS, Settings
from minigan.training import WGANGP, DivergenceError

SMALL = Settings(batch_size=8, critic=(16, 8), generator=(8, 16), noise_dim=4)


@pytest.fixture(scope="module")
def mnist():
    return load_images()


def gan(settings, images):
    return WGANGP(settings, sampler(images), images[0].size)


def test_the_articles_preset_is_the_articles_program():
    s = PRESETS["article"]
    critic, generator = training.networks(s, 784, 0)
    assert [p.shape for p in critic.parameters()[::2]] == [(784, 128), (128, 32), (32, 1)]
    assert [p.shape for p in generator.parameters()[::2]] == [(10, 32), (32, 128), (128, 784)]
    assert all(np.abs(p.data).max() <= 0.05 for p in critic.parameters() + generator.parameters())
    noise = NOISES[s.noise](np.random.default_rng(0), (1000, 10))
    assert noise.dtype == "float32" and -1 <= noise.min() < -0.99 and 0.99 < noise.max() <= 1
    assert (s.batch_size, s.critic_steps, s.learning_rate, s.betas) == (100, 5, 1e-4, (0.5, 0.999))
    assert (s.penalty, s.penalty_weight, s.grid, s.sample_every) == ("one-sided-relu", 10, 6, 1000)
    assert (s.hidden, s.schedule, s.iterations) == ("relu", "constant", 400_000)


def test_the_generator_stands_still_during_the_critic_steps(mnist):
    """One forward of all the fakes is the same as one for each step, and each step sees its own rows."""
    model = WGANGP(Settings(**{**vars(SMALL), "critic_steps": 3}), sampler(mnist[:100]), 784, replay=False)
    seen = []
    step = model.critic_step

    def spy(real, fake):
        seen.append((real, fake, [p.data.copy() for p in model.generator.parameters()]))
        return step(real, fake)

    model.critic_step = spy
    before = [p.data.copy() for p in model.generator.parameters()]
    model.iteration()
    assert [(len(r), len(f)) for r, f, _ in seen] == [(8, 8)] * 3
    assert len({r.tobytes() for r, _, _ in seen}) == len({f.tobytes() for _, f, _ in seen}) == 3
    for _, _, parameters in seen:
        assert all((p == b).all() for p, b in zip(parameters, before))
    assert any((p.data != b).any() for p, b in zip(model.generator.parameters(), before))
    assert (model.critic_adam.t.item(), model.generator_adam.t.item()) == (3, 1)


def test_l1_is_fake_minus_real_before_the_step(mnist):
    model = gan(SMALL, mnist[:100])
    rng = np.random.default_rng(0)
    real, fake = rng.random((2, 8, 784), dtype="float32")
    expected = model.critic(fake).data.mean() - model.critic(real).data.mean()
    l1, slope = model.critic_step(real, fake)
    assert l1.item() == pytest.approx(expected, rel=1e-5)
    assert slope.item() > 0


@pytest.mark.parametrize("penalty", FORMS)
@pytest.mark.parametrize("hidden", ["relu", "leaky_relu", "tanh", "softplus"])
def test_the_same_seed_gives_the_same_numbers_bit_for_bit(mnist, penalty, hidden):
    settings = Settings(**{**vars(SMALL), "penalty": penalty, "hidden": hidden, "noise": "uniform"})

    def run(settings):
        model = gan(settings, mnist[:1000])
        metrics = [[x.item() for x in model.iteration()] for _ in range(5)]
        return metrics, [p.data.tobytes() for p in model.generator.parameters()]

    first = run(settings)
    assert run(settings) == first
    assert np.isfinite(first[0]).all()
    assert run(Settings(**{**vars(settings), "seed": 1})) != first


@pytest.mark.parametrize("decay, rates", [("linear", [1.0, 0.75, 0.5, 0.25, 0]), ("constant", [1.0] * 5)])
def test_the_learning_rate_decays_over_the_run(mnist, decay, rates):
    model = gan(Settings(**{**vars(SMALL), "iterations": 4, "learning_rate": 1.0, "schedule": decay}), mnist[:10])
    got = []
    for _ in rates:
        model.iteration()
        got.append((model.critic_adam.lr, model.generator_adam.lr))
    assert got == [(rate, rate) for rate in rates]


def test_an_unknown_name_is_refused(mnist):
    for name, value, message in [
        ("noise", "pink", "normal, uniform"),
        ("schedule", "slow", "linear"),
        ("penalty", "cubic", "two-sided"),
    ]:
        with pytest.raises(ValueError, match=f"{name}: expected one of .*{message}.*, got '{value}'"):
            gan(Settings(**{**vars(SMALL), name: value}), mnist[:10])


PENALTIES = [(form, where, "gradient") for form in FORMS for where in WHERE]
PENALTIES += [(form, "between", "difference") for form in FORMS]


def train_briefly(images, **names):
    """A model after 60 iterations from a critic that is steep to begin with."""
    model = gan(Settings(**{**vars(SMALL), "learning_rate": 3e-3, **names}), images)
    for p in model.critic.parameters():
        p.data = 2 * p.data
    metrics = [[x.item() for x in model.iteration()] for _ in range(60)]
    model.check_finite()
    assert np.isfinite(metrics).all()
    return model


@pytest.fixture(scope="module")
def unconstrained(mnist):
    return train_briefly(mnist[:1000], penalty="none")


@pytest.mark.parametrize("constraint", CONSTRAINTS)
@pytest.mark.parametrize("form, where, slope", [*PENALTIES, ("none", "between", "gradient")])
def test_every_constraint_trains_and_moves_the_slope_the_right_way(
    mnist, unconstrained, form, where, slope, constraint
):
    """Down, from where it is without any; measured as the penalty measures it."""
    if form == constraint == "none":
        pytest.skip("no constraint at all is what the others are compared with")
    names = {"penalty": form, "where": where, "slope": slope, "constraint": constraint}
    model = train_briefly(mnist[:1000], **names)
    rng = np.random.default_rng(0)
    real = sampler(mnist)(200, rng)
    free, held = (
        slopes(m.critic, real, m.generate(200), rng, slope, where).data.mean() for m in (unconstrained, model)
    )
    assert held < free / 1.5 and free > 1.5, (held, free)


@pytest.mark.parametrize("name", GAMES)
def test_every_game_trains(mnist, name):
    """The critic tells real from generated: L1 is positive once it has learnt, whatever the loss."""
    model = gan(Settings(**{**vars(SMALL), "game": name}), mnist[:1000])
    metrics = [[x.item() for x in model.iteration()] for _ in range(40)]
    model.check_finite()
    assert np.isfinite(metrics).all() and np.mean(metrics[-5:], axis=0)[0] > 0.1


def test_clipping_clips(mnist):
    model = gan(Settings(**{**vars(SMALL), "constraint": "clip"}), mnist[:100])
    model.iteration()
    assert all(np.abs(p.data).max() <= np.float32(SMALL.clip) for p in model.critic.parameters())
    assert any(np.abs(p.data).max() > SMALL.clip for p in model.generator.parameters())


def run_of(metrics, iterations=0):
    """A run whose iterations come to these metrics, after so many."""
    run, coming = Run(SMALL, (2, 2), {}), iter(metrics)
    run.gan.iterations = iterations

    def iteration():
        run.gan.iterations += 1
        return np.array(next(coming), "float32")

    run.gan.iteration = iteration
    return run


def test_a_row_is_the_mean_since_the_one_before():
    run = run_of([(1.0, 2.0)] + [(3.0, 4.0)] * 9 + [(7.0, 8.0)] * 10, 1000)
    rows = [run.iterate() for _ in range(20)]
    assert [row and row[:3] for row in rows] == [*[None] * 9, (1010, 2.8, 3.8), *[None] * 9, (1020, 7.0, 8.0)]
    assert run.rows == [rows[9], rows[19]] and 0 <= rows[9][3] <= rows[19][3] <= run.seconds


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_first_figure_that_is_not_finite_is_found(bad):
    run = run_of([(1.0, 1.0)] * 6 + [(bad, 1.0)] * 4, 1000)
    with pytest.raises(DivergenceError, match=r"training diverged: L1 (nan|inf|-inf) and slope 1 at iteration 1007"):
        for _ in range(10):
            run.iterate()
    assert run.rows == [] and run.iteration == 1010


def test_the_generators_running_average(mnist):
    model = gan(Settings(**{**vars(SMALL), "average": 0.5}), mnist[:100])
    parameters = model.generator.parameters()
    expected = [p.data.copy() for p in parameters]
    for i in range(12):
        model.iteration()
        keep = min(0.5, (1 + i) / (9 + i))
        expected = [keep * e + (1 - keep) * p.data for e, p in zip(expected, parameters)]
    for a, e, p in zip(model.ema.parameters(), expected, parameters):
        np.testing.assert_allclose(a.data, e, rtol=1e-4, atol=1e-7)
        assert (a.data != p.data).any()


def test_an_average_of_what_stands_still_is_what_stands_still(mnist):
    model = gan(Settings(**{**vars(SMALL), "average": 0.9999}), mnist[:100])
    model.generator_step = lambda: None
    for _ in range(300):
        model.iteration()
    for a, p in zip(model.ema.parameters(), model.generator.parameters()):
        assert (a.data == p.data).all()


def test_without_an_average_the_generator_itself_draws_the_samples(mnist):
    model = gan(Settings(**{**vars(SMALL), "average": 0.0}), mnist[:100])
    assert model.ema is model.generator


def test_parameters_that_are_not_finite_are_found(mnist):
    model = gan(SMALL, mnist[:10])
    model.check_finite()
    model.generator.layers[0].weight.data[1, 2] = np.nan
    with pytest.raises(DivergenceError, match="the generator's parameters are no longer finite"):
        model.check_finite()


def test_what_else_is_not_finite_is_named(mnist):
    model = gan(Settings(**{**vars(SMALL), "constraint": "spectral"}), mnist[:10])
    for name in ("critic.m.bias1", "generator.lr", "critic.spectral.u1"):
        held = model.state()[name].data
        before = held.copy()
        held.fill(np.inf)
        with pytest.raises(DivergenceError, match=f": {name} is no longer finite"):
            model.check_finite()
        held[...] = before


@pytest.mark.slow
def test_a_short_real_training(mnist):
    """L1 falls, the gradient norm approaches 1, and the samples leave noise far behind.

    The distance is Frechet's, in pixels, to held-out real digits. Two kinds of noise stand beside the samples: uniform
    pixels, and every pixel drawn by itself from the real ones at its place, which has all the means and variances of
    the digits and none of their strokes.
    """
    model = WGANGP(Settings(), sampler(mnist), 784, replay=True)
    metrics = np.array([model.iteration().copy() for _ in range(500)])
    l1, slope = metrics.reshape(10, 50, 2).mean(axis=1).T
    assert l1[-1] < 0.7 * l1[0] and (l1 > 0).all()
    assert abs(slope[-1] - 1) < 0.1 < abs(metrics[0, 1] - 1)

    rng = np.random.default_rng(0)
    real, other = sampler(mnist)(2000, rng), sampler(load_images(split="test"))(2000, rng)
    shuffled = rng.permuted(sampler(mnist)(2000, rng), axis=0)
    samples = backend.to_numpy(model.generate(2000))
    sets = {"samples": samples, "shuffled": shuffled, "noise": rng.random((2000, 784)), "real": real}
    distance = {name: judge.frechet(x, other) for name, x in sets.items()}
    assert distance["samples"] < distance["shuffled"] / 2 < distance["noise"] / 4, distance


@pytest.mark.parametrize("constraint", CONSTRAINTS)
@pytest.mark.parametrize("pixels", [1, 6])
@pytest.mark.parametrize("scale", [0, 1e-30, 1, 1e30])
def test_extreme_weights_and_smallest_sizes_train_or_diverge(scale, pixels, constraint):
    """One image, a batch of one, with weights so small or large that their squares are 0 or infinite."""
    for slope in SLOPES:
        settings = Settings(batch_size=1, critic=(4,), generator=(4,), noise_dim=1, constraint=constraint, slope=slope)
        run = Run(settings, (pixels, 1), {})
        model = run.model(np.full((1, pixels, 1), 200, "uint8"))
        for p in model.critic.parameters() + model.generator.parameters():
            p.data *= np.float32(scale)
        with np.errstate(all="ignore"):
            try:
                for _ in range(6):
                    run.iterate()
                model.check_finite()
            except DivergenceError:
                assert scale != 1
