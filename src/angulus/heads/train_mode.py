"""What training mode adds to a loss: who trains together, what overflowed, and which figures move."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from angulus.core import checks
from angulus.distributed.collectives import gather, total
from angulus.distributed.runtime import Ranks, ddp_ranks
from angulus.heads.geometry import Geometry
from angulus.heads.rows import measures
from angulus.losses.bound import BoundObjective
from angulus.losses.running import Statistics

P = ParamSpec("P")
R = TypeVar("R")


def uncompiled(function: Callable[P, R]) -> Callable[P, R]:
    """`torch.compiler.disable` from the first call on: as a decorator it imports torch._dynamo, which takes 1 s."""
    disabled: list[Callable[P, R]] = []

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if not disabled:
            disabled.append(torch.compiler.disable(function))  # type: ignore[no-untyped-call]
        return disabled[0](*args, **kwargs)

    return call


def partners(weight: Tensor, way_out: str) -> Ranks:
    """The ranks that train this weight together: those of the DistributedDataParallel that calls, or this one alone.

    Raises:
        checks.InputError: several processes run, and nothing keeps their copies of the weight the same.
    """
    ranks = ddp_ranks(weight) if isinstance(weight, nn.Parameter) else None
    if ranks is None and Ranks.here().count > 1:
        raise checks.InputError(
            f"torch.distributed runs {Ranks.here().count} processes, and each would train class weights and running "
            f"figures of its own; {way_out}"
        )
    return ranks or Ranks()


def refuse_recomputation(bound: BoundObjective) -> None:
    """Refuse a forward within backward, as checkpointing makes one, where the figures have moved since the first.

    Its gradients would be those of another loss than the first forward returned.
    """
    if bound.moves and bound.keeps_figures and torch._C._current_graph_task_id() != -1:
        raise checks.InputError(
            "this objective moves its figures in forward, and checkpointing runs forward again after they have moved; "
            "checkpoint the backbone alone, and call the head outside"
        )


def may_overflow(features: Tensor) -> bool:
    """Whether features may overflow, and a gradient scaler is to see it: float16 or its autocast, with gradients on."""
    if not (isinstance(features, Tensor) and torch.is_grad_enabled()):
        return False
    device = features.device.type
    autocast = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.float16
    return autocast or features.dtype == torch.float16


def overflowed(features: Tensor, kept: Tensor, reduction: str, parameters: list[Tensor]) -> Tensor:
    """The loss of features that are not finite: NaN, as are all its gradients, so that a gradient scaler skips."""
    leaves = [features, *(each for each in parameters if each.requires_grad)]
    value = torch.stack([leaf.float().sum() for leaf in leaves]).sum() * torch.nan
    return torch.where(kept, value, 0.0) if reduction == "none" else value


@torch.no_grad()
def seen(
    bound: BoundObjective, target: Geometry, features: Tensor, labels: Tensor, ranks: Ranks, sizes: list[int]
) -> Statistics:
    """What the rows of these ranks look like; features and labels only where centres move by them."""
    values = measures(bound, target)
    sums = total(torch.stack([value.sum() for value in values.values()]), ranks) / sum(sizes)
    means = dict(zip(values, sums.unbind(), strict=True))
    if bound.center_loss is None:
        return Statistics(means, sum(sizes), features[:0].detach(), labels[:0])
    return Statistics(means, sum(sizes), gather(features.detach(), sizes, ranks), gather(labels, sizes, ranks))
