"""Negatives: map a non-target cosine c above the sample's threshold to a2·c² + a1·c + a0.

The threshold is the sample's margined target cosine, detached; a cosine equal to it counts as well classified.
"""

from dataclasses import dataclass
from typing import ClassVar

from angulus.core import checks
from angulus.losses.roles import Negatives

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


TABLE: dict[str, type[Negatives]] = {piece.kind: piece for piece in (Keep, MVFixed, MVAdaptive)}
