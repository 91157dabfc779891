"""Cells and tables of reports."""

from __future__ import annotations

import math
from collections.abc import Mapping

from angulus.experiments.compare import Cell

NONE = "—"  # no number


def cell(value: Cell, digits: int) -> str:
    """Mean ± deviation over seeds; the mean alone for one seed.

    >>> cell(Cell([99.0, 99.2]), 2), cell(Cell([99.0]), 2)
    ('99.10 ± 0.14', '99.00')
    """
    if math.isnan(value.mean):
        return NONE
    deviation = "" if math.isnan(value.deviation) else f" ± {value.deviation:.{digits}f}"
    return f"{value.mean:.{digits}f}{deviation}"


def number(values: Mapping[str, float], name: str) -> str:
    """A paper's number, or that it has none."""
    return f"{values[name]:.2f}" if name in values else NONE


def markdown_table(head: list[str], body: list[list[str]], *, numbers: bool = True) -> str:
    """A table in Markdown; `numbers`, all but the first column, stand to the right."""
    rows = [head, ["---", *["---:" if numbers else "---"] * (len(head) - 1)], *body]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)
