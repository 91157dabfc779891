"""Duplicate images: the same file, the same pixels, or nearly the same picture.

Near duplicates are looked for among all pairs; in large sets, in the cells of an index, with its recall on a sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from angulus.data.audit.inventory import Inventory, mirrored
from angulus.data.audit.removals import Removal
from angulus.evaluation.scoring import PairBatch, above
from angulus.evaluation.scoring.cells import Cells, Rows, Vectors, View

EXACT_BELOW = 5_000_000
SAMPLE = 4_096  # images that are compared with all, to know what an index finds
_BLOCK = 2**18  # rows at a time


@dataclass(frozen=True)
class Twins:
    """Two images of the same picture, in the sense of the verb."""

    first: int  # their rows; within a set, the first is the one to keep
    second: int
    verb: str  # how the second relates to the first, such as "has the same pixels as"
    cosine: float | None = None  # how similar they are; None for exact copies

    def reason(self, first: str) -> str:
        """The reason to remove the second, calling the first by a name."""
        return f"{self.verb} {first}" + ("" if self.cosine is None else f" (cosine {self.cosine:.3f})")


@dataclass
class Sorted:
    """Duplicates within a set: those to remove, and those whose twin has another identity, so that a name is wrong."""

    removals: list[Removal] = field(default_factory=list)  # one of the same picture stays
    conflicts: list[Removal] = field(default_factory=list)  # the pictures do not show which name is wrong


def exact(data: Inventory) -> list[Twins]:
    """All images whose bytes or pixels equal another's, each paired with the one to keep.

    The one to keep is the first with a known identity; a group of m gives m − 1 twins.
    """
    order = np.argsort(data.pixels_hash, kind="stable")
    hashes = data.pixels_hash[order]
    starts = np.flatnonzero(np.append(True, hashes[1:] != hashes[:-1]))
    counts = np.diff(starts, append=len(order))
    repeated = np.flatnonzero(counts > 1)
    groups = [order[starts[k] : starts[k] + counts[k]].tolist() for k in repeated.tolist()]
    twins = []
    for group in sorted(groups):
        first, *others = sorted(group, key=lambda row: _order(data, row))
        twins += [_copy(data, first, data, row) for row in others]
    return twins


def exact_between(data: Inventory, against: Inventory) -> list[Twins]:
    """All images of `data` whose pixels are in `against`, with the first such row there as `first`."""
    hashes, firsts = np.unique(against.pixels_hash, return_index=True)
    places = np.minimum(np.searchsorted(hashes, data.pixels_hash), len(hashes) - 1)
    rows = np.flatnonzero(hashes[places] == data.pixels_hash).tolist()
    return [_copy(against, int(firsts[places[row]]), data, row) for row in rows]


def _copy(against: Inventory, first: int, data: Inventory, second: int) -> Twins:
    same_bytes = data.bytes_hash[second] == against.bytes_hash[first]
    return Twins(first, second, "is the same file as" if same_bytes else "has the same pixels as")


def near(
    data: Inventory,
    threshold: float,
    vectors: Vectors | None = None,
    cosine: float | None = None,
    *,
    exact_below: int = EXACT_BELOW,
    notes: list[str] | None = None,
) -> list[Twins]:
    """Pairs of images that look the same, without exact copies of earlier images.

    Args:
        data: the set.
        threshold: the least cosine of two signatures, or of one and a mirror image's.
        vectors: [N, d] embeddings of the images, if available.
        cosine: the least cosine of two embeddings; None: they are not compared.
        exact_below: images from which on an index is used, which misses some pairs.
        notes: gets a sentence on how much of a sample each use of an index found.
    """
    copies = np.zeros(len(data), dtype=bool)
    copies[[twin.second for twin in exact(data)]] = True
    rows = np.flatnonzero(~copies)
    both = None if vectors is None else (vectors, None)
    twins: dict[tuple[int, int], Twins] = {}
    search = _Search(rows, None, exact_below, [] if notes is None else notes)
    for pairs, verb in _similar(search, data.signatures, None, threshold, both, cosine):
        for one, other, score in pairs:
            first, second = sorted((one, other), key=lambda row: _order(data, row))
            if first != second:  # a face may look like its own mirror image
                twins.setdefault((first, second), Twins(first, second, verb, score))
    return sorted(twins.values(), key=lambda twin: (_order(data, twin.first), _order(data, twin.second)))


def near_between(
    data: Inventory,
    against: Inventory,
    threshold: float,
    vectors: tuple[Vectors, Vectors] | None = None,
    cosine: float | None = None,
    *,
    exact_below: int = EXACT_BELOW,
    notes: list[str] | None = None,
) -> list[Twins]:
    """Images of `data` that look like one of `against`, the nearest there as `first`; without exact copies.

    Arguments as for `near`; `vectors` are those of both sets.
    """
    rows = np.flatnonzero(~np.isin(data.pixels_hash, against.pixels_hash))
    if not len(rows):
        return []
    twins: dict[int, Twins] = {}
    search = _Search(rows, np.arange(len(against)), exact_below, [] if notes is None else notes)
    for pairs, verb in _similar(search, data.signatures, against.signatures, threshold, vectors, cosine):
        best: dict[int, tuple[float, int]] = {}
        for one, other, score in pairs:
            if one not in best or (score, -other) > (best[one][0], -best[one][1]):
                best[one] = (score, other)
        for one, (score, other) in best.items():
            twins.setdefault(one, Twins(other, one, verb, score))
    return [twins[row] for row in sorted(twins)]


def _similar(
    search: _Search,
    own: Rows,
    others: Rows | None,
    threshold: float,
    vectors: tuple[Vectors, Vectors | None] | None,
    cosine: float | None,
) -> Iterator[tuple[Iterator[tuple[int, int, float]], str]]:
    """Similar pairs (row of own, row of others, cosine) by each criterion, with its verb; None: within `own`."""
    yield search.pairs(own, others, threshold, None, verb := "looks like"), verb
    yield search.pairs(own, others, threshold, mirrored, verb := "looks like the mirror image of"), verb
    if vectors is not None and cosine is not None:
        yield search.pairs(*vectors, cosine, None, verb := "has nearly the embedding of"), verb


@dataclass
class _Search:
    """Searches for pairs: some rows of a set against some of another, or against each other if there is none.

    Below `exact_below` rows on both sides, of all pairs; else in the cells of an index, with a note on its recall.
    """

    rows: NDArray[np.int64]
    others: NDArray[np.int64] | None
    exact_below: int
    notes: list[str]
    _cells: dict[int, Cells] = field(default_factory=dict)  # by the identity of the matrix

    def pairs(
        self, own: Rows, others: Rows | None, threshold: float, view: View | None, verb: str
    ) -> Iterator[tuple[int, int, float]]:
        """Pairs (row of own, row of others, cosine) at the threshold; `view` changes rows of own, such as mirroring.

        Within one set, a pair may come twice, and a row with itself where there is a view.
        """
        gallery, columns = (own, self.rows) if others is None or self.others is None else (others, self.others)
        within = others is None and view is None
        if max(len(self.rows), len(columns)) < self.exact_below:
            probes = own[self.rows]
            found = above(probes if view is None else view(probes), None if within else gallery[columns], threshold)
            yield from _pairs(found, self.rows, columns)
            return
        if id(gallery) not in self._cells:
            self._cells[id(gallery)] = Cells(gallery, columns)
        cells = self._cells[id(gallery)]
        missing = self._sample(own, gallery, columns, threshold, view, others is None)
        known = len(missing)
        for batch in cells.above(threshold, None if within else own, self.rows, view):
            for one, other, score in _pairs(iter([batch])):
                missing.discard((min(one, other), max(one, other)) if others is None else (one, other))
                yield one, other, score
        share = f"{known - len(missing):,} of {known:,} ({1 - len(missing) / known:.1%})" if known else "0 of 0"
        fact = f"{verb!r} was searched for in {cells.count:,} cells of an index, which miss some pairs"
        self.notes.append(f"{fact}: it found {share} of the pairs of {min(SAMPLE, len(self.rows)):,} images with all")

    def _sample(
        self,
        own: Rows,
        gallery: Rows,
        columns: NDArray[np.int64],
        threshold: float,
        view: View | None,
        alone: bool,
    ) -> set[tuple[int, int]]:
        """All pairs of some rows with all others; within one set, each pair in one order, with a view or without."""
        chosen = np.sort(np.random.default_rng(0).permutation(len(self.rows))[:SAMPLE])
        rows = self.rows[chosen]
        probes = own[rows] if view is None else view(own[rows])
        pairs: set[tuple[int, int]] = set()
        for start in range(0, len(columns), _BLOCK):
            part = columns[start : start + _BLOCK]
            for one, other, _ in _pairs(above(probes, gallery[part], threshold), rows, part):
                if not alone or one != other:
                    pairs.add((min(one, other), max(one, other)) if alone else (one, other))
        return pairs


def _pairs(
    blocks: Iterator[PairBatch], rows: NDArray[np.int64] | None = None, columns: NDArray[np.int64] | None = None
) -> Iterator[tuple[int, int, float]]:
    """Pairs one by one, with the names that their rows have elsewhere."""
    for block in blocks:
        first = block.probes if rows is None else rows[block.probes]
        second = block.gallery if columns is None else columns[block.gallery]
        yield from zip(first.tolist(), second.tolist(), block.scores.tolist(), strict=True)


def sort_out(data: Inventory, twins: Sequence[Twins]) -> Sorted:
    """Decide which twins can be removed and which contradict one another.

    For each pair in order, the second is removed if the first stays: so one of every picture is left, and no image is
    removed because of one that is removed too. If both have a known identity, and not the same, both are conflicts and
    neither is removed for that pair.
    """
    result = Sorted()
    removed: set[int] = set()
    conflicts: dict[int, Removal] = {}
    for twin in twins:
        one, other = (str(data.identities[row]) for row in (twin.first, twin.second))
        first, second = (str(data.ids[row]) for row in (twin.first, twin.second))
        reason = twin.reason(repr(first))
        if one and other and one != other:
            conflicts.setdefault(twin.second, Removal(second, f"{reason}, which is of {one!r}; this is of {other!r}"))
            reason = f"{second!r} {twin.reason('it')}, and is of {other!r}; this is of {one!r}"
            conflicts.setdefault(twin.first, Removal(first, reason))
        elif twin.first not in removed and twin.second not in removed:
            removed.add(twin.second)
            result.removals.append(Removal(second, reason))
    result.conflicts = [conflicts[row] for row in sorted(conflicts)]
    return result


def _order(data: Inventory, row: int) -> tuple[bool, int]:
    return bool(data.identities[row] == ""), row
