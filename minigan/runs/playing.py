"""The generator inside the page that a run leaves, to play with: plain JavaScript, no network."""

import base64
import json
from string import Template

from .. import backend
from ..nn import MLP
from ..settings import Settings

SECTION = Template("""<section id="play" hidden>
<style>
#play .row { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; }
#play canvas { image-rendering: pixelated; background: #000; display: block; }
#digit { width: 15rem; }
#pad { width: 15rem; height: 15rem; position: relative; background: #eef2f7; outline: 1px solid #ccd;
       touch-action: none; }
#dot { position: absolute; width: 1.2rem; height: 1.2rem; margin: -0.6rem; border-radius: 50%; background: #2b6cb0; }
#many { display: grid; grid-template-columns: repeat(auto-fill, minmax(2.6rem, 1fr)); gap: 0.3rem; max-width: 38rem; }
#many button { padding: 0; border: 3px solid transparent; background: none; }
#many button[aria-pressed=true] { border-color: #2b6cb0; }
#many canvas { width: 100%; }
#way { width: 100%; max-width: 38rem; }
#play > button, #play .row button { font: inherit; padding: 0.4rem 1rem; }
</style>
<h2>Play</h2>
<p>This page has the generator in it. Drag the point: the noise walks, and the image follows (or use the arrow keys).
Choose two of the small images below to see the way from one to the other.</p>
<div class="row">
<div id="pad" tabindex="0" role="application" aria-label="a plane of noise: arrow keys walk"><div id="dot"></div></div>
<canvas id="digit" aria-label="the image that the generator makes"></canvas>
<button id="another">Another one</button>
</div>
<h3>From one to another</h3>
<div id="many"></div>
<p><canvas id="way" aria-label="the way between the two images chosen"></canvas></p>
<button id="others">Other ones</button>
</section>
<p id="newer" hidden>A newer page is there, of iteration <b></b>. <button>Show it</button></p>
<script>
const G = $generator;
function half(h) {  // a half-precision number, from its bits
  const sign = h & 0x8000 ? -1 : 1, exponent = h >> 10 & 31, fraction = h & 1023;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -24 * fraction);
}
const bits = Uint8Array.from(atob(G.weights), c => c.charCodeAt(0)), words = new DataView(bits.buffer);
const weights = Float32Array.from({length: bits.length / 2}, (_, i) => half(words.getUint16(2 * i, true)));
const functions = {
  relu: x => Math.max(x, 0), leaky_relu: x => x > 0 ? x : 0.2 * x, tanh: Math.tanh, none: x => x,
  softplus: x => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x))), sigmoid: x => 1 / (1 + Math.exp(-x)),
};
function generate(noise) {  // one image's pixels, row by row
  let x = noise, at = 0;
  G.sizes.slice(1).forEach((m, layer) => {
    const n = G.sizes[layer], y = weights.slice(at + n * m, at + n * m + m);
    for (let i = 0; i < n; i++) if (x[i]) for (let j = 0; j < m; j++) y[j] += x[i] * weights[at + i * m + j];
    at += n * m + m;
    x = y.map(functions[layer < G.sizes.length - 2 ? G.hidden : G.output]);
  });
  return x;
}
const uniform = G.noise == "uniform", get = id => document.getElementById(id), clip = x => Math.min(1, Math.max(-1, x));
const normal = () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
const draw = () => Float32Array.from({length: G.sizes[0]}, () => uniform ? 2 * Math.random() - 1 : normal());
function walk(x, y, t) {  // from one noise to another, as long as noise is
  const [a, b] = uniform ? [1 - t, t] : [Math.cos(t * Math.PI / 2), Math.sin(t * Math.PI / 2)];
  return x.map((v, i) => a * v + b * y[i]);
}
function paint(canvas, noises) {
  canvas.width = G.width * noises.length;
  canvas.height = G.height;
  const to = canvas.getContext("2d"), image = to.createImageData(G.width, G.height);
  noises.forEach((noise, k) => {
    generate(noise).forEach((p, i) => image.data.set([255 * p, 255 * p, 255 * p, 255], 4 * i));
    to.putImageData(image, k * G.width, 0);
  });
}
let base, across, down, spot;
function move(x, y) {
  spot = [clip(x), clip(y)];
  get("dot").style.left = 50 + 50 * spot[0] + "%";
  get("dot").style.top = 50 + 50 * spot[1] + "%";
  const noise = base.map((v, i) => v + spot[0] * across[i] + spot[1] * down[i]);
  const length = x => Math.hypot(...x), scale = length(base) / length(noise);
  paint(get("digit"), [uniform ? noise.map(clip) : noise.map(v => v * scale)]);
}
function another(noise) {
  [base, across, down] = [noise || draw(), draw(), draw()];
  move(0, 0);
}
let chosen = [];
function choose(button, noise) {
  chosen = [...chosen.slice(-1), [button, noise]];
  for (const b of get("many").children) b.setAttribute("aria-pressed", chosen.some(c => c[0] === b));
  another(noise);
  const [x, y] = [chosen[0][1], chosen[chosen.length - 1][1]];
  paint(get("way"), Array.from({length: 12}, (_, i) => walk(x, y, i / 11)));
}
function others() {
  get("many").replaceChildren();
  chosen = [];
  for (let i = 0; i < 24; i++) {
    const button = document.createElement("button"), noise = draw();
    button.setAttribute("aria-label", "sample " + (i + 1));
    paint(button.appendChild(document.createElement("canvas")), [noise]);
    button.onclick = () => choose(button, noise);
    get("many").append(button);
  }
  for (const i of [0, 1]) get("many").children[i].click();
}
const drag = event => {
  const box = get("pad").getBoundingClientRect();
  move(2 * (event.clientX - box.left) / box.width - 1, 2 * (event.clientY - box.top) / box.height - 1);
};
get("pad").onpointerdown = event => { get("pad").setPointerCapture(event.pointerId); drag(event); };
get("pad").onpointermove = event => { if (event.buttons) drag(event); };
get("pad").onkeydown = event => {
  const by = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
  if (by) { move(spot[0] + 0.1 * by[0], spot[1] + 0.1 * by[1]); event.preventDefault(); }
};
get("another").onclick = () => another();
get("others").onclick = others;
others();
get("play").hidden = false;
function newest(iteration) {  // what newest.js beside this page calls
  get("newer").hidden = iteration <= G.iteration;
  get("newer").querySelector("b").textContent = iteration.toLocaleString("en");
}
get("newer").style = "position: sticky; bottom: 0; background: #fff3c4; padding: 0.5rem";
get("newer").querySelector("button").onclick = () => location.reload();
setInterval(() => {
  const script = document.createElement("script");
  script.src = "newest.js?" + Date.now();
  script.onload = script.onerror = () => script.remove();
  document.head.append(script);
}, 10000);
</script>""")


def section(generator: MLP, settings: Settings, shape: tuple[int, int], iteration: int) -> str:
    """The part of the page that carries the generator, its weights in half precision, and runs it.

    It also asks every ten seconds what ``newest`` says of the run, and tells where a newer page is there.
    """
    arrays = [backend.to_numpy(p) for p in generator.parameters()]
    told = {
        "sizes": [len(arrays[0]), *(len(bias) for bias in arrays[1::2])],
        "hidden": settings.hidden,
        "output": settings.output or "none",
        "noise": settings.noise,
        "height": shape[0],
        "width": shape[1],
        "iteration": iteration,
        "weights": base64.b64encode(b"".join(a.astype("<f2").tobytes() for a in arrays)).decode("ascii"),
    }
    return SECTION.substitute(generator=json.dumps(told))


def newest(iteration: int) -> str:
    """The content of the file that tells a page that is open how far its run is."""
    return f"newest({iteration});\n"
