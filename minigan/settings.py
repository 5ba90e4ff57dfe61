"""What a run is made of."""

from dataclasses import dataclass

from .choices import Choices
from .losses import GAMES
from .nn import ACTIVATIONS, CONSTRAINTS, INITS, OUTPUTS
from .penalties import FORMS, check_slope

# a random generator and a shape to noise, float32
NOISES = Choices(
    "noise",
    {
        "normal": lambda rng, shape: rng.standard_normal(shape, dtype="float32"),
        "uniform": lambda rng, shape: rng.random(shape, dtype="float32") * 2 - 1,
    },
)

# what the learning rate is multiplied by, once a share of the iterations is done
DECAYS = Choices("decay", {"linear": lambda share: max(1 - share, 0.0), "constant": lambda share: 1.0})

PENALTIES = Choices("penalty form", {**FORMS, "none": None})


@dataclass(frozen=True)
class Settings:
    """All that a run is made of; the defaults reach digits fast.

    Raises ValueError for a name that there is not, and for names that make no sense together.
    """

    # how long, and how often samples are drawn and judged: in iterations, one step of the generator each
    iterations: int = 10_000
    sample_every: int = 500
    evaluate_every: int = 2_000
    grid: int = 10  # rows and columns of a grid of samples
    seed: int = 0  # of everything random

    # the steps: Adam's, for both networks
    batch_size: int = 64
    critic_steps: int = 2  # for each one of the generator
    learning_rate: float = 2e-3
    decay: str = "constant"  # of the learning rate over the run: DECAYS
    betas: tuple[float, float] = (0.5, 0.9)
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
        check_slope(self.slope, self.where)
        for choices, name in (
            (DECAYS, self.decay),
            (GAMES, self.game),
            (PENALTIES, self.penalty),
            (CONSTRAINTS, self.constraint),
            (ACTIVATIONS, self.hidden),
            (OUTPUTS, self.output),
            (OUTPUTS, self.critic_output),
            (INITS, self.init),
            (NOISES, self.noise),
        ):
            _ = choices[name]


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
