"""The generator in the page computes what minigan's does, and answers to mouse, keyboard and touch."""

import json
from dataclasses import replace

import numpy as np
import pytest

from minigan import report
from minigan.run import Run
from minigan.settings import Settings
from minigan.training import generate
from tests.browser import evaluated, needs_a_browser
from tests.running import TINY, run


def page(folder, settings, shape=(6, 5)):
    """A page with a new generator in it, and that generator with its weights in half precision, as in the page."""
    run = Run(replace(settings, critic=(2,)), shape, {})
    for p in run.gan.ema.parameters():
        p.data = (p.data + np.float32(0.01)).astype("float16").astype("float32")
    run.snapshot(folder)
    report.report(run, folder, None)
    return folder / "report.html", run.gan.ema


@needs_a_browser
@pytest.mark.parametrize(
    "hidden, output", [("relu", "sigmoid"), ("leaky_relu", "tanh"), ("tanh", None), ("softplus", "sigmoid")]
)
def test_the_pages_pixels_are_minigans(hidden, output, tmp_path):
    settings = Settings(generator=(7, 9), noise_dim=4, hidden=hidden, output=output)
    path, generator = page(tmp_path, settings)
    noise = np.random.default_rng(0).standard_normal((5, 4), dtype="float32")
    script = f"result = {json.dumps(noise.tolist())}.map(x => Array.from(generate(Float32Array.from(x))))"
    np.testing.assert_allclose(evaluated(path, script), generate(generator, noise), atol=1e-3)


@needs_a_browser
@pytest.mark.parametrize("noise", ["normal", "uniform"])
def test_it_answers(noise, tmp_path):
    path, _ = page(tmp_path, Settings(generator=(7,), noise_dim=4, noise=noise))
    result = evaluated(
        path,
        """
        const seen = () => [get("digit"), get("way")].map(c => c.toDataURL());
        const press = key => get("pad").dispatchEvent(new KeyboardEvent("keydown", {key, cancelable: true}));
        const point = (type, x, y) => get("pad").dispatchEvent(
          new PointerEvent(type, {pointerId: 1, clientX: x, clientY: y, buttons: 1}));
        get("pad").setPointerCapture = () => 0;
        const states = [seen()], box = get("pad").getBoundingClientRect();
        press("ArrowLeft"); states.push(seen());
        point("pointerdown", box.left + 3, box.top + 3); states.push(seen());
        point("pointermove", box.left + 900, box.top + 90); states.push(seen());
        get("another").click(); states.push(seen());
        get("many").children[5].click(); states.push(seen());
        get("others").click(); states.push(seen());
        const [a, b] = [draw(), draw()], ends = [walk(a, b, 0), walk(a, b, 1)];
        result = {states, shown: !get("play").hidden, cells: get("many").children.length, spot,
          ends: Math.max(...[...a, ...b].map((v, i) => Math.abs(v - [...ends[0], ...ends[1]][i])))}
        """,
    )
    digits, ways = zip(*result["states"])
    assert len(set(digits)) == len(digits) and len(set(ways)) == 3  # the way changes with what is chosen
    assert result["shown"] and result["cells"] == 24 and result["ends"] < 1e-6


def test_a_run_leaves_the_page_with_every_evaluation(tmp_path, images, monkeypatch):
    made = []
    monkeypatch.setattr(
        "run_mnist.report", lambda run, *given: made.append(run.iteration) or report.report(run, *given)
    )
    run(*TINY, "--data", images, "--out", tmp_path, "--evaluate-every", 2)
    assert made == [2, 4, 6]
    assert '<section id="play" hidden>' in (tmp_path / "report.html").read_text(encoding="utf-8")
