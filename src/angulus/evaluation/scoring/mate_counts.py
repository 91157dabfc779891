"""How many gallery rows score above each mate of a probe, and how many the same: the ranks of all its matches.

Low-precision scores are compared with each mate's score ± the error bound. What is certainly above is counted; what is
within the bound is scored exactly, once for all mates of the probe. Where that would be much, as with many mates in
the bulk of the scores, a product in float64 first makes the bound narrower.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from angulus.core import checks
from angulus.evaluation.scoring.exact import Matrix
from angulus.evaluation.scoring.low_precision import PRECISIONS
from angulus.evaluation.scoring.mates import Integers, SideIds
from angulus.evaluation.scoring.tiles import DEFAULT, ScoreTile, ScoringOptions, Survivors, Task, task, tiles

FEW = 24  # mates of a probe up to which comparing the scores with each mate is faster than sorting the scores
DENSE = 1 / 32  # share of scores within the bound above which a float64 product is faster than scoring each of them
PADDED = 2**20  # mates of the probes of a strip, padded to the most that one of them has


def ahead_and_tied(
    probes: Matrix,
    gallery: Matrix,
    mates: tuple[ArrayLike, ArrayLike],
    *,
    ids: SideIds | None = None,
    options: ScoringOptions = DEFAULT,
) -> tuple[Integers, Integers]:
    """How many gallery rows score higher with the probe than each of its mates, and how many score the same.

    A mate's rank among the rows that are left is 1 + ahead, up to 1 + ahead + tied if the tied rows come first.

    Args:
        probes: [P, d], as for `top_k`.
        gallery: [N, d]; the mates themselves count like all other rows, unless `ids` leaves them out.
        mates: (probe rows [M], exact scores [M] from `pair_scores` or `genuine`), any number per probe.
        ids: (identities of the probes, of the gallery), to leave out pairs of one identity.
        options: as for `top_k`; precision "auto" is float32, whose narrow bound leaves less to be scored exactly.

    Returns:
        [M] and [M] of int64.

    >>> a = torch.eye(2)
    >>> gallery = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, -1.0], [2.0, 0.0]])
    >>> [counts.tolist() for counts in ahead_and_tied(a, gallery, ([0, 0, 1], [1.0, 0.5, 0.0]))]
    [[0, 3, 1], [2, 0, 2]]
    """
    work = task(probes, gallery, ids, options)
    asked = _Mates.of(mates, len(work.probes))
    dtype = PRECISIONS["float32" if options.precision == "auto" else options.precision]

    def mine() -> NDArray[np.int64]:
        counter = _Counter(work, asked)
        for tile in tiles(work, dtype):
            counter.see(tile)
        return counter.result()

    sums = np.sum(options.ranks.gather_from_all(mine), axis=0)
    result = np.empty_like(sums)
    result[:, asked.order] = sums
    return result[0], result[1]


@dataclass(frozen=True)
class _Mates:
    """Scores by probe, rising within each; `order` holds their places in the caller's arrays."""

    begins: Integers  # [P + 1]: where each probe's mates begin
    scores: NDArray[np.float64]  # [M]
    order: Integers  # [M]

    @staticmethod
    def of(mates: tuple[ArrayLike, ArrayLike], probes: int) -> "_Mates":
        rows, scores = (np.asarray(part) for part in mates)
        known = rows.dtype.kind in "iu" and rows.ndim == 1 and (not len(rows) or 0 <= rows.min() <= rows.max() < probes)
        if not known:
            raise checks.InputError(f"rows of mates must be [M] of whole numbers in [0, {probes}); got {rows.dtype}")
        if scores.shape != rows.shape or not np.isfinite(scores).all():
            raise checks.InputError(
                f"scores of mates must be [{len(rows)}] of finite numbers; got {list(scores.shape)}"
            )
        order = np.lexsort((scores, rows))
        begins = np.append(0, np.bincount(rows, minlength=probes).cumsum()).astype(np.int64)
        return _Mates(begins, scores[order].astype(np.float64), order)


@dataclass(frozen=True)
class _Bounds:
    """Of the probes of a strip: the values between which a score may be on either side of each mate's, [r, R].

    Padded by `never`, which no score reaches.
    """

    lows: Tensor
    highs: Tensor
    begins: Tensor  # [r]: each probe's first mate, among all
    held: Tensor  # [r, R] of bool: False for padding

    @staticmethod
    def of(lows: Tensor, highs: Tensor, begins: Tensor, counts: Tensor, first: int) -> "_Bounds":
        column = torch.arange(int(counts.max()), device=lows.device)
        held = column < counts[:, None]
        place = torch.where(held, begins[:, None] - first + column, 0)
        never = torch.inf if lows.dtype.is_floating_point else torch.iinfo(lows.dtype).max
        low, high = (torch.where(held, side[place], never) for side in (lows, highs))
        return _Bounds(low, high, begins, held)

    def count(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """How many values [r, n] are certainly above each mate [r, R]; row and column of those that may be or not."""
        if values.device.type == "cpu" and self.lows.shape[1] <= FEW:
            higher, flat = _compare(values.numpy(), self.lows.numpy(), self.highs.numpy())
            near = torch.from_numpy(flat)
            rows = torch.div(near, values.shape[1], rounding_mode="floor")
            return torch.from_numpy(higher), rows, near - rows * values.shape[1]
        rising = _sorted(values)
        above = values.shape[1] - torch.searchsorted(rising, self.highs, right=True)
        reached = values.shape[1] - torch.searchsorted(rising, self.lows)
        unsure = (reached > above).any(dim=1).nonzero().squeeze(1)
        chosen = values[unsure]
        at_least = torch.searchsorted(self.lows[unsure], chosen, right=True)
        rows, columns = (at_least > torch.searchsorted(self.highs[unsure], chosen)).nonzero(as_tuple=True)
        return above, unsure[rows], columns

    def below(self, values: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """The first mate, among all, that chosen values are not certainly above."""
        step = max(1, PADDED // self.highs.shape[1])
        chosen = zip(torch.split(rows, step), torch.split(values[rows, columns][:, None], step), strict=True)
        passed = [torch.searchsorted(self.highs[row], value)[:, 0] for row, value in chosen]
        return self.begins[rows] + torch.cat(passed)


@dataclass
class _Counter:
    """Counts by mate. `ahead` and `tied` [M + 1] hold differences along the mates, from exact scores."""

    work: Task
    mates: _Mates
    above: Integers = field(init=False)
    ahead: Integers = field(init=False)
    tied: Integers = field(init=False)
    survivors: Survivors = field(init=False)
    block: tuple[int, Tensor] | None = None  # unit rows in float64 of the last gallery block that needed them

    def __post_init__(self) -> None:
        self.above, self.ahead, self.tied = (np.zeros(len(self.mates.scores) + 1, dtype=np.int64) for _ in range(3))
        self.survivors = Survivors(self.work)

    def result(self) -> NDArray[np.int64]:
        """Ahead and tied, [2, M]."""
        self.settle()
        return np.stack([self.above[:-1] + self.ahead.cumsum()[:-1], self.tied.cumsum()[:-1]])

    def see(self, tile: ScoreTile) -> None:
        """Count what is certainly above each mate, and keep what must be scored exactly."""
        begins = self.mates.begins[tile.row : tile.row + len(tile.scores) + 1]
        first, last = int(begins[0]), int(begins[-1])
        if first == last:
            return
        place = tile.scores.device
        bounds = torch.from_numpy(self.mates.scores[first:last]).to(place)
        starts = torch.from_numpy(begins).to(place)
        counts = starts.diff()
        lows, highs = tile.floors(bounds), tile.ceilings(bounds)
        lowest = lows[(starts[:-1] - first).clamp(max=last - first - 1)].masked_fill_(
            counts == 0, torch.iinfo(lows.dtype).max
        )
        for rows, keys in tile.strips(lowest):
            if not len(rows):
                continue
            at_once = max(1, PADDED // int(counts[rows].max()))
            for part, values in zip(torch.split(rows, at_once), torch.split(keys, at_once), strict=True):
                strip = _Bounds.of(lows, highs, starts[part], counts[part], first)
                above, near, columns = strip.count(values)
                if len(near) > DENSE * values.numel():
                    values, slack = self._precise(tile, part)
                    strip = _Bounds.of(bounds - slack, bounds + slack, starts[part], counts[part], first)
                    above, near, columns = strip.count(values)
                spots = strip.begins[:, None] + torch.arange(strip.held.shape[1], device=place)
                self.above[spots[strip.held].cpu().numpy()] += above[strip.held].cpu().numpy()
                if len(near):
                    self.survivors.add(tile, part[near], columns, strip.below(values, near, columns))
                if self.survivors.due:
                    self.settle()

    def settle(self) -> None:
        """Score what waits. Its scores are above all mates before the mark, and compared with those from it on."""
        probes, _, scores, marks = (part.cpu().numpy() for part in self.survivors.take())
        ends = self.mates.begins[probes + 1]
        lower = _bisect(self.mates.scores, marks, ends, scores, right=False)
        equal = _bisect(self.mates.scores, lower, ends, scores, right=True)
        for counts, start, stop in ((self.ahead, marks, lower), (self.tied, lower, equal)):
            np.add.at(counts, start, 1)
            np.subtract.at(counts, stop, 1)

    def _precise(self, tile: ScoreTile, rows: Tensor) -> tuple[Tensor, float]:
        """Scores of chosen rows of a tile in float64, and a bound on their error, as `low_precision.slack` has it."""
        if self.block is None or self.block[0] != tile.column:
            width = tile.scores.shape[1]
            self.block = tile.column, self.work.gallery.unit(torch.arange(tile.column, tile.column + width))
        scores = self.work.probes.unit(rows.cpu() + tile.row) @ self.block[1].T
        scores.masked_fill_(tile.scores[rows] == -torch.inf, -torch.inf)
        return scores, 4 * (self.work.probes.size + 16) * 2.0**-53 + 1e-12


def _compare(values: NDArray[Any], lows: NDArray[Any], highs: NDArray[Any]) -> tuple[Integers, Integers]:
    """For each mate how many values of its row are higher, [r, R]; and the flat places of those within any bound."""
    near = np.zeros(values.shape, dtype=np.bool_)
    above = np.empty(lows.shape, dtype=np.int64)
    for mate in range(lows.shape[1]):
        higher = values > highs[:, mate, None]
        above[:, mate] = _count_true(higher)
        higher ^= values >= lows[:, mate, None]
        near |= higher
    return above, np.flatnonzero(near)


def _count_true(flags: NDArray[np.bool_]) -> Integers:
    """How many flags of each row are set; eight at a time where the width allows, since NumPy counts rows slowly.

    >>> _count_true(np.ones((2, 2048), dtype=bool)).tolist()
    [2048, 2048]
    """
    if flags.shape[1] % 1024:
        return np.asarray(np.count_nonzero(flags, axis=1), dtype=np.int64)
    bytewise = flags.view(np.uint64).reshape(len(flags), -1, 128).sum(axis=2)  # 128 at most in a byte
    return np.asarray(bytewise.view(np.uint8).reshape(len(flags), -1).sum(axis=1, dtype=np.int64))


def _sorted(values: Tensor) -> Tensor:
    """Rows in rising order; NumPy sorts several times faster than torch on the CPU."""
    if values.device.type == "cpu":
        return torch.from_numpy(np.sort(values.numpy(), axis=1))
    return values.sort(dim=1).values


def _bisect(
    values: NDArray[np.float64], begins: Integers, ends: Integers, wanted: NDArray[np.float64], *, right: bool
) -> Integers:
    """Where each wanted number would be inserted in its own rising range of the values, as np.searchsorted has it."""
    low, high = begins.astype(np.int64), ends.astype(np.int64)
    while (low < high).any():
        middle = (low + high) // 2
        found = values[np.minimum(middle, len(values) - 1)]
        up = (low < high) & ((found <= wanted) if right else (found < wanted))
        low, high = np.where(up, middle + 1, low), np.where(up, high, np.minimum(high, middle))
    return low
