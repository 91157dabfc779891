"""Negatives: map a non-target cosine c above the sample's threshold to a2·c² + a1·c + a0.

The threshold is the sample's margined target cosine, detached; a cosine equal to it counts as well classified.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from angulus.core import checks
from angulus.losses.roles import Negatives
from angulus.losses.running import Batch, Statistics, Wide, wide_dtype

Coefficients = tuple[float, float, float]


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
    """(1 + t)·c + t where c exceeds the margined target, t ≥ 0. MV-Softmax, adaptive. Source: MV Eq. 8."""

    t: float
    kind: ClassVar[str] = "mv_adaptive"

    def __post_init__(self) -> None:
        checks.number("t", self.t, low=0)

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

    def __init__(self, spec: Curricular) -> None:
        super().__init__()
        self.spec = spec
        self.register_buffer("t", torch.tensor(float(spec.start), dtype=wide_dtype()))
        self.current: Tensor | None = None  # t of the step, within its loss

    @property
    def coefficients(self) -> Coefficients:
        return (1.0, float(self.t if self.current is None else self.current), 0.0)

    def prepare(self, batch: Batch | None) -> None:
        self.current = None if batch is None else self._moved(batch)

    @torch.no_grad()
    def observe(self, stats: Statistics) -> None:
        self.t.copy_(self._moved(stats.rows_seen))

    def _moved(self, batch: Batch) -> Tensor:
        return (1 - self.spec.rate) * self.t + self.spec.rate * batch.cos.mean()


TABLE: dict[str, type[Negatives]] = {piece.kind: piece for piece in (Keep, MVFixed, MVAdaptive, Curricular)}
