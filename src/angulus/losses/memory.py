"""Cross-batch memory: a term of the loss that compares features with those of the last steps."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from angulus.core import checks
from angulus.losses.angles import normalize
from angulus.losses.roles import Piece
from angulus.losses.running import Statistics, Wide, wide_dtype

SAME = 1 - 1e-5  # a cosine of two features that differ by rounding, as of an image seen twice; from the authors' code


@dataclass(frozen=True)
class CrossBatchMemory(Piece):
    """Contrastive loss with the last M features: w · [mean over P of (1 − cos φ) + mean over N of (cos φ − m)].

    φ is the angle between a feature of the batch and one of the memory, which holds the last M features of training,
    this step's among them, without gradient. P are the pairs of one class with cos φ < 1 − 10⁻⁵, N those of two
    classes with cos φ > m; a feature is not compared with itself. Both means are over the pairs of all rows, so a row's
    loss is its pairs' share times the number of rows. Without a pair a mean is 0.

    A step costs O(B·M·d), and B·M numbers while it compares. The memory is M·d numbers of float32, on every rank, which
    holds the features of all ranks; prefixes (`nested`) have memories of their own.

    Args:
        size: M ≥ 1, in features.
        margin: m in [-1, 1), a cosine.
        weight: w ≥ 0.
        start_step: before this optimiser step the term is 0 and the memory stays empty.

    Source: Wang et al. 2020, Algorithm 1. Differs: the authors' code adds cos φ instead of cos φ − m for a pair of two
    classes and divides the sum over all pairs by B; the means are those of pytorch-metric-learning's
    `CrossBatchMemory(ContrastiveLoss(1, m, distance=CosineSimilarity()))`, where P are all pairs with cos φ < 1.
    """

    size: int = 8192
    margin: float = 0.5
    weight: float = 1.0
    start_step: int = 0
    name: ClassVar[str] = "cross_batch_memory"
    stateful: ClassVar[bool] = True
    reads_batch: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.integer("size", self.size, low=1)
        checks.number("margin", self.margin, low=-1, high=1, open_high=True, hint="margin is a cosine")
        checks.number("weight", self.weight, low=0)
        checks.integer("start_step", self.start_step, low=0)

    def bind(self, embedding_size: int, num_classes: int) -> "Memory":
        return Memory(self, embedding_size)

    def formula(self) -> str:
        weight = "" if self.weight == 1 else f"{self.weight:g}·"
        start = f" (from step {self.start_step})" if self.start_step else ""
        return f"{weight}[mean over P of (1 − cos φ) + mean over N of (cos φ − {self.margin:g})]{start}"

    def words(self) -> str:
        start = f", from step {self.start_step}" if self.start_step else ""
        return f"{self.weight:g} × contrastive loss with the last {self.size} features, margin {self.margin:g}{start}"


class Memory(Wide):
    """`CrossBatchMemory`, bound: the last unit features [M, d] in float32 or wider, and their labels [M].

    `place` is the slot that is written next, `step` counts optimiser steps; an empty slot has the label −100.
    """

    features: Tensor
    labels: Tensor
    place: Tensor
    step: Tensor

    def __init__(self, spec: CrossBatchMemory, embedding_size: int) -> None:
        super().__init__()
        self.spec = spec
        self.register_buffer("features", torch.zeros(spec.size, embedding_size, dtype=wide_dtype()))
        self.register_buffer("labels", torch.full((spec.size,), checks.IGNORE_INDEX))
        self.register_buffer("place", torch.tensor(0))
        self.register_buffer("step", torch.tensor(0))

    def forward(
        self,
        features: Tensor,
        labels: Tensor,
        everyone: Tensor,
        labels_of_all: Tensor,
        first: int = 0,
        add: Callable[[Tensor], Tensor] = torch.detach,
    ) -> Tensor:
        """The losses of rows [B].

        Args:
            features, labels: [B, d] and [B]; rows with −100 count for nothing.
            everyone, labels_of_all: the same of all ranks' rows, this rank's from row `first` on.
            add: sums numbers over the ranks.
        """
        unit = normalize(features)[1]
        with torch.no_grad():
            others, classes = self._compared(everyone.to(unit.dtype), labels_of_all)
            cos = unit @ others.T
            valid = (labels != checks.IGNORE_INDEX)[:, None] & (classes != checks.IGNORE_INDEX)
            own = self.spec.size + first
            valid[:, own : own + len(unit)].fill_diagonal_(False)  # a feature with itself
            same = labels[:, None] == classes
            pulls, pushes = valid & same & (cos < SAME), valid & ~same & (cos > self.spec.margin)
            count = (labels_of_all != checks.IGNORE_INDEX).sum().to(cos.dtype)
            factor = count * (self.step >= self.spec.start_step) * self.spec.weight
            pairs = add(torch.stack([pulls.sum(), pushes.sum()]))
            pull, push = (factor / pairs.clamp_min(1)).unbind()
            # linear in the cosines of the pairs that count, so backward needs the sum of their features only
            along = (push * pushes - pull * pulls) @ others
            constant = pull * pulls.sum(dim=1) - self.spec.margin * push * pushes.sum(dim=1)
        return constant + (unit * along).sum(dim=1)

    def _compared(self, everyone: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Features and labels of the memory's slots and of these rows; −100 where it would not hold one any more."""
        kept = labels != checks.IGNORE_INDEX
        count, size = kept.sum(), self.spec.size
        age = (torch.arange(size, device=labels.device) - self.place) % size  # 0: the oldest
        older = torch.where(age >= count, self.labels, checks.IGNORE_INDEX)
        newer = torch.where(count - kept.cumsum(0) < size, labels, checks.IGNORE_INDEX)
        return torch.cat([self.features.to(everyone.dtype), normalize(everyone)[1]]), torch.cat([older, newer])

    @torch.no_grad()
    def observe(self, stats: Statistics) -> None:
        """Replace the oldest features by those of a step. No shape depends on the labels, which would wait for a GPU.

        A step without a row that counts is none: so a step that turns out not to be finite on a GPU changes nothing.
        """
        seen = stats.labels != checks.IGNORE_INDEX
        kept = seen & (self.step >= self.spec.start_step)
        last = kept.int().argsort(stable=True)[-self.spec.size :]  # those that enter come last, in their order
        enters, count = kept[last], kept[last].sum()
        slots = (self.place + torch.arange(len(last), device=last.device) - (len(last) - count)) % self.spec.size
        unit = normalize(stats.features.to(self.features.dtype))[1]
        self.features[slots] = torch.where(enters[:, None], unit[last], self.features[slots])
        self.labels[slots] = torch.where(enters, stats.labels.long()[last], self.labels[slots])
        self.place.copy_((self.place + count) % self.spec.size)
        self.step += seen.any()
