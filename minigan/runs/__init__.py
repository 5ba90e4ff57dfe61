"""What a run of training leaves in its folder, and what can be done with it: ``load``."""

from .checkpoint import Checkpoint, load

__all__ = ["Checkpoint", "load"]
