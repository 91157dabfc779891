"""Classifiers: how the target's logit t and the other logits z_j become a loss: one softmax, or C sigmoids."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from angulus.core import checks
from angulus.losses.roles import Classifier

STARTS = ("balanced", "classes")


@dataclass(frozen=True)
class Softmax(Classifier):
    """−Σ_j q_j log(e^{z_j} / Σ_k e^{z_k}), with q_y = 1 − ε + ε/C and q_j = ε/C elsewhere; ε = 0 is the usual softmax.

    Args:
        smoothing: ε in [0, 1), label smoothing; the paper uses 0.1. The logits are those with the margin.

    Source: Szegedy et al. 2016, Sec. 7.
    """

    smoothing: float = 0.0
    kind: ClassVar[str] = "softmax"
    name: ClassVar[str] = "softmax cross-entropy"

    def __post_init__(self) -> None:
        checks.number("smoothing", self.smoothing, low=0, high=1, open_high=True)

    @property
    def sums_logits(self) -> bool:
        return self.smoothing > 0

    def bind(self, embedding_size: int, num_classes: int) -> BoundSoftmax:
        return BoundSoftmax(self.smoothing, num_classes)

    def loss_formula(self) -> str:
        if not self.smoothing:
            return "−log(e^t / (e^t + Σ_{j≠y} e^{z_j}))"
        kept = f"{1 - self.smoothing:g}·t + {self.smoothing:g}/C·(t + Σ_{{j≠y}} z_j)"
        return f"[log(e^t + Σ_{{j≠y}} e^{{z_j}}) − ({kept})]"

    def words(self) -> str:
        return f"label smoothing {self.smoothing:g}" if self.smoothing else ""


@dataclass(frozen=True)
class BoundSoftmax:
    """`Softmax`, bound to C."""

    smoothing: float
    num_classes: int

    def shift(self, norms: Tensor) -> None:
        return None

    def __call__(self, own: Tensor, others: Tensor, total: Tensor | None) -> Tensor:
        loss = -F.logsigmoid(own - others)
        if total is None:
            return loss
        return loss + self.smoothing * (own - (own + total) / self.num_classes)


@dataclass(frozen=True)
class Sigmoid(Classifier):
    """positive · log(1 + e^{−t}) + negative · Σ_{j≠y} log(1 + e^{z_j}): one binary classifier per class, sharing b.

    b is added to t and to every z_j.

    Args:
        positive: the factor of the own class, > 0.
        negative: the factor of the other classes, > 0.
        start: the first value of b; `"balanced"` makes the loss lowest if all angles are 90° (SphereFace2's code),
            `"classes"` is −log(10 C) (UniFace's code).
        learn: whether b is learned.

    Source: Wen et al. 2022 (SphereFace2), Zhai et al. 2023 (SigLIP), Zhou et al. 2023 (UniFace).
    """

    positive: float = 1.0
    negative: float = 1.0
    start: float | Literal["balanced", "classes"] = 0.0
    learn: bool = True
    kind: ClassVar[str] = "sigmoid"
    softplus: ClassVar[bool] = True
    name: ClassVar[str] = "sigmoid cross-entropy"

    def __post_init__(self) -> None:
        checks.number("positive", self.positive, low=0, open_low=True)
        checks.number("negative", self.negative, low=0, open_low=True)
        if self.start not in STARTS:
            checks.number("start", self.start, hint="or 'balanced' or 'classes'")
        checks.flag("learn", self.learn)

    @property
    def stateful(self) -> bool:
        return self.learn

    def bind(self, embedding_size: int, num_classes: int) -> BoundSigmoid:
        """B at its start; for "balanced" the caller then gives the logits at 90° to `balance`."""
        if num_classes < 2:
            raise checks.InputError(
                f"the sigmoid classifier needs another class: num_classes must be >= 2; got {num_classes}; with one "
                "class b alone lowers the loss without end"
            )
        return BoundSigmoid(self, num_classes)

    def loss_formula(self) -> str:
        factors = ("" if number == 1 else f"{number:g}·" for number in (self.positive, self.negative))
        return "[{}log(1 + e^{{−t − b}}) + {}Σ_{{j≠y}} log(1 + e^{{z_j + b}})]".format(*factors)

    def words(self) -> str:
        sides = f"own class × {self.positive:g}, others × {self.negative:g}, "
        named = {"balanced": "the value that costs least at 90°", "classes": "−log(10 C)"}
        start = named[self.start] if isinstance(self.start, str) else f"{self.start:g}"
        return (sides if (self.positive, self.negative) != (1, 1) else "") + (
            f"b learned, starting at {start}" if self.learn else f"b = {start}"
        )


class BoundSigmoid(nn.Module):
    """`Sigmoid`, bound: holds b, a 0-d parameter if it is learned, else a number."""

    b: Tensor | float

    def __init__(self, spec: Sigmoid, num_classes: int) -> None:
        super().__init__()
        self.spec, self.num_classes = spec, num_classes
        start = 0.0 if isinstance(spec.start, str) else float(spec.start)
        if spec.start == "classes":
            start = -math.log(10 * num_classes)
        self.b = nn.Parameter(torch.tensor(start)) if spec.learn else start

    @torch.no_grad()
    def balance(self, own: float, others: float) -> None:
        """Start b where the loss is lowest if the logits are these two numbers, unless its start was given."""
        if self.spec.start == "balanced":
            start = balanced(own, others, self.spec.positive / (self.spec.negative * (self.num_classes - 1)))
            if isinstance(self.b, Tensor):
                self.b.fill_(start)
            else:
                self.b = start

    def shift(self, norms: Tensor) -> Tensor:
        b = self.b
        return b.to(norms.dtype).expand_as(norms) if isinstance(b, Tensor) else torch.full_like(norms, b)

    def __call__(self, *arguments: Any) -> Tensor:
        loss: Tensor = super().__call__(*arguments)
        return loss

    def forward(self, own: Tensor, others: Tensor, total: Tensor | None) -> Tensor:
        return self.spec.negative * others - self.spec.positive * F.logsigmoid(own)


def balanced(own: float, others: float, ratio: float) -> float:
    """The b that minimises ratio · log(1 + e^{−own − b}) + log(1 + e^{others + b}).

    The derivative is zero where y = e^{others + b} solves e^{own − others}·y² + (1 − ratio)·y − ratio = 0.
    """
    root = math.sqrt((1 - ratio) ** 2 + 4 * ratio * math.exp(own - others))
    if ratio > 1:  # 1 − ratio + root would cancel
        return math.log(ratio - 1 + root) - math.log(2) - own
    return math.log(2 * ratio) - others - math.log(1 - ratio + root)


TABLE: dict[str, type[Classifier]] = {piece.kind: piece for piece in (Softmax, Sigmoid)}
