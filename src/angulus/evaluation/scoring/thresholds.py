"""Exact thresholds for false match rates over all impostor pairs, in one streamed pass with bounded memory."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from angulus.core import checks
from angulus.core.checks import InputError
from angulus.evaluation.scoring import low_precision
from angulus.evaluation.scoring.brackets import Between, Bracket, Floats, RankedScore, merge_overlaps
from angulus.evaluation.scoring.exact import Matrix
from angulus.evaluation.scoring.low_precision import PRECISIONS, bfloat16_time
from angulus.evaluation.scoring.mates import Ids
from angulus.evaluation.scoring.tiles import DEFAULT, ScoreTile, ScoringOptions, Survivors, Task, task, tiles

SEED = 20_240_601
SAMPLE = (2**14, 2**22)  # impostor pairs drawn to place the brackets, at least and at most
SPREAD = 4.0  # standard errors of the sample on either side of a rank; four times as many after each miss
RESCORED = 500  # float32 products that take as long as one exact score


@dataclass(frozen=True)
class ThresholdAtFmr:
    """The threshold at which the false match rate is as high as the target allows."""

    fmr: float  # the target
    # the lowest that meets it (`score >= threshold` accepts): the float64 just above `refused`, or -inf if all may be
    # accepted
    threshold: float
    accepted: int  # impostor pairs accepted, and in all; `accepted / impostors <= fmr`
    impostors: int
    # the highest impostor score not accepted, or -inf if there is none; accepting it and its ties would exceed the
    # target
    refused: float
    passes: int  # how many times all pairs were streamed


def thresholds_at(
    probes: Matrix,
    gallery: Matrix | None,
    fmrs: Sequence[float],
    *,
    ids: Ids | None = None,
    zero_ok: bool = False,
    options: ScoringOptions = DEFAULT,
) -> list[ThresholdAtFmr]:
    """The exact threshold of each target FMR over all impostor pairs: the lowest whose FMR does not exceed it.

    Of n impostor scores s_1 >= s_2 >= ..., with k the most that a target f allows (k / n <= f), the threshold is just
    above s_{k+1}: every lower one accepts more than k. A sample of pairs brackets s_{k+1}; one pass over all pairs
    counts the scores above each bracket and collects those inside; the counts then prove whether the rank is inside.
    If not, or if memory cannot hold the scores inside, the pass is repeated with a bracket that the counts support.
    The result does not depend on the sample.

    Args:
        probes: [P, d], as for `top_k`.
        gallery: [N, d]; None: pairs within the probes, each unordered pair once.
        fmrs: targets in [0, 1].
        ids: identities, whose pairs are not impostors: (the probes', the gallery's), or one array if gallery is None;
            None: every pair is an impostor pair.
        zero_ok: allow targets below 1/n, which accept nothing: the threshold is just above the highest score.
        options: as for `top_k`.

    Raises:
        InputError: no impostor pair, or a target that needs more of them than there are.

    >>> a = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    >>> point, = thresholds_at(a, None, [0.4])
    >>> point.accepted, point.impostors, round(point.refused, 3)  # 0.8 is accepted, 0.6 and 0.0 are not
    (1, 3, 0.6)
    """
    work = task(probes, gallery, ids, options)
    total = work.pairs
    allowed = [_allowed(fmr, total, zero_ok) for fmr in fmrs]
    scores = _search(work, total, sorted({count + 1 for count in allowed if count < total}))
    points = []
    for fmr, count in zip(fmrs, allowed, strict=True):
        if count == total:
            points.append(ThresholdAtFmr(float(fmr), -math.inf, total, total, -math.inf, 0))
            continue
        place, passes = scores[count + 1]
        threshold = math.nextafter(place.value, math.inf)
        points.append(ThresholdAtFmr(float(fmr), threshold, place.higher, total, place.value, passes))
    return points


def _allowed(fmr: float, total: int, zero_ok: bool) -> int:
    """The most impostor pairs that may be accepted."""
    rate = checks.number("fmr", fmr, low=0, high=1)
    if total == 0:
        raise InputError("a threshold needs at least one impostor pair; got none; check the ids")
    count = min(int(rate * total), total)
    if count < total and (count + 1) / total <= rate:  # the product is rounded
        count += 1
    while count / total > rate:
        count -= 1
    if count == 0 and not zero_ok:
        rule = f"needs at least {math.ceil(1 / rate):,} impostor pairs; got {total:,}" if rate else "accepts none"
        raise InputError(f"fmr={rate:g} {rule}; raise it, or pass zero_ok=True for the one that accepts no impostor")
    return count


def _search(work: Task, total: int, ranks: Sequence[int]) -> dict[int, tuple[RankedScore, int]]:
    """The score of each rank (1 = the highest), and the number of passes until it was certain."""
    done: dict[int, tuple[RankedScore, int]] = {}
    unsettled = {rank: Between(-math.inf, math.inf, False) for rank in ranks}
    sample = sample_scores(work, _sample_size(work, total, max(ranks, default=0)))
    spread, passes = SPREAD, 0
    while unsettled:
        passes += 1
        wanted = [(*_bracket(rank / total, place, sample, spread), rank) for rank, place in unsettled.items()]
        for bracket in _pass(work, merge_overlaps(wanted, work.options.bytes // 64), sample):
            for rank in bracket.ranks:
                place = bracket.find(rank)
                if isinstance(place, RankedScore):
                    done[rank] = (place, passes)
                    del unsettled[rank]
                else:
                    before = unsettled[rank]
                    unsettled[rank] = Between(max(before.low, place.low), min(before.high, place.high), place.inside)
        spread *= 4
    return done


def _pass(work: Task, brackets: list[Bracket], sample: Floats) -> list[Bracket]:
    """Stream all pairs through the brackets once, on every rank, and merge what all ranks saw."""
    dtype = _dtype(work, brackets, sample)

    def mine() -> list[Bracket]:
        survivors = [Survivors(work) for _ in brackets]
        for tile in tiles(work, dtype):
            for bracket, waiting in zip(brackets, survivors, strict=True):
                _see(tile, bracket, waiting)
        for bracket, waiting in zip(brackets, survivors, strict=True):
            bracket.add(waiting.take()[2].cpu().numpy())
            bracket.settle()
        return brackets

    first, *others = work.options.ranks.gather_from_all(mine)
    for brackets_of_rank in others:
        for bracket, other in zip(first, brackets_of_rank, strict=True):
            bracket.merge(other)
    return first


def _see(tile: ScoreTile, bracket: Bracket, survivors: Survivors) -> None:
    """Count a tile's scores that are certainly above the bracket; collect those that may be inside."""
    floor = tile.floors(torch.tensor(bracket.low))
    ceiling = tile.ceilings(torch.tensor(bracket.high)) if bracket.high < math.inf else None
    for rows, keys in tile.strips(floor):
        if ceiling is not None:
            bracket.above += int(low_precision.count_above(keys, ceiling).sum())
        near, columns = low_precision.between(keys, floor, ceiling)
        survivors.add(tile, rows[near], columns)
        if survivors.due:
            bracket.add(survivors.take()[2].cpu().numpy())


def _bracket(share: float, bounds: Between, sample: Floats, spread: float) -> tuple[float, float]:
    """Bounds of the score with this share of all at or above it, from earlier passes, or else from the sample."""
    if bounds.inside or bounds.low > -math.inf:
        return bounds.low, bounds.high
    place = share * len(sample)
    margin = spread * math.sqrt(place * max(0.0, 1 - share)) + spread**2
    before, after = math.floor(place - margin), math.ceil(place + margin)
    high = float(sample[before]) if before >= 0 else math.inf
    low = float(sample[after]) if after < len(sample) else -math.inf
    return min(low, bounds.high), min(high, bounds.high)


def sample_scores(work: Task, size: int) -> Floats:
    """Exact scores of random impostor pairs, falling; equal on all ranks, which share the work."""
    random = np.random.default_rng(SEED)
    rows, columns = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    for _ in range(64):  # pairs of one identity are dropped; if nearly all are, the sample stays small
        if len(rows) >= size:
            break
        one, other = random.integers(len(work.probes), size=size), random.integers(len(work.gallery), size=size)
        impostor = one != other if work.within else np.full(size, True)
        if work.identities is not None:
            impostor &= work.identities.probes[one] != work.identities.gallery[other]
        rows, columns = np.append(rows, one[impostor])[:size], np.append(columns, other[impostor])[:size]
    ranks = work.options.ranks
    mine = slice(ranks.rank, None, ranks.count)
    chosen = [torch.from_numpy(index[mine]).to(work.probes.device) for index in (rows, columns)]
    parts = ranks.gather_from_all(lambda: work.score(chosen[0], chosen[1]).cpu().numpy())
    return -np.sort(-np.concatenate(parts))


def _sample_size(work: Task, total: int, rank: int) -> int:
    """How many pairs to draw to minimise the cost of sampling plus a bracket of `SPREAD` standard errors.

    m draws leave 2 · spread · n · sqrt(p / m) pairs to score in a bracket at share p, so the minimum is at
    m = (spread · n · sqrt(p))^(2/3).
    """
    least, most = SAMPLE
    if rank == 0 or total <= least:
        return 0
    best = (SPREAD * math.sqrt(rank * total)) ** (2 / 3)
    return int(min(max(best, least), most, work.options.bytes // 256))


def _dtype(work: Task, brackets: list[Bracket], sample: Floats) -> torch.dtype:
    """The cheaper precision: bfloat16 makes products faster, but leaves more pairs to score exactly."""
    fast = work.dtype()
    if work.options.precision != "auto" or fast == torch.float32 or not len(sample):
        return fast
    time = {torch.float32: 1.0, torch.bfloat16: bfloat16_time(work.probes.device, work.probes.size)}
    slack = {torch.float32: 1e-4, torch.bfloat16: 5e-3}

    def cost(dtype: torch.dtype) -> float:
        margin = slack[dtype]
        inside = [(sample >= bracket.low - margin) & (sample <= bracket.high + margin) for bracket in brackets]
        return time[dtype] + RESCORED * float(np.logical_or.reduce(inside).mean())

    return min(PRECISIONS.values(), key=cost)
