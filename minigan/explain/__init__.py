"""The recorded graph and sweeps of a computation: ``python -m minigan.explain``, or ``explain(f)`` for your own."""

from .drawing import draw
from .story import Story, explain

__all__ = ["Story", "draw", "explain"]
