"""The drawing as a page that plays it, step by step: one file, no network."""

import html
import json
import tempfile
from pathlib import Path
from string import Template

from ..tools.files import replacing
from .drawing import draw
from .story import Story

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 70rem; margin: 0 auto;
       padding: 0.5rem; }
h1 { font-size: 1.3rem; margin: 0.3rem 0; }
#drawing { overflow-x: auto; }
#drawing svg { width: 100%; min-width: 38rem; height: auto; }
#bar { position: sticky; bottom: 0; background: #fff; border-top: 1px solid #ddd; padding: 0.5rem 0; }
#says { min-height: 4.5em; margin: 0 0 0.5rem; font-family: ui-monospace, monospace; font-size: 0.85rem;
        overflow-wrap: anywhere; }
button { font: inherit; padding: 0.4rem 1rem; }
input { width: 40%; vertical-align: middle; }
details { margin: 1rem 0; }
pre { overflow-x: auto; font-size: 0.8rem; }
</style>
</head>
<body>
<h1>$title</h1>
<div id="drawing">$drawing</div>
<div id="bar">
<p id="says" aria-live="polite"></p>
<button id="back" aria-label="one step back">&#8592;</button>
<input id="at" type="range" min="0" aria-label="step">
<button id="on" aria-label="one step on">&#8594;</button>
<span id="count"></span>
</div>
<details><summary>All of it as text</summary><pre>$text</pre></details>
<script>
const steps = $steps, at = document.getElementById("at");
let step = steps.length - 1;
at.max = step;
function show(n) {
  step = Math.min(Math.max(n, 0), steps.length - 1);
  at.value = step;
  for (const mark of document.querySelectorAll('[id^="step"]')) {
    const when = parseInt(mark.id.slice(4));
    mark.style.visibility = when > step ? "hidden" : "visible";
    mark.style.opacity = when === step || step === steps.length - 1 ? 1 : 0.55;
  }
  document.getElementById("says").textContent = steps[step];
  document.getElementById("count").textContent = (step + 1) + " of " + steps.length;
}
document.getElementById("back").onclick = () => show(step - 1);
document.getElementById("on").onclick = () => show(step + 1);
at.oninput = () => show(+at.value);
document.onkeydown = event => {
  const by = {ArrowLeft: step - 1, ArrowRight: step + 1, Home: 0, End: steps.length - 1}[event.key];
  if (by !== undefined) { show(by); event.preventDefault(); }
};
show(0);
</script>
</body>
</html>
""")


def save_page(story: Story, path: Path, title: str) -> None:
    """The drawing of ``story``, its steps played by arrow keys, buttons or a slider; and its text."""
    with tempfile.TemporaryDirectory() as folder:
        steps = draw(story, Path(folder) / "drawing.svg")
        drawing = (Path(folder) / "drawing.svg").read_text(encoding="utf-8").partition("<svg")
    steps.append(story.error or f"All of it: {len(story.sweeps)} sweeps, {story.products} matrix products.")
    page = PAGE.substitute(
        title=html.escape(title),
        drawing=drawing[1] + drawing[2],
        text=html.escape(str(story)),
        steps=json.dumps(steps).replace("</", "<\\/"),
    )
    with replacing(path) as part:
        part.write_text(page, encoding="utf-8")
