"""A run: a model in training, its checkpoint, its pictures and its page; and images as people have them."""

from .images import load_images
from .run import Run, load

__all__ = ["Run", "load", "load_images"]
