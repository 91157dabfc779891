"""Negatives: map a non-target cosine c above the sample's threshold to a2·c² + a1·c + a0.

The threshold is the sample's margined target cosine, detached, or one number; a cosine equal to it is below.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from angulus.core import checks
from angulus.losses.roles import Coefficients, Negatives
from angulus.losses.running import Batch, Statistics, Wide, wide_dtype


@dataclass(frozen=True)
class Keep(Negatives):
    """Keep all cosines unchanged."""

    kind: ClassVar[str] = "keep"
    remaps: ClassVar[bool] = False

    @property
    def coefficients(self) -> Coefficients:
        return (0.0, 1.0, 0.0)

    def formula(self) -> str:
        return "cos θ_j"


@dataclass(frozen=True)
class MVFixed(Negatives):
    """c + t where c exceeds the margined target, t ≥ 0. MV-Softmax, fixed. Source: MV Eq. 7."""

    t: float
    kind: ClassVar[str] = "mv_fixed"

    def __post_init__(self) -> None:
        checks.number("t", self.t, low=0)

    @property
    def coefficients(self) -> Coefficients:
        return (0.0, 1.0, self.t)

    def formula(self) -> str:
        return f"(cos θ_j + {self.t:g}·I_j)"


@dataclass(frozen=True)
class MVAdaptive(Negatives):
    """(1 + t)·c + t where c exceeds the margined target. MV-Softmax, adaptive. Source: MV Eq. 8.

    Args:
        t: ≥ 0.
        detach: whether t·(c + 1) has no gradient, so that the slope stays 1 as with fixed t. Not in the paper; it keeps
            a training from collapsing where negatives of slope 1 + t pull harder than the target.
    """

    t: float
    detach: bool = False
    kind: ClassVar[str] = "mv_adaptive"

    def __post_init__(self) -> None:
        checks.number("t", self.t, low=0)
        checks.flag("detach", self.detach)

    @property
    def slope(self) -> tuple[float, float] | None:
        return (0.0, 1.0) if self.detach else None

    @property
    def coefficients(self) -> Coefficients:
        return (0.0, 1.0 + self.t, self.t)

    def formula(self) -> str:
        return f"(cos θ_j + {self.t:g}·(cos θ_j + 1)·I_j)"


@dataclass(frozen=True)
class Curricular(Negatives):
    """c·(t + c) where c exceeds the margined target, t a running mean of the target cosine. CurricularFace.

    t ← (1 − rate)·t + rate·mean cosθ over the rows of all ranks, before the step's loss uses it.

    Args:
        rate: α in [0, 1]; 0.01 in the paper. With 0, t stays at `start`.
        start: t at first, in [−1, 1]; 0 in the paper.

    Source: Huang et al. 2020 (CurricularFace), Eq. 5 to 7. Differs: the authors' code compares with cos(θ + m) as
    written where θ + m > π; the threshold here is the target that the loss uses.
    """

    rate: float = 0.01
    start: float = 0.0
    kind: ClassVar[str] = "curricular"
    stateful: ClassVar[bool] = True
    reads_batch: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.number("rate", self.rate, low=0, high=1)
        checks.number("start", self.start, low=-1, high=1)

    @property
    def coefficients(self) -> Coefficients:
        return (1.0, self.start, 0.0)

    def bind(self, embedding_size: int, num_classes: int) -> "BoundCurricular":
        return BoundCurricular(self)

    def formula(self) -> str:
        start = f" from {self.start:g}" if self.start else ""
        return f"(cos θ_j, or cos θ_j·(t + cos θ_j) where I_j, t the mean of cos θ{start} at rate {self.rate:g})"


class BoundCurricular(Wide):
    """`Curricular`, bound: keeps t."""

    t: Tensor
    masks: ClassVar[bool] = True

    def __init__(self, spec: Curricular) -> None:
        super().__init__()
        self.spec = spec
        self.register_buffer("t", torch.tensor(float(spec.start), dtype=wide_dtype()))
        self.current: Tensor | None = None  # t of the step, within its loss

    @property
    def coefficients(self) -> Coefficients:
        return (1.0, self.t.clone() if self.current is None else self.current, 0.0)  # t moves before backward

    def prepare(self, batch: Batch | None) -> None:
        self.current = None if batch is None else self._moved(batch)

    @torch.no_grad()
    def observe(self, stats: Statistics) -> None:
        self.t.copy_(self._moved(stats.rows_seen))

    def _moved(self, batch: Batch) -> Tensor:
        return (1 - self.spec.rate) * self.t + self.spec.rate * batch.mean(batch.cos)


@dataclass(frozen=True)
class PowerCosine(Negatives):
    """g(c) + m for every c, with g(c) = 2((c + 1)/2)^t − 1. SphereFace2. Source: Wen et al. 2022, Eq. 5 to 7.

    Args:
        m: added to g, ≥ 0.
        t: the power, ≥ 1; 3 in the paper, 1 leaves the cosine.
        gradient: `"exact"`, or `"straight_through"`: the gradient of c, as the authors' code has it.
    """

    m: float = 0.4
    t: float = 3.0
    gradient: str = "exact"
    kind: ClassVar[str] = "power_cosine"
    coefficients: ClassVar[Coefficients] = (0.0, 1.0, 0.0)

    def __post_init__(self) -> None:
        checks.number("m", self.m, low=0)
        checks.number("t", self.t, low=1)
        checks.choice("gradient", self.gradient, ("exact", "straight_through"))

    @property
    def power(self) -> tuple[float, float]:
        return (self.t, self.m)

    @property
    def slope(self) -> tuple[float, float] | None:
        return None if self.gradient == "exact" else (0.0, 1.0)

    @property
    def at_right_angle(self) -> float:
        return 2 * math.pow(0.5, self.t) - 1 + self.m

    def formula(self) -> str:
        body = "cos θ_j" if self.t == 1 else f"(2((1 + cos θ_j)/2)^{self.t:g} − 1)"
        return f"({body} + {self.m:g})" if self.m else body


@dataclass(frozen=True)
class Circle(Negatives):
    """max(0, c + m) · (c − m), so 0 where c ≤ −m. Circle loss at class level. Source: Sun et al. 2020, Eq. 6 to 8.

    Args:
        m: in [0, 1); 0.25 in the paper.
        detach: whether the factor max(0, c + m) has no gradient, as in the paper.
    """

    m: float = 0.25
    detach: bool = True
    kind: ClassVar[str] = "circle"
    below: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        checks.number("m", self.m, low=0, high=1, open_high=True)
        checks.flag("detach", self.detach)

    @property
    def coefficients(self) -> Coefficients:
        return (1.0, 0.0, -self.m * self.m)

    @property
    def threshold(self) -> float:
        return -self.m

    @property
    def slope(self) -> tuple[float, float] | None:
        return (1.0, self.m) if self.detach else None

    @property
    def at_right_angle(self) -> float:
        return -self.m * self.m

    def formula(self) -> str:
        return f"[cos θ_j + {self.m:g}]₊·(cos θ_j − {self.m:g})"


TABLE: dict[str, type[Negatives]] = {
    piece.kind: piece for piece in (Keep, MVFixed, MVAdaptive, Curricular, PowerCosine, Circle)
}
