"""Pairs that a list names more than once: they count once for what a list can show, and must not contradict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angulus.core import checks

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Distinct:
    """Which pairs of a list are one pair, in either order.

    Attributes:
        number: [P] int64, of the distinct pair that each is.
        first: [D] int64, the place of the first mention of each distinct pair.
        genuine, impostors: how many distinct ones.
        notes: what a reader must know; empty for a list without repeats.
    """

    number: Rows
    first: Rows
    genuine: int
    impostors: int
    notes: tuple[str, ...]

    @property
    def supporting(self) -> str:
        """What is counted where a FAR needs enough impostors."""
        return "distinct impostor pairs" if self.notes else "impostor pairs"

    @property
    def counts(self) -> dict[str, int]:
        """For a result's counts: how many pairs repeat another, where any do."""
        repeats = len(self.number) - len(self.first)
        return {"repeated pairs": repeats} if repeats else {}


def distinct(left: Rows, right: Rows, same: NDArray[np.bool_], names: NDArray[Any], source: str) -> Distinct:
    """Find the pairs that are listed more than once, in either order.

    Args:
        left, right: [P], numbers of what is compared, in [0, len(names)).
        same: [P], which are genuine.
        names: what the list calls them.
        source: the list, for messages.

    Raises:
        checks.InputError: something is compared with itself, or a pair is listed as genuine and as impostor; names the
            places, counted in pairs from 1.
    """
    low, high = np.minimum(left, right).astype(np.int64), np.maximum(left, right).astype(np.int64)

    def told(place: int) -> str:
        return f"pair {place + 1:,} ({names[left[place]]} {names[right[place]]} {int(same[place])})"

    alone = np.flatnonzero(low == high)
    if len(alone):
        raise checks.InputError(
            f"{source} must compare each with another; {told(int(alone[0]))} compares one with itself"
        )
    _, first, number = np.unique(low * len(names) + high, return_index=True, return_inverse=True)
    against = np.flatnonzero(same != same[first[number]])
    if len(against):
        place = int(against[0])
        raise checks.InputError(
            f"{source} must list a pair as genuine (1) or as impostor (0); {told(int(first[number[place]]))} and "
            f"{told(place)} contradict each other; correct or remove one"
        )
    genuine = int(same[first].sum())
    return Distinct(number, first, genuine, len(first) - genuine, _notes(number, first, told))


def _notes(number: Rows, first: Rows, told: Callable[[int], str]) -> tuple[str, ...]:
    repeats = len(number) - len(first)
    if not repeats:
        return ()
    mentions = np.ones(len(number), dtype=bool)
    mentions[first] = False
    place = int(np.flatnonzero(mentions)[0])
    return (
        f"{repeats:,} of the {len(number):,} pairs repeat another, {told(place)} the first; "
        f"only the {len(first):,} distinct ones count for which FARs the list can show",
    )
