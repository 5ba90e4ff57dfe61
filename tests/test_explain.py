"""The account of the engine's record: what it says is what was computed, and the engine is as before."""

import json
import re

import matplotlib.image
import numpy as np
import pytest

import minigan as mg
from minigan import autodiff, ops
from minigan.explain import __main__ as command
from minigan.explain import explain
from minigan.explain.drawing import draw
from minigan.explain.page import save_page
from minigan.penalties import gradient_penalty
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
    assert [told.symbol(x) for x in second.missed] == ["b", "c"] and told.products == 7
    assert not any(told.again(v) for v in second.visits)
    text = str(told)
    for line in (
        r"h +\(1, 2\)  \[\[1 -1\]\] +linear\(y, W, b\)   product 1",
        r"1 +\(1, 1\)  \[\[1\]\] +constant: here the sweep begins",
        r"h\u0304 .* mul\(a\u0304, mask \[\[1 0\]\]\) +h at a: g \* \(out.data != 0\)",
        r"8 +W +dW +\[\[4.8 0\] \[6.4 0\]\]",
        r"- +b +0 +\(an input that was not reached\)",
        r"s +\(1, 1\)  \[\[5\]\] +norm\(g, 1\)",
    ):
        assert re.search(line, text), line
    assert not told.error and text.count("constant: here the sweep begins") == 1


def test_tanh_comes_to_the_forward_pass_again():
    told = story("tanh")
    again = [told.symbol(v.node) for v in told.sweeps[1].visits if told.again(v)]
    assert again == ["a", "h"] and [told.symbol(x) for x in told.sweeps[1].missed] == ["c"]
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


def test_the_engine_is_as_before():
    before = {name: getattr(ops, name) for name in vars(ops)}, autodiff._path, ops.linear.vjps
    story()
    with pytest.raises(ZeroDivisionError):
        explain(lambda: 1 / 0)
    assert before == ({name: getattr(ops, name) for name in vars(ops)}, autodiff._path, ops.linear.vjps)


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
    assert re.search(r"x +dddy +\[6\]", str(told)) and re.search(r"ddy +\(1\) +\[12\]", str(told))

    assert str(explain(lambda: 1)) == ""


def test_a_whole_penalty_of_the_library(tmp_path):
    rng = np.random.default_rng(0)
    critic = mg.nn.MLP([4, 5, 3, 1], hidden="tanh", rng=0)
    real, fake = rng.random((2, 3, 4), dtype="float32")

    def penalty():
        P = gradient_penalty(critic, real, fake, rng)
        return {"P": P, "gradients": mg.grad(P, critic.parameters(), materialize_grads=True)}

    told = explain(penalty)
    assert [s.title for s in told.stages[::2]] == ["The computation", "The computation goes on"]
    assert len(told.sweeps) == 2 and "matmul_nt" in str(told) and "..." in str(told)
    assert len(draw(told, tmp_path / "whole.png")) > 40


@pytest.mark.parametrize("activation", command.ACTIVATIONS)
def test_drawings(activation, tmp_path, capsys):
    for kind in ("svg", "png", "html"):
        path = tmp_path / f"drawing.{kind}"
        assert command.main(["--activation", activation, "--out", str(path)]) == 0
        assert capsys.readouterr().out == f"{path}\n"
    assert matplotlib.image.imread(tmp_path / "drawing.png").shape[1] > 800
    first = (tmp_path / "drawing.svg").read_bytes()
    draw(story(activation), tmp_path / "drawing.svg")
    assert (tmp_path / "drawing.svg").read_bytes() == first  # the same every time


def test_the_command(tmp_path, capsys):
    assert command.main([]) == 0
    assert capsys.readouterr().out.endswith(
        "7 matrix products; with the zeros of its mask's derivative carried along, 8\n"
    )
    assert command.main(["--no-graph"]) == 0
    assert "create_graph=True" in capsys.readouterr().out.splitlines()[-1]
    for flags, message in (
        (["--out", "drawing.gif"], "expected a file .svg, .png or .html, got 'drawing.gif'"),
        (["--out", str(tmp_path / "no" / "drawing.svg")], "No such file or directory"),
        (["--activation", "step"], "invalid choice: 'step'"),
    ):
        with pytest.raises(SystemExit) as exit:
            command.main(flags)
        error = capsys.readouterr().err
        assert exit.value.code == 2 and error.count("\n") == 1 and message in error


@needs_a_browser
def test_the_page_steps_forwards_and_back(tmp_path):
    save_page(story(), tmp_path / "page.html", "A page")
    steps = json.loads(
        re.search(r"const steps = (\[.*\]), at", (tmp_path / "page.html").read_text(encoding="utf-8"))[1]
    )
    script = """
    const press = key => document.onkeydown(new KeyboardEvent("keydown", {key, cancelable: true}));
    const look = () => result.push([step, document.querySelectorAll('[id^="step"][style*="visible"]').length]);
    result = []; look(); press("ArrowRight"); look(); press("End"); look(); press("ArrowLeft"); look(); press("Home");
    look()"""
    (a, first), (b, second), (c, end), (d, before), (e, home) = evaluated(tmp_path / "page.html", script)
    assert (a, b, c, d, e) == (0, 1, len(steps) - 1, len(steps) - 2, 0)
    assert 0 < first == home < second < before <= end
