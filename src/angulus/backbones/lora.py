"""LoRA: train a product of two thin matrices next to each frozen linear layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from angulus.core import checks
from angulus.core.checks import InputError

_KEYS = ("r", "alpha", "targets")


class LoRALinear(nn.Module):
    """x ↦ W x + b + (alpha / r) · B A x, with W and b frozen; A [r, in] is drawn, B [out, r] begins at 0.

    Source: E. J. Hu et al., "LoRA: Low-rank adaptation of large language models", ICLR 2022, Sec. 4.1.
    """

    def __init__(self, base: nn.Linear, r: int, alpha: float) -> None:
        super().__init__()
        self.base, self.scale = base.requires_grad_(False), alpha / r
        self.in_features, self.out_features = base.in_features, base.out_features
        self.A = nn.Parameter(base.weight.new_empty(r, base.in_features))
        self.B = nn.Parameter(base.weight.new_zeros(base.out_features, r))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))

    @property
    def weight(self) -> Tensor:
        """W + (alpha / r) · B A, for nets that read the weight of their layer."""
        return self.base.weight + self.scale * self.B @ self.A

    @property
    def bias(self) -> Tensor | None:
        """The frozen bias."""
        return self.base.bias

    def forward(self, inputs: Tensor) -> Tensor:
        """Map [..., in] to [..., out]."""
        change = nn.functional.linear(nn.functional.linear(inputs, self.A), self.B)
        return self.base(inputs) + self.scale * change  # type: ignore[no-any-return]


def check(name: str, value: object) -> dict[str, Any]:
    """Return {r, alpha, targets} of an option such as `{r: 8, targets: [q_proj, v_proj]}`; alpha is 2 r by default."""
    if not isinstance(value, Mapping) or not {"r", "targets"} <= value.keys() <= set(_KEYS):
        raise InputError(f"{name} must hold r, targets and perhaps alpha; got {checks.shown(value)}")
    targets = value["targets"]
    if not isinstance(targets, list | tuple) or not targets or not all(isinstance(each, str) for each in targets):
        raise InputError(f"targets of {name} must be a list of names of linear layers; got {checks.shown(targets)}")
    r = checks.integer(f"r of {name}", value["r"], low=1, high=2**14)
    alpha = checks.number(f"alpha of {name}", value.get("alpha", 2 * r), low=0, open_low=True)
    return {"r": r, "alpha": alpha, "targets": list(targets)}


def add(name: str, net: nn.Module, r: int, alpha: float, targets: list[str]) -> None:
    """Freeze the net and put a `LoRALinear` in the place of each linear layer that a target names.

    A target is a pattern of the layer's name, or its last part: `blocks.*.attn.qkv`, `qkv`.

    Raises:
        InputError: a target names no linear layer.
    """
    linear = {place: module for place, module in net.named_modules() if type(module) is nn.Linear}
    net.requires_grad_(False)
    for target in targets:
        matched = [each for each in linear if fnmatchcase(each, target) or each.endswith(f".{target}")]
        if not matched:
            near = checks.nearest(target, {each.rpartition(".")[2] for each in linear})
            shown = f"; its linear layers are as {next(iter(linear))!r}" if linear else "; it has none"
            raise InputError(f"targets of {name}: {target!r} names no linear layer of the net{near or shown}")
        for place in matched:
            layer = net.get_submodule(place)
            if isinstance(layer, nn.Linear):  # not yet replaced, by another target
                parent, _, last = place.rpartition(".")
                setattr(net.get_submodule(parent), last, LoRALinear(layer, r, alpha))
