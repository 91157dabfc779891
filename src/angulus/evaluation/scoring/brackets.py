"""Find the r-th highest of more scores than memory holds: count those above a bracket, collect those inside."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
BINS = 2**20
SETTLE = 2**12  # scores that may wait to be sorted in


@dataclass(frozen=True)
class RankedScore:
    """The r-th highest score, and how many scores are higher."""

    value: float
    higher: int


@dataclass(frozen=True)
class Between:
    """Bounds [low, high] of an r-th highest score that was not found; `inside`: the bracket held it."""

    low: float
    high: float
    inside: bool


@dataclass
class Bracket:
    """Holds the scores in [low, high], to find the wanted ranks (1 = the highest of all); counts those above."""

    low: float  # rises as scores come in, once enough are held that none of the ranks can be lower
    high: float  # fixed
    ranks: Sequence[int]  # the wanted ones
    # distinct scores to hold at most. Beyond it, they are counted in `BINS` equal bins over the initial bracket, which
    # finds each rank to within a bin, for the next pass
    capacity: int
    above: int = 0  # number of scores above `high`
    # the distinct scores held, falling, and how many of each
    values: Floats = field(default_factory=lambda: np.empty(0))
    counts: Counts = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    bins: Counts | None = None  # counts by rising bin, or None

    def __post_init__(self) -> None:
        self.span = (max(self.low, -1.0 - 1e-9), min(self.high, 1.0 + 1e-9))
        self._waiting: list[Floats] = []
        self._waits = 0

    def add(self, scores: Floats) -> None:
        """Count the scores above, hold those inside, drop those below."""
        self.above += int((scores > self.high).sum())
        scores = scores[(scores >= self.low) & (scores <= self.high)]
        self._waiting.append(scores)
        self._waits += len(scores)
        if self._waits > max(SETTLE, min(len(self.values), self.capacity)):
            self.settle()

    def settle(self) -> None:
        """Merge the waiting scores, drop those that no rank can need, and switch to bins if too many are left."""
        if self._waits:
            fresh = np.concatenate(self._waiting)
            self._waiting, self._waits = [], 0
            self._merge(fresh, np.ones(len(fresh), dtype=np.int64))

    def merge(self, other: "Bracket") -> None:
        """Merge what another process counted and held for the same bracket."""
        self.settle()
        self.above += other.above
        self.low = max(self.low, other.low)
        if other.bins is not None:
            self._to_bins()
            self.bins = other.bins + (0 if self.bins is None else self.bins)
        self._merge(other.values, other.counts)

    def find(self, rank: int) -> RankedScore | Between:
        """The score of a rank, or its bounds."""
        self.settle()
        if rank <= self.above:
            return Between(self.high, math.inf, False)
        if self.bins is not None:
            return self._find_bin(rank, self.bins)
        upto = self.above + self.counts.cumsum()
        place = int(np.searchsorted(upto, rank))
        if place == len(upto):
            return Between(-math.inf, self.low, False)
        return RankedScore(float(self.values[place]), int(upto[place] - self.counts[place]))

    def _merge(self, values: Floats, counts: Counts) -> None:
        if self.bins is not None:
            self.bins += np.bincount(self._bin(values), weights=counts, minlength=BINS).astype(np.int64)
            return
        values, counts = np.concatenate([self.values, values]), np.concatenate([self.counts, counts])
        order = np.argsort(-values, kind="stable")
        values, counts = values[order], counts[order]
        first = np.flatnonzero(np.append(True, values[1:] != values[:-1])[: len(values)])
        values, counts = values[first], np.add.reduceat(counts, first) if len(first) else counts
        enough = int(np.searchsorted(self.above + counts.cumsum(), max(self.ranks)))
        if enough < len(values):
            self.low = max(self.low, float(values[enough]))
        held = int(np.searchsorted(-values, -self.low, side="right"))
        self.values, self.counts = values[:held], counts[:held]
        if held > self.capacity:
            self._to_bins()

    def _to_bins(self) -> None:
        if self.bins is None:
            self.bins = np.zeros(BINS, dtype=np.int64)
            values, counts = self.values, self.counts
            self.values, self.counts = np.empty(0), np.empty(0, dtype=np.int64)
            self._merge(values, counts)

    def _bin(self, values: Floats) -> Counts:
        low, high = self.span
        width = max(high - low, 5e-324)
        return np.clip((values - low) / width * BINS, 0, BINS - 1).astype(np.int64)

    def _find_bin(self, rank: int, bins: Counts) -> Between:
        upto = self.above + bins[::-1].cumsum()
        place = int(np.searchsorted(upto, rank))
        if place == BINS:
            return Between(-math.inf, self.low, False)
        low, high = self.span
        number = BINS - 1 - place
        loose = 16 * np.finfo(np.float64).eps * max(abs(low), abs(high))  # the bin of a score and its edges are rounded
        lower, upper = (low + (high - low) * edge / BINS for edge in (number, number + 1))
        return Between(max(self.low, lower - loose), min(self.high, upper + loose), True)


def merge_overlaps(wanted: Sequence[tuple[float, float, int]], capacity: int) -> list[Bracket]:
    """Brackets for (low, high, rank), from the highest to the lowest; overlapping ones become one."""
    spans: list[tuple[float, float, list[int]]] = []
    for low, high, rank in sorted(wanted, key=lambda span: -span[1]):
        if spans and high >= spans[-1][0]:
            before = spans[-1]
            spans[-1] = (min(low, before[0]), before[1], [*before[2], rank])
        else:
            spans.append((low, high, [rank]))
    return [Bracket(low, high, ranks, capacity) for low, high, ranks in spans]
