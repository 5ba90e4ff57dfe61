"""The sections of the article, each a function that tests the section's claim.

A section trains the models that it needs, draws its picture at ``path``, and returns one line of result, with the
metrics. The sections follow Su Jianlin, kexue.fm archive 4439; the article's last one, MNIST, is ``run_mnist.py``.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import islice, permutations
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy

from .. import backend
from ..losses import GAMES
from ..nn import MLP
from ..penalties import WHERE, gradient_norm
from ..run.pictures import lines
from ..settings import Settings
from ..tensor import no_grad
from ..training import outputs
from . import toys
from .distances import js, js_article, modes_found, shares, sliced_wasserstein, steepest_pair
from .experiment import LINE, PLANE, critic_alone, generator_gradient, scaled, side_by_side, train
from .panels import bars, grid, histograms, save, scatter
from .toys import EIGHT, TWENTY_FIVE, real

Report = tuple[str, dict[str, Any]]


def interview(path: Path, scale: float) -> Report:
    """1. An interview question: maps from U[0, 1] to N(0, 1), and to a target that has no formula."""
    u = numpy.linspace(0.005, 0.995, 199)
    exact = {"normal": numpy.array([NormalDist().inv_cdf(p) for p in u])}
    exact["bimodal"] = numpy.quantile(real(toys.bimodal, 100_000)[:, 0], u)
    panels, metrics = [], {}
    for name, draw in (("normal", toys.normal), ("bimodal", toys.bimodal)):
        run = train(scaled(LINE, scale), draw, f"interview, {name}")
        noise = backend.on_device(2 * u[:, None] - 1, dtype="float32")
        learned = backend.to_numpy(outputs(run.model.generator, noise))[:, 0]
        if learned[0] > learned[-1]:  # 1 - U is uniform too, so the map may be decreasing
            learned = learned[::-1]
        label = "exact $\\Phi^{-1}$" if name == "normal" else "quantiles of samples"
        panels.append(lines(name, {"learned G": (u, learned), label: (u, exact[name])}, "u", "y"))
        panels.append(histograms(name, {"target": real(draw)[:, 0], "generated": run.samples()[:, 0]}, -4, 4))
        metrics[f"error of the map, {name}"] = float(numpy.abs(learned - exact[name]).mean())
        metrics[f"distance, {name}"] = sliced_wasserstein(run.samples(), real(draw))
        metrics[f"distance of real from real, {name}"] = sliced_wasserstein(real(draw, seed=1), real(draw))
    save(path, panels, columns=2)
    off = [metrics[f"error of the map, {name}"] for name in exact]
    return f"the learned map is {off[0]:.2g} off Phi^-1 on average, and {off[1]:.2g} off the bimodal quantiles", metrics


THETAS = (1, 1 + 1e-6, 1 + 1e-5)  # by which samples are moved


def divergences(path: Path, scale: float) -> Report:
    """2. KL, JS: estimates by counting in bins, against the exact values; and why counting fails in many dimensions."""
    bins, grid = 20, (numpy.arange(20_000) + 0.5) / 20_000
    p, q = (1 + tilt * (grid - 0.5) for tilt in (1, -1))
    by_quadrature = {
        "article": float(((p - q) * numpy.log(p / q)).mean() / 2),
        "usual": float((p * numpy.log(2 * p / (p + q)) + q * numpy.log(2 * q / (p + q))).mean() / 2),
    }
    sizes = (10 ** numpy.linspace(1, 6, 26)).astype(int)
    estimates: dict[str, list[Any]] = {"article": [], "usual": []}
    for n in sizes:
        rng, edges = backend.default_rng(int(n)), numpy.linspace(0, 1, bins + 1)
        drawn = [backend.to_numpy(toys.tilted(tilt)(int(n), rng))[:, 0] for tilt in (1, -1)]
        counted = [shares(samples, edges) for samples in drawn]
        estimates["article"].append(js_article(*counted))
        estimates["usual"].append(js(*counted))
    panels, infinite = [], sizes[numpy.isinf(estimates["article"])]
    for name, value in by_quadrature.items():
        finite = numpy.array(estimates[name])[numpy.isfinite(estimates[name])]
        curves = {"by counting": (sizes[-len(finite) :], finite)}
        if len(finite) < len(sizes):
            curves["infinite"] = infinite, numpy.full(len(infinite), finite.max())
        title = f"JS, {name} form: {value:.4f} by quadrature"
        panels.append(lines(title, curves, "samples", "JS", marks=[value], scale=("log", "linear"), style=".-"))
    save(path, panels, columns=2)
    x, z = (real(toys.normal, 10_000, seed=seed)[:, 0] for seed in (0, 1))
    moved = [js(shares(x * theta, numpy.linspace(-4, 4, 21)), shares(z, numpy.linspace(-4, 4, 21))) for theta in THETAS]
    metrics: dict[str, Any] = {f"JS {name}, exact": value for name, value in by_quadrature.items()}
    metrics |= {f"JS {name}, by counting {sizes[-1]}": values[-1] for name, values in estimates.items()}
    metrics["sizes at which the article's is infinite"] = len(infinite)
    metrics |= {f"JS(x theta, z) by counting, theta = {theta}": value for theta, value in zip(THETAS, moved)}
    metrics["decimal digits of 2^784"] = len(str(2**784))
    return (
        f"from {sizes[-1]:,} samples JS is {estimates['article'][-1]:.4f} in the article's form (exactly"
        f" {by_quadrature['article']:.4f}) and {estimates['usual'][-1]:.4f} in the usual one (exactly"
        f" {by_quadrature['usual']:.4f}); from few, the article's is infinite. Samples moved by a millionth change it"
        f" by {moved[1] - moved[0]:.2g}: counts have no derivative, and no generator learns from them"
    ), metrics


def order(path: Path, scale: float) -> Report:
    """3. A neural distance: the mean of D over a batch does not depend on the order of the samples."""
    rng = numpy.random.default_rng(0)
    batch = real(toys.normal, 64)
    d, ordered = MLP([1, 32, 1], rng=0), MLP([64, 32, 1], rng=0)
    values: dict[str, list[float]] = {"mean of D(y_i)": [], "one D(y_1, ..., y_M)": []}
    with no_grad():
        for _ in range(200):
            shuffled = backend.on_device(rng.permutation(batch))
            values["mean of D(y_i)"].append(d(shuffled).mean().item())
            values["one D(y_1, ..., y_M)"].append(ordered(shuffled.reshape(1, 64)).item())
    curves = {name: (numpy.arange(200), numpy.array(v)) for name, v in values.items()}
    save(path, [lines("the same batch in 200 orders", curves, "order", "L")], 1, (6, 3.5))
    one, whole = (float(numpy.ptp(v)) for v in values.values())
    metrics = {f"spread, {name}": spread for name, spread in zip(values, (one, whole))}
    five, small = batch[:5], MLP([5, 32, 1], rng=0)
    with no_grad():
        orders = [backend.on_device(five[[*order]].reshape(1, 5)) for order in permutations(range(5))]
        of_each = numpy.array([small(x).item() for x in orders])
    metrics |= {
        "spread of one D(y_1, ..., y_5)": float(numpy.ptp(of_each)),
        "its mean over all 5! orders": of_each.mean(),
    }
    return (
        f"over 200 orders the batch mean of D moves by {one:.1g}, one D of the whole list by {whole:.2g}; the mean over"
        f" all {len(orders)} orders of 5 samples, which does not depend on their order either, would take M! terms"
    ), metrics


def fight(path: Path, scale: float) -> Report:
    """4. The fight: L1 beside the distance of the generated samples to the target."""
    settings, target = scaled(replace(LINE, iterations=300, critic_steps=20), scale), real(toys.bimodal)
    runs = side_by_side(l1_and_distance, [replace(settings, seed=seed) for seed in SEEDS], "fight")
    at, l1, distance, samples = runs[0]
    both = {"L1": (at[1:], l1[1:]), "distance": (at[1:], distance[1:])}
    panels = [lines("L1, and the distance", both, "iteration", marks=[0], scale=("log", "linear"), style=".-")]
    for i, generated in zip(at, samples):
        if i in (0, 4, 10, 20, 200):
            panels.append(histograms(f"iteration {i}", {"target": target[:, 0], "generated": generated[:, 0]}, -4, 4))
    save(path, panels, columns=3)
    parts = {"from 4 to 150": (at >= 4) & (at <= 150), "from 150 on": at >= 150}
    together = {name: [correlation(run[1][part], run[2][part]) for run in runs] for name, part in parts.items()}
    (early, _), (low, high) = ((min(each), max(each)) for each in together.values())
    last, least = [x[at <= 150][-1] for x in (at, distance)]
    return (
        f"L1 follows the distance, from {distance[0]:.2f} down to {least:.2f} in {last} iterations"
        f" (correlation {early:.2f} or more, over {len(SEEDS)} seeds, once the critic has had 4 iterations); then it is"
        f" noise about 0, and tells less ({low:.2f} to {high:.2f})"
    ), {
        **{f"correlation {name}, by seed": dict(zip(map(str, SEEDS), each)) for name, each in together.items()},
        **{f"L1 at {i}": float(x) for i, x in zip(at, l1) if i in (2, 10, 20, 40, 100, at[-1])},
        **{f"distance at {i}": float(d) for i, d in zip(at, distance) if i in (2, 10, 20, 40, 100, at[-1])},
    }


def l1_and_distance(settings: Settings) -> tuple[numpy.ndarray, ...]:
    """At moments of a fight: iterations (t,), L1 (t,), the distance to the target (t,), and samples (t, 4000, 1)."""
    moments = [*range(0, 41, 2), *range(50, settings.iterations + 1, 25)]
    run = train(settings, toys.bimodal, None, lambda m: backend.to_numpy(m.generate(4000)), moments)
    at, samples = map(numpy.array, zip(*run.seen))
    distance = [sliced_wasserstein(generated, real(toys.bimodal)) for generated in samples]
    return at, run.l1[numpy.maximum(at - 1, 0)], numpy.array(distance), samples


def correlation(x: numpy.ndarray, y: numpy.ndarray) -> float:
    return float(numpy.corrcoef(x, y)[0, 1]) if len(x) > 1 else 0.0


def unconstrained(path: Path, scale: float) -> Report:
    """5. Not over yet: without a constraint L1 has no bound; a sigmoid on D bounds L1, but the gradients vanish."""
    base = scaled(replace(LINE, iterations=250, critic_steps=20, decay="constant"), scale)
    kinds = {
        "penalty": base,
        "none": replace(base, penalty="none"),
        "sigmoid": replace(base, penalty="none", critic_output="sigmoid"),
    }
    far = toys.mixture(numpy.array([[6.0]]), 0.5)
    steps = max(50, round(1000 * scale))
    alone = {name: (numpy.arange(steps), critic_alone(s, far, steps)) for name, s in kinds.items()}
    moments = range(0, base.iterations + 1, max(1, base.iterations // 50))
    runs = {name: train(s, far, f"unconstrained, {name}", generator_gradient, moments) for name, s in kinds.items()}
    fight = {name: (numpy.arange(1, base.iterations + 1), run.l1) for name, run in runs.items()}
    gradient: Any = {name: tuple(map(numpy.array, zip(*run.seen))) for name, run in runs.items()}
    samples = {name: run.samples()[:, 0] for name, run in runs.items()}
    symlog, log = ("linear", "symlog"), ("linear", "log")
    panels = [
        lines("L1, the generator standing still", alone, "critic step", scale=symlog),
        lines("L1 in the fight", fight, "iteration", scale=symlog),
        lines("norm of the generator's gradient", gradient, "iteration", scale=log),
        histograms("at the end", {"target": real(far)[:, 0], **samples}, -2, 10),
    ]
    save(path, panels, columns=4)
    metrics = {f"last L1, critic alone, {name}": float(l1[-1]) for name, (_, l1) in alone.items()}
    metrics |= {f"largest L1 in the fight, {name}": float(numpy.abs(run.l1).max()) for name, run in runs.items()}
    metrics |= {f"last gradient, {name}": run.seen[-1][1] for name, run in runs.items()}
    metrics |= {f"distance, {name}": sliced_wasserstein(run.samples(), real(far)) for name, run in runs.items()}
    last = {name: l1[-1] for name, (_, l1) in alone.items()}
    return (
        f"a critic alone comes to L1 {last['penalty']:.3g} with a penalty, {last['none']:.3g} without, and"
        f" {last['sigmoid']:.3g} under a sigmoid, where the generator's gradient is {runs['sigmoid'].seen[-1][1]:.1g}"
    ), metrics


NEAR = 0.2  # a sample within this distance of the centre of a Gaussian counts as its sample


def constraints(path: Path, scale: float) -> Report:
    """6. Lipschitz, and the result of the penalty: the four formulas and the other constraints, side by side."""
    base = scaled(PLANE, scale)
    kinds = {
        "(a) gradient, max(s, 1)": replace(base, penalty="one-sided-max"),
        "(b) gradient, (s - 1)^2": replace(base, penalty="two-sided"),
        "(c) difference, max(s, 1)": replace(base, penalty="one-sided-max", slope="difference"),
        "(d) difference, (s - 1)^2": replace(base, penalty="two-sided", slope="difference"),
        "gradient, relu(s - 1)^2": base,
        "clipping": replace(base, penalty="none", constraint="clip"),
        "spectral": replace(base, penalty="none", constraint="spectral"),
        "spectral and (a)": replace(base, penalty="one-sided-max", constraint="spectral"),
        "none": replace(base, penalty="none"),
    }
    line, metrics = compare(path, kinds, "constraints")
    for name in ("(c) difference, max(s, 1)", "spectral and (a)"):
        steepest, mean = (metrics[name][what] for what in ("slope, steepest pair", "slope by gradient, mean"))
        line += f"; {name}: steepest pair {steepest:.1f}, mean slope {mean:.2f}"
    return f"{line} (where a spectral norm holds the slope below 1, max(s, 1) never acts)", metrics


def where(path: Path, scale: float) -> Report:
    """7. Where to penalise: between real and generated samples, or on the real, the generated, or both."""
    return compare(path, {name: replace(scaled(PLANE, scale), where=name) for name in WHERE}, "where")


def games(path: Path, scale: float) -> Report:
    """9. Then what: the other games, with the same Lipschitz penalty."""
    return compare(path, {name: replace(scaled(PLANE, scale), game=name) for name in GAMES}, "games")


SEEDS = range(3)
EXTENT = 2.2  # of a picture of the plane
FAR, NEAREST, FURTHEST = "distance to the target", "its least of the seeds", "its largest"


def compare(path: Path, kinds: dict[str, Settings], what: str) -> Report:
    """A report of training on the eight Gaussians, over seeds: means of metrics, with the spread of the distance."""
    target, panels = real(toys.eight_gaussians), []
    measured: dict[str, dict[str, Any]] = {}
    each = [replace(settings, seed=seed) for settings in kinds.values() for seed in SEEDS]
    runs = iter(side_by_side(on_eight_gaussians, each, what))
    for name in kinds:
        rows, samples, scores = zip(*islice(runs, len(SEEDS)))
        measured[name] = {column: float(numpy.mean([row[column] for row in rows])) for column in rows[0]}
        measured[name] |= {NEAREST: min(row[FAR] for row in rows), FURTHEST: max(row[FAR] for row in rows)}
        panels.append(scatter(name, {"real": target[:500], "generated": samples[-1]}, EXTENT, scores[-1]))
    for column in rows[0]:
        panels.append(bars(column, {name: row[column] for name, row in measured.items()}))
    save(path, panels, columns=3)
    order = sorted(measured, key=lambda name: measured[name][FAR])
    low, high = (measured[order[0]][what] for what in (NEAREST, FURTHEST))
    alike = [name for name in order if measured[name][FAR] <= high]
    others = [f"{name} {measured[name][FAR]:.3f}" for name in order if name not in alike]
    near = f"alike, within the best's spread over {len(SEEDS)} seeds ({low:.3f} to {high:.3f}): {', '.join(alike)}"
    return f"{near}{'; further from the target: ' * bool(others)}{', '.join(others)}", measured


def on_eight_gaussians(settings: Settings) -> tuple[dict[str, float], numpy.ndarray, numpy.ndarray]:
    """What a run comes to: its metrics, 1000 samples, and the critic's scores on a grid."""
    run, target = train(settings, toys.eight_gaussians), real(toys.eight_gaussians)
    samples = run.samples()
    between = numpy.concatenate((samples[:500], target[:500], (samples[:500] + target[:500]) / 2))
    slope = backend.to_numpy(gradient_norm(run.model.critic, backend.on_device(between, dtype="float32")))
    metrics = {
        "L1": float(run.l1[-max(1, len(run.l1) // 20) :].mean()),  # over the last twentieth
        "slope by gradient, mean": float(slope.mean()),
        "slope, steepest pair": steepest_pair(run.scores(between), between),
        FAR: sliced_wasserstein(samples, target),
        "share near a mode": modes_found(samples, EIGHT, NEAR)[1],
        "ms an iteration": 1000 * run.seconds / len(run.l1),
    }
    return metrics, samples[:1000], run.scores(grid(EXTENT))


def plane(path: Path, scale: float) -> Report:
    """8. Two dimensions: the critic's level sets over real and generated points, as in Gulrajani et al. 2017."""
    longer: dict[str, Any] = {"iterations": 1500, "learning_rate": 3e-3, "lambda_": 10.0}
    settings = scaled(replace(PLANE, critic=(128, 128), generator=(128, 128), **longer), scale)
    panels, metrics = [], {}
    for name, draw, centres in (
        ("8 Gaussians", toys.eight_gaussians, EIGHT),
        ("25 Gaussians", toys.twenty_five_gaussians, TWENTY_FIVE),
        ("Swiss roll", toys.swiss_roll, None),
    ):
        run = train(settings, draw, f"plane, {name}")
        samples, target = run.samples(), real(draw)
        drawn = {"real": target[:1000], "generated": samples[:1000]}
        panels.append(scatter(name, drawn, EXTENT, run.scores(grid(EXTENT))))
        metrics[f"distance, {name}"] = sliced_wasserstein(samples, target)
        metrics[f"distance of real from real, {name}"] = sliced_wasserstein(real(draw, seed=1), target)
        if centres is not None:
            found, near = modes_found(samples, centres, NEAR)
            metrics |= {f"modes found, {name}": found, f"share near a mode, {name}": near}
    save(path, panels, columns=3, size=(5, 5))
    all_found = " and ".join(f"{metrics[f'modes found, {n} Gaussians']} of {n} Gaussians" for n in (8, 25))
    return f"{all_found} are found; D is low on the real points, and the generated ones have run down to them", metrics


SECTIONS: dict[str, Callable[[Path, float], Report]] = {
    section.__name__: section
    for section in (interview, divergences, order, fight, unconstrained, constraints, where, plane, games)
}
