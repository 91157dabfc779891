"""Find pairs of one identity by sorting, without comparing all pairs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from angulus.core import checks

Integers = NDArray[np.int64]
SideIds = Sequence[ArrayLike]  # who each row shows, of the probes and of the gallery
Ids = ArrayLike | SideIds  # one for a search within one set


@dataclass(frozen=True)
class Identities:
    """The identity of each probe and gallery row, as a number in [0, names); -1 if no probe has it."""

    probes: Integers
    gallery: Integers
    names: int

    @staticmethod
    def of(ids: Ids, probes: int, gallery: int | None) -> "Identities":
        """Check `ids`: two arrays (probes', gallery's), or one if a set is paired with itself (no gallery)."""
        if gallery is None:
            names, only = np.unique(_integers("ids", ids, probes), return_inverse=True)
            return Identities(only, only, len(names))
        if not isinstance(ids, Sequence) or len(ids) != 2:
            raise checks.InputError("ids must be two arrays, (the probes', the gallery's); got something else")
        first, second = _integers("ids of the probes", ids[0], probes), _integers("ids of the gallery", ids[1], gallery)
        names, numbers = np.unique(first, return_inverse=True)
        place = np.searchsorted(names, second)
        shared = names[np.minimum(place, len(names) - 1)] == second if len(names) else np.zeros(gallery, dtype=bool)
        return Identities(numbers, np.where(shared, place, -1), len(names))

    def pairs(self, within: bool) -> int:
        """How many pairs are of one identity; `within`: of two different rows, each unordered pair once."""
        counts = np.bincount(self.probes, minlength=self.names).tolist()
        if within:
            return sum(count * (count - 1) // 2 for count in counts)
        others = np.bincount(self.gallery[self.gallery >= 0], minlength=self.names).tolist()
        return sum(one * other for one, other in zip(counts, others, strict=True))

    def block(self, first: int, last: int) -> "Mates":
        """Gallery rows [first, last), sorted for lookup by identity."""
        part = self.gallery[first:last]
        rows = np.flatnonzero(part >= 0)
        order = rows[np.argsort(part[rows], kind="stable")]
        begins = np.append(0, np.bincount(part[rows], minlength=self.names).cumsum())
        return Mates(self.probes, order, begins)


@dataclass(frozen=True)
class Mates:
    """Gallery rows ordered by identity, where each identity begins, and the identity of every probe."""

    probes: Integers
    order: Integers
    begins: Integers

    def pairs(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Pairs of one identity of probes [start, stop) and these rows, both counted from their first, by probe."""
        asked = self.probes[start:stop]
        left = self.begins[asked]
        counts = self.begins[asked + 1] - left
        rows = np.repeat(np.arange(len(asked)), counts)
        columns = self.order[np.arange(len(rows)) + np.repeat(left - np.cumsum(counts) + counts, counts)]
        return torch.from_numpy(rows), torch.from_numpy(columns)

    def slices(self, limit: int) -> Iterator[tuple[int, int]]:
        """Consecutive ranges of probes with at most `limit` pairs each, or one probe."""
        counts = self.begins[self.probes + 1] - self.begins[self.probes]
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
            f"{name} must be [{length}] of whole numbers, one per row; got {array.dtype} of shape {list(array.shape)}"
        )
    return array.astype(np.int64)
