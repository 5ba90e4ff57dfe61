"""What the README files show is what happens: their Python prints what stands there, and their commands exist."""

import contextlib
import doctest
import importlib
import io
import re
import shlex
import shutil
import zlib
from textwrap import indent

import numpy as np
import pytest

import minigan as mg
from minigan.data import MNIST, load_images, sampler
from minigan.explain import __main__ as explaining
from minigan.explain import explain
from minigan.explain.drawing import draw
from minigan.run import flags, load
from minigan.settings import Settings
from minigan.training import WGANGP, outputs
from tests.running import ROOT, TINY, run

TEXTS = {path: path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *ROOT.glob("[mt]*/**/README.md")]}
BLOCKS = {path: re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL) for path, text in TEXTS.items()}
ALL = [block for blocks in BLOCKS.values() for block in blocks]
CHINESE = ROOT / ".readme" / "README.zh.md"
ALONE = "digits.png"  # in a program that test_house runs, without the folders
SHOWN = [text for kind, text in ALL if kind == "text"]
LINES = [line for kind, text in ALL if kind == "sh" for line in re.split(r"\n|&&", text)]
COMMANDS = [words[1:] for words in (shlex.split(line, comments=True) for line in LINES) if words[:1] == ["python"]]


def printed(call, *args):
    """As in a locale that has all characters."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        call(*args)
    return out.getvalue()


def test_every_block_is_of_a_kind_that_is_tested():
    assert {kind for kind, _ in ALL} == {"python", "text", "sh"}
    assert len(re.findall(r"^```", "".join(TEXTS.values()), re.MULTILINE)) == 2 * len(ALL)


@pytest.fixture
def ran(tmp_path):
    """A run in ``out``."""
    shutil.copy(MNIST / "train-images-idx3-ubyte.gz", tmp_path)
    run(*TINY, "--data", tmp_path)


def test_the_python_prints_what_stands_there(ran):
    """Each block by itself; lines that are shown before the program that they are of run there."""
    for blocks in BLOCKS.values():
        for (kind, code), (after, text) in zip(blocks, [*blocks[1:], ("", "")]):
            if kind == "python" and ALONE not in code and not any(indent(code, "    ") in other for _, other in blocks):
                assert printed(exec, code, {}) == (text if after == "text" else ""), code


EXAMPLES = [mg.grad, mg.tensor, mg.primitive, mg.nn.MLP, mg.optim.Adam, WGANGP, explain, load]


def test_the_examples_in_docstrings(ran):
    known = [sampler, load_images, outputs, Settings, *EXAMPLES]
    names = {"mg": mg, "np": np} | {x.__name__: x for x in known}
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for thing in EXAMPLES:
        (example,) = doctest.DocTestFinder(recurse=False).find(thing, thing.__name__, globs=dict(names))
        assert len(example.examples) >= 2, thing
        assert runner.run(example, out=pytest.fail).failed == 0


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_commands_are_there(words):
    if words[0] == "run_mnist.py":
        flags.parse(words[1:])
    elif words[1] in ("pip", "pytest"):
        for word in words[2:]:
            assert word.startswith("-") or word in ("install", "") or (ROOT / word).exists()
    else:
        module = importlib.import_module(words[1])
        module = importlib.import_module(f"{words[1]}.__main__") if hasattr(module, "__path__") else module
        assert hasattr(module, "main")


def test_the_links_lead_somewhere():
    for path, text in (TEXTS | {CHINESE: CHINESE.read_text(encoding="utf-8")}).items():
        for link in re.findall(r"\]\((?!http)([^)#]+)", text):
            assert (path.parent / link).exists(), (path, link)


def test_the_chinese_readme_is_of_this_one():
    """Its blocks, formulas, pictures and figures are the same; each section was written by what stands here now."""
    here, there = TEXTS[ROOT / "README.md"], CHINESE.read_text(encoding="utf-8")
    for what in (r"^```.*?^```$", r"^\$\$.*?\$\$$", r"\w+\.(?:png|svg)\)", r"(?<=\| )\d[\d., s]*(?= \|)"):
        one, other = (re.findall(what, text, re.MULTILINE | re.DOTALL) for text in (here, there))
        assert one == other, what
    marks = "[\uff08\uff0c\uff1b\uff1a\u3001\u3002]"  # of full width, behind which a formula is not shown as one
    assert not re.findall(rf"{marks}\$", there)
    for section, written in zip(
        re.split("^## ", here, flags=re.MULTILINE), re.split("^## ", there, flags=re.MULTILINE), strict=True
    ):
        title, now = written.partition("\n")[0], f"<!-- {zlib.crc32(section.encode()):08x} -->"
        assert now in written, (
            f"README.zh.md, {title}: reread it by README.md, whose section changed, and write {now} there"
        )


def test_the_explanation_is_the_programs():
    assert printed(explaining.main, []) in SHOWN


def test_the_iteration_is_the_programs():
    program = printed(explaining.main, ["--iteration"])
    assert [text in program for text in SHOWN if text.startswith("    # ")] == [True, True]


@pytest.mark.parametrize("activation", explaining.ACTIVATIONS)
def test_the_drawings_are_the_programs(activation, tmp_path):
    draw(explain(explaining.penalty, activation), tmp_path / "drawing.svg")
    drawn, shown = tmp_path / "drawing.svg", ROOT / ".readme" / f"{activation}.svg"
    assert drawn.read_text(encoding="utf-8") == shown.read_text(encoding="utf-8")
