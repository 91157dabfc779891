"""Sums over the blocks of classes, next to the log-sum-exp: of the logits, and of log(1 + e^z)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from angulus.kernels.reduction import softplus

if TYPE_CHECKING:
    from angulus.kernels.blocks import Block


class Total:
    """The sum of the logits of the non-target classes, block by block."""

    def __init__(self, unit: Tensor) -> None:
        self.value = unit.new_zeros(len(unit))
        self.scaled = unit.new_zeros(len(unit))  # what the radius multiplies

    def add(self, logits: Tensor, scaled: Tensor, block: Block) -> None:
        rows = block.targets[1]
        for total, part in ((self.value, logits), (self.scaled, scaled)):
            total += part.sum(dim=0)
            if len(rows):
                total.index_add_(0, rows, part[block.targets], alpha=-1)

    def merge(self, later: Total) -> None:
        self.value += later.value
        self.scaled += later.scaled


class SoftplusSum:
    """Σ log(1 + e^z) over the non-target classes, block by block, and its derivatives by the scale and the shift."""

    bounded, unit = False, 1.0

    def __init__(self, unit: Tensor, shift: Tensor, by_scale: bool, by_shift: bool) -> None:
        self.shift = shift
        self.total = unit.new_zeros(len(unit))
        self.by_scale = unit.new_zeros(len(unit)) if by_scale else None
        self.by_shift = unit.new_zeros(len(unit)) if by_shift else None

    def add(self, logits: Tensor, scaled: Tensor, block: Block) -> None:
        """Add one block; `logits` is overwritten."""
        logits += self.shift
        if len(block.targets[1]):
            logits.index_put_(block.targets, logits.new_tensor(-torch.inf))
        self.total += softplus(logits).sum(dim=0)
        if self.by_scale is None and self.by_shift is None:
            return
        shares = logits.sigmoid_()
        if self.by_shift is not None:
            self.by_shift += shares.sum(dim=0)
        if self.by_scale is not None:
            self.by_scale += shares.mul_(scaled).sum(dim=0)

    def merge(self, later: SoftplusSum) -> None:
        pairs = ((self.total, later.total), (self.by_scale, later.by_scale), (self.by_shift, later.by_shift))
        for own, other in pairs:
            if own is not None and other is not None:
                own += other

    def value(self) -> Tensor:
        return self.total

    def saved(self) -> tuple[Tensor | None, Tensor | None]:
        return self.by_shift, self.by_scale
