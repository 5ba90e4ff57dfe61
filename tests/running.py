"""How tests run the program, end it, and look at what it leaves."""

import csv
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import run_mnist
from minigan.run import load
from minigan.training import WGANGP

posix = os.name == "posix"
posix_only = pytest.mark.skipif(not posix, reason="Windows has no such signals, files or locales")
ROOT = Path(__file__).parent.parent
SMALL = ["--critic", "8", "--generator", "8", "--batch-size", "4"]
TINY = ["--iterations", "6", "--sample-every", "3", *SMALL]
EVALUATED = [*TINY, "--evaluate-every", "3"]
ENDLESS = ["--iterations", "1000000", "--sample-every", "20", *SMALL]


def run(*argv):
    return run_mnist.main([str(a) for a in argv])


def fails(capsys, *argv):
    """The one line that a run with bad input ends in."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit:
        run(*argv)
    output = capsys.readouterr()
    assert exit.value.code == 2, output
    assert output.err.count("\n") == 1, output
    assert not output.out or (output.out.count("\n") == 1 and " images of " in output.out)  # what was read, if it began
    assert output.err.startswith("run_mnist.py: error: ")
    return output.err


def run_until(iteration, happens, *argv):
    """A run in which something happens as it comes to its next iteration."""
    prepare, left = WGANGP.prepare, [1]

    def prepare_it(model):
        if model.done == iteration and left:  # of several workers, in one of them
            left.pop()
            happens(model)
        prepare(model)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WGANGP, "prepare", prepare_it)
        return run(*argv)


def killed_at(iteration, *argv):
    """A run that ends there by what nothing in the program catches: as though it were gone."""
    with pytest.raises(ZeroDivisionError):
        run_until(iteration, lambda model: 1 // 0, *argv)


@contextmanager
def started(*argv, **kind):
    """The program in a process of its own, of which nothing is left afterwards."""
    command = [sys.executable, ROOT / "run_mnist.py", *map(str, argv)]
    kind = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "errors": "surrogateescape", **kind}
    with subprocess.Popen(command, start_new_session=True, **kind) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL) if posix else process.kill()


def link(path, to):
    """A symbolic link, or the test is skipped."""
    with suppress(OSError):
        path.symlink_to(to)
    if not path.is_symlink():
        pytest.skip("to make symbolic links is a privilege on this system")


def until(process, happened):
    """Wait for it, while the process lives."""
    deadline = time.monotonic() + 60
    while not happened():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def grids(out):
    return sorted((Path(out) / "samples").glob("0*.png"))


def files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


def state(out):
    """All arrays that training changes, of the run in a folder."""
    return {name: x.data.tobytes() for name, x in load(out).gan.state().items()}


def rows(out):
    return list(csv.reader((Path(out) / "curves.csv").read_text().splitlines()))
