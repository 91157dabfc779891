"""Data sets as tensors in memory: `load("digits")`, `load("mnist")`."""

from __future__ import annotations

from angulus.data.images import Images, Splits
from angulus.data.table import load, names

__all__ = ["Images", "Splits", "load", "names"]
