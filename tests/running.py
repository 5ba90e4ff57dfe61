"""How tests run the program, and look at what it leaves."""

import csv
from pathlib import Path

import pytest

import run_mnist
from minigan.run import load

ROOT = Path(__file__).parent.parent
TINY = ["--iterations", "6", "--sample-every", "3", "--critic", "8", "--generator", "8", "--batch-size", "4"]


def run(*argv):
    return run_mnist.main([str(a) for a in argv])


def fails(capsys, *argv):
    """The one line that a run with bad input ends in."""
    with pytest.raises(SystemExit) as exit:
        run(*argv)
    output = capsys.readouterr()
    assert exit.value.code == 2 and output.err.count("\n") == 1, output
    assert not output.out or (output.out.count("\n") == 1 and " images of " in output.out)  # what was read, if it began
    assert output.err.startswith("run_mnist.py: error: ")
    return output.err


def files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def state(out):
    """All arrays that training changes, of the run in a folder."""
    return {name: x.data.tobytes() for name, x in load(out).gan.state().items()}


def rows(out):
    return list(csv.reader((out / "curves.csv").read_text().splitlines()))
