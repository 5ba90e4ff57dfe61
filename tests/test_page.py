"""The page that a run leaves, and the generator in it, which answers to mouse, keyboard and touch."""

import base64
import html
import io
import json
import re
import shlex
from html.parser import HTMLParser
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from minigan.judge.classifier import Predictions
from minigan.judge.judge import Judge
from minigan.nn import ACTIVATIONS, OUTPUTS
from minigan.run import Run, load, page, pictures
from minigan.settings import Settings
from minigan.training import outputs
from tests.browser import all_evaluated, needs_a_browser
from tests.running import TINY, run


def test_samples_by_class(monkeypatch):
    samples = np.arange(1, 26, dtype="float32").reshape(25, 1, 1)
    seen = Predictions(None, np.eye(3)[[0] * 12 + [2] * 13])
    monkeypatch.setattr("minigan.judge.judge.predict", lambda *_: seen)
    grid = Judge.of_each_class(SimpleNamespace(classifier=None), samples, 10).reshape(3, 10)
    assert grid.tolist() == [[*range(1, 11)], [0] * 10, [*range(13, 23)]]


def test_samples_beside_their_nearest():
    training = np.random.default_rng(0).integers(0, 256, (70, 6), dtype="uint8")
    samples = np.float32(training[10:40] / 255).reshape(30, 2, 3)
    grid = Judge.beside_nearest(SimpleNamespace(train=training), samples, 10).reshape(3, 2, 10, 2, 3)
    np.testing.assert_array_equal(grid, np.stack([samples.reshape(3, 10, 2, 3)] * 2, axis=1))


class Page(HTMLParser):
    """What a page refers to, and whether its elements are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.links, self.open, self.text = [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.links += [value[:15] for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_holds_everything(judged):
    run(*TINY, "--data", judged, "--out", "a&b")
    made = Page(Path("a&b/report.html").read_text(encoding="utf-8"))
    assert made.links == [f"data:image/{kind};" for kind in ("png", "png", "gif", *["png"] * 3)]
    assert made.text.index("Samples") < made.text.index("Play") < made.text.index("Over time")
    told = (
        "6 iterations in",
        "Precision ",
        "python run_mnist.py --iterations 6 --sample-every 3 --batch-size 4 --critic 8 --generator 8 --device cpu",
        "Over time",
        "After 6 iterations",
        "By class",
        "Learned, or copied?",
        "--lambda",
        "ten iterations, and from",
    )
    assert [text for text in told if text not in made.text] == []
    assert Page(page.table("Numbers", "<b>", [("a", "b"), ("1 <u> 2", "3")])).text == "Numbers<b>ab1 <u> 23"
    assert Path("a&b/animation.gif").read_bytes().startswith(b"GIF8")


# --- The generator in the page ------------------------------------------------------------------

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


def test_the_page_has_every_activation():
    script = Path(page.__file__).with_name("play.html").read_text(encoding="utf-8")
    has = set(re.findall(r"(\w+): (?:x =>|Math)", script))
    assert {str(name).lower() for name in (*ACTIVATIONS, *OUTPUTS)} <= has, "give it in JavaScript, in run/play.html"


@needs_a_browser
def test_the_pages_pixels_are_minigans_and_it_answers(tmp_path):
    noises, pages, pixels = np.random.default_rng(0).standard_normal((5, 4), dtype="float32"), [], []
    for hidden, output, noise in zip(ACTIVATIONS, cycle(OUTPUTS), cycle(("normal", "uniform"))):
        settings = Settings(critic=(2,), generator=(7, 9), noise_dim=4, hidden=hidden, output=output, noise=noise)
        made, folder = Run(settings, (6, 5), {"data": "images"}), tmp_path / hidden
        for p in made.gan.ema.parameters():
            p.data = (p.data + np.float32(0.01)).astype("float16").astype("float32")  # as in the page
        folder.mkdir()
        made.draw_grid(folder)
        page.write_page(made, folder, None)
        pages.append(folder / "report.html")
        pixels.append(outputs(made.gan.ema, noises))
    results = all_evaluated(pages, f"const noises = {json.dumps(noises.tolist())}; {PLAY}")
    for (images, states, ways, hidden, cells), expected in zip(results, pixels, strict=True):
        np.testing.assert_allclose(images, expected, atol=1e-3)
        np.testing.assert_allclose(ways[::2], ways[1::2], atol=1e-6)
        digits_and_ways = [len(set(drawn)) for drawn in zip(*states)]
        assert (digits_and_ways, hidden, cells) == ([7, 3], False, 24)  # the way changes with what is chosen


def test_a_run_leaves_the_page_with_every_evaluation(tmp_path, images, monkeypatch):
    made = []
    monkeypatch.setattr("run_mnist.write_page", lambda run, *to: made.append(run.done) or page.write_page(run, *to))
    run(*TINY, "--data", images, "--out", tmp_path, "--evaluate-every", 2)
    assert made == [2, 4, 6]
    assert '<section id="play" hidden>' in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_animation_plays_once_and_stands_still_before(judged):
    run(*TINY, "--data", judged)
    text = Path("out/report.html").read_text(encoding="utf-8")
    still, moving = re.search(
        r'src="data:image/gif;base64,([^"]*)" data-moving="data:image/gif;base64,([^"]*)"', text
    ).groups()
    with (
        Image.open(io.BytesIO(base64.b64decode(moving))) as grown,
        Image.open(io.BytesIO(base64.b64decode(still))) as last,
    ):
        assert (grown.n_frames, last.n_frames) == (3, 1)
        assert "loop" not in grown.info
        grown.seek(2)
        np.testing.assert_array_equal(np.asarray(grown.convert("L")), np.asarray(last.convert("L")))


def test_the_command_that_repeats_a_run(judged):
    run(*TINY, "--data", judged, "--hidden", "tanh", "--output", "none")
    text = Path("out/report.html").read_text(encoding="utf-8")
    words = shlex.split(html.unescape(re.search("<pre>python run_mnist.py (.*?)</pre>", text)[1]))
    run(*words)
    once, again = (Path(out, "samples.png").read_bytes() for out in ("out", "again"))
    assert once == again


def test_the_command_says_what_it_does_not_repeat(ran, quick, monkeypatch):
    """And is quoted as the system's shell has it; a generator that would keep the page from opening is left out."""
    run("--resume", "--iterations", 9, "--threads", 2)
    text = Path("out/report.html").read_text(encoding="utf-8")
    assert "It was resumed at iteration 6 in another way, which this does not repeat." in text
    resumed = load("out")
    resumed.metadata["data"] = r"C:\Users\me\my digits.npy"
    assert page.command(resumed).endswith(r"--data 'C:\Users\me\my digits.npy' --out again")
    monkeypatch.setattr(page, "os", SimpleNamespace(name="nt"))
    assert page.command(resumed).endswith(r'--data "C:\Users\me\my digits.npy" --out again')
    monkeypatch.setattr(page, "MOST", 10)
    page.write_page(resumed, Path("out"), None)
    assert page.TOO_LARGE in Path("out/report.html").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("default")
def test_a_picture_that_cannot_be_drawn_costs_a_line(images, monkeypatch, capsys):
    for name in ("curves", "progress"):
        monkeypatch.setattr(pictures, name, lambda *_: 1 // 0)
    assert run(*TINY, "--data", images) == 0
    assert capsys.readouterr().err.count(" cannot be drawn: ZeroDivisionError: ") == 2
    assert Path("out/report.html").exists()
