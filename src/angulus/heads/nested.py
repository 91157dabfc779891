"""A nested loss: the sum of one loss over prefixes of features and class weights, which share one weight tensor."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from angulus.heads.sampling import ClassSubset
from angulus.losses.objective import BoundObjective


class Part(NamedTuple):
    """One of the losses whose sum an objective is."""

    bound: BoundObjective
    features: Tensor  # [B, k]
    subset: ClassSubset  # its weight is [n, k], or [n, K, k]
    update: Callable[[slice, Tensor], None] | None


def split(
    bound: BoundObjective, features: Tensor, subset: ClassSubset, update: Callable[[slice, Tensor], None] | None
) -> Iterator[Part]:
    """The losses of an objective, the whole feature first, and then its prefixes by falling size.

    Autograd runs what was computed last first. So the gradient of a prefix is there when that of the next larger one
    comes, is added to its first columns and freed; and an `update` within backward, which changes the weights, runs
    last, with all gradients.
    """
    weight, collected = subset.weight, None
    if update is not None and len(bound.summands) > 1:
        collected = _Collected(update, weight)
    for number, part in enumerate(bound.summands):
        size = part.embedding_size
        following = bound.summands[number + 1].embedding_size if number + 1 < len(bound.summands) else None
        current, weight = (weight, weight) if following is None else _Prefix.apply(weight, following)  # type: ignore[no-untyped-call]
        own = update
        if collected is not None:
            own = collected.finish if part is bound else collected.keep
        yield Part(part, features[:, :size], subset._replace(weight=current), own)


def add(values: Sequence[Tensor]) -> Tensor:
    """The sum; a single value is itself."""
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total


class _Prefix(torch.autograd.Function):
    """(weight, its first k columns), as views; the gradient of the columns is added into that of the weight.

    Plain slices would copy the columns' gradient into a tensor of the weight's shape first.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, size: int) -> tuple[Tensor, Tensor]:
        ctx.rest = weight.shape[-1] - size
        ctx.set_materialize_grads(False)
        return weight.view_as(weight), weight[..., :size]

    @staticmethod
    def backward(ctx: Any, whole: Tensor | None, columns: Tensor | None) -> tuple[Tensor | None, None]:
        if columns is None:
            return whole, None
        if whole is None or torch.is_grad_enabled():  # a gradient that is differentiated again must not change
            padded = F.pad(columns, (0, ctx.rest))
            return padded if whole is None else whole + padded, None
        whole[..., : columns.shape[-1]] += columns  # a tensor that the kernel has just made for this weight
        return whole, None


class _Collected:
    """The gradients of prefixes by an update within backward, until the whole weight's comes: [C, largest prefix]."""

    def __init__(self, update: Callable[[slice, Tensor], None], weight: Tensor) -> None:
        self.update, self.rows = update, weight.shape[:-1].numel()
        self.gradient: Tensor | None = None
        self.lock = threading.Lock()

    def keep(self, rows: slice, gradient: Tensor) -> None:
        """Add the gradient of a prefix's block of weight rows."""
        with self.lock:  # blocks come from several threads
            if self.gradient is None:
                self.gradient = gradient.new_zeros(self.rows, gradient.shape[-1])
            if self.gradient.shape[-1] < gradient.shape[-1]:
                self.gradient = F.pad(self.gradient, (0, gradient.shape[-1] - self.gradient.shape[-1]))
        self.gradient[rows, : gradient.shape[-1]] += gradient

    def finish(self, rows: slice, gradient: Tensor) -> None:
        """Update a block of weight rows, once, by the sum of all gradients."""
        if self.gradient is not None:
            gradient[:, : self.gradient.shape[-1]] += self.gradient[rows]
        self.update(rows, gradient)
