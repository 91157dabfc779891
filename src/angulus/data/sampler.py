"""Which images are in an epoch, by identity or by share: a function of seed and epoch, the same after a resume."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from angulus.core import checks
from angulus.core.checks import InputError

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Balanced:
    """P identities per step, K images of each; no identity twice in a step.

    An epoch has ⌈N / (P · K)⌉ steps. All identities occur once before one recurs, except those that do not
    fill a last step, which miss that round; all images of an identity occur before one recurs in an epoch. An identity
    with fewer than K images repeats some of them in a step.

    >>> sampler = Balanced(np.array([0, 0, 0, 1, 1, 2]), identities=2, images=2)
    >>> sampler.steps, [len(rows) for rows in sampler.batches(0)]
    (2, [4, 4])
    """

    labels: NDArray[np.int64]  # [N] >= 0, the identity of each image
    identities: int  # P, in [1, the number of identities]
    images: int  # K, >= 1
    seed: int = 0

    def __post_init__(self) -> None:
        checks.integer("seed", self.seed, low=0)
        checks.integer("images", self.images, low=1)
        if self.labels.ndim != 1 or self.labels.dtype.kind not in "iu" or not len(self.labels) or self.labels.min() < 0:
            raise InputError(f"labels must be [N] whole numbers >= 0, N >= 1; got {self.labels!r}")
        total = len(np.unique(self.labels))
        checks.integer("identities", self.identities, low=1, high=total, hint=f"there are {total} identities")

    @property
    def steps(self) -> int:
        """Steps per epoch."""
        return math.ceil(len(self.labels) / (self.identities * self.images))

    def batches(self, epoch: int) -> list[Rows]:
        """The rows of each step of an epoch."""
        checks.integer("epoch", epoch, low=0)
        random = np.random.default_rng((self.seed, epoch))
        _, labels, counts = np.unique(self.labels, return_inverse=True, return_counts=True)
        chosen = self._identities(random, len(counts))
        turns = earlier_occurrences(chosen)
        shuffled = random.permutation(len(labels))
        by_identity = shuffled[np.argsort(labels[shuffled], kind="stable")]
        first = np.cumsum(counts) - counts
        turn = turns[:, None] * self.images + np.arange(self.images)
        rows = by_identity[first[chosen][:, None] + turn % counts[chosen][:, None]]
        return list(rows.reshape(self.steps, -1))

    def _identities(self, random: np.random.Generator, count: int) -> NDArray[np.int64]:
        """The identities of all steps, concatenated."""
        steps_per_round = count // self.identities
        rounds = math.ceil(self.steps / steps_per_round)
        orders = [random.permutation(count)[: steps_per_round * self.identities] for _ in range(rounds)]
        return np.concatenate(orders)[: self.steps * self.identities]


@dataclass(frozen=True, eq=False)
class ByShare:
    """Images drawn by class: of an epoch's N images, class c has N · shares[c], rounded up or down at random.

    All images of a class occur before one recurs in an epoch; the order is shuffled.

    >>> rows = ByShare(np.array([0] * 9 + [1]), np.array([0.5, 0.5])).order(0)
    >>> len(rows), int((rows == 9).sum()), len(set(rows.tolist()))
    (10, 5, 6)
    """

    labels: NDArray[np.int64]  # [N] the class of each image, in [0, C)
    shares: NDArray[np.float64]  # [C], summing to 1; 0 for a class without images
    seed: int = 0

    def order(self, epoch: int) -> Rows:
        """[N] rows of an epoch, in their order."""
        checks.integer("epoch", epoch, low=0)
        random = np.random.default_rng((self.seed, epoch))
        counts = np.bincount(self.labels, minlength=len(self.shares))
        ends = np.cumsum(self.shares) * len(self.labels)
        ends[-1] = len(self.labels)
        taken = np.diff(np.floor(ends + random.random()), prepend=0).astype(np.int64)  # systematic sampling
        shuffled = random.permutation(len(self.labels))
        by_class = shuffled[np.argsort(self.labels[shuffled], kind="stable")]
        chosen = np.repeat(np.arange(len(taken)), taken)
        turn = np.arange(len(chosen)) - np.repeat(np.cumsum(taken) - taken, taken)
        rows = by_class[(np.cumsum(counts) - counts)[chosen] + turn % counts[chosen]]
        return np.asarray(random.permutation(rows))


def earlier_occurrences(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often each value, >= 0, occurs before its position.

    >>> earlier_occurrences(np.array([5, 7, 5, 5])).tolist()
    [0, 0, 1, 2]
    """
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    begins = np.flatnonzero(np.diff(ordered, prepend=-1))
    lengths = np.diff(np.append(begins, len(values)))
    counts = np.empty(len(values), dtype=np.int64)
    counts[order] = np.arange(len(values)) - np.repeat(begins, lengths)
    return counts
