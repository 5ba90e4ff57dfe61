"""The account of the engine's record: what it says is what was computed, and the engine is as before."""

import json
import re
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

import minigan as mg
from minigan import backend, guards, ops
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


def visited(sweep, told):
    return [told.symbol(v.node) for v in sweep.visits]


def test_the_smallest_critic_with_relu():
    told = story()
    first, second = told.sweeps
    assert visited(first, told) == ["D", "a", "h", "y"] and first.recorded
    assert visited(second, told) == ["P", "t1", "s", "g", "h\u0304", "a\u0304", "v", "W"] and not second.recorded
    assert [told.symbol(x) for x in told.missed(second)] == ["b", "c"] and told.products == 7
    assert not any(told.again(v) for v in second.visits)
    text = str(told)
    for line in (
        r"h +\(1, 2\)  \[\[1 -1\]\] +linear\(y, W, b\)   product 1",
        r"1 +\(1, 1\)  \[\[1\]\] +constant: here the sweep begins",
        r"h\u0304 .* mul\(a\u0304, mask \[\[1 0\]\]\) +h at a",
        r"2 +a +a\u0304 +\[\[1 2\]\] +h: a\u0304 \* positive\(a.data\)",
        r" +W: matmul_tn\(\u2202P/\u2202g, h\u0304\)   product 6",
        r"8 +W +dW +\[\[4.8 0\] \[6.4 0\]\]",
        r"- +b +0 +\(an input that was not reached\)",
        r"s +\(1, 1\)  \[\[5\]\] +norm\(g, 1, True\)",
    ):
        assert re.search(line, text), line
    assert not told.error and text.count("constant: here the sweep begins") == 1


def test_tanh_comes_to_the_forward_pass_again():
    told = story("tanh")
    again = [told.symbol(v.node) for v in told.sweeps[1].visits if told.again(v)]
    assert again == ["a", "h"] and [told.symbol(x) for x in told.missed(told.sweeps[1])] == ["c"]
    assert told.products == 8 and "a, again" in str(told)


def test_zeros_that_are_carried_cost_a_product():
    masked = ops.relu.vjps
    with command.carrying_zeros():
        told = story()
    assert told.products == 8 and "h, again" in str(told) and ops.relu.vjps is masked
    assert all((a.data == b.data).all() for a, b in zip(derivatives(told), derivatives(story())))


def derivatives(told):
    return [v.gradient for v in told.sweeps[1].visits if told.symbol(v.node) in "Wv"]


def test_without_a_record_the_story_ends_in_the_error():
    told = story(create_graph=False)
    assert len(told.sweeps) == 1 and "create_graph=True" in told.error and str(told).endswith(told.error)
    assert re.search(r"P +\(1, 1\) +\[\[16\]\] +no record", str(told))


def test_the_numbers_are_those_of_a_run_that_nobody_watched():
    for activation in command.ACTIVATIONS:
        names = command.penalty(activation)
        told = story(activation)
        for visit in told.sweeps[1].visits:
            name = "d" + told.symbol(visit.node)
            if name in names:
                assert (visit.gradient.data == names[name].data).all()


def test_nobody_listens_any_more():
    story()
    with pytest.raises(ZeroDivisionError):
        explain(lambda: 1 / 0)
    assert guards.listener.get() is backend.tape.get() is None


def test_any_expression_of_any_order():
    def cube():
        x = mg.tensor([2.0], requires_grad=True)
        y = x**3
        (dy,) = mg.grad(y, x, create_graph=True)
        (ddy,) = mg.grad(dy, x, create_graph=True)
        (dddy,) = mg.grad(ddy, x)
        return locals()

    told = explain(cube)
    assert [s.recorded for s in told.sweeps] == [True, True, False]
    assert re.search(r"x +dddy +\[6\]", str(told)) and re.search(r"ddy +\(1,\) +\[12\]", str(told))

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
    assert len(told.sweeps) == 2 and "matmul_nt" in str(told) and "..." in str(told)
    assert len(draw(told, tmp_path / "whole.svg")) > 40


@pytest.mark.parametrize("activation", command.ACTIVATIONS)
def test_drawings(activation, tmp_path, capsys):
    for kind in ("svg", "html"):
        path = tmp_path / f"drawing.{kind}"
        assert command.main(["--activation", activation, "--out", str(path)]) == 0
        assert capsys.readouterr().out == f"{path}\n"
    first = (tmp_path / "drawing.svg").read_text(encoding="utf-8")
    draw(story(activation), tmp_path / "drawing.svg")
    assert (tmp_path / "drawing.svg").read_text(encoding="utf-8") == first  # the same every time
    assert first in (tmp_path / "drawing.html").read_text(encoding="utf-8")
    symbols = {x.text for x in ElementTree.fromstring(first).iter() if x.get("class", "").endswith("symbol")}
    assert {"W", "b", "v", "c", "y", "h", "a", "D", "g", "s", "P"} < symbols


@pytest.mark.parametrize("activation", command.ACTIVATIONS)
def test_arrows_go_around_boxes_and_beside_each_other(activation):
    drawing = Drawing(story(activation))
    assert str(drawing).count('class="way ') == len(drawing.ways)
    for way in drawing.ways:
        ends = [box for box in drawing.places.values() if meets((way[0],) * 3, box) or meets((way[2],) * 3, box)]
        assert not [box for box in drawing.places.values() if meets(way, box) and box not in ends]


# --- The iteration as a program ------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["default", "article"])
def test_the_printed_iteration_is_the_engines_bit_for_bit(preset, tmp_path, capsys):
    assert command.main(["--iteration", "--preset", preset]) == 0
    printed = capsys.readouterr().out
    assert "# gradient_norm: (gradient,) = grad(scores, points, create_graph=True)" in printed
    assert command.main(["--iteration", "--preset", preset, "--out", "step.py"]) == 0
    source = (tmp_path / "step.py").read_text(encoding="utf-8")
    assert printed.strip() in source and "minigan" not in source
    scope = {"__name__": "step"}
    exec(compile(source, "step.py", "exec"), scope)

    images = np.random.default_rng(0).integers(0, 256, (50, 28, 28), dtype="uint8")
    engine, other = (WGANGP(PRESETS[preset], sampler(images), 784, replay=False) for _ in range(2))
    arrays = {name.replace(".", "_"): x.data for name, x in other.state().items()}
    for _ in range(5):
        engine.iteration()
        other.ema_step.data[...] = engine.ema_step.data
        scope["iteration"](rng=other.rng, draw=other.sample_real, **arrays)
    for name, x in engine.state().items():
        assert x.data.tobytes() == other.state()[name].data.tobytes(), name


def test_the_program_runs_with_numpy_alone(tmp_path):
    command.main(["--iteration", "--out", "step.py"])
    printed = subprocess.run(
        [sys.executable, "step.py"], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert printed.count("\n") == 20 and "nan" not in printed


def test_the_command(tmp_path, capsys):
    assert command.main([]) == 0
    assert capsys.readouterr().out.endswith(
        "7 matrix products; with the zeros of its mask's derivative carried along, 8\n"
    )
    assert command.main(["--no-graph"]) == 0
    assert "create_graph=True" in capsys.readouterr().out.splitlines()[-1]
    for flags, message in (
        (["--out", "drawing.gif"], "expected a file .svg or .html, got 'drawing.gif'"),
        (["--iteration", "--out", "drawing.svg"], "expected a file .py, got 'drawing.svg'"),
        (["--out", str(tmp_path / "no" / "drawing.svg")], "No such file or directory"),
        (["--activation", "step"], "invalid choice: 'step'"),
    ):
        with pytest.raises(SystemExit) as exit:
            command.main(flags)
        error = capsys.readouterr().err
        assert exit.value.code == 2 and error.count("\n") == 1 and message in error


def test_values_may_be_read_meanwhile():
    def f():
        x = mg.tensor([2.0], True)
        y = x * x.item()
        return {"x": x, "y": y}

    assert "mul(x, 2.0)" in str(explain(f))


@needs_a_browser
def test_the_page_steps_forwards_and_back(tmp_path):
    draw(story(), tmp_path / "page.html", "A page")
    steps = json.loads(
        re.search(r"const steps = (\[.*\]), last", (tmp_path / "page.html").read_text(encoding="utf-8"))[1]
    )
    script = """
    const press = key => document.onkeydown(new KeyboardEvent("keydown", {key, cancelable: true}));
    const look = () => result.push([step, document.querySelectorAll('[data-step][style*="visible"]').length]);
    result = []; look(); press("ArrowRight"); look(); press("ArrowRight"); look(); press("End"); look();
    press("ArrowLeft"); look(); press("Home"); look()"""
    (a, all_of_it), (b, first), (c, second), (d, end), (e, before), (f, home) = evaluated(
        tmp_path / "page.html", script
    )
    last = len(steps) - 1
    assert (a, b, c, d, e, f) == (last, 0, 1, last, last - 1, 0)
    assert 0 < first == home < second < before <= end == all_of_it
