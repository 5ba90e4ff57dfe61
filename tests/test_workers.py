"""One iteration shared by several: the same training for any number of workers, up to rounding."""

import json
import multiprocessing
import os
import signal
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from minigan import workers
from minigan.data import sampler
from minigan.losses import GAMES
from minigan.nn import CONSTRAINTS
from minigan.penalties import WHERE
from minigan.run import load
from minigan.settings import NOISES, PENALTIES, Settings
from minigan.training import WGANGP
from tests.running import TINY, fails, files, rows, run, state
from tests.test_resume import ENDLESS, Killed, grids, start, until

IMAGES = np.random.default_rng(0).integers(0, 256, (50, 3, 4), dtype="uint8")
SMALL = Settings(iterations=20, batch_size=12, critic=(6, 5), generator=(5, 6), noise_dim=3, learning_rate=1e-4)
VARIANTS = [
    *({"game": game} for game in GAMES),
    *({"penalty": penalty} for penalty in PENALTIES),
    *({"constraint": constraint, "clip": 0.1} for constraint in CONSTRAINTS),
    *({"where": where, "noise": noise} for where, noise in zip(WHERE, [*NOISES, *NOISES])),
    {"slope": "difference", "critic_steps": 5},
    {"average": 0.0, "hidden": "leaky_relu", "schedule": "linear"},
]


def trained(settings, number, iterations=6, replay=True):
    """Figures and state after some iterations, of workers that are threads here, which is faster to begin."""
    models = [WGANGP(settings, sampler(IMAGES), 12, replay) for _ in range(number)]
    shared = workers.shared_by(number, models[0], multiprocessing.get_context("spawn"))
    metrics, failed = [[] for _ in models], []

    def look():
        if failed:
            raise SystemExit

    for rank, model in enumerate(models):
        workers.join(model, shared, rank, look)

    def work(rank):
        try:
            metrics[rank] += [models[rank].iteration().copy() for _ in range(iterations)]
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    assert all(np.array_equal(metrics[0], others) for others in metrics)
    for name, x in models[0].state().items():
        assert all((model.state()[name].data == x.data).all() for model in models), name
    return np.array(metrics[0]), {name: x.data.copy() for name, x in models[0].state().items()}


def flat(arrays):
    return np.concatenate([a.ravel() for a in arrays if a.dtype == "float32"])  # no counts


@pytest.mark.parametrize("others", VARIANTS, ids=str)
def test_any_number_of_workers_is_the_same_training(others):
    settings = replace(SMALL, **others)
    model = WGANGP(settings, sampler(IMAGES), 12)
    before = flat(x.data for x in model.state().values())
    expected = np.array([model.iteration().copy() for _ in range(6)])
    after = flat(x.data for x in model.state().values())
    for number in (2, 3):
        metrics, arrays = trained(settings, number)
        np.testing.assert_allclose(metrics, expected, rtol=1e-4, atol=1e-5)
        # Not each number: Adam moves by a whole step where a gradient is nothing but rounding.
        assert np.linalg.norm(flat(arrays.values()) - after) < 1e-2 * np.linalg.norm(after - before)


def test_a_replayed_one_is_the_eager_one_bit_for_bit():
    (a, held), (b, others) = (trained(SMALL, 2, 20, replay) for replay in (True, False))
    assert (a == b).all() and all((held[name] == others[name]).all() for name in held)


def test_every_worker_gets_its_rows_of_every_batch():
    whole, parts = np.random.default_rng(0), [workers.Rows(np.random.default_rng(0), rank, 3, 4) for rank in range(3)]
    for draw in (
        lambda rng, n: rng.integers(0, 99, size=n),
        lambda rng, n: rng.random((n, 1), dtype="float32"),
        lambda rng, n: rng.standard_normal((n, 5), dtype="float32"),
    ):
        all_of_two = draw(whole, 24).reshape(2, 3, 4, -1)
        for rank, part in enumerate(parts):
            assert (draw(part, 8).reshape(2, 4, -1) == all_of_two[:, rank]).all()


def test_workers_that_draw_other_numbers_are_told():
    class Other(workers.Rows):
        def random(self, size, dtype):
            self.rng.random(self.rank)
            return super().random(size, dtype)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(workers.WorkersLost, match="have drawn other random"):
        patch.setattr(workers, "Rows", Other)
        patch.setattr(workers, "PATIENCE", 0.2)
        trained(SMALL, 2, replay=False)


def test_as_many_as_divide_the_batch():
    found = [
        workers.workers_for(replace(SMALL, batch_size=n), most) for n, most in ((64, 2), (64, 7), (100, 8), (7, 4))
    ]
    assert found == [2, 4, 5, 1]


# --- Processes ----------------------------------------------------------------------------------

TWO = [*TINY, "--workers", 2]


def test_a_run_of_two_processes(tmp_path, judged):
    """Its metrics are those of one, and it goes on after a kill as though nothing had happened."""
    given = ["--data", judged, "--evaluate-every", 3, "--learning-rate", 1e-4]
    for name, flags in (("one", [*TINY, "--workers", 1]), ("two", TWO)):
        assert run(*flags, *given, "--out", tmp_path / name) == 0
    one, two = (np.array(rows(tmp_path / name)[1:], float)[:, :3] for name in ("one", "two"))
    np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-5)
    assert json.loads((tmp_path / "two" / "settings.json").read_text())["workers"] == 2

    iterate = workers.WGANGP.iteration
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):

        def dies(model):
            if model.iterations == 4:
                raise Killed
            return iterate(model)

        patch.setattr(WGANGP, "iteration", dies)
        run(*TWO, *given, "--out", tmp_path / "killed")
    assert run("--resume", "--out", tmp_path / "killed") == 0
    assert state(tmp_path / "killed") == state(tmp_path / "two")
    assert run("--resume", "--out", tmp_path / "killed", "--workers", 1, "--iterations", 8) == 0
    assert not multiprocessing.active_children()


def test_a_worker_that_ends_is_told_in_one_line(tmp_path, images):
    process = start(*ENDLESS, "--workers", 2, "--data", images, "--out", tmp_path)
    until(process, lambda: len(grids(tmp_path)) > 1)
    worker = [int(pid) for pid in children(process.pid) if "spawn_main" in command_of(pid)]
    os.kill(worker[0], signal.SIGKILL)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1 and "error: a worker has ended, with status -9; " in stderr
    assert "keeps iteration" in stderr and "Traceback" not in stderr and (tmp_path / "report.html").exists()


def test_what_a_worker_ends_in_is_told(tmp_path, images, capsys, monkeypatch):
    monkeypatch.setattr(workers, "work", failing)
    assert run(*TWO, "--data", images, "--out", tmp_path) == 1
    error = capsys.readouterr().err
    assert "error: a worker has ended, with ZeroDivisionError: " in error and error.count("\n") == 1


def failing(*given, work=workers.work):
    """In a process of its own, a worker whose first iteration fails."""
    WGANGP.critic_step = lambda *_: 1 // 0
    work(*given)


@pytest.mark.parametrize("signals", ["worker", "group"])
def test_an_end_while_the_workers_begin(signals, tmp_path, images):
    """They are killed while they import, or a terminal's Ctrl-C goes to all."""
    process = start(*ENDLESS, "--workers", 2, "--data", images, "--out", tmp_path, start_new_session=True)
    until(process, lambda: [pid for pid in children(process.pid) if "spawn_main" in command_of(pid)])
    if signals == "group":
        os.killpg(process.pid, signal.SIGINT)
    else:
        (worker,) = [int(pid) for pid in children(process.pid) if "spawn_main" in command_of(pid)]
        os.kill(worker, signal.SIGKILL)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == (130 if signals == "group" else 1) and "Traceback" not in stderr
    assert (tmp_path / "report.html").exists()


def test_a_stop_ends_all_of_them(tmp_path, images):
    """Also where the whole group is told to end, as by Ctrl-C, and where the first one is killed."""
    for name, number in (("a", signal.SIGTERM), ("b", signal.SIGKILL)):
        process = start(*ENDLESS, "--workers", 2, "--data", images, "--out", tmp_path / name)
        until(process, lambda name=name: len(grids(tmp_path / name)) > 2)
        others = children(process.pid)
        for pid in (*others, process.pid) if number == signal.SIGTERM else (process.pid,):
            os.kill(int(pid), number)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == (143 if number == signal.SIGTERM else -9) and "Traceback" not in stderr
        deadline = time.monotonic() + 30
        while any(os.path.exists(f"/proc/{pid}") and "multiprocessing" in command_of(pid) for pid in others):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert load(tmp_path / name).iteration > 0


def children(pid):
    path = f"/proc/{pid}/task/{pid}/children"
    if not os.path.exists(path):
        pytest.skip("needs /proc to see who the workers are")
    with open(path) as file:
        return file.read().split()


def command_of(pid):
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            return file.read()
    except OSError:
        return ""


def test_a_number_that_cannot_be(tmp_path, images, capsys):
    with (
        pytest.raises(ValueError, match="5 workers cannot share batches of 12 rows"),
        workers.sharing(WGANGP(SMALL, sampler(IMAGES), 12), IMAGES, 5, True, 1),
    ):
        pass
    out = tmp_path / "out"
    message = fails(capsys, *TINY, "--workers", 3, "--data", images, "--out", out)
    assert "--workers 3: expected a divisor of the batch size, 4" in message and not out.exists()
    run(*TINY, "--data", images, "--out", out)
    before = files(out)
    capsys.readouterr()
    assert "--workers 3: expected a divisor" in fails(capsys, "--resume", "--workers", 3, "--out", out)
    assert files(out) == before
