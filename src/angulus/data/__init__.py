"""Data sets by name, as tensors or as pixels that are read when asked for: `load("mnist")`, `stand_in("mnist")`."""

from __future__ import annotations

from angulus.data.sets.images import Images, Pixels, Splits
from angulus.data.sets.registry import load, names
from angulus.data.sets.stand_ins import stand_in

__all__ = ["Images", "Pixels", "Splits", "load", "names", "stand_in"]
