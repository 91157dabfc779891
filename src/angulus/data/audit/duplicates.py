"""Images that are there more than once: the same file, the same pixels, or nearly the same picture."""

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
    """Two images, one and the same picture as far as the verb says.

    Attributes:
        first, second: their rows; within a set, the one to keep first.
        verb: how the second relates to the first, such as "has the same pixels as".
        cosine: how near they are; None for exact copies.
    """

    first: int
    second: int
    verb: str
    cosine: float | None = None

    def reason(self, first: str) -> str:
        """The second's reason, the first called by a name."""
        return f"{self.verb} {first}" + ("" if self.cosine is None else f" (cosine {self.cosine:.3f})")


@dataclass
class Sorted:
    """Duplicates within a set, by what can be done about them.

    Attributes:
        removals: those that may go, since one of the same picture stays.
        conflicts: those whose twin has another identity: one of the names is wrong, and the pictures do not say which.
    """

    removals: list[Removal] = field(default_factory=list)
    conflicts: list[Removal] = field(default_factory=list)


def exact(found: Inventory) -> list[Twins]:
    """Each image whose bytes or pixels are those of another, beside the one of them to keep.

    The one to keep is the first with a known identity; a group of m gives m − 1 twins.
    """
    groups: dict[bytes, list[int]] = defaultdict(list)
    for row, pixels in enumerate(found.pixels_hash):
        groups[pixels].append(row)
    twins = []
    for group in groups.values():
        first, *others = sorted(group, key=lambda row: (found.identities[row] == "", row))
        for row in others:
            same_bytes = found.bytes_hash[row] == found.bytes_hash[first]
            twins.append(Twins(first, row, "is the same file as" if same_bytes else "has the same pixels as"))
    return twins


def exact_between(found: Inventory, against: Inventory) -> list[Twins]:
    """Each image of the one set whose pixels are in the other, with the first such row there as `first`."""
    there: dict[bytes, int] = {}
    for row, pixels in enumerate(against.pixels_hash):
        there.setdefault(pixels, row)
    twins = []
    for row, pixels in enumerate(found.pixels_hash):
        if pixels in there:
            same_bytes = found.bytes_hash[row] == against.bytes_hash[there[pixels]]
            twins.append(Twins(there[pixels], row, "is the same file as" if same_bytes else "has the same pixels as"))
    return twins


def near(
    found: Inventory, threshold: float, vectors: Vectors | None = None, cosine: float | None = None
) -> list[Twins]:
    """Pairs of images that look the same, of which none is an exact copy of an earlier one.

    Args:
        found: the set.
        threshold: the least cosine of two signatures, or of one and a mirror image's.
        vectors: [N, d] embeddings of the images, where there are any.
        cosine: the least cosine of two embeddings; None: they are not compared.
    """
    rows = _distinct(found)
    own = found.signatures[rows]
    streams = [(above(own, None, threshold), "looks like")]
    streams.append((above(mirrored(own), own, threshold), "looks like the mirror image of"))
    if vectors is not None and cosine is not None:
        streams.append((above(vectors[rows], None, cosine), "has nearly the embedding of"))
    twins: dict[tuple[int, int], Twins] = {}
    for stream, verb in streams:
        for one, other, score in _each(stream):
            first, second = sorted((int(rows[one]), int(rows[other])), key=lambda row: _order(found, row))
            if first != second:  # a face may look like its own mirror image
                twins.setdefault((first, second), Twins(first, second, verb, score))
    return sorted(twins.values(), key=lambda each: (_order(found, each.first), _order(found, each.second)))


def near_between(
    found: Inventory,
    against: Inventory,
    threshold: float,
    vectors: tuple[Vectors, Vectors] | None = None,
    cosine: float | None = None,
) -> list[Twins]:
    """Each image of the one set that looks like one of the other, the nearest there as `first`; no exact copies.

    Arguments as for `near`; `vectors` are those of both sets.
    """
    known = set(against.pixels_hash)
    rows = np.array([row for row, pixels in enumerate(found.pixels_hash) if pixels not in known], dtype=np.int64)
    if not len(rows):
        return []
    own = found.signatures[rows]
    streams = [
        (above(own, against.signatures, threshold), "looks like"),
        (above(mirrored(own), against.signatures, threshold), "looks like the mirror image of"),
    ]
    if vectors is not None and cosine is not None:
        streams.append((above(vectors[0][rows], vectors[1], cosine), "has nearly the embedding of"))
    twins: dict[int, Twins] = {}
    for stream, verb in streams:
        best: dict[int, tuple[float, int]] = {}
        for one, other, score in _each(stream):
            if one not in best or (score, -other) > (best[one][0], -best[one][1]):
                best[one] = (score, other)
        for one, (score, other) in best.items():
            twins.setdefault(int(rows[one]), Twins(other, int(rows[one]), verb, score))
    return [twins[row] for row in sorted(twins)]


def sort_out(found: Inventory, twins: Sequence[Twins]) -> Sorted:
    """Which twins may go and which contradict one another.

    Of the pairs in their order, the second goes if the first stays: so one of every picture is left, and an image is
    never removed for the sake of one that is removed too. Where both have a known identity, and not the same, both are
    conflicts and neither goes for that pair.
    """
    result = Sorted()
    gone: set[int] = set()
    conflicts: dict[int, Removal] = {}
    for each in twins:
        one, other = (str(found.identities[row]) for row in (each.first, each.second))
        first, second = (str(found.ids[row]) for row in (each.first, each.second))
        if one and other and one != other:
            reason = each.reason("it")
            conflicts.setdefault(
                each.second, Removal(second, f"{each.reason(repr(first))}, which is of {one!r}; this is of {other!r}")
            )
            conflicts.setdefault(
                each.first, Removal(first, f"{second!r} {reason}, and is of {other!r}; this is of {one!r}")
            )
        elif each.first not in gone and each.second not in gone:
            gone.add(each.second)
            result.removals.append(Removal(second, each.reason(repr(first))))
    result.conflicts = [conflicts[row] for row in sorted(conflicts)]
    return result


def _distinct(found: Inventory) -> NDArray[np.int64]:
    """The rows that are no exact copy of one to keep."""
    copies = {each.second for each in exact(found)}
    return np.array([row for row in range(len(found)) if row not in copies], dtype=np.int64)


def _order(found: Inventory, row: int) -> tuple[bool, int]:
    return bool(found.identities[row] == ""), row


def _each(stream: Iterator[PairBatch]) -> Iterator[tuple[int, int, float]]:
    for pairs in stream:
        yield from zip(pairs.probes.tolist(), pairs.gallery.tolist(), pairs.scores.tolist(), strict=True)
