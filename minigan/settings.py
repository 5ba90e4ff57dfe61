"""The settings of a run: each once, with its default, its allowed values and its help."""

import math
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from .backend import Array
from .choices import Choices
from .losses import GAMES
from .nn import ACTIVATIONS, CONSTRAINTS, INITS, OUTPUTS
from .penalties import FORMS, SLOPES, WHERE, check_slope


def normal(rng: Any, shape: tuple[int, int]) -> Array:
    return rng.standard_normal(shape, dtype="float32")


def uniform(rng: Any, shape: tuple[int, int]) -> Array:
    return rng.random(shape, dtype="float32") * 2 - 1


NOISES = Choices("noise", {"normal": normal, "uniform": uniform})  # of a random generator and a shape; float32

# the learning rate's factor, as a function of the share of the iterations that is done
DECAYS = Choices("decay", {"linear": lambda share: max(1 - share, 0.0), "constant": lambda share: 1.0})


class Number(NamedTuple):
    """The allowed numbers of a ``kind``, int or float: from ``low`` (above ``low``, if ``above``) to below ``high``."""

    kind: type
    low: float
    high: float = math.inf
    above: bool = False

    def allows(self, value: Any) -> bool:
        kinds = (int,) if self.kind is int else (int, float)
        right = isinstance(value, kinds) and not isinstance(value, bool)
        return right and self.low <= value < self.high and not (self.above and value == self.low)

    def __str__(self) -> str:
        what, end = "a whole number" if self.kind is int else "a number", f" and below {self.high}"
        return f"{what} {'above' if self.above else 'of at least'} {self.low}{end if self.high < math.inf else ''}"


COUNT = Number(int, 1, 10**9)  # above, NumPy's own sizes overflow
POSITIVE = Number(float, 0, above=True)


def option(default: Any, help: str, allowed: Number | Choices) -> Any:
    """A setting: ``allowed`` has its values, or those of each of its numbers."""
    return field(default=default, metadata={"help": help, "allowed": allowed})


@dataclass(frozen=True)
class Settings:
    """All settings of a run; the defaults reach digits fast. Each has a flag of its name (``--lambda`` of ``lambda_``).

    Raises ValueError for values that are not allowed, and for names that do not go together.
    """

    iterations: int = option(21_000, "generator steps to train for", COUNT)
    sample_every: int = option(1_000, "iterations between two sample grids", COUNT)
    evaluate_every: int = option(3_500, "iterations between two evaluations of the samples", COUNT)
    grid: int = option(10, "rows and columns of a sample grid", Number(int, 1, 100))
    seed: int = option(0, "of everything random", Number(int, 0))

    batch_size: int = option(64, "samples in a batch", COUNT)
    critic_steps: int = option(1, "critic steps for each generator step", Number(int, 1, 10**4))
    learning_rate: float = option(2e-3, "Adam's, for both networks", POSITIVE)
    decay: str = option("constant", "of the learning rate over the run", DECAYS)
    betas: tuple[float, float] = option((0.0, 0.9), "Adam's, for both networks", Number(float, 0, 1))
    average: float = option(0.9993, "share that the generator's running average keeps; 0: none", Number(float, 0, 1))

    game: str = option("wgan", "the two losses", GAMES)
    penalty: str = option("two-sided", "on the critic's slopes", FORMS)
    where: str = option("between", "where the penalty looks", WHERE)
    slope: str = option("gradient", "how the slopes are measured", SLOPES)
    lambda_: float = option(10.0, "the penalty's weight", Number(float, 0))
    constraint: str = option("none", "besides the penalty", CONSTRAINTS)
    clip: float = option(0.01, "what the constraint clip keeps the critic's weights within", POSITIVE)

    critic: tuple[int, ...] = option((256, 128), "widths of the critic's hidden layers", COUNT)
    generator: tuple[int, ...] = option((128, 256), "widths of the generator's hidden layers", COUNT)
    hidden: str = option("relu", "between the layers of both", ACTIVATIONS)
    output: str | None = option("sigmoid", "at the generator's end, for pixels in [0, 1]", OUTPUTS)
    critic_output: str | None = option(None, "at the critic's end", OUTPUTS)
    init: str = option("he", "how the weights are drawn", INITS)
    noise: str = option("uniform", "what samples are made of", NOISES)
    noise_dim: int = option(32, "numbers of noise that make a sample", COUNT)

    def __post_init__(self) -> None:
        for setting in fields(self):
            value, allowed = getattr(self, setting.name), setting.metadata["allowed"]
            several = isinstance(setting.default, tuple)
            values = value if isinstance(value, tuple) else (value,)
            if (
                several != isinstance(value, tuple)
                or not all(map(allowed.allows, values))
                or (setting.name == "betas" and len(values) != 2)
            ):
                raise ValueError(f"{setting.name.rstrip('_')}: expected {allowed}, got {value!r}")
        check_slope(self.slope, self.where)


PRESETS = {
    "default": Settings(),
    "long": Settings(iterations=150_000, average=0.9999, sample_every=6_000, evaluate_every=15_000),
    "article": Settings(  # that of the article's program, to the article's last picture (the program: 1,000,000)
        iterations=400_000,
        sample_every=1_000,
        evaluate_every=40_000,
        grid=6,
        batch_size=100,
        critic_steps=5,
        learning_rate=1e-4,
        betas=(0.5, 0.999),
        average=0.0,
        penalty="one-sided-relu",
        critic=(128, 32),
        generator=(32, 128),
        init="uniform",
        noise_dim=10,
    ),
}
