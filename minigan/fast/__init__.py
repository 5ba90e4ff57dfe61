"""An iteration made faster, and proven equal to the plain one: recorded and replayed, and shared by processes.

What makes a model faster is wrapped around it, and has an ``iteration()`` as the model has:

    replayed = Replayed(WGANGP(...))
    replayed.iteration()
"""

from .replay import Replayed
from .workers import sharing

__all__ = ["Replayed", "sharing"]
