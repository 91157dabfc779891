"""Readers of the field's formats: each yields rows one at a time, and names what it leaves out."""

from __future__ import annotations

from angulus.data.sources.items import Item, LeftOut, Remark, SourceOptions
from angulus.data.sources.kinds import KINDS, kind_of, read_source

__all__ = ["KINDS", "Item", "LeftOut", "Remark", "SourceOptions", "kind_of", "read_source"]
