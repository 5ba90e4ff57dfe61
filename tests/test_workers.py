"""One iteration shared by several: the same training for any number of workers, up to rounding."""

import json
import multiprocessing
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from minigan import guards, nn, training
from minigan.choices import Choices
from minigan.data import sampler
from minigan.fast import Replayed, workers
from minigan.losses import GAMES
from minigan.run import load
from minigan.settings import Settings
from minigan.training import WGANGP
from tests.running import ENDLESS, TINY, grids, posix, posix_only, rows, run, run_until, started, until

IMAGES = np.random.default_rng(0).integers(0, 256, (50, 3, 4), dtype="uint8")
SMALL = Settings(iterations=9, batch_size=12, critic=(6,), generator=(5, 6), noise_dim=3, learning_rate=1e-4, clip=0.1)

# Every name of each choice, in as many variants as the longest of them has names.
ALLOWED = {field.name: field.metadata["allowed"] for field in fields(Settings)}
CHOICES = {name: list(names) for name, names in ALLOWED.items() if isinstance(names, Choices) and name != "slope"}
VARIANTS = [{name: names[i % len(names)] for name, names in CHOICES.items()} for i in range(len(GAMES))]


def trained(settings, number, iterations=4, replay=True):
    """Figures and state after some iterations, of workers that are threads here, which is faster to begin."""
    model = WGANGP(settings, sampler(IMAGES), 12)
    shared = workers.shared_by(number, model, multiprocessing.get_context("spawn"))
    futures, deadline = [], time.monotonic() + 60

    def look():
        if time.monotonic() > deadline or any(future.done() and future.exception() for future in futures):
            raise RuntimeError("another worker has ended, or waits for this one")

    models = [workers.Worker(settings, sampler(IMAGES), 12, shared, rank, look) for rank in range(number)]
    trained = [Replayed(model) if replay else model for model in models]
    with ThreadPoolExecutor(number) as pool, pytest.MonkeyPatch.context() as patch:
        for module in (guards, nn, training):  # threads have one list of writes, processes one each
            patch.setattr(module, "note_write", lambda *_: None)
        for model in trained:
            futures.append(pool.submit(lambda model=model: [model.iteration().copy() for _ in range(iterations)]))
        metrics = [future.result() for future in futures]
    states = [{name: x.data.copy() for name, x in model.state().items()} for model in models]
    for rank in range(number):
        np.testing.assert_equal((metrics[rank], states[rank]), (metrics[0], states[0]))
    return np.array(metrics[0]), states[0]


def flat(arrays):
    return np.concatenate([a.ravel() for a in arrays if a.dtype == "float32"])  # no counts


@pytest.mark.parametrize("others", [*VARIANTS, {"slope": "difference", "critic_steps": 5, "average": 0.0}], ids=str)
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


def test_workers_that_draw_other_numbers_are_told(monkeypatch):
    class Other(workers.Rows):
        def random(self, size, dtype):
            self.rng.random(self.rank)
            return super().random(size, dtype)

    monkeypatch.setattr(workers, "Rows", Other)
    monkeypatch.setattr(workers, "PATIENCE", 0.1)
    with pytest.raises(workers.WorkersLost, match="have drawn other random"):
        trained(SMALL, 2, replay=False)


def test_as_many_as_divide_the_batch():
    for batch, most, number in ((64, 2, 2), (64, 7, 4), (100, 8, 5), (7, 4, 1)):
        assert workers.workers_for(replace(SMALL, batch_size=batch), most) == number
    five = workers.sharing(WGANGP(SMALL, sampler(IMAGES), 12), IMAGES, 5, 1)
    with pytest.raises(ValueError, match="5 workers cannot share batches of 12 rows"), five:
        pass


# --- Processes ----------------------------------------------------------------------------------

TWO = [*TINY, "--workers", 2, "--learning-rate", 1e-4]


def test_a_run_of_two_processes(images, quick):
    """Its metrics are those of one."""
    run(*TWO, "--data", images, "--workers", 1, "--out", "one")
    run(*TWO, "--data", images, "--out", "two")
    one, two = (np.array(rows(name)[1:], float)[:, :3] for name in ("one", "two"))
    np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-5)
    assert json.loads(Path("two", "settings.json").read_text())["workers"] == 2

    assert run("--resume", "--workers", 1, "--iterations", 8, "--out", "two") == 0
    assert not multiprocessing.active_children()


def test_a_model_is_its_own_again_afterwards():
    models = [WGANGP(SMALL, sampler(IMAGES), 12) for _ in range(2)]
    with workers.sharing(models[0], IMAGES, 2, 1) as shared:
        for _ in range(3):
            shared.iteration()
    assert all(x.array.flags.owndata for x in models[0].state().values())  # no memory of other processes
    for _ in range(3):
        models[1].iteration()
    one, other = (model.iteration() for model in models)
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def fails_in_its_first_step(*given):
    WGANGP.critic_step = lambda *_: 1 // 0
    workers.work(*given)


def is_killed_as_it_begins(*_):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    "work, killed_at, why, kept",
    [
        (fails_in_its_first_step, -1, "with ZeroDivisionError: integer division or modulo by zero", 0),
        pytest.param(is_killed_as_it_begins, -1, "with status -9", 0, marks=posix_only),
        (workers.work, 4, f"with status {-9 if posix else -15}", 3),
    ],
)
def test_a_worker_that_ends_is_told_in_one_line(work, killed_at, why, kept, images, quick, capsys, monkeypatch):
    monkeypatch.setattr(workers, "work", work)
    monkeypatch.setattr(workers, "PATIENCE", 0.1)
    assert run_until(killed_at, lambda _: multiprocessing.active_children()[0].kill(), *TWO, "--data", images) == 1
    line = f"run_mnist.py: error: a worker has ended, {why}; out/checkpoint.npz keeps iteration {kept}\n"
    assert capsys.readouterr().err == line
    assert Path("out", "report.html").exists()


CHILDREN = "/proc/{0}/task/{0}/children"


def has_a_worker(pid):
    with suppress(OSError):
        children = Path(CHILDREN.format(pid)).read_text().split()
        return any(b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes() for child in children)


@posix_only
@pytest.mark.skipif(not Path(CHILDREN.format(os.getpid())).exists(), reason="needs /proc to see who the workers are")
@pytest.mark.parametrize("number, drawn", [(signal.SIGINT, 0), (signal.SIGTERM, 3)])
def test_a_whole_group_that_is_told_to_end(number, drawn, images):
    """As by Ctrl-C in a terminal: while the workers begin, and later."""
    with started(*ENDLESS, "--workers", 2, "--data", images) as process:
        until(process, lambda: has_a_worker(process.pid) and len(grids("out")) >= drawn)
        os.killpg(process.pid, number)
        _, error = process.communicate(timeout=60)  # until all have closed their output
    assert (process.returncode, "Traceback" in error) == (128 + number, False)
    assert Path("out", "report.html").exists()
    assert load("out").done >= 20 * (drawn - 1)
