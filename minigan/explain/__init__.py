"""The engine's record, shown: ``python -m minigan.explain``, or ``explain(f)`` for any computation of one's own."""

from .story import Story, explain

__all__ = ["Story", "explain"]
