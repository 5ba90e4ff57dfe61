"""The generator in the page computes what minigan's does, and answers to mouse, keyboard and touch."""

import json

import numpy as np

from minigan import report
from minigan.run import Run
from minigan.settings import Settings
from minigan.training import generate
from tests.browser import all_evaluated, needs_a_browser
from tests.running import TINY, run

PLAY = """
  const press = key => get("pad").dispatchEvent(new KeyboardEvent("keydown", {key, cancelable: true}));
  const point = (type, x, y) => get("pad").dispatchEvent(
    new PointerEvent(type, {pointerId: 1, clientX: box.left + x, clientY: box.top + y, buttons: 1}));
  get("pad").setPointerCapture = () => 0;
  const box = get("pad").getBoundingClientRect(), a = draw(), b = draw();
  const acts = [
    () => 0, () => press("ArrowLeft"), () => point("pointerdown", 3, 3), () => point("pointermove", 900, 90),
    () => get("another").click(), () => get("many").children[5].click(), () => get("others").click()];
  const states = acts.map(act => { act(); return [get("digit").toDataURL(), get("way").toDataURL()]; });
  const images = noises.map(x => Array.from(generate(Float32Array.from(x))));
  const ways = [a, walk(a, b, 0), b, walk(a, b, 1)].map(x => Array.from(x));
  result = [images, states, ways, get("play").hidden, get("many").children.length]
"""


@needs_a_browser
def test_the_pages_pixels_are_minigans_and_it_answers(tmp_path):
    noises, pages, pixels = np.random.default_rng(0).standard_normal((5, 4), dtype="float32"), [], []
    activations = ("relu", "sigmoid"), ("leaky_relu", "tanh"), ("tanh", None), ("softplus", "sigmoid")
    for (hidden, output), noise in zip(activations, ("normal", "uniform") * 2):
        settings = Settings(critic=(2,), generator=(7, 9), noise_dim=4, hidden=hidden, output=output, noise=noise)
        made, folder = Run(settings, (6, 5), {}), tmp_path / hidden
        for p in made.gan.ema.parameters():
            p.data = (p.data + np.float32(0.01)).astype("float16").astype("float32")  # as in the page
        folder.mkdir()
        made.snapshot(folder)
        report.report(made, folder, None)
        pages.append(folder / "report.html")
        pixels.append(generate(made.gan.ema, noises))
    results = all_evaluated(pages, f"const noises = {json.dumps(noises.tolist())}; {PLAY}")
    for (images, states, ways, hidden, cells), expected in zip(results, pixels, strict=True):
        np.testing.assert_allclose(images, expected, atol=1e-3)
        np.testing.assert_allclose(ways[::2], ways[1::2], atol=1e-6)
        digits_and_ways = [len(set(drawn)) for drawn in zip(*states)]
        assert (digits_and_ways, hidden, cells) == ([7, 3], False, 24)  # the way changes with what is chosen


def test_a_run_leaves_the_page_with_every_evaluation(tmp_path, images, monkeypatch):
    made = []
    monkeypatch.setattr("run_mnist.report", lambda run, *to: made.append(run.iteration) or report.report(run, *to))
    run(*TINY, "--data", images, "--out", tmp_path, "--evaluate-every", 2)
    assert made == [2, 4, 6]
    assert '<section id="play" hidden>' in (tmp_path / "report.html").read_text(encoding="utf-8")
