"""Samplers: which images are in each step, shuffled or identity-balanced, as a function of seed, epoch, step and rank.

Nothing is stored between steps: a resumed run asks for its epoch, from the step that it had reached.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from angulus.core import checks
from angulus.core.checks import InputError

Rows = NDArray[np.int64]


class Sampler(Protocol):
    """What a loader needs: the number of steps per epoch, and this rank's rows of each step."""

    @property
    def seed(self) -> int:
        """The seed of the order."""

    @property
    def rank(self) -> int:
        """This process's number."""

    @property
    def steps(self) -> int:
        """Steps per epoch, the same on every rank."""

    def batches(self, epoch: int, start: int = 0) -> list[Rows]:
        """This rank's rows of the steps start, start + 1, ... of an epoch."""


@dataclass(frozen=True)
class Shuffled:
    """Each image once per epoch, on one rank, in an order that depends on seed and epoch.

    The ⌈N / (batch · ranks)⌉ steps share the images evenly, so batch sizes differ by at most one image, none is larger
    than `batch_size`, and no rank waits for another at the end.

    >>> sampler = Shuffled(10, batch_size=4, seed=7)
    >>> [len(rows) for rows in sampler.batches(0)], sorted(int(row) for rows in sampler.batches(0) for row in rows)
    ([4, 3, 3], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """

    count: int  # N, the number of images
    batch_size: int  # the most images per step and rank; 1 only if ranks divide N
    seed: int = 0
    rank: int = 0  # this process's number, from 0
    ranks: int = 1  # the number of processes

    def __post_init__(self) -> None:
        _check_place(self.seed, self.rank, self.ranks)
        checks.integer("batch_size", self.batch_size, low=1)
        hint = "each rank needs an image per step" if self.ranks > 1 else ""
        checks.integer("count", self.count, low=self.ranks, hint=hint)
        if self.batch_size == 1 and self.count % self.ranks:
            rule = f"batch_size must be at least 2 if {self.ranks} ranks share {self.count} images"
            raise InputError(f"{rule}, so that each has one in the last step; got 1")

    @property
    def steps(self) -> int:
        """Steps per epoch."""
        return math.ceil(self.count / (self.batch_size * self.ranks))

    def batches(self, epoch: int, start: int = 0) -> list[Rows]:
        """This rank's rows of the steps from `start` on."""
        first = _check_step(epoch, start, self.steps) * self.ranks + self.rank
        order = np.random.default_rng((self.seed, epoch)).permutation(self.count)
        return np.array_split(order, self.steps * self.ranks)[first :: self.ranks]


@dataclass(frozen=True, eq=False)
class Balanced:
    """P identities per step and rank, K images of each; no identity twice in a step, on any rank.

    An epoch has ⌈N / (P · K · ranks)⌉ steps. All identities occur once before one recurs, except those that do not
    fill a last step, which miss that round; all images of an identity occur before one recurs in an epoch. An identity
    with fewer than K images repeats some of them in a step.

    >>> sampler = Balanced(np.array([0, 0, 0, 1, 1, 2]), identities=2, images=2)
    >>> sampler.steps, [len(rows) for rows in sampler.batches(0)]
    (2, [4, 4])
    """

    labels: NDArray[np.int64]  # [N] >= 0, the identity of each image
    identities: int  # P, >= 1; P · ranks may not exceed the number of identities
    images: int  # K, >= 1
    seed: int = 0
    rank: int = 0
    ranks: int = 1

    def __post_init__(self) -> None:
        _check_place(self.seed, self.rank, self.ranks)
        checks.integer("images", self.images, low=1)
        if self.labels.ndim != 1 or self.labels.dtype.kind not in "iu" or not len(self.labels) or self.labels.min() < 0:
            raise InputError(f"labels must be [N] whole numbers >= 0, N >= 1; got {self.labels!r}")
        total = len(np.unique(self.labels))
        hint = f"there are {total} identities for {self.ranks} rank(s)"
        checks.integer("identities", self.identities, low=1, high=total // self.ranks, hint=hint)

    @property
    def steps(self) -> int:
        """Steps per epoch."""
        return math.ceil(len(self.labels) / (self.identities * self.images * self.ranks))

    def batches(self, epoch: int, start: int = 0) -> list[Rows]:
        """This rank's rows of the steps from `start` on."""
        start = _check_step(epoch, start, self.steps)
        random = np.random.default_rng((self.seed, epoch))
        _, labels, counts = np.unique(self.labels, return_inverse=True, return_counts=True)
        chosen = self._identities(random, len(counts))
        turns = earlier_occurrences(chosen)
        shuffled = random.permutation(len(labels))
        by_identity = shuffled[np.argsort(labels[shuffled], kind="stable")]
        first = np.cumsum(counts) - counts
        turn = turns[:, None] * self.images + np.arange(self.images)
        rows = by_identity[first[chosen][:, None] + turn % counts[chosen][:, None]]
        shared = rows.reshape(self.steps, self.ranks, self.identities * self.images)
        return list(shared[start:, self.rank])

    def _identities(self, random: np.random.Generator, count: int) -> NDArray[np.int64]:
        """The identities of all steps and ranks, concatenated."""
        per_step = self.identities * self.ranks
        steps_per_round = count // per_step
        rounds = math.ceil(self.steps / steps_per_round)
        orders = [random.permutation(count)[: steps_per_round * per_step] for _ in range(rounds)]
        return np.concatenate(orders)[: self.steps * per_step]


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


def _check_place(seed: int, rank: int, ranks: int) -> None:
    checks.integer("seed", seed, low=0)
    checks.integer("ranks", ranks, low=1)
    checks.integer("rank", rank, low=0, high=ranks - 1)


def _check_step(epoch: int, start: int, steps: int) -> int:
    checks.integer("epoch", epoch, low=0)
    return checks.integer("start", start, low=0, high=steps)
