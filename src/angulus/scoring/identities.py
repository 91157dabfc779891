"""Which pairs are of one identity, found by sorting, never by comparing all pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from angulus import checks

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Identities:
    """The identity of each probe and each gallery row, as whole numbers."""

    probes: Integers
    gallery: Integers

    @staticmethod
    def of(ids: ArrayLike | Sequence[ArrayLike], probes: int, gallery: int | None) -> Identities:
        """Check `ids`: two arrays (probes', gallery's), or one where one set is paired with itself (no gallery)."""
        if gallery is None:
            only = _integers("ids", ids, probes)
            return Identities(only, only)
        if not isinstance(ids, Sequence) or len(ids) != 2:
            raise checks.InputError(
                "ids must be two arrays, (those of the probes, those of the gallery); got another thing"
            )
        return Identities(
            _integers("ids of the probes", ids[0], probes), _integers("ids of the gallery", ids[1], gallery)
        )

    def pairs(self, within: bool) -> int:
        """How many pairs are of one identity; `within`: of two different rows, each unordered pair once."""
        names, counts = np.unique(self.probes, return_counts=True)
        if within:
            return sum(count * (count - 1) // 2 for count in counts.tolist())
        others, more = np.unique(self.gallery, return_counts=True)
        _, one, other = np.intersect1d(names, others, assume_unique=True, return_indices=True)
        return sum(a * b for a, b in zip(counts[one].tolist(), more[other].tolist(), strict=True))

    def block(self, first: int, last: int) -> Mates:
        """Gallery rows [first, last) ready to be looked up by identity."""
        order = np.argsort(self.gallery[first:last], kind="stable")
        return Mates(self.probes, self.gallery[first:last][order], order)


@dataclass(frozen=True)
class Mates:
    """Some gallery rows sorted by identity, and the identity of every probe."""

    probes: Integers
    names: Integers
    order: Integers

    def pairs(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Pairs of one identity of probes [start, stop) and these rows, both counted from their first, by probe."""
        asked = self.probes[start:stop]
        left, right = np.searchsorted(self.names, asked, "left"), np.searchsorted(self.names, asked, "right")
        counts = right - left
        rows = np.repeat(np.arange(len(asked)), counts)
        before = np.repeat(np.cumsum(counts) - counts, counts)
        columns = self.order[np.arange(len(rows)) - before + np.repeat(left, counts)]
        return torch.from_numpy(rows), torch.from_numpy(columns)

    def slices(self, limit: int) -> Iterator[tuple[int, int]]:
        """Consecutive ranges of probes with at most `limit` pairs each, or one probe."""
        counts = np.searchsorted(self.names, self.probes, "right") - np.searchsorted(self.names, self.probes, "left")
        start, held = 0, 0
        for probe, count in enumerate(counts.tolist()):
            if held and held + count > limit:
                yield start, probe
                start, held = probe, 0
            held += count
        if held:
            yield start, len(counts)


def _integers(name: str, values: Any, length: int) -> Integers:
    array = values.cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.shape != (length,) or array.dtype.kind not in "iu":
        raise checks.InputError(
            f"{name} must be [{length}] of whole numbers, one a row; got {array.dtype} of shape {list(array.shape)}"
        )
    return array.astype(np.int64)
