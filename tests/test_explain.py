"""The account of the engine's record: what it says is what was computed, and the engine is as before."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import minigan as mg
from minigan import autodiff, backend, ops
from minigan.data import sampler
from minigan.explain import __main__ as command
from minigan.explain import explain
from minigan.explain.drawing import Drawing, draw, meets
from minigan.penalties import gradient_penalty
from minigan.settings import PRESETS
from minigan.training import WGANGP
from tests.browser import evaluated, needs_a_browser


def story(activation="relu", create_graph=True):
    return explain(command.penalty, activation, create_graph)


def gradients(told):
    """Of the two weights, by the last sweep."""
    visits = {told.symbol(visit.node): visit for visit in told.sweeps[1].visits}
    return [visits[name].gradient.data.tolist() for name in "Wv"]


def test_the_smallest_critic_with_relu():
    """The README shows the whole text."""
    told = story()
    first, second = told.sweeps
    assert [told.symbol(v.node) for v in first.visits] == ["D", "a", "h", "u"]
    assert [told.symbol(v.node) for v in second.visits] == ["P", "t1", "s", "g", "h\u0304", "a\u0304", "v", "W"]
    assert [told.symbol(x) for x in told.missed(second)] == ["b", "c"]
    assert (first.recorded, second.recorded, told.products, told.error) == (True, False, 7, "")


def test_zeros_that_are_carried_cost_a_product():
    masked = ops.relu.vjps
    with command.carrying_zeros():
        told = story()
    assert told.products == 8
    assert "h, again" in str(told)
    assert ops.relu.vjps is masked
    assert gradients(told) == gradients(story())


def test_without_a_record_the_story_ends_in_the_error(capsys):
    told = story(create_graph=False)
    assert len(told.sweeps) == 1
    assert "create_graph=True" in told.error
    assert str(told).endswith(told.error)
    assert command.main(["--no-graph"]) == 0
    assert capsys.readouterr().out.endswith(f"{told.error}\n")
    assert re.search(r"P +\(1, 1\) +\[\[16\]\] +no record", str(told))


@pytest.mark.parametrize("activation", command.ACTIVATIONS)
def test_the_numbers_are_those_of_a_run_that_nobody_watched(activation):
    unwatched = command.penalty(activation)
    assert gradients(story(activation)) == [unwatched[name].data.tolist() for name in ("dW", "dv")]


def test_nobody_listens_any_more():
    story()
    with pytest.raises(ZeroDivisionError):
        explain(lambda: 1 / 0)
    assert autodiff.watcher.get() is backend.tape.get() is None


def test_any_expression_of_any_order():
    def cube():
        x = mg.tensor([2.0], requires_grad=True)
        y = x**3 * (x.item() / 2)  # a value may be read meanwhile
        (dy,) = mg.grad(y, x, create_graph=True)
        (ddy,) = mg.grad(dy, x, create_graph=True)
        (dddy,) = mg.grad(ddy, x)
        return locals()

    told = explain(cube)
    assert [s.recorded for s in told.sweeps] == [True, True, False]
    assert re.search(r"x +dddy +\[6\]", str(told))
    assert re.search(r"ddy +\(1,\) +\[12\]", str(told))
    assert str(explain(lambda: 1)) == ""


def test_a_whole_penalty_of_the_library(tmp_path):
    rng = np.random.default_rng(0)
    critic = mg.nn.MLP([4, 5, 3, 1], hidden="tanh", rng=0)
    real, fake = rng.random((2, 3, 4), dtype="float32")

    def penalty():
        P = gradient_penalty(critic, real, fake, rng)
        return {"P": P, "gradients": mg.grad(P, critic.parameters(), materialize_grads=True)}

    told = explain(penalty)
    assert [title for title, _, _ in told.stages[::2]] == ["The computation", "The computation goes on"]
    assert len(told.sweeps) == 2
    assert "matmul_nt" in str(told)
    assert "..." in str(told)
    assert len(draw(told, tmp_path / "whole.svg")) > 40


@pytest.mark.parametrize("activation", command.ACTIVATIONS)
def test_drawings(activation, tmp_path, capsys):
    """No arrow is there twice, and none goes through a box."""
    for kind in ("svg", "html"):
        assert command.main(["--activation", activation, "--out", f"drawing.{kind}"]) == 0
        assert capsys.readouterr().out == f"drawing.{kind}\n"
    drawing = Drawing(story(activation))
    assert (tmp_path / "drawing.svg").read_text(encoding="utf-8") == str(drawing)
    cases = json.loads(re.search(r"const cases = (.*), get = id", Path("drawing.html").read_text(encoding="utf-8"))[1])
    others = [f"{name}, create_graph forgotten" if forgotten else name for name, forgotten in command.CASES]
    assert [*cases] == [activation, *(name for name in others if name != activation)]
    assert cases[activation]["svg"] == str(drawing)
    steps = "\n".join(cases["relu"]["steps"])
    for words in (
        "h = linear(u, W, b)   product 1 = linear([[1 2]], [[3 2] [4 -1]], [-10 -1]) = [[1 -1]]",
        "u: matmul_nt(h\u0304, W) = [[3 4]]. Not called: for W, b, on no way to what is asked for.",
        "A mask is no Tensor",
        "b is not reached. No visited result was made of b: its gradient is 0.",
    ):
        assert words in steps
    assert re.search(r"Called, of linear \(ops\.py:\d+\)", steps)
    assert str(drawing).count('class="way ') == len(drawing.ways)
    for start, bend, end in drawing.ways:
        ends = [box for box in drawing.places.values() if meets((start,) * 3, box) or meets((end,) * 3, box)]
        assert [box for box in drawing.places.values() if meets((start, bend, end), box) and box not in ends] == []


@needs_a_browser
def test_the_page_steps_forwards_and_back(tmp_path):
    page = tmp_path / "page.html"
    draw({"one": story(), "two": story("tanh")}, page, "A page")
    last = len(draw(story(), tmp_path / "one.svg"))
    script = """
    const look = () => result.push([step, document.querySelectorAll('[data-step][style*="visible"]').length]);
    result = []; look();
    for (const key of ["ArrowRight", "ArrowRight", "End", "ArrowLeft", "Home"]) {
        document.onkeydown(new KeyboardEvent("keydown", {key, cancelable: true})); look();
    }"""
    steps, (whole, first, second, end, before, home) = zip(*evaluated(page, script))
    assert steps == (0, 1, 2, last, last - 1, 0)
    assert 0 < whole == home < first < second < before <= end


@pytest.mark.parametrize("preset", ["default", "article"])
def test_the_iteration_as_a_program_is_the_engines_bit_for_bit(preset, tmp_path, capsys):
    """And it runs with NumPy alone."""
    assert command.main(["--iteration", "--preset", preset, "--out", "step.py"]) == 0
    source = (tmp_path / "step.py").read_text(encoding="utf-8")
    assert re.findall(r"^(?:import|from) (\w+)", source, re.MULTILINE) == ["math", "numpy"]
    capsys.readouterr()
    scope = {"__name__": "__main__"}
    exec(source.replace("range(20)", "range(2)"), scope)
    printed = capsys.readouterr().out
    assert (printed.count("\n"), "nan" in printed) == (2, False)
    assert {str(x.dtype) for x in scope["arrays"].values()} == {"float32", "float64"}

    images = np.random.default_rng(0).integers(0, 256, (50, 28, 28), dtype="uint8")
    engine, other = (WGANGP(PRESETS[preset], sampler(images), 784) for _ in range(2))
    arrays = {name.replace(".", "_"): x.array for name, x in other.state().items()}
    for _ in range(2):
        engine.iteration()
        other.ema_step.array[...] = engine.ema_step.array
        scope["iteration"](rng=other.rng, draw=other.sample_real, **arrays)
    for name, x in engine.state().items():
        assert x.data.tobytes() == other.state()[name].data.tobytes(), name


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--out", "drawing.gif"], "expected a file .svg or .html, got 'drawing.gif'"),
        (["--iteration", "--out", "drawing.svg"], "expected a file .py, got 'drawing.svg'"),
        (["--out", "no/drawing.svg"], "No such file or directory"),
        (["--activation", "step"], "invalid choice: 'step'"),
    ],
)
def test_bad_input_ends_in_one_line(capsys, flags, message):
    with pytest.raises(SystemExit) as exit:
        command.main(flags)
    error = capsys.readouterr().err
    assert message in error
    assert (exit.value.code, error.count("\n")) == (2, 1)


def test_a_story_is_its_drawing_in_a_notebook():
    story = explain(command.penalty)
    assert story._repr_html_() == str(Drawing(story))
    assert story._repr_html_().startswith("<svg")
