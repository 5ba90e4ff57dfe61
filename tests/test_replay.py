"""A replayed iteration is the iteration, for everything that can be set; and a wrong record is found out."""

import copy
import functools
import re
import threading
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from minigan import backend, grad, ops, replay
from minigan.data import sampler
from minigan.losses import GAMES
from minigan.nn import ACTIVATIONS, CONSTRAINTS, INITS, MLP, OUTPUTS, Linear
from minigan.optim import Adam
from minigan.penalties import WHERE
from minigan.record import Tape
from minigan.settings import NOISES, PENALTIES, SCHEDULES, Settings
from minigan.tensor import Tensor
from minigan.training import WGANGP, generate

IMAGES = np.random.default_rng(0).integers(0, 256, (50, 9), dtype="uint8")
SMALL = Settings(batch_size=4, critic=(6, 5), generator=(5, 6), noise_dim=3, iterations=12)
EVERY = [
    *({"game": game} for game in GAMES),
    *({"penalty": form, "where": where} for form in PENALTIES for where in WHERE),
    *({"penalty": form, "slope": "difference"} for form in PENALTIES),
    *({"constraint": constraint} for constraint in CONSTRAINTS),
    *({"hidden": hidden} for hidden in ACTIVATIONS),
    *({"output": output, "critic_output": output} for output in OUTPUTS),
    *(
        {"schedule": decay, "noise": noise, "average": average}
        for decay in SCHEDULES
        for noise in NOISES
        for average in (0, 0.9)
    ),
    {"batch_size": 1, "critic_steps": 1},
    {"critic": (), "generator": ()},
]


def model(settings=SMALL, replay=True, draw=None):
    return WGANGP(settings, draw or sampler(IMAGES), 9, replay)


def train(m, iterations=12):
    """What every iteration returned, and the state in the end, as bytes."""
    returned = [m.iteration().tobytes() for _ in range(iterations)]
    return returned, {name: tensor.data.tobytes() for name, tensor in m.state().items()}, backend.rng_state(m.rng)


@pytest.mark.parametrize("others", EVERY, ids=lambda others: " ".join(map(str, others.values())))
def test_replayed_training_is_the_training_bit_for_bit(others):
    settings = replace(SMALL, **others)
    replayed = model(settings)
    assert train(replayed) == train(model(settings, replay=False))
    assert replayed.replayed.proven


def test_a_longer_training_at_the_articles_size():
    """What the record keeps is reused within an iteration, and more of it where there are more and larger arrays."""
    settings = Settings(batch_size=20, critic=(64, 32), generator=(32, 64))
    images = np.random.default_rng(0).integers(0, 256, (100, 100), dtype="uint8")
    replayed, eager = (WGANGP(settings, sampler(images), 100, replay) for replay in (True, False))
    assert train(replayed, 300) == train(eager, 300) and replayed.replayed.proven


def test_a_record_is_a_program_that_can_be_read():
    m = model()
    train(m, 3)
    text = str(m.replayed.recorded)
    for line in (
        r"def iteration\(rng, ema_step, critic_weight1, .*, generator_lr, draw\):",
        r"    # gradient_norm: \(gradient,\) = grad\(scores, points, create_graph=True\)",
        r"    gradient = matmul_nt\(v\d+, critic_weight1\) +# \(4, 9\)",
        r"    return l1_and_slope2",
    ):
        assert re.search(f"^{line}$", text, re.MULTILINE), line
    constants, body = text.split("def iteration")
    assert "ones(" in constants and "ones(" not in body


def test_what_is_done_with_memory_is_over_after_its_last_use():
    """A replayed iteration holds no more at a time than one as it is."""
    settings = Settings(batch_size=64, critic=(256, 256), generator=(256,))
    peaks = []
    for how in (True, False):
        m = WGANGP(settings, sampler(np.zeros((10, 784), "uint8")), 784, how)
        train(m, 4)
        tracemalloc.start()
        m.iteration()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[0] < 1.1 * peaks[1]


def test_nothing_is_recorded_unless_asked_for():
    assert model(replay=False).replayed is None


def test_an_array_put_in_place_of_a_parameters_is_taken_over():
    models = model(), model(replay=False)
    for m in models:
        train(m, 5)
        m.critic.parameters()[0].data = 2 * m.critic.parameters()[0].data
    assert train(models[0]) == train(models[1])


def test_a_graph_does_not_outlive_a_replayed_step():
    """What was made of the parameters before a step is refused after it, as where Adam takes it."""
    m = model()
    train(m, 5)
    loss = m.generator_step.__self__.game.generator(m.critic(m.generator(m.draw_noise(4))))
    m.iteration()
    with pytest.raises(ValueError, match="was changed in place since"):
        grad(loss, m.generator.parameters())


# --- What is assigned later is not frozen -------------------------------------------------------


def other_draw(m):
    m.draw = sampler(255 - IMAGES)


def other_layer(m):
    m.critic.layers[0] = Linear(9, 6, INITS["uniform"], np.random.default_rng(1), "float32")
    m.critic_adam = Adam(m.critic.parameters())


def other_network(m):
    m.critic = MLP([9, 7, 1], rng=1)
    m.critic_adam = Adam(m.critic.parameters())


def other_lr(m):
    m.critic_adam.lr = 0.5


class Double(Linear):
    """The same weights in another layer."""

    def __init__(self, layer):
        self.weight, self.bias = layer.weight, layer.bias

    def __call__(self, x):
        return super().__call__(x) * 2


def frozen(m):
    m.critic.layers[0].bias.requires_grad = False


@pytest.mark.parametrize(
    "assign",
    [
        other_draw,
        other_layer,
        other_network,
        other_lr,
        lambda m: setattr(m, "rng", np.random.default_rng(5)),
        lambda m: setattr(m, "game", GAMES["hinge"]),
        lambda m: setattr(m, "penalty", PENALTIES["one-sided-relu"]),
        lambda m: setattr(m, "noise", NOISES["uniform"]),
        lambda m: setattr(m, "constrain", CONSTRAINTS["clip"][1]),
        lambda m: setattr(m.critic_adam, "betas", (0.5, 0.999)),
        lambda m: setattr(m.critic, "hidden", ACTIVATIONS["tanh"]),
        lambda m: setattr(m.generator, "output", OUTPUTS["tanh"]),
        lambda m: m.critic.layers.__setitem__(0, Double(m.critic.layers[0])),
        lambda m: setattr(m.generator.layers[0], "__class__", Double),
        lambda m: setattr(m, "generator_step", lambda: None),
        lambda m: setattr(m.critic_adam, "step", lambda grads: None),
    ],
)
def test_what_is_assigned_after_the_proof_counts(assign):
    models = model(), model(replay=False)
    for m in models:
        train(m, 5)
        assign(m)
        m.iteration()
    assert [models[0].iteration().tobytes() for _ in range(6)] == [models[1].iteration().tobytes() for _ in range(6)]
    assert models[0].replayed.proven


def test_a_layer_that_is_not_to_be_trained_any_more():
    """The gradient with respect to it is an error, replayed or not."""
    for how in (True, False):
        m = model(replay=how)
        train(m, 5)
        frozen(m)
        with pytest.raises(ValueError, match="has requires_grad=False"):
            m.iteration()


def test_a_draw_may_be_any_function():
    """It is one line of the program, called each time: whatever it does with arrays, and with what changes outside."""
    scale = [1]

    def draw(n, rng):
        assert isinstance(rng, np.random.Generator)
        return np.float32(IMAGES[rng.choice(len(IMAGES), n)][:, ::-1]) / 255 * np.float32(scale[0])

    models = [model(replay=how, draw=draw) for how in (True, False)]
    assert train(models[0]) == train(models[1])
    scale[0] = 2
    assert train(models[0]) == train(models[1]) and models[0].replayed.proven


class Rows:
    def __init__(self, images):
        self.images = images

    def __call__(self, n, rng):
        return np.float32(self.images[rng.integers(0, len(self.images), n)]) / 255


@pytest.mark.parametrize("draw", [Rows(IMAGES), functools.partial(Rows(IMAGES).__call__)])
@pytest.mark.parametrize("bits", [np.random.PCG64, np.random.MT19937, np.random.Philox])
def test_draws_by_an_object_and_by_any_generator(draw, bits):
    models = [model(replay=how, draw=draw) for how in (True, False)]
    for m in models:
        m.rng = np.random.Generator(bits(3))
    a, b = (train(m) for m in models)
    assert a[:2] == b[:2] and models[0].replayed.proven


def test_numbers_of_every_kind_in_a_record():
    def penalty(s):
        return ops.mean(ops.maximum((s - np.float32(1)) ** 2, -np.inf)) + ops.exp(np.float32(0.5)).item()

    models = [model(replay=how) for how in (True, False)]
    for m in models:
        m.penalty = penalty
    assert train(models[0]) == train(models[1]) and models[0].replayed.proven


def test_names_of_functions_that_a_record_uses_itself():
    def v3(rng, shape):
        return rng.standard_normal(shape, dtype="float32")

    def rng(n, rng):
        return take(n, rng)

    models = [model(replay=how, draw=rng) for how in (True, False)]
    for m in models:
        m.noise = v3
    assert train(models[0]) == train(models[1]) and models[0].replayed.proven


def take(n, rng):
    return np.float32(IMAGES[rng.integers(0, len(IMAGES), n)]) / 255


def test_an_index_that_happens_to_be_drawn_again():
    """With two images and a batch of one it is as often as not."""
    settings = replace(SMALL, batch_size=1, critic_steps=1)
    for seed in range(8):
        models = [
            model(replace(settings, seed=seed), how, lambda n, rng: np.float32(IMAGES[rng.integers(0, 2, n)]))
            for how in (True, False)
        ]
        assert train(models[0]) == train(models[1])


def test_a_copy_of_a_model_that_has_replayed():
    m = model()
    train(m, 5)
    other = copy.deepcopy(m)
    assert other.replayed is not m.replayed and train(other, 5) == train(m, 5) and other.replayed.proven


def test_a_recording_is_not_visible_to_other_threads():
    m, seen = model(), []
    steps = m.device_steps

    def beside():
        thread = threading.Thread(target=lambda: seen.append(generate(m.ema, np.zeros((2, 3), "float32"))))
        thread.start()
        thread.join()
        return steps()

    m.device_steps = beside
    train(m, 3)
    assert all(type(x) is np.ndarray for x in seen) and m.replayed.proven
    assert "(2, 9)" not in str(m.replayed.recorded)


def test_a_proof_is_repeated(monkeypatch):
    """What changes late, and unseen, is found then; what the replayed iteration did is undone."""
    monkeypatch.setattr(replay, "PROVE_EVERY", 7)
    late = []

    def wrong(m, steps):
        m.generator.parameters()[1].data += np.float32(len(late))
        return steps()

    models = with_steps(wrong)
    assert train(models[0], 5) == train(models[1], 5) and models[0].replayed.proven
    late.append(1)
    with pytest.warns(UserWarning, match="a replayed one comes to another result in"):
        train(models[0], 3)
    assert models[0].replayed.refused


# --- What cannot be replayed runs as it is, and says so ------------------------------------------


def goes_on_as_it_is(replayed, eager, why):
    """One warning, and the same training as without a record."""
    with pytest.warns(UserWarning, match=f"iterations are not replayed, but run as they are: {why}") as warnings:
        assert train(replayed) == train(eager)
    assert len(warnings) == 1 and not replayed.replayed.proven


def with_steps(wrong):
    """A replayed and an eager model whose iteration is ``wrong(model, steps)``."""
    models = model(), model(replay=False)
    for m in models:
        m.device_steps = lambda m=m, steps=m.device_steps: wrong(m, steps)
    return models


def test_a_number_read_from_an_array():
    def wrong(m, steps):
        metrics = steps()
        m.generator.parameters()[1].data *= float(metrics[0])
        return metrics

    goes_on_as_it_is(*with_steps(wrong), "a replayed one comes to another result in")


@pytest.mark.parametrize("look", [bool, Tensor.item])
def test_a_branch_that_goes_by_a_value(look):
    """Refused where it looks, since it may be idle at every proof."""

    def wrong(m, steps):
        if look(ops.relu(ops.sum(m.generator.parameters()[1]) - 1e9)):
            m.generator.parameters()[1].data *= 0
        return steps()

    goes_on_as_it_is(*with_steps(wrong), r"a value is read from an array \(\), and a record would go on as this one")


def test_an_array_of_nobodys():
    def wrong(m, steps):
        m.generator.parameters()[1].data += ops.add(np.full(5, 0.01, "float32"), 0).data
        return steps()

    goes_on_as_it_is(*with_steps(wrong), r"add got an array \(5,\) that no kernel made and the state does not hold")


def test_a_draw_of_another_generator():
    """It goes on from where it is, so that from one state there are two results."""

    def draw_of_its_own():
        images, own = sampler(IMAGES), np.random.default_rng(1)
        return lambda n, rng: images(n, own)

    with pytest.warns(UserWarning, match="a replayed one comes to another result"):
        train(model(draw=draw_of_its_own()))


@pytest.mark.parametrize("lost", [np.array, np.ascontiguousarray, np.tanh])
def test_a_call_that_goes_unseen(lost):
    def wrong(m, steps):
        p = m.critic.parameters()[0]
        p.data += 0.01 * np.tanh(lost(p.data))
        return steps()

    goes_on_as_it_is(*with_steps(wrong), "a replayed one comes to another result in")


def test_what_is_counted_outside():
    def wrong(m, steps):
        m.count = getattr(m, "count", 0) + 1
        m.generator.parameters()[1].data += m.count
        return steps()

    with pytest.warns(UserWarning, match="what they are made of is another each time") as warnings:
        train(with_steps(wrong)[0])
    assert len(warnings) == 1


# --- Faults planted in the record ---------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        lambda text: re.sub(r"\n.*_adam_step.*", "", text, count=1),
        lambda text: re.sub(r"matmul_tn\((\w+), (\w+)\)", r"matmul_tn(\1, 2 * \2)", text, count=1),
        lambda text: text.replace("    points = mix(real, fake, rng)", "    points = fake"),
        lambda text: text.replace("    noise2 = normal(rng, (4, 3))", "    noise2 = noise[:4]"),
        lambda text: text.replace("positive(", "ones_like("),
        lambda text: text.replace("    return l1_and_slope2", "    return l1_and_slope"),
        lambda text: text.replace("real2 = part", "del rng\n    real2 = part"),
    ],
)
def test_a_fault_in_the_record_is_found_by_its_proof(monkeypatch, fault):
    source = Tape.source

    def spoilt(tape, returned, forget=False):
        tape.functions["ones_like"] = np.ones_like
        assert fault(source(tape, returned)) != source(tape, returned)
        return fault(source(tape, returned, forget))

    monkeypatch.setattr(Tape, "source", spoilt)
    goes_on_as_it_is(
        model(), model(replay=False), "a replayed one (comes to another result in|ends in UnboundLocalError)"
    )
