"""The sections of the article, each a function that tests the section's claim.

A section trains the models that it needs, draws its picture at ``path``, and returns one line of result, with the
metrics. The sections follow Su Jianlin, kexue.fm archive 4439; the article's last one, MNIST, is ``run_mnist.py``.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy

from .. import backend
from ..losses import GAMES
from ..nn import MLP
from ..penalties import WHERE, gradient_norm
from ..run.pictures import lines
from ..tensor import no_grad
from ..training import outputs
from . import toys
from .distances import js, js_article, modes_found, shares, sliced_wasserstein, steepest_pair
from .experiment import LINE, PLANE, Trained, critic_alone, end, generator_gradient, scaled, train
from .panels import bars, histograms, save, scatter
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


def divergences(path: Path, scale: float) -> Report:
    """2. KL, JS: estimates by counting in bins, against the exact values; and why counting fails in many dimensions."""
    bins, grid = 20, (numpy.arange(20_000) + 0.5) / 20_000
    p, q = (1 + tilt * (grid - 0.5) for tilt in (1, -1))
    by_quadrature = {
        "article": float(((p - q) * numpy.log(p / q)).mean() / 2),
        "usual": float((p * numpy.log(2 * p / (p + q)) + q * numpy.log(2 * q / (p + q))).mean() / 2),
    }
    sizes = (10 ** numpy.linspace(1, 6, 26)).astype(int)
    estimates: dict[str, list[float]] = {"article": [], "usual": []}
    for n in sizes:
        rng, edges = backend.default_rng(int(n)), numpy.linspace(0, 1, bins + 1)
        drawn = [backend.to_numpy(toys.tilted(tilt)(int(n), rng))[:, 0] for tilt in (1, -1)]
        counted = [shares(samples, edges) for samples in drawn]
        estimates["article"].append(js_article(*counted))
        estimates["usual"].append(js(*counted))
    panels = [
        lines(
            f"JS, {name} form: {value:.4f} by quadrature",
            {"by counting": (sizes, numpy.array(estimates[name]))},
            "samples",
            "JS",
            marks=[value],
            scale=("log", "linear"),
        )
        for name, value in by_quadrature.items()
    ]
    save(path, panels, columns=2)
    metrics: dict[str, Any] = {f"JS {name}, exact": value for name, value in by_quadrature.items()}
    metrics |= {f"JS {name}, by counting {sizes[-1]}": values[-1] for name, values in estimates.items()}
    metrics["sizes at which the article's is infinite"] = int(numpy.isinf(estimates["article"]).sum())
    metrics["decimal digits of 2^784"] = len(str(2**784))
    return (
        f"from {sizes[-1]:,} samples JS is {estimates['article'][-1]:.4f} in the article's form (exactly"
        f" {by_quadrature['article']:.4f}) and {estimates['usual'][-1]:.4f} in the usual one (exactly"
        f" {by_quadrature['usual']:.4f}); from few, the article's is infinite"
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
    return f"over 200 orders the batch mean of D moves by {one:.1g}, one D of the whole list by {whole:.2g}", metrics


def fight(path: Path, scale: float) -> Report:
    """4. The fight: L1 falls while the generated histogram approaches the target."""
    run = train(scaled(LINE, scale), toys.bimodal, "fight", lambda m: backend.to_numpy(m.generate(4000)))
    target = real(toys.bimodal)
    panels = [lines("L1", {"": (run.iterations, run.l1)}, "iteration", marks=[0])]
    for i, samples in run.seen:
        panels.append(histograms(f"iteration {i}", {"target": target[:, 0], "generated": samples[:, 0]}, -4, 4))
    save(path, panels, columns=5)
    high, low = float(run.l1.max()), end(run.l1)
    distances = {f"distance at {i}": sliced_wasserstein(samples, target) for i, samples in run.seen}
    return f"L1 falls from {high:.2g} to {low:.2g} as the histograms meet", {
        "largest L1": high,
        "last L1": low,
        **distances,
    }


def unconstrained(path: Path, scale: float) -> Report:
    """5. Not over yet: without a constraint L1 has no bound; a sigmoid on D bounds L1, but the gradients vanish."""
    base = scaled(replace(LINE, iterations=400, critic_steps=20, decay="constant"), scale)
    kinds = {
        "penalty": base,
        "none": replace(base, penalty="none"),
        "sigmoid": replace(base, penalty="none", critic_output="sigmoid"),
    }
    far = toys.mixture(numpy.array([[6.0]]), 0.5)
    steps = max(50, round(1000 * scale))
    alone = {name: (numpy.arange(steps), critic_alone(s, far, steps)) for name, s in kinds.items()}
    runs = {name: train(s, far, f"unconstrained, {name}", generator_gradient, 50) for name, s in kinds.items()}
    fight = {name: (run.iterations, run.l1) for name, run in runs.items()}
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
    runs = {name: train(s, toys.eight_gaussians, f"constraints, {name}") for name, s in kinds.items()}
    return compare(path, runs)


def where(path: Path, scale: float) -> Report:
    """7. Where to penalise: between real and generated samples, on the real samples, or on the generated samples."""
    kinds = {name: replace(scaled(PLANE, scale), where=name) for name in WHERE}
    return compare(path, {name: train(s, toys.eight_gaussians, f"where, {name}") for name, s in kinds.items()})


def games(path: Path, scale: float) -> Report:
    """9. Then what: the other games, with the same Lipschitz penalty."""
    kinds = {name: replace(scaled(PLANE, scale), game=name) for name in GAMES}
    return compare(path, {name: train(s, toys.eight_gaussians, f"games, {name}") for name, s in kinds.items()})


def compare(path: Path, runs: dict[str, Trained]) -> Report:
    """A report of runs on the eight Gaussians: their metrics and pictures side by side."""
    target = real(toys.eight_gaussians)
    measured: dict[str, dict[str, float]] = {}
    panels = []
    for name, run in runs.items():
        samples = run.samples()
        between = numpy.concatenate((samples[:500], target[:500], (samples[:500] + target[:500]) / 2))
        slope = backend.to_numpy(gradient_norm(run.model.critic, backend.on_device(between, dtype="float32")))
        measured[name] = {
            "L1": end(run.l1),
            "slope by gradient, mean": float(slope.mean()),
            "slope, steepest pair": steepest_pair(run.scores(between), between),
            "distance to the target": sliced_wasserstein(samples, target),
            "share near a mode": modes_found(samples, EIGHT, NEAR)[1],
            "ms an iteration": 1000 * run.seconds / len(run.l1),
        }
        panels.append(scatter(name, {"real": target[:500], "generated": samples[:1000]}, 2.2, run.scores))
    columns = list(next(iter(measured.values())))
    for column in columns:
        panels.append(bars(column, {name: row[column] for name, row in measured.items()}))
    save(path, panels, columns=3)
    best = min(measured, key=lambda name: measured[name]["distance to the target"])
    return f"nearest to the target: {best}", measured


def plane(path: Path, scale: float) -> Report:
    """8. Two dimensions: the critic's level sets over real and generated points, as in Gulrajani et al. 2017."""
    longer: dict[str, Any] = {"iterations": 3000, "critic_steps": 2, "learning_rate": 3e-3, "lambda_": 10.0}
    settings = scaled(replace(PLANE, critic=(128, 128), generator=(128, 128), **longer), scale)
    panels, metrics = [], {}
    for name, draw, centres in (
        ("8 Gaussians", toys.eight_gaussians, EIGHT),
        ("25 Gaussians", toys.twenty_five_gaussians, TWENTY_FIVE),
        ("Swiss roll", toys.swiss_roll, None),
    ):
        run = train(settings, draw, f"plane, {name}")
        samples, target = run.samples(), real(draw)
        panels.append(scatter(name, {"real": target[:1000], "generated": samples[:1000]}, 2.2, run.scores))
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
