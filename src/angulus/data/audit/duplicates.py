"""Duplicate images: the same file, the same pixels, or nearly the same picture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angulus.data.audit.inventory import Inventory, mirrored
from angulus.data.audit.removals import Removal
from angulus.evaluation.scoring import PairBatch, above

Vectors = NDArray[np.floating[Any]]


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
    groups: dict[bytes, list[int]] = defaultdict(list)
    for row, pixels in enumerate(data.pixels_hash):
        groups[pixels].append(row)
    twins = []
    for group in groups.values():
        first, *others = sorted(group, key=lambda row: _order(data, row))
        twins += [_copy(data, first, data, row) for row in others]
    return twins


def exact_between(data: Inventory, against: Inventory) -> list[Twins]:
    """All images of `data` whose pixels are in `against`, with the first such row there as `first`."""
    rows: dict[bytes, int] = {}
    for row, pixels in enumerate(against.pixels_hash):
        rows.setdefault(pixels, row)
    return [_copy(against, rows[pixels], data, row) for row, pixels in enumerate(data.pixels_hash) if pixels in rows]


def _copy(against: Inventory, first: int, data: Inventory, second: int) -> Twins:
    same_bytes = data.bytes_hash[second] == against.bytes_hash[first]
    return Twins(first, second, "is the same file as" if same_bytes else "has the same pixels as")


def near(data: Inventory, threshold: float, vectors: Vectors | None = None, cosine: float | None = None) -> list[Twins]:
    """Pairs of images that look the same, without exact copies of earlier images.

    Args:
        data: the set.
        threshold: the least cosine of two signatures, or of one and a mirror image's.
        vectors: [N, d] embeddings of the images, if available.
        cosine: the least cosine of two embeddings; None: they are not compared.
    """
    copies = {twin.second for twin in exact(data)}
    rows = np.array([row for row in range(len(data)) if row not in copies], dtype=np.int64)
    both = None if vectors is None else (vectors[rows], None)
    twins: dict[tuple[int, int], Twins] = {}
    for pairs, verb in _similar(data.signatures[rows], None, threshold, both, cosine):
        for one, other, score in pairs:
            first, second = sorted((int(rows[one]), int(rows[other])), key=lambda row: _order(data, row))
            if first != second:  # a face may look like its own mirror image
                twins.setdefault((first, second), Twins(first, second, verb, score))
    return sorted(twins.values(), key=lambda twin: (_order(data, twin.first), _order(data, twin.second)))


def near_between(
    data: Inventory,
    against: Inventory,
    threshold: float,
    vectors: tuple[Vectors, Vectors] | None = None,
    cosine: float | None = None,
) -> list[Twins]:
    """Images of `data` that look like one of `against`, the nearest there as `first`; without exact copies.

    Arguments as for `near`; `vectors` are those of both sets.
    """
    exact_copies = set(against.pixels_hash)
    rows = np.array([row for row, pixels in enumerate(data.pixels_hash) if pixels not in exact_copies], dtype=np.int64)
    if not len(rows):
        return []
    both = None if vectors is None else (vectors[0][rows], vectors[1])
    twins: dict[int, Twins] = {}
    for pairs, verb in _similar(data.signatures[rows], against.signatures, threshold, both, cosine):
        best: dict[int, tuple[float, int]] = {}
        for one, other, score in pairs:
            if one not in best or (score, -other) > (best[one][0], -best[one][1]):
                best[one] = (score, other)
        for one, (score, other) in best.items():
            twins.setdefault(int(rows[one]), Twins(other, int(rows[one]), verb, score))
    return [twins[row] for row in sorted(twins)]


def _similar(
    own: NDArray[np.float16],
    others: NDArray[np.float16] | None,
    threshold: float,
    vectors: tuple[Vectors, Vectors | None] | None,
    cosine: float | None,
) -> Iterator[tuple[Iterator[tuple[int, int, float]], str]]:
    """Similar pairs (row of own, row of others, cosine) by each criterion, with its verb; None: within `own`."""
    yield _pairs(above(own, others, threshold)), "looks like"
    mirror_pairs = above(mirrored(own), own if others is None else others, threshold)
    yield _pairs(mirror_pairs), "looks like the mirror image of"
    if vectors is not None and cosine is not None:
        yield _pairs(above(*vectors, cosine)), "has nearly the embedding of"


def _pairs(blocks: Iterator[PairBatch]) -> Iterator[tuple[int, int, float]]:
    for block in blocks:
        yield from zip(block.probes.tolist(), block.gallery.tolist(), block.scores.tolist(), strict=True)


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
