"""Readers of the field's formats: each yields rows one at a time, and names what it leaves out."""

from __future__ import annotations

from angulus.data.sources.common import Item, LeftOut, Remark
from angulus.data.sources.registry import KINDS, Options, kind_of, read_source

__all__ = ["KINDS", "Item", "LeftOut", "Options", "Remark", "kind_of", "read_source"]
