"""A replayed iteration is the iteration, for everything that can be set; and a wrong record is found out."""

import copy
import functools
import re
import threading
import tracemalloc
import weakref
from dataclasses import fields, replace

import numpy as np
import pytest

from minigan import backend, grad, ops
from minigan.choices import Choices
from minigan.data import sampler
from minigan.fast import Replayed, replay
from minigan.fast.record import Tape
from minigan.losses import GAMES
from minigan.nn import ACTIVATIONS, CONSTRAINTS, MLP, OUTPUTS, Linear
from minigan.optim import Adam
from minigan.penalties import FORMS
from minigan.settings import NOISES, Settings
from minigan.training import WGANGP, outputs

IMAGES = np.random.default_rng(0).integers(0, 256, (50, 9), dtype="uint8")
SMALL = Settings(
    batch_size=4, critic_steps=2, critic=(6, 5), generator=(5, 6), noise="normal", noise_dim=3, iterations=10
)
CHOICES = {f.name: f.metadata["allowed"] for f in fields(Settings) if isinstance(f.metadata["allowed"], Choices)}
EVERY = [
    *({name: choice} for name, choices in CHOICES.items() for choice in choices),
    {"penalty": "one-sided-max", "slope": "difference", "decay": "linear", "noise": "uniform", "average": 0},
    {"batch_size": 1, "critic_steps": 1},
    {"critic": (), "generator": ()},
    {"batch_size": 20, "critic": (64, 32), "generator": (32, 64)},  # more and larger arrays, whose memory is reused
]


HOW = weakref.WeakKeyDictionary()  # how models are made faster, and by what


def model(settings=SMALL, how="program", draw=None):
    m = WGANGP(settings, draw or sampler(IMAGES), IMAGES.shape[1])
    HOW[m] = how
    return m


def fast(m):
    """What has the model's iterations, made once all is set as a test wants it."""
    if HOW[m] in ("program", "graph"):
        HOW[m] = Replayed(m, HOW[m] == "graph")
    return HOW[m] or m


def both(settings=SMALL, draw=None, **changed):
    """A replayed and an eager model, with some attributes changed."""
    models = model(settings, draw=draw), model(settings, None, draw)
    for m in models:
        vars(m).update(copy.deepcopy(changed))
    return models


def beginning_with(step, how="program"):
    """A replayed and an eager model, whose iteration begins with ``step(m, bias)``, of the generator's first layer."""
    models = model(how=how), model(how=None)
    for m in models:

        def steps(m=m, steps=m.device_steps):
            step(m, m.generator.layers[0].bias)
            return steps()

        m.device_steps = steps
    return models


def move(parameter, by):
    parameter.array += by


def train(m, iterations=10):
    """What every iteration returned, and the state in the end, as bytes."""
    returned = [backend.to_numpy(fast(m).iteration()).tobytes() for _ in range(iterations)]
    state = {name: backend.to_numpy(tensor).tobytes() for name, tensor in m.state().items()}
    return returned, state, str(backend.rng_state(m.rng))


def train_alike(replayed, eager, iterations=10):
    assert train(replayed, iterations) == train(eager, iterations)
    assert fast(replayed).proven


@pytest.mark.parametrize("others", EVERY, ids=str)
def test_replayed_training_is_the_training_bit_for_bit(others):
    train_alike(*both(replace(SMALL, **others)))


def test_what_is_done_with_memory_is_over_after_its_last_use():
    """A replayed iteration holds no more at a time than one as it is."""
    peaks = []
    for m in both(replace(SMALL, batch_size=64, critic=(64, 64), generator=(64,))):
        train(m, 4)
        tracemalloc.start()
        fast(m).iteration()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[0] < 1.1 * peaks[1]


def test_a_graph_does_not_outlive_a_replayed_step():
    """What was made of the parameters before a step is refused after it, as where Adam takes it."""
    m = model()
    train(m, 5)
    loss = m.game.generator(m.critic(m.generator(m.draw_noise(4))))
    fast(m).iteration()
    with pytest.raises(ValueError, match="was changed in place since"):
        grad(loss, m.generator.parameters())


def test_a_copy_of_a_model_that_has_replayed():
    m = model()
    train(m, 5)
    other = copy.deepcopy(m)
    HOW[other] = "program"
    train_alike(other, m, 5)


def test_a_recording_is_not_visible_to_other_threads():
    seen = []

    def beside(m, bias):
        thread = threading.Thread(target=lambda: seen.append(outputs(m.ema, np.zeros((2, 3), "float32"))))
        thread.start()
        thread.join()

    m, _ = beginning_with(beside)
    train(m, 3)
    assert {type(x) for x in seen} == {np.ndarray}
    assert fast(m).proven
    assert "(2, 9)" not in str(fast(m).record)


# --- What is assigned later is not frozen, and a draw may be any function ------------------------


class Double(Linear):
    """The same weights in another layer."""

    def __init__(self, layer):
        self.weight, self.bias = layer.weight, layer.bias

    def __call__(self, x):
        return super().__call__(x) * 2


def other_network(m):
    m.critic = MLP([9, 7, 1], rng=1)
    m.critic_adam = Adam(m.critic.parameters())


@pytest.mark.parametrize(
    "assign",
    [
        other_network,
        lambda m: setattr(m, "draw", sampler(255 - IMAGES)),
        lambda m: setattr(m, "rng", np.random.default_rng(5)),
        lambda m: setattr(m, "game", GAMES["hinge"]),
        lambda m: setattr(m, "penalty", FORMS["one-sided-relu"]),
        lambda m: setattr(m, "noise", NOISES["uniform"]),
        lambda m: setattr(m, "constrain", CONSTRAINTS["clip"][1]),
        lambda m: setattr(m, "generator_step", lambda: None),
        lambda m: setattr(m.critic_adam, "lr", 0.5),
        lambda m: setattr(m.critic_adam, "betas", (0.5, 0.999)),
        lambda m: setattr(m.critic_adam, "step", lambda grads: None),
        lambda m: setattr(m.critic, "hidden", ACTIVATIONS["tanh"]),
        lambda m: setattr(m.generator, "output", OUTPUTS["tanh"]),
        lambda m: setattr(m.critic.parameters()[0], "data", 2 * m.critic.parameters()[0].data),
        lambda m: m.critic.layers.__setitem__(0, Double(m.critic.layers[0])),
        lambda m: setattr(m.generator.layers[0], "__class__", Double),
    ],
)
def test_what_is_assigned_after_the_proof_counts(assign):
    models = both()
    for m in models:
        train(m, 5)
        assign(m)
    train_alike(*models, 7)


def test_a_layer_that_is_not_to_be_trained_any_more():
    """The gradient with respect to it is an error, replayed or not."""
    for m in both():
        train(m, 5)
        m.critic.layers[0].bias = m.critic.layers[0].bias.detach()
        with pytest.raises(ValueError, match="has requires_grad=False"):
            fast(m).iteration()


class Rows:
    """Draws some of the images; ``scale`` is what changes outside."""

    def __init__(self, images=IMAGES):
        self.images, self.scale = images, 1

    def __call__(self, n, rng):
        assert isinstance(rng, np.random.Generator)
        chosen = self.images[rng.integers(0, len(self.images), n)][:, ::-1]
        return np.float32(chosen) / 255 * np.float32(self.scale)


@pytest.mark.parametrize("call", [lambda draw: draw, lambda draw: functools.partial(draw.__call__)])
@pytest.mark.parametrize("bits", [np.random.PCG64, np.random.MT19937, np.random.Philox])
def test_a_draw_is_called_each_time_with_any_generator(call, bits):
    """It is one line of the program: whatever it does with arrays, and with what changes outside."""
    draw = Rows()
    models = both(draw=call(draw), rng=np.random.Generator(bits(3)))
    train_alike(*models)
    draw.scale = 2
    train_alike(*models)


def test_an_index_that_happens_to_be_drawn_again():
    """With two images and a batch of one it is as often as not."""
    for seed in range(3):
        train_alike(*both(replace(SMALL, batch_size=1, critic_steps=1, seed=seed), Rows(IMAGES[:2])))


def test_numbers_of_every_kind_in_a_record():
    def penalty(s):
        return ops.mean(ops.maximum((s - np.float32(1)) ** 2, -np.inf)) + ops.exp(np.float32(0.5)).item()

    train_alike(*both(penalty=penalty))


def test_names_of_functions_that_a_record_uses_itself():
    def v3(rng, shape):
        return rng.standard_normal(shape, dtype="float32")

    def rng(n, rng):
        return Rows()(n, rng)

    train_alike(*both(draw=rng, noise=v3))


# --- What cannot be replayed runs as it is, and says so ------------------------------------------

OTHER = "a replayed one comes to another result in"
BRANCH = r"a value is read from an array \(\), and a record would go on as this one"
NOBODYS = r"add got an array \(5,\) that no kernel made and the state does not hold"


def goes_on(m, why):
    """What it comes to, with one warning."""
    with pytest.warns(UserWarning, match=f"iterations are not replayed, but run as they are: {why}") as warnings:
        trained = train(m)
    assert (len(warnings), fast(m).proven) == (1, False)
    return trained


@pytest.mark.parametrize(
    "step, why",
    [
        (lambda m, bias: move(bias, float(bias.data[0]) + 1), OTHER),
        (lambda m, bias: move(bias, bool(ops.relu(ops.sum(bias) - 1e9))), BRANCH),  # which may be idle at every proof
        (lambda m, bias: move(bias, ops.relu(ops.sum(bias) - 1e9).item()), BRANCH),
        (lambda m, bias: move(bias, ops.add(np.full(5, 0.01, "float32"), 0).data), NOBODYS),
    ],
)
def test_what_cannot_be_recorded(step, why):
    replayed, eager = beginning_with(step)
    assert goes_on(replayed, why) == train(eager)


def test_what_is_another_each_time():
    own = np.random.default_rng(1)  # it goes on from where it is, so that from one state there are two results
    goes_on(model(draw=lambda n, rng: Rows()(n, own)), OTHER)
    replayed, eager = beginning_with(lambda m, bias: setattr(m, "part", object()))
    assert train(replayed) == train(eager)
    assert not fast(replayed).proven  # it is never recorded


def test_a_proof_is_repeated(monkeypatch):
    """What changes late, and unseen, is found then; what the replayed iteration did is undone."""
    monkeypatch.setattr(replay, "PROVE_EVERY", 7)
    late = []
    replayed, eager = beginning_with(lambda m, bias: move(bias, len(late)))
    train_alike(replayed, eager, 5)
    late.append(1)
    goes_on(replayed, OTHER)


@pytest.mark.parametrize(
    "fault",
    [
        lambda text: re.sub(r"\n.* _adam_step.*", "", text, count=1),
        lambda text: re.sub(r"matmul_tn\((\w+), (\w+)\)", r"matmul_tn(\1, 2 * \2)", text, count=1),
        lambda text: text.replace("    points = mix(real, fake, rng)", "    points = fake"),
        lambda text: text.replace("    noise = normal(rng, (4, 3))", "    noise = rows[:4]"),
        lambda text: text.replace("positive(", "ones_like("),
        lambda text: text.replace("    return metrics", "    return 2 * metrics"),
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
    monkeypatch.setattr(replay, "Program", functools.partial(replay.Program, readable=True))
    replayed, eager = both()
    why = "a replayed one (comes to another result in|ends in UnboundLocalError)"
    assert goes_on(replayed, why) == train(eager)
