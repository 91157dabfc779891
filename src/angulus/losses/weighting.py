"""Weighting: how much each sample counts, `weighting(loss[B], log_p[B], log_not_p[B]) -> (weight[B], divisor)`."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from angulus.core import checks
from angulus.losses.roles import Weighting


@dataclass(frozen=True)
class Focal(Weighting):
    """(1 − p_y)^γ for each sample, γ ≥ 0; with gradient. F-Softmax. Source: MV Eq. 2 and 4.

    Args:
        gamma: γ; the paper uses 2.
        probability: p_y from the logits of the loss (`"margin"`, as in the paper's experiments), or from the plain
            cosines (`"plain"`, its equations taken literally).
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

    Source: MV Sec. 3.1, Eq. 4.
    """

    keep: float = 0.9
    divide: str = "kept"
    scope: str = "rank"
    kind: ClassVar[str] = "hard_mining"
    reads_batch: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.number("keep", self.keep, low=0, high=1, open_low=True)
        checks.choice("divide", self.divide, ("kept", "all"))
        checks.choice("scope", self.scope, ("rank", "global"))

    def __call__(self, loss: Tensor, log_p: Tensor, log_not_p: Tensor) -> tuple[Tensor, int]:
        rows = loss.shape[0]
        # 1e-9: 0.29 * 100 is 28.999... in binary
        count = min(rows, max(1, math.floor(self.keep * rows + 1e-9)))
        order = torch.argsort(loss.detach(), descending=True, stable=True)
        weight = torch.zeros_like(loss).index_fill(0, order[:count], 1.0)
        return weight, count if self.divide == "kept" else rows

    def formula(self) -> str:
        return f"[among the {100 * self.keep:g}% highest]"

    def words(self) -> str:
        everywhere = "" if self.scope == "rank" else ", among the rows of all ranks"
        return f"hard mining: the {100 * self.keep:g}% highest losses, divided by the number {self.divide}{everywhere}"


TABLE: dict[str, type[Weighting]] = {piece.kind: piece for piece in (Focal, HardMining)}
