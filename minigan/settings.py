"""What a run is made of."""

import math
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from .backend import Array, kernel
from .choices import Choices
from .guards import check_slope
from .losses import GAMES
from .nn import ACTIVATIONS, CONSTRAINTS, INITS, OUTPUTS
from .penalties import FORMS, SLOPES, WHERE


@kernel
def normal(rng: Any, shape: tuple[int, int]) -> Array:
    return rng.standard_normal(shape, dtype="float32")


@kernel
def uniform(rng: Any, shape: tuple[int, int]) -> Array:
    return rng.random(shape, dtype="float32") * 2 - 1


NOISES = Choices("noise", {"normal": normal, "uniform": uniform})  # by a random generator, of a shape, float32

# what the learning rate is multiplied by, once a share of the iterations is done
DECAYS = Choices("decay", {"linear": lambda share: max(1 - share, 0.0), "constant": lambda share: 1.0})

PENALTIES = Choices("penalty form", {**FORMS, "none": None})


class Number(NamedTuple):
    """What a number may be: of ``kind``, int or float, from ``low`` (above it, if ``above``) to below ``high``."""

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


COUNT = Number(int, 1, 10**9)  # beyond, NumPy's own sizes overflow
POSITIVE = Number(float, 0, above=True)

NUMBERS = {
    **dict.fromkeys(("iterations", "sample_every", "evaluate_every", "batch_size", "noise_dim"), COUNT),
    **dict.fromkeys(("critic", "generator"), COUNT),
    "grid": Number(int, 1, 100),
    "seed": Number(int, 0),
    "critic_steps": Number(int, 1, 10**4),
    "learning_rate": POSITIVE,
    "betas": Number(float, 0, 1),
    "average": Number(float, 0, 1),
    "penalty_weight": Number(float, 0),
    "clip": POSITIVE,
}

NAMES = {
    "decay": DECAYS,
    "game": GAMES,
    "penalty": PENALTIES,
    "where": WHERE,
    "slope": SLOPES,
    "constraint": CONSTRAINTS,
    "hidden": ACTIVATIONS,
    "output": OUTPUTS,
    "critic_output": OUTPUTS,
    "init": INITS,
    "noise": NOISES,
}


@dataclass(frozen=True)
class Settings:
    """All that a run is made of; the defaults reach digits fast.

    Raises ValueError for what is not in NUMBERS or NAMES, and for names that make no sense together.
    """

    # how long, and how often samples are drawn and judged: in iterations, one step of the generator each
    iterations: int = 12_000
    sample_every: int = 500
    evaluate_every: int = 2_000
    grid: int = 10  # rows and columns of a grid of samples
    seed: int = 0  # of everything random

    # the steps: Adam's, for both networks
    batch_size: int = 64
    critic_steps: int = 2  # for each one of the generator
    learning_rate: float = 2e-3
    decay: str = "constant"  # of the learning rate over the run: DECAYS
    betas: tuple[float, float] = (0.0, 0.9)
    average: float = 0.9995  # how much of their running average the generator's weights keep in an iteration; 0: none

    # the game, and what holds the critic
    game: str = "wgan"  # GAMES
    penalty: str = "two-sided"  # on the critic's slopes: FORMS, or "none"
    where: str = "between"  # the points at which the penalty looks: WHERE
    slope: str = "gradient"  # how the slopes are measured: SLOPES
    penalty_weight: float = 10.0  # lambda
    constraint: str = "none"  # besides the penalty: CONSTRAINTS
    clip: float = 0.01  # what the constraint "clip" keeps every weight of the critic within

    # the networks: widths of the hidden layers, from the input to the output
    critic: tuple[int, ...] = (256, 128)
    generator: tuple[int, ...] = (128, 256)
    hidden: str = "relu"  # between the layers of both: ACTIVATIONS
    output: str | None = "sigmoid"  # at the generator's end, for pixels in [0, 1]: OUTPUTS
    critic_output: str | None = None  # at the critic's end: OUTPUTS
    init: str = "he"  # how the weights are drawn: INITS
    noise: str = "normal"  # what the generator makes samples of: NOISES
    noise_dim: int = 32  # so many numbers of it for each

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in NAMES:
                _ = NAMES[field.name][value if value is None else str(value)]
                continue
            several = value if isinstance(field.default, tuple) and isinstance(value, tuple) else (value,)
            number = NUMBERS[field.name]
            if not all(map(number.allows, several)) or (field.name == "betas" and len(several) != 2):
                raise ValueError(f"{field.name}: expected {number}, got {value!r}")
        check_slope(self.slope, self.where)


PRESETS = {
    "default": Settings(),
    "long": Settings(iterations=100_000, average=0.9999, sample_every=4_000, evaluate_every=10_000),
    "article": Settings(  # the article's own program
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
        noise="uniform",
        noise_dim=10,
    ),
}
