"""Which parameters decay, and the optimisers over them."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch
from torch import nn

from angulus.core import checks
from angulus.heads.optimizers import BackwardSGD, SparseSGD
from angulus.heads.saving import Head
from angulus.training import sharding
from angulus.training.finetune import layer_scales
from angulus.training.settings import SGD, AdamW, Optimizer, RMSProp


def parameter_groups(
    backbone: nn.Module,
    head: nn.Module,
    objective: nn.Module,
    settings: Optimizer,
    excluded: Collection[nn.Parameter] = (),
) -> list[dict[str, object]]:
    """Two groups, with and without weight decay, for each learning rate: the head's, the backbone's, or its layers'.

    A parameter of at most one dimension is a bias, norm layer or slope. Parameters spread over the ranks are in groups
    of their own, since PyTorch cannot update them together with others; the order of all parameters stays.

    Args:
        backbone, head: hold the parameters.
        objective: the part of the head that learns s and R.
        settings: decide which parameters decay.
        excluded: parameters that another optimiser trains.
    """
    learned = {id(parameter) for parameter in objective.parameters()}
    skipped = {id(parameter) for parameter in excluded}
    by_layer = layer_scales(backbone, settings.layer_decay) if settings.layer_decay != 1 else {}
    groups: dict[tuple[float, bool, bool], list[nn.Parameter]] = {}
    for module, module_scale in ((backbone, settings.backbone_lr_scale), (head, 1.0)):
        for parameter in module.parameters():
            if not parameter.requires_grad or id(parameter) in skipped:
                continue
            if id(parameter) in learned:
                decays = settings.decay_objective
            else:
                decays = parameter.ndim > 1 or settings.decay_bias_and_norm
                decays = decays and (settings.decay_classes or module is backbone)
            scale = module_scale * by_layer.get(id(parameter), 1.0)
            groups.setdefault((scale, decays, sharding.is_spread(parameter)), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": settings.weight_decay if decays else 0.0}
        | ({} if scale == 1 else {"lr_scale": scale})
        for (scale, decays, _), parameters in sorted(
            groups.items(), key=lambda item: (item[0][0], not item[0][1], not item[0][2])
        )
    ]


def build(groups: Iterable[dict[str, object]], settings: Optimizer) -> torch.optim.Optimizer:
    """The optimiser of the settings over those groups."""
    groups, lr = list(groups), settings.lr
    match settings:
        case SGD():
            return torch.optim.SGD(groups, lr=lr, momentum=settings.momentum, nesterov=settings.nesterov)
        case AdamW():
            return torch.optim.AdamW(groups, lr=lr)
        case RMSProp():
            return torch.optim.RMSprop(
                groups, lr=lr, momentum=settings.momentum, alpha=settings.alpha, eps=settings.eps
            )


class Optimizers:
    """Several optimisers that step as one."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = list(parts)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for part in self.parts for group in part.param_groups]

    @property
    def parameters(self) -> list[nn.Parameter]:
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
        """The state of each part, leaving out what it keeps of some parameters."""
        left_out = {id(parameter) for parameter in without}
        states = []
        for part in self.parts:
            state = part.state_dict()
            parameters = [parameter for group in part.param_groups for parameter in group["params"]]
            entries = {key: entry for key, entry in state["state"].items() if id(parameters[key]) not in left_out}
            states.append(state | {"state": entries})
        return states

    def load_state_dicts(self, states: Sequence[dict[str, Any]]) -> None:
        """Load what `state_dicts` gave, with whole tensors, into parameters spread over any number of ranks."""
        for part, state in zip(self.parts, states, strict=True):
            parameters = [parameter for group in part.param_groups for parameter in group["params"]]
            entries = {
                number: {name: sharding.spread_as(value, parameters[number]) for name, value in entry.items()}
                for number, entry in state["state"].items()
            }
            groups = state["param_groups"]
            if sum(len(group["params"]) for group in groups) == len(parameters):
                groups = part.state_dict()[
                    "param_groups"
                ]  # more or fewer groups if spread; the settings are the recipe's
            part.load_state_dict({**state, "state": entries, "param_groups": groups})


def optimizers(
    backbone: nn.Module,
    head: Head,
    settings: Optimizer,
    *,
    update_in_backward: bool = False,
    rounding: str = "nearest",
    seed: int = 0,
) -> Optimizers:
    """The optimisers of a backbone and its head; class weights that a step sees only in part have their own.

    `rounding` and `seed` are those of `BackwardSGD`.

    Raises:
        checks.InputError: the class weights need SGD but the settings are of another kind, or the head cannot be
            updated within backward.
    """
    if not update_in_backward and head.sampling is None:
        return Optimizers([build(parameter_groups(backbone, head, head.objective, settings), settings)])
    if not isinstance(settings, SGD):
        raise checks.InputError(
            f"class sampling and update_in_backward need kind sgd; got {settings.kind}; leave them out, or choose sgd"
        )
    decay = settings.weight_decay if settings.decay_classes else 0.0
    rules = (settings.lr, settings.momentum, decay)
    class_optimizer: torch.optim.Optimizer
    if update_in_backward:
        class_optimizer, class_parameters = BackwardSGD(head, *rules, rounding=rounding, seed=seed), [head.weight]
    else:
        class_parameters = [parameter for parameter in (head.weight, head.bias) if parameter is not None]
        of_bias = decay if settings.decay_bias_and_norm else 0.0
        biases = [{"params": class_parameters[1:], "weight_decay": of_bias}] if class_parameters[1:] else []
        class_optimizer = SparseSGD([{"params": class_parameters[:1]}, *biases], *rules)
    groups = parameter_groups(backbone, head, head.objective, settings, class_parameters)
    return Optimizers([build(groups, settings), class_optimizer])
