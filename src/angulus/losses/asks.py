"""What a penalty sees of the samples, and what it may ask of the reduction over the classes.

A penalty is a frozen spec; bound, it is called `penalty(rows, answer) -> [B]`, where `answer` is what the reduction
over the classes gave to `penalty.ask(rows)`: to a `Plain` ask the log-sum-exp over j ≠ y of scale · cos_j, to a `Hinge`
ask the pair (Σ_{j≠y} max(0, offset + 2 cos_j), how many are active), to None nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor

from angulus.losses import roles
from angulus.losses.roles import Penalty


@dataclass(frozen=True)
class Rows:
    """What a penalty sees of the samples; every tensor is [B].

    Args:
        norms: ‖x‖ of the raw features.
        cos: cosine with the own class, no margin.
        target: the margined cosine that the loss uses in its place.
        scale: s of the base loss where it is one number (fixed or learned), else None.
    """

    norms: Tensor
    cos: Tensor
    target: Tensor
    scale: float | Tensor | None


class Plain(NamedTuple):
    """Asks for log Σ_{j≠y} e^{scale · cos_j}."""

    scale: Tensor  # [B]


class Hinge(NamedTuple):
    """Asks for Σ_{j≠y} max(0, offset + 2 cos_j), the sum of hinges on squared distances of unit vectors."""

    offset: Tensor  # [B]


Ask = Plain | Hinge | None


class Stateless(roles.Stateless):
    """The usual answers of a penalty that asks for nothing, which is then its call and its name."""

    name: ClassVar[str]
    asks: ClassVar[type[Plain] | type[Hinge] | None] = None
    trains_classes: ClassVar[bool] = False
    reads_norms: ClassVar[bool] = False

    @property
    def needs_scale(self) -> bool:
        return False

    @property
    def needs_margin(self) -> bool:
        return False

    def at_scale(self, s: float) -> Penalty:
        """The same where the base loss has this scale, for its formula."""
        return self

    def ask(self, rows: Rows) -> Ask:
        return None

    def formula(self) -> str:
        return self.name
