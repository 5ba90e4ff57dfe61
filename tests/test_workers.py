"""One iteration shared by processes. What they compute is tested with threads, in ``test_columns``."""

import json
import multiprocessing
import os
import signal
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minigan.data import sampler
from minigan.fast import workers
from minigan.run import load
from minigan.training import WGANGP
from tests.running import ENDLESS, TINY, grids, posix, posix_only, rows, run, run_until, started, until
from tests.test_columns import IMAGES, SMALL

TWO = [*TINY, "--workers", 2, "--learning-rate", 1e-4]


@pytest.mark.parametrize("number", [2, 3])
def test_a_run_of_several_processes(number, images, quick):
    """Its metrics are those of one."""
    run(*TWO, "--data", images, "--workers", 1, "--out", "one")
    run(*TWO, "--data", images, "--workers", number, "--out", "several")
    one, several = (np.array(rows(name)[1:], float)[:, :3] for name in ("one", "several"))
    np.testing.assert_allclose(several, one, rtol=1e-4, atol=1e-5)
    assert json.loads(Path("several", "settings.json").read_text())["workers"] == number

    assert run("--resume", "--workers", 1, "--iterations", 8, "--out", "several") == 0
    assert not multiprocessing.active_children()


def test_spectral_layers_train_in_one_process(images, quick, capsys):
    assert run(*TWO, "--data", images, "--constraint", "spectral") == 0
    line = "run_mnist.py: spectral layers train in one process, since each needs its whole weight\n"
    assert capsys.readouterr().err == line
    assert json.loads(Path("out", "settings.json").read_text())["workers"] == 1
    assert run("--resume", "--iterations", 8, "--workers", 2) == 0
    assert capsys.readouterr().err == line


def test_a_model_is_whole_when_brought_together_and_its_own_afterwards():
    one, two = (WGANGP(SMALL, sampler(IMAGES), 12) for _ in range(2))

    def assert_alike():
        for x, y in zip(one.state().values(), two.state().values()):
            np.testing.assert_allclose(x.data, y.data, rtol=1e-3, atol=1e-4)

    with workers.sharing(two, IMAGES, 2, 1) as shared:
        for _ in range(3):
            one.iteration(), shared.iteration()
        shared.bring_together()
        assert_alike()
        one.iteration(), shared.iteration()
    assert_alike()
    assert all(x.array.flags.owndata for x in two.state().values())  # no memory of other processes
    np.testing.assert_allclose(one.iteration(), two.iteration(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "number, others, why",
    [(13, {}, "13 workers cannot share images of 12 pixels"), (2, {"constraint": "spectral"}, "train in one process")],
)
def test_what_cannot_be_shared(number, others, why):
    model = WGANGP(replace(SMALL, **others), sampler(IMAGES), 12)
    with pytest.raises(ValueError, match=why), workers.sharing(model, IMAGES, number, 1):
        pass


def draws_once_more(*given):
    draw = WGANGP.draw_noise
    WGANGP.draw_noise = lambda model, n: [draw(model, n) for _ in range(2)][1]
    workers.work(*given)


def fails_in_its_first_step(*given):
    WGANGP.critic_step = lambda *_: 1 // 0
    workers.work(*given)


def is_killed_as_it_begins(*_):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    "work, killed_at, why, kept",
    [
        (
            draws_once_more,
            -1,
            "with WorkersLost: two workers have drawn other random numbers: they train on other batches",
            0,
        ),
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
