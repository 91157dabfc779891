"""Nets that map images to features: `build("lenet++", in_channels=1, image_size=28, embedding_size=2)`."""

from __future__ import annotations

from angulus.backbones.table import build, names

__all__ = ["build", "names"]
