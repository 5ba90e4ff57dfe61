"""A replayed iteration is the iteration, for everything that can be set; and a wrong record is found out."""

import re
from dataclasses import replace

import numpy as np
import pytest

from minigan import backend, grad, record
from minigan.data import sampler
from minigan.losses import GAMES
from minigan.nn import ACTIVATIONS, CONSTRAINTS, OUTPUTS
from minigan.penalties import WHERE
from minigan.settings import DECAYS, NOISES, PENALTIES, Settings
from minigan.training import WGANGP

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
        {"decay": decay, "noise": noise, "average": average}
        for decay in DECAYS
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


def test_the_record_can_be_read():
    m = model()
    train(m, 3)
    *lines, last = str(m.replayed.record).splitlines()
    assert len(lines) == len(m.replayed.record.calls)
    assert re.match(r" +0  b0 int64\[8\] = integers\(0, 50, size=8\)", lines[0])
    assert any("matmul(" in line and "critic.0 float32[9, 6]" in line for line in lines)
    assert re.match(r"\d+ calls; \d+ blocks of memory \(b\), 0.0 MiB", last)


def test_memory_is_lent_again():
    m = model()
    train(m, 3)
    made = sum(call.func is not record._put and "out" in call.keywords for call in m.replayed.record.calls)
    assert len(m.replayed.record.blocks) < made / 3


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
        m.steps = lambda m=m, steps=m.steps: wrong(m, steps)
    return models


def test_a_number_read_from_an_array():
    def wrong(m, steps):
        figures = steps()
        m.generator.parameters()[1].data *= float(figures[0])
        return figures

    goes_on_as_it_is(*with_steps(wrong), "ndarray.__float__ of an array that changes")


def test_a_draw_of_another_generator():
    def draw_of_its_own():
        images, own = sampler(IMAGES), np.random.default_rng(1)
        return lambda n, rng: images(n, own)

    with pytest.warns(UserWarning, match="a replayed one comes to another result"):
        train(model(draw=draw_of_its_own()))


@pytest.mark.parametrize(
    "lost",
    [
        lambda p: np.array(p.data),  # copied past the record
        lambda p: np.ascontiguousarray(p.data),
        lambda p: p.data.view(np.ndarray),
    ],
)
def test_a_call_that_goes_unseen(lost):
    def wrong(m, steps):
        p = m.critic.parameters()[0]
        p.data += 0.01 * np.tanh(lost(p))
        return steps()

    goes_on_as_it_is(*with_steps(wrong), "a replayed one comes to another result in")


def test_an_array_that_starts_anew_each_time():
    def wrong(m, steps):
        total = np.zeros(9, "float32")
        total += m.generator.parameters()[-1].data
        m.generator.parameters()[-1].data -= 0.1 * total
        return steps()

    goes_on_as_it_is(*with_steps(wrong), "a replayed one comes to another result in")


def test_what_is_counted_outside():
    def wrong(m, steps):
        m.count = getattr(m, "count", 0) + 1
        m.generator.parameters()[1].data += m.count
        return steps()

    with pytest.warns(UserWarning, match="a replayed one comes to another result in"):
        train(with_steps(wrong)[0])


# --- Faults planted in the record ---------------------------------------------------------------


@pytest.fixture
def faulty(monkeypatch):
    """A model whose record is spoilt by ``fault(calls)`` once it is made."""

    def make(fault):
        make = record.Record.make

        def spoilt(self, *args):
            make(self, *args)
            fault(self.calls)

        monkeypatch.setattr(record.Record, "make", spoilt)
        return model(), model(replay=False)

    return make


def of(calls, name, n=0):
    return [i for i, call in enumerate(calls) if getattr(call.func, "__name__", "") == name][n]


def drop(name, n=0):
    return lambda calls: calls.pop(of(calls, name, n))


def swap_buffers(calls):
    a, *others = [call for call in calls if getattr(call.keywords.get("out"), "shape", ()) == (4, 6)]
    b = next(call for call in others if not np.shares_memory(a.keywords["out"], call.keywords["out"]))
    a.keywords["out"], b.keywords["out"] = b.keywords["out"], a.keywords["out"]


def swap_calls(calls):
    i = of(calls, "maximum")
    calls[i - 1], calls[i] = calls[i], calls[i - 1]


@pytest.mark.parametrize(
    "fault", [drop("matmul"), drop("sqrt", -1), drop("_put"), drop("random"), swap_buffers, swap_calls]
)
def test_a_fault_in_the_record_is_found_by_its_proof(faulty, fault):
    goes_on_as_it_is(*faulty(fault), "a replayed one comes to another result in")


def test_memory_lent_too_early_is_found_by_the_proof(monkeypatch):
    made = record._Loan.__init__

    def early(self, memory, free):
        made(self, memory, free)
        free.append(memory)

    monkeypatch.setattr(record._Loan, "__init__", early)
    goes_on_as_it_is(model(), model(replay=False), "a replayed one comes to another result in")
