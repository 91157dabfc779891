"""Data sets by name, in memory or read on demand: `load("mnist")`, `stand_in("mnist")`, `list_datasets()`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from angulus.data.sets.images import Images, Pixels, Splits
    from angulus.data.sets.registry import list_datasets, load
    from angulus.data.sets.stand_ins import stand_in

__all__ = ["Images", "Pixels", "Splits", "list_datasets", "load", "stand_in"]

_MODULE_OF = {name: "images" for name in ("Images", "Pixels", "Splits")}
_MODULE_OF |= {"list_datasets": "registry", "load": "registry", "stand_in": "stand_ins"}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Import a name at its first use: processes that decode and align images need no torch."""
        if name not in _MODULE_OF:
            raise AttributeError(f"module 'angulus.data' has no attribute {name!r}")
        value = globals()[name] = getattr(importlib.import_module(f"angulus.data.sets.{_MODULE_OF[name]}"), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
