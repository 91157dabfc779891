"""Gradient clipping next to a head: the norm is that of the whole gradient, wherever its parts are."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from angulus.core import checks
from angulus.distributed.collectives import total
from angulus.heads.dense import DenseHead
from angulus.heads.sharded import ShardedHead


@torch.no_grad()
def clip_grad_norm_(parameters: Iterable[nn.Parameter], max_norm: float, head: DenseHead | ShardedHead) -> Tensor:
    """Clip ‖g‖₂ of the whole gradient to `max_norm`: g ← g · min(1, max_norm / ‖g‖); returns ‖g‖, equal on all ranks.

    `torch.nn.utils.clip_grad_norm_` next to a `ShardedHead` computes another norm on each rank, because each has
    other class weights, and so scales the gradients of the backbone apart. This sums over all classes. The gradients
    of parameters that `fully_shard` spreads over the ranks count as a whole too.

    Args:
        parameters: of backbone and head.
        max_norm: > 0.
        head: the one among them; every rank calls this for a sharded one.
    """
    limit = checks.number("max_norm", max_norm, low=0, open_low=True)
    rows = {id(head.weight), id(head.bias)} if isinstance(head, ShardedHead) else set()
    shards: list[nn.Parameter] = []  # of the head: each rank has other classes
    spread: list[nn.Parameter] = []  # by `fully_shard`: DTensors, whose norm is that of the whole
    common: list[nn.Parameter] = []
    for parameter in parameters:
        (shards if id(parameter) in rows else spread if hasattr(parameter, "full_tensor") else common).append(parameter)
    if not shards and not spread:
        return nn.utils.clip_grad_norm_(common, limit)
    groups = (shards, spread, common)
    own, whole, same = (
        nn.utils.get_total_norm([each.grad for each in group if each.grad is not None]).square() for group in groups
    )
    whole = whole.full_tensor() if hasattr(whole, "full_tensor") else whole
    norm = (total(own, head.ranks) + whole + same).sqrt()
    for group in groups:
        nn.utils.clip_grads_with_norm_(group, limit, norm)
    return norm
