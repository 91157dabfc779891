"""Data sets by name, in memory or read on demand: `load("mnist")`, `stand_in("mnist")`, `list_datasets()`."""

from __future__ import annotations

from angulus.data.sets.images import Images, Pixels, Splits
from angulus.data.sets.registry import list_datasets, load
from angulus.data.sets.stand_ins import stand_in

__all__ = ["Images", "Pixels", "Splits", "list_datasets", "load", "stand_in"]
