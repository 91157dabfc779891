"""Weighting: how much each sample counts, `weighting(loss[B], log_p[B], log_not_p[B]) -> (weight[B], divisor)`."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from angulus.core import checks
from angulus.losses.per_class import PerClass, as_list, check_counts
from angulus.losses.roles import Weighting
from angulus.losses.running import exact_dtype


@dataclass(frozen=True)
class Focal(Weighting):
    """(1 − p_y)^γ for each sample, γ ≥ 0; with gradient. F-Softmax. Source: MV Eq. 2 and 4.

    Args:
        gamma: γ; the paper uses 2.
        probability: p_y from the logits of the loss, `"margin"`, or from the plain cosines, `"plain"`.

    Differs: the equations, taken literally, have p_y of the plain cosines; the paper's experiments and the authors'
    code that of the loss, as here.
    """

    gamma: float = 2.0
    probability: str = "margin"
    kind: ClassVar[str] = "focal"

    def __post_init__(self) -> None:
        checks.number("gamma", self.gamma, low=0)
        checks.choice("probability", self.probability, ("margin", "plain"))

    def __call__(self, loss: Tensor, log_p: Tensor, log_not_p: Tensor) -> tuple[Tensor, int]:
        # C = 1 has log_not_p = −inf, and 0 · −inf is NaN
        weight = torch.exp(self.gamma * log_not_p) if self.gamma > 0 else torch.ones_like(loss)
        return weight, loss.shape[0]

    def formula(self) -> str:
        return f"(1 − p{'' if self.probability == 'margin' else '°'})^{self.gamma:g}"

    def words(self) -> str:
        source = "of the loss" if self.probability == "margin" else "without margin"
        return f"focal weight (1 − p)^{self.gamma:g}, p {source}"


@dataclass(frozen=True)
class HardMining(Weighting):
    """1 for the floor(keep · B) highest losses of the batch (at least one), 0 for the others. HM-Softmax.

    Of equal losses, the lower row comes first.

    Args:
        keep: the share of rows that count, in (0, 1]; 0.9 in the paper.
        divide: the divisor of the mean: the number of rows that count, `"kept"`, or of all rows, `"all"`.
        scope: with several ranks, the batch is each rank's own rows, `"rank"`, or those of all ranks, `"global"`.

    Source: MV Sec. 3.1, Eq. 4. Differs: the paper names no divisor; the authors' code divides by the rows that count,
    as here.
    """

    keep: float = 0.9
    divide: str = "kept"
    scope: str = "rank"
    kind: ClassVar[str] = "hard_mining"
    reads_batch: ClassVar[bool] = True
    masks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.number("keep", self.keep, low=0, high=1, open_low=True)
        checks.choice("divide", self.divide, ("kept", "all"))
        checks.choice("scope", self.scope, ("rank", "global"))

    def __call__(
        self, loss: Tensor, log_p: Tensor, log_not_p: Tensor, kept: Tensor | None = None
    ) -> tuple[Tensor, int | Tensor]:
        # 1e-9: 0.29 * 100 is 28.999... in binary
        if kept is None:
            rows = loss.shape[0]
            count = min(rows, max(1, math.floor(self.keep * rows + 1e-9)))
            order = torch.argsort(loss.detach(), descending=True, stable=True)
            weight = torch.zeros_like(loss).index_fill(0, order[:count], 1.0)
            return weight, count if self.divide == "kept" else rows
        total = kept.sum().clamp_min(1)
        most = (self.keep * total.to(exact_dtype(loss.device)) + 1e-9).floor().clamp_min(1)
        order = torch.argsort(torch.where(kept, loss.detach(), -torch.inf), descending=True, stable=True)
        places = torch.arange(len(loss), device=loss.device)
        weight = torch.zeros_like(loss).index_copy_(0, order, (places < most).to(loss.dtype))
        return weight, most.to(loss.dtype) if self.divide == "kept" else total

    def formula(self) -> str:
        return f"[among the {100 * self.keep:g}% highest]"

    def words(self) -> str:
        everywhere = "" if self.scope == "rank" else ", among the rows of all ranks"
        return f"hard mining: the {100 * self.keep:g}% highest losses, divided by the number {self.divide}{everywhere}"


@dataclass(frozen=True)
class ClassWeights(Weighting):
    """w_y for each sample: a weight per class.

    Args:
        weights: one number > 0 per class, in the order of the labels; or `"balanced"`: N / (C·n_y), n_y the training
            images of the class and N those of all.
        counts: n_y ≥ 1 of each class for `"balanced"`; `"auto"`: a training counts its own images
            (`Objective.with_counts` in your own loop).
        divide: the divisor of the mean: the number of rows, `"rows"`, or the sum of their weights, `"weights"`, as
            `torch.nn.functional.cross_entropy(weight=...)` divides. Next to a backbone in DistributedDataParallel a
            `DenseHead` divides by the sum of each process's own rows; a `ShardedHead` by that of all.
    """

    weights: tuple[float, ...] | str = "balanced"
    counts: tuple[int, ...] | str | None = None
    divide: str = "rows"
    kind: ClassVar[str] = "class_weights"
    reads_labels: ClassVar[bool] = True
    masks: ClassVar[bool] = True

    @property
    def reads_batch(self) -> bool:
        return self.divide == "weights"

    def __post_init__(self) -> None:
        if isinstance(self.weights, str):
            checks.choice("weights", self.weights, ("balanced",), hint="or one number per class")
            object.__setattr__(self, "counts", check_counts("auto" if self.counts is None else self.counts))
        else:
            if self.counts is not None:
                raise checks.InputError(
                    "counts are read only with weights='balanced'; got weights as numbers too: leave one of them out"
                )
            hint = "to leave a class out, give its rows the label -100"
            weights = enumerate(as_list("weights", self.weights))
            plain = tuple(checks.number(f"weights[{i}]", w, low=0, open_low=True, hint=hint) for i, w in weights)
            object.__setattr__(self, "weights", plain)
        checks.choice("divide", self.divide, ("rows", "weights"))

    def bind(self, embedding_size: int, num_classes: int) -> "BoundClassWeights":
        if not isinstance(self.weights, str):
            return BoundClassWeights(PerClass(PerClass.check(self.kind, self.weights, num_classes)), self.divide)
        counts = PerClass.check(self.kind, self.counts, num_classes)
        images = sum(counts)
        return BoundClassWeights(PerClass([images / (num_classes * count) for count in counts]), self.divide)

    def formula(self) -> str:
        return "w_y" if self.divide == "rows" else "(w_y / mean of w_y)"

    def words(self) -> str:
        which = "balanced by the number of images" if isinstance(self.weights, str) else "as given"
        divisor = "" if self.divide == "rows" else ", divided by the sum of the rows' weights"
        return f"class weights w_y {which}{divisor}"


@dataclass(frozen=True, eq=False)
class BoundClassWeights:
    """`ClassWeights`, bound: knows the weight of each class."""

    weights: PerClass
    divide: str

    def __call__(
        self, loss: Tensor, log_p: Tensor, log_not_p: Tensor, labels: Tensor, kept: Tensor | None = None
    ) -> tuple[Tensor, int | Tensor]:
        weight = self.weights(labels, loss.dtype)
        counted = weight if kept is None else torch.where(kept, weight, 0.0)
        rows = loss.shape[0] if kept is None else kept.sum().clamp_min(1)
        return weight, counted.sum() if self.divide == "weights" else rows


TABLE: dict[str, type[Weighting]] = {piece.kind: piece for piece in (Focal, HardMining, ClassWeights)}
