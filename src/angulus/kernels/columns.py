"""Reductions over the batch for each class, on a block of classes: every class sees all rows at once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from angulus.kernels.exponentials import exp_


class Columns(NamedTuple):
    """Log sums of the n classes of a block, and the derivatives of each class's number by its cosines."""

    own: Tensor  # log(1 + Σ_{x of the class} e^{−α (cos − δ)}), [n]
    others: Tensor  # log(1 + Σ_{other x} e^{α (cos + δ)}), [n]
    present: Tensor  # classes with a row, 0-d
    own_shares: Tensor  # the part of each row of `targets` in its class's first sum, [k]
    other_shares: Tensor  # the part of each row in the second, [n, B]; 0 for own rows


def reduce_columns(
    cosines: Tensor, targets: tuple[Tensor, Tensor], kept: Tensor | None, alpha: float, delta: float, out: Tensor
) -> Columns:
    """Both log sums of each class.

    Args:
        cosines: [n, B].
        targets: the places of the rows' own classes, (class within the block, row), [k] each.
        kept: the rows that count, [B] of bool, or None: all.
        alpha, delta: α and δ.
        out: a buffer [n, B], which holds the shares of the others afterwards.
    """
    logits = torch.add(cosines.new_tensor(alpha * delta), cosines, alpha=alpha, out=out)
    if len(targets[1]):
        logits.index_put_(targets, logits.new_tensor(-torch.inf))
    if kept is not None:
        logits.masked_fill_(~kept, -torch.inf)
    top = logits.amax(dim=1).clamp_min_(0.0)  # the 1 in the logarithm is e^0
    exponentials = exp_(logits.sub_(top[:, None]))
    total = torch.exp(-top) + exponentials.sum(dim=1)
    inside = present = targets[0]
    own = -alpha * (cosines[targets] - delta)
    if kept is not None:
        counted = kept[targets[1]]
        own, present = torch.where(counted, own, -torch.inf), inside[counted]
    own_top = torch.zeros_like(top).scatter_reduce_(0, inside, own, "amax")
    own_exponentials = torch.exp(own - own_top[inside])
    own_total = torch.exp(-own_top).index_add_(0, inside, own_exponentials)
    return Columns(
        own=own_top + torch.log(own_total),
        others=top + torch.log(total),
        present=torch.unique(present).numel() + top.new_zeros(()),
        own_shares=own_exponentials / own_total[inside],
        other_shares=exponentials.div_(total[:, None]),
    )
