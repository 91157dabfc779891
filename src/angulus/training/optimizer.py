"""Which parameters decay, and the optimisers over them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch
from torch import nn

from angulus.heads.optimizers import BackwardSGD, SparseSGD
from angulus.heads.saving import Head
from angulus.training.settings import Optimizer


def parameter_groups(
    backbone: nn.Module,
    head: nn.Module,
    objective: nn.Module,
    settings: Optimizer,
    apart: Collection[nn.Parameter] = (),
) -> list[dict[str, object]]:
    """Two groups, with and without weight decay; a parameter of at most one dimension is a bias, norm layer or slope.

    `objective` is the part of the head that learns s and R; its parameters decay only where the settings say so. What
    is `apart` has an optimiser of its own. Where the backbone has another rate there are two groups more.
    """
    learned = {id(parameter) for parameter in objective.parameters()}
    elsewhere = {id(parameter) for parameter in apart}
    found: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for module, scale in ((backbone, settings.backbone_lr_scale), (head, 1.0)):
        for parameter in module.parameters():
            if not parameter.requires_grad or id(parameter) in elsewhere:
                continue
            if id(parameter) in learned:
                chosen = settings.decay_objective
            else:
                chosen = parameter.ndim > 1 or settings.decay_bias_and_norm
            found.setdefault((scale, chosen), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": settings.weight_decay if decays else 0.0}
        | ({} if scale == 1 else {"lr_scale": scale})
        for (scale, decays), parameters in sorted(found.items(), key=lambda each: (each[0][0], not each[0][1]))
    ]


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


class Optimizers:
    """Optimisers that step as one; the state of a single one is its own."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = list(parts)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all."""
        return [group for part in self.parts for group in part.param_groups]

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters of all."""
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def set_rate(self, lr: float) -> None:
        """Give every group this rate, times its own scale."""
        for group in self.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def state_dicts(self, without: Collection[nn.Parameter] = ()) -> list[dict[str, Any]]:
        """The state of each, but for what is kept of those parameters."""
        left_out = {id(parameter) for parameter in without}
        states = []
        for part in self.parts:
            state = part.state_dict()
            own = [parameter for group in part.param_groups for parameter in group["params"]]
            kept = {number: each for number, each in state["state"].items() if id(own[number]) not in left_out}
            states.append(state | {"state": kept})
        return states

    def load_state_dicts(self, states: Sequence[dict[str, Any]]) -> None:
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)


def optimizers(backbone: nn.Module, head: Head, settings: Optimizer, *, update_in_backward: bool = False) -> Optimizers:
    """The optimisers of a backbone and its head: one, and one for class weights of which a step sees a part.

    Raises:
        checks.InputError: a head that cannot be updated within backward.
    """
    apart: list[nn.Parameter] = []
    own: list[torch.optim.Optimizer] = []
    rules = (settings.rate, settings.momentum, settings.weight_decay)
    if update_in_backward:
        own, apart = [BackwardSGD(head, *rules)], [head.weight]
    elif head.sampling is not None:
        apart = [parameter for parameter in (head.weight, head.bias) if parameter is not None]
        decay = settings.weight_decay if settings.decay_bias_and_norm else 0.0
        biases = [{"params": apart[1:], "weight_decay": decay}] if apart[1:] else []
        own = [SparseSGD([{"params": apart[:1]}, *biases], *rules)]
    groups = parameter_groups(backbone, head, head.objective, settings, apart)
    return Optimizers([build(groups, settings), *own])
