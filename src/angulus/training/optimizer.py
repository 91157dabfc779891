"""Which parameters decay, and the optimiser over them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from angulus.training.settings import Optimizer


def parameter_groups(
    backbone: nn.Module, head: nn.Module, objective: nn.Module, settings: Optimizer
) -> list[dict[str, object]]:
    """Two groups, with and without weight decay; a parameter of at most one dimension is a bias, norm layer or slope.

    `objective` is the part of the head that learns s and R; its parameters decay only where the settings say so.
    """
    learned = {id(parameter) for parameter in objective.parameters()}
    decay: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for parameter in [*backbone.parameters(), *head.parameters()]:
        if not parameter.requires_grad:
            continue
        if id(parameter) in learned:
            chosen = settings.decay_objective
        else:
            chosen = parameter.ndim > 1 or settings.decay_bias_and_norm
        (decay if chosen else plain).append(parameter)
    groups: list[dict[str, object]] = [
        {"params": decay, "weight_decay": settings.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def build(groups: Iterable[dict[str, object]], settings: Optimizer) -> torch.optim.Optimizer:
    """The optimiser of the settings over those groups."""
    groups, lr = list(groups), settings.rate
    match settings.kind:
        case "adamw":
            return torch.optim.AdamW(groups, lr=lr)
        case "rmsprop":
            return torch.optim.RMSprop(groups, lr=lr, momentum=settings.momentum)
        case _:
            return torch.optim.SGD(groups, lr=lr, momentum=settings.momentum, nesterov=settings.nesterov)
