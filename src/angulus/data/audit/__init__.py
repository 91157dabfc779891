"""Auditing a data set: overlaps with another, duplicates, likely wrong labels, a card, and lists of what to remove."""

from __future__ import annotations

from angulus.data.audit.findings import CERTAIN, LISTS, Audit, AuditSet, AuditSettings, audit
from angulus.data.audit.removals import Removal, Removed, apply_removals, check_free, read_list, write_list

__all__ = [
    "CERTAIN",
    "LISTS",
    "Audit",
    "AuditSet",
    "AuditSettings",
    "Removal",
    "Removed",
    "apply_removals",
    "audit",
    "check_free",
    "read_list",
    "write_list",
]
