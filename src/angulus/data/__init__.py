"""Data sets by name, as tensors or as pixels that are read when asked for: `load("mnist")`, `stand_in("mnist")`."""

from __future__ import annotations

from angulus.data.images import Images, Pixels, Splits
from angulus.data.stand_ins import stand_in
from angulus.data.table import load, names

__all__ = ["Images", "Pixels", "Splits", "load", "names", "stand_in"]
