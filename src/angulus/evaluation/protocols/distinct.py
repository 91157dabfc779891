"""The distinct pairs of a list: which repeat another, and what contradicts itself."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angulus.core.checks import InputError
from angulus.evaluation.metrics.intervals import Flags, Rows
from angulus.evaluation.protocols.figures import few_pairs_notes


@dataclass(frozen=True, eq=False)
class Distinct:
    """The distinct pairs of a list, in either order."""

    number: Rows  # [P] int64, the distinct pair of each
    first: Rows  # [D] int64, the place of the first mention of each distinct pair
    genuine: int  # numbers of distinct pairs
    impostors: int
    notes: tuple[str, ...]  # what a reader must know; empty for a list without repeats

    @property
    def supporting(self) -> str:
        """What is counted where a FAR needs enough impostors."""
        return "distinct impostor pairs" if self.notes else "impostor pairs"

    @property
    def counts(self) -> dict[str, int]:
        """For a result's counts: how many pairs repeat another, if any."""
        repeats = len(self.number) - len(self.first)
        return {"repeated pairs": repeats} if repeats else {}

    def few_notes(self) -> tuple[str, ...]:
        """Notes on kinds of pairs that are too few."""
        return few_pairs_notes({"genuine": self.genuine, "impostor": self.impostors})


def distinct(left: Rows, right: Rows, same: Flags, names: NDArray[Any], source: str) -> Distinct:
    """Find the pairs that are listed more than once, in either order.

    Args:
        left, right: [P], numbers of what is compared, in [0, len(names)).
        same: [P], which are genuine.
        names: what the list calls them.
        source: the list, for messages.

    Raises:
        InputError: something is compared with itself, or a pair is listed as genuine and as impostor; names the
            places, counted in pairs from 1.
    """
    low, high = np.minimum(left, right).astype(np.int64), np.maximum(left, right).astype(np.int64)

    def describe(place: int) -> str:
        return f"pair {place + 1:,} ({names[left[place]]} {names[right[place]]} {int(same[place])})"

    alone = np.flatnonzero(low == high)
    if len(alone):
        raise InputError(f"{source} must compare each with another; {describe(int(alone[0]))} compares one with itself")
    _, first, number = np.unique(low * len(names) + high, return_index=True, return_inverse=True)
    against = np.flatnonzero(same != same[first[number]])
    if len(against):
        place = int(against[0])
        raise InputError(
            f"{source} must list a pair as genuine (1) or as impostor (0); {describe(int(first[number[place]]))} and "
            f"{describe(place)} contradict each other; correct or remove one"
        )
    genuine = int(same[first].sum())
    return Distinct(number, first, genuine, len(first) - genuine, _notes(number, first, describe))


def _notes(number: Rows, first: Rows, describe: Callable[[int], str]) -> tuple[str, ...]:
    repeats = len(number) - len(first)
    if not repeats:
        return ()
    mentions = np.ones(len(number), dtype=bool)
    mentions[first] = False
    place = int(np.flatnonzero(mentions)[0])
    return (
        f"{repeats:,} of the {len(number):,} pairs repeat another, {describe(place)} the first; "
        f"only the {len(first):,} distinct ones count for which FARs the list can show",
    )
