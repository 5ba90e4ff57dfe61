"""What the README shows is what happens: its Python runs and prints what stands there, and its commands exist."""

import contextlib
import importlib
import io
import re
import shlex

import pytest

import run_mnist
from minigan import explain
from minigan.data import MNIST
from minigan.explain import __main__ as explaining
from minigan.explain.drawing import draw
from tests import running

TEXT = (running.ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.fixture
def out(tmp_path, monkeypatch):
    """A folder with a run in ``out``."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "train-images-idx3-ubyte.gz").symlink_to(MNIST / "train-images-idx3-ubyte.gz")
    running.run(*running.TINY, "--data", data, "--out", tmp_path / "out")
    monkeypatch.chdir(tmp_path)


def test_every_block_is_of_a_kind_that_is_tested():
    assert {kind for kind, _ in BLOCKS} == {"python", "text", "sh"}
    assert len(re.findall(r"^```", TEXT, re.MULTILINE)) == 2 * len(BLOCKS)


def test_the_python_prints_what_stands_there(out, capsys):
    capsys.readouterr()
    names = {}
    for (kind, code), (after, text) in zip(BLOCKS, [*BLOCKS[1:], ("", "")]):
        if kind == "python":
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(code, names)
            assert printed.getvalue() == (text if after == "text" else ""), code


def commands():
    for kind, text in BLOCKS:
        if kind == "sh":
            for line in re.split(r"\n|&&", text):
                words = shlex.split(line, comments=True)
                if words and words[0] == "python":
                    yield pytest.param(words[1:], id=" ".join(words))


@pytest.mark.parametrize("words", list(commands()))
def test_the_commands_are_there(words, capsys):
    if words[0] == "run_mnist.py":
        run_mnist.parse(words[1:])
    elif words[1] in ("pip", "pytest"):
        for word in words[2:]:
            assert word.startswith("-") or word == "install" or (running.ROOT / word).exists()
    else:
        module = importlib.import_module(words[1])
        module = importlib.import_module(f"{words[1]}.__main__") if hasattr(module, "__path__") else module
        assert hasattr(module, "main")


def test_the_explanation_is_the_programs():
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        explaining.main([])
    assert printed.getvalue() in [text for kind, text in BLOCKS if kind == "text"]


def test_the_iteration_is_the_programs():
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        explaining.main(["--iteration"])
    (shown,) = (text for kind, text in BLOCKS if kind == "text" and text.startswith("    # critic_step"))
    assert shown.count("\n") > 60 and shown in printed.getvalue()


@pytest.mark.parametrize("activation", explaining.ACTIVATIONS)
def test_the_drawings_are_the_programs(activation, tmp_path):
    draw(explain.explain(explaining.penalty, activation), tmp_path / "drawing.svg")
    shown = (running.ROOT / ".readme" / f"{activation}.svg").read_text(encoding="utf-8")
    assert (tmp_path / "drawing.svg").read_text(encoding="utf-8") == shown
