"""How good samples are, beside real images. ``python -m minigan.judge`` trains the classifier that this takes."""

from .judge import Judge, find_judge

__all__ = ["Judge", "find_judge"]
