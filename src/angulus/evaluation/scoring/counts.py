"""Scores at or above a bound: how many gallery rows beat a mate, and which pairs reach a threshold."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from angulus.core import checks
from angulus.evaluation.scoring import low_precision
from angulus.evaluation.scoring.exact import Matrix
from angulus.evaluation.scoring.mates import Ids, Integers, SideIds
from angulus.evaluation.scoring.tiles import DEFAULT, ScoreTile, ScoringOptions, Survivors, task, tiles

GENUINE = 2**18  # pairs of one identity that are scored at a time


@dataclass(frozen=True)
class PairBatch:
    """Pairs and their exact scores: probe rows, gallery rows, float64 scores, [M] each."""

    probes: Integers
    gallery: Integers
    scores: NDArray[np.float64]

    @staticmethod
    def concatenate(stream: Iterable["PairBatch"]) -> "PairBatch":
        """All pairs of a stream at once."""
        parts = [PairBatch(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty(0)), *stream]
        return PairBatch(
            np.concatenate([part.probes for part in parts]),
            np.concatenate([part.gallery for part in parts]),
            np.concatenate([part.scores for part in parts]),
        )


def above(
    probes: Matrix,
    gallery: Matrix | None,
    threshold: float,
    *,
    ids: Ids | None = None,
    options: ScoringOptions = DEFAULT,
) -> Iterator[PairBatch]:
    """All pairs whose exact score is >= threshold, in batches, in no particular order.

    Args:
        probes: [P, d], as for `top_k`.
        gallery: [N, d]; None: pairs within the probes, each unordered pair once, the lower row as the probe.
        threshold: a number.
        ids: to leave out pairs of one identity: (the probes', the gallery's), or one array if gallery is None.
        options: as for `top_k`; with several ranks, each yields the pairs of its own share of the probes.
    """
    work = task(probes, gallery, ids, options)
    bound = torch.tensor(checks.number("threshold", threshold), dtype=torch.float64)

    def reached(survivors: Survivors) -> Iterator[PairBatch]:
        rows, columns, scores = (part.cpu() for part in survivors.take()[:3])
        above_bound = scores >= bound
        if bool(above_bound.any()):
            yield PairBatch(rows[above_bound].numpy(), columns[above_bound].numpy(), scores[above_bound].numpy())

    def stream() -> Iterator[PairBatch]:
        survivors = Survivors(work)
        for tile in tiles(work, work.dtype()):
            floor = tile.floors(bound)
            for rows, keys in tile.strips(floor):
                near, columns = low_precision.between(keys, floor)
                survivors.add(tile, rows[near], columns)
                if survivors.due:
                    yield from reached(survivors)
        yield from reached(survivors)

    return stream()


def genuine(
    probes: Matrix, gallery: Matrix | None, *, ids: Ids, options: ScoringOptions = DEFAULT
) -> Iterator[PairBatch]:
    """All pairs of one identity with their exact scores, in batches, by probe, without a product of all pairs.

    Arguments as for `above`; with several ranks, each yields all pairs.
    """
    work = task(probes, gallery, ids, options)
    if work.identities is None:
        raise checks.InputError("ids must say which rows are of one identity; got None")
    mates = work.identities.block(0, len(work.gallery))

    def stream() -> Iterator[PairBatch]:
        for start, stop in mates.slices(GENUINE):
            rows, columns = mates.pairs(start, stop)
            rows += start
            if work.within:
                once = rows < columns
                rows, columns = rows[once], columns[once]
            if len(rows):
                place = work.probes.device
                scores = work.score(rows.to(place), columns.to(place))
                yield PairBatch(rows.numpy(), columns.numpy(), scores.cpu().numpy())

    return stream()


def rows_ahead(
    probes: Matrix,
    gallery: Matrix,
    mates: ArrayLike | tuple[ArrayLike, ArrayLike],
    *,
    sizes: Sequence[int] | None = None,
    ids: SideIds | None = None,
    options: ScoringOptions = DEFAULT,
) -> Tensor:
    """How many gallery rows score at least as high as a probe's mate (the rank minus 1); ties count against the probe.

    Args:
        probes: [P, d], as for `top_k`.
        gallery: [N, d], without the mates.
        mates: the mates' scores [P] from `pair_scores`; or (probe rows [Q], scores [Q]), any number per probe.
        sizes: cut-offs [S], rising, in [0, N]: count among that many first gallery rows, all in one pass; None: N.
        ids: (identities of the probes, of the gallery), to leave out pairs of one identity.
        options: as for `top_k`.

    Returns:
        [Q] of int64, or [Q, S] with sizes.

    >>> a = torch.eye(2)
    >>> rows_ahead(a, torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, -1.0]]), [0.5, 1.0], sizes=[1, 3]).tolist()
    [[1, 2], [0, 0]]
    """
    work = task(probes, gallery, ids, options)
    cuts = [len(work.gallery)] if sizes is None else _cuts(sizes, len(work.gallery))
    queries = _Queries.of(mates, len(work.probes))

    def mine() -> NDArray[np.int64]:
        counts = np.zeros((len(queries.rows), len(cuts)), dtype=np.int64)
        survivors = Survivors(work)
        for tile in tiles(work, work.dtype(), cuts):
            queries.see(tile, counts[:, np.searchsorted(cuts, tile.column, side="right")], survivors)
            if survivors.due:
                queries.add(survivors, counts, cuts)
        queries.add(survivors, counts, cuts)
        return counts

    sums = np.sum(options.ranks.gather_from_all(mine), axis=0).cumsum(axis=1)
    result = np.empty_like(sums)
    result[queries.order] = sums
    return torch.from_numpy(result[:, 0] if sizes is None else result)


@dataclass(frozen=True)
class _Queries:
    """Scores to beat, by probe row; `order` holds their places in the caller's array."""

    rows: Integers
    scores: Tensor
    order: Integers

    @staticmethod
    def of(mates: ArrayLike | tuple[ArrayLike, ArrayLike], probes: int) -> "_Queries":
        rows, scores = mates if isinstance(mates, tuple) else (np.arange(probes), mates)
        rows = rows.cpu().numpy() if isinstance(rows, Tensor) else np.asarray(rows)
        values = (scores.cpu() if isinstance(scores, Tensor) else torch.as_tensor(np.asarray(scores))).double()
        if rows.dtype.kind not in "iu" or rows.ndim != 1 or (len(rows) and not 0 <= rows.min() <= rows.max() < probes):
            raise checks.InputError(f"rows of mates must be [Q] of whole numbers in [0, {probes}); got {rows.dtype}")
        if values.shape != rows.shape:
            raise checks.InputError(f"scores of mates must be [{len(rows)}], one per row; got {list(values.shape)}")
        checks.finite(values, "scores of mates")
        order = np.argsort(rows, kind="stable")
        return _Queries(rows[order].astype(np.int64), values[torch.from_numpy(order)], order)

    def see(self, tile: ScoreTile, counts: Integers, survivors: Survivors) -> None:
        """Add what is certainly above each score to `counts` [Q], and keep what must be scored exactly."""
        first, last = np.searchsorted(self.rows, [tile.row, tile.row + len(tile.scores)]).tolist()
        place = tile.scores.device
        rows = torch.from_numpy(self.rows[first:last] - tile.row).to(place)
        bounds = self.scores[first:last].to(place)
        floors, ceilings = tile.floors(bounds), tile.ceilings(bounds)
        active = (tile.peaks[rows] >= floors).nonzero().squeeze(1)
        at_once = max(1, tile.task.options.strip // tile.scores.shape[1])
        for part in torch.split(active, at_once):
            keys = low_precision.keys(tile.scores.index_select(0, rows[part]))
            low, high = floors[part][:, None], ceilings[part][:, None]
            near, columns = low_precision.between(keys, low, high)
            survivors.add(tile, rows[part][near], columns, part[near] + first)
            counts[first + part.cpu().numpy()] += low_precision.count_above(keys, high).numpy()

    def add(self, survivors: Survivors, counts: Integers, cuts: Sequence[int]) -> None:
        """Score what waits, and add what is ahead to `counts` [Q, S], before the next cut."""
        _, columns, scores, queries = (part.cpu() for part in survivors.take())
        ahead = scores >= self.scores[queries]
        before = np.searchsorted(cuts, columns[ahead].numpy(), side="right")
        np.add.at(counts, (queries[ahead].numpy(), before), 1)


def _cuts(sizes: Sequence[int], total: int) -> list[int]:
    cuts = [checks.integer("sizes", size, low=0, high=total) for size in sizes]
    if not cuts or any(one >= other for one, other in itertools.pairwise(cuts)):
        raise checks.InputError(f"sizes must rise and hold at least one; got {cuts}")
    return cuts
