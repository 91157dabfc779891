"""Scores a stream of template comparisons and keeps those that decide the figures."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from angulus.core.checks import InputError
from angulus.evaluation.lists.ijb import Comparisons
from angulus.evaluation.protocols.failures import BELOW
from angulus.evaluation.protocols.templates import Templates

_PAIRS = 1024  # scored at a time: two blocks of rows that fit into a core's cache
LEAST = 200_000  # impostors to keep, if there are that many


class Stream:
    """Scores blocks of comparisons and keeps the score and both subjects of each.

    Of 10 million impostors that is 160 MB, from which `samples` keeps the highest. A subject is numbered by its place
    among all; without subjects in the list, all are number 0.
    """

    def __init__(self, templates: Templates) -> None:
        self.templates = templates
        if templates.subjects is None:
            self.subjects, places = np.zeros(1, dtype=np.int64), np.zeros(len(templates), dtype=np.int64)
        else:
            self.subjects, places = np.unique(templates.subjects, return_inverse=True)
        self.place = places.astype(np.uint16 if len(self.subjects) < 2**16 else np.uint32)
        self.genuine = self.impostors = 0
        self._genuine: list[tuple[NDArray[Any], ...]] = []
        self._impostors: list[tuple[NDArray[Any], ...]] = []
        # of unordered pairs of templates: genuine, impostor, impostor with embeddings
        self._keys: list[tuple[NDArray[np.int64], ...]] = []
        self._pairs = self._failed = sparse.csr_array((len(self.subjects), len(self.subjects)), dtype=np.int64)

    def add(self, block: Comparisons) -> None:
        """Take in a block of the list.

        Raises:
            InputError: a template that was not pooled, or flags that contradict the subjects.
        """
        left, right = (self.templates.rows(numbers, "the comparisons") for numbers in (block.left, block.right))
        first, second = self.place[left], self.place[right]
        before = self.genuine + self.impostors
        alone = np.flatnonzero(left == right)
        if len(alone):
            row = int(alone[0])
            raise InputError(f"comparisons need two templates; number {before + row + 1:,} has {block.left[row]} alone")
        if self.templates.subjects is not None and not np.array_equal(first == second, block.same):
            row = int(np.flatnonzero((first == second) != block.same)[0])
            says = "other genuine comparisons link" if self.templates.linked else f"{self.templates.source} shows"
            raise InputError(
                f"comparisons must be genuine exactly where {says} one subject; "
                f"got {block.left[row]} {block.right[row]} {int(block.same[row])}, comparison {before + row + 1:,}"
            )
        scores = _dots(self.templates.units, left, right)
        failed = self.templates.is_failed[left] | self.templates.is_failed[right]
        scores[failed] = BELOW
        norms = np.minimum(self.templates.norms[left], self.templates.norms[right])
        same, other = block.same, ~block.same
        keys = np.minimum(left, right) * len(self.templates) + np.maximum(left, right)
        self._keys.append((keys[same], keys[other], keys[other & ~failed]))
        self._genuine.append((scores[same], first[same], norms[same]))
        self._impostors.append((scores[other], first[other], second[other]))
        self._pairs = self._pairs + self._counted(first[other], second[other])
        self._failed = self._failed + self._counted(first[other & failed], second[other & failed])
        self.genuine, self.impostors = self.genuine + int(same.sum()), self.impostors + int(other.sum())

    def _counted(self, first: NDArray[Any], second: NDArray[Any]) -> Any:
        ones = np.ones(len(first), dtype=np.int64)
        return sparse.coo_array((ones, (first, second)), self._pairs.shape).tocsr()

    def require_both(self) -> None:
        """Refuse a list without genuine or without impostor comparisons."""
        for name, count in (("genuine", self.genuine), ("impostor", self.impostors)):
            if not count:
                raise InputError(f"comparisons need at least one {name} one; got none")

    def distinct(self) -> tuple[int, int, int]:
        """How many genuine, impostor, and impostor comparisons without failures there are, each once, in either order.

        Raises:
            InputError: two templates are compared as genuine and as impostor.
        """
        genuine, impostors, enrolled = (np.unique(np.concatenate(keys)) for keys in zip(*self._keys, strict=True))
        both = np.intersect1d(genuine, impostors, assume_unique=True)
        if len(both):
            first, second = self.templates.numbers[list(divmod(int(both[0]), len(self.templates)))]
            raise InputError(f"comparisons must be genuine (1) or impostor (0); {first} {second} is both; remove one")
        return len(genuine), len(impostors), len(enrolled)

    def samples(self, fars: Sequence[float], spare: float) -> dict[str, NDArray[Any]]:
        """What the figures need; the impostors' highest scores reach `spare` times as far as the highest of `fars`.

        Returns:
            genuine_scores, genuine_subjects, genuine_norms (the smaller of both templates') [G]; impostor_scores,
            impostor_first, impostor_second [I], falling; cut, from which on impostors are kept, −inf for all of them;
            pair_first, pair_second, pair_counts: impostors by subjects; subjects, their names; fars. Where templates
            failed, failed_counts: how many of pair_counts failed; their scores are `BELOW` all others.
        """
        keep = max(int(spare * max(fars, default=0) * self.impostors) + 1, 4 * self.genuine, LEAST)
        cut = -np.inf
        if keep < self.impostors:
            scores = np.concatenate([block[0] for block in self._impostors])
            scores.partition(self.impostors - keep)
            cut = float(scores[self.impostors - keep])
            del scores
        kept = [tuple(column[block[0] >= cut] for column in block) for block in self._impostors]
        scores, first, second = (np.concatenate(column) for column in zip(*kept, strict=True))
        order = np.argsort(-scores, kind="stable")
        genuine, subjects, norms = (np.concatenate(column) for column in zip(*self._genuine, strict=True))
        pairs = self._pairs.tocoo()
        used = np.unique(np.concatenate([subjects, pairs.row, pairs.col]))  # who is in no comparison is not resampled

        def renumbered(places: NDArray[Any]) -> NDArray[Any]:
            return np.searchsorted(used, places).astype(self.place.dtype)

        return {
            "genuine_scores": genuine,
            "genuine_subjects": renumbered(subjects),
            "genuine_norms": norms,
            "impostor_scores": scores[order],
            "impostor_first": renumbered(first[order]),
            "impostor_second": renumbered(second[order]),
            "cut": np.array(cut),
            "pair_first": renumbered(pairs.row),
            "pair_second": renumbered(pairs.col),
            "pair_counts": pairs.data,
            **({} if self.templates.failed is None else {"failed_counts": self._failed[pairs.row, pairs.col]}),
            "subjects": self.subjects[used],
            "fars": np.array(fars, dtype=np.float64),
        }


def _dots(units: NDArray[Any], left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.float64]:
    scores = np.empty(len(left))
    for start in range(0, len(left), _PAIRS):
        block = slice(start, start + _PAIRS)
        a, b = units[left[block]].astype(np.float64), units[right[block]].astype(np.float64)
        scores[block] = np.einsum("ij,ij->i", a, b)
    return scores
