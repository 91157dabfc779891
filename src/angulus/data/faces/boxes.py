"""Boxes [N, 4] as left, top, right, bottom in pixels, the right and bottom edges outside: overlap and suppression."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Relative = Literal["union", "smaller"]

_BLOCK = 128  # candidates that are compared with each other at once: the matrix stays in the cache


def overlaps(first: Floats, second: Floats, relative: Relative = "union") -> Floats:
    """The area that two boxes share over that of their union, or of the smaller one: [N, 4], [M, 4] -> [N, M].

    >>> overlaps(np.array([[0.0, 0, 2, 2]]), np.array([[1.0, 0, 3, 2], [5, 5, 6, 6]])).round(3).tolist()
    [[0.333, 0.0]]
    """
    left, top, right, bottom = (first[:, None, k] for k in range(4))
    width = np.minimum(right, second[:, 2]) - np.maximum(left, second[:, 0])
    height = np.minimum(bottom, second[:, 3]) - np.maximum(top, second[:, 1])
    shared = np.maximum(width, 0) * np.maximum(height, 0)
    one, other = areas(first)[:, None], areas(second)
    whole = np.minimum(one, other) if relative == "smaller" else one + other - shared
    share: Floats = np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)
    return share


def areas(boxes: Floats) -> Floats:
    """Width times height, [N]."""
    product: Floats = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return product


def suppress(boxes: Floats, scores: Floats, most: float, relative: Relative = "union") -> NDArray[np.intp]:
    """Greedy non-maximum suppression: the best box stays and drops all that it overlaps by more than `most`; repeat.

    Args:
        boxes: [N, 4].
        scores: [N]; among equal ones the earlier is the better.
        most: the overlap that is still let stand, in [0, 1].
        relative: what the shared area is measured by.

    Returns:
        The rows that stay, best first.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = boxes[order]
    kept = np.zeros(0, dtype=np.intp)
    for start in range(0, len(ranked), _BLOCK):
        block = np.arange(start, min(start + _BLOCK, len(ranked)))
        if len(kept):
            block = block[~(overlaps(ranked[block], ranked[kept], relative) > most).any(axis=1)]
        clash = overlaps(ranked[block], ranked[block], relative) > most
        alive = np.ones(len(block), dtype=bool)
        for row in range(len(block)):
            if alive[row]:
                alive[row + 1 :] &= ~clash[row, row + 1 :]
        kept = np.concatenate([kept, block[alive]])
    return order[kept]


def refined(boxes: Floats, moves: Floats) -> Floats:
    """Each edge moved by its share of the box's width (left, right) or height (top, bottom): [N, 4], [N, 4]."""
    sides = boxes[:, 2:] - boxes[:, :2]
    moved: Floats = boxes + moves * np.concatenate([sides, sides], axis=1)
    return moved
