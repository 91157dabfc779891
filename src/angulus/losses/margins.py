"""Margins: what replaces cosθ of the target class, `margin(theta[B], norms[B]) -> [B]`; `TABLE` has all.

θ = 2·atan2(‖x̂ − ŵ_y‖, ‖x̂ + ŵ_y‖) is exact, so a margin is just its formula, with the formula's own gradient.
`gradient="straight_through"` uses the gradient of cosθ instead, as a widespread implementation does by accident.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from angulus.core import checks
from angulus.losses.angles import BEYOND_PI, add_angle, check_angle
from angulus.losses.roles import Margin
from angulus.losses.running import Statistics, StepCount
from angulus.losses.sample_margins import ClassAngle, Elastic, NormAngle, NormQuality

__all__ = [
    "TABLE",
    "AdditiveAngle",
    "AdditiveCosine",
    "Annealing",
    "ClassAngle",
    "Combined",
    "Elastic",
    "Multiplicative",
    "NormAngle",
    "NormQuality",
]

GRADIENTS = ("exact", "straight_through")
MOST_TIMES = 8  # the largest multiplier of the angle without a warning; twice that of any paper


@dataclass(frozen=True)
class AdditiveCosine(Margin):
    """cosθ − m, m ≥ 0. AM-Softmax and CosFace. Source: IAM Eq. 5."""

    m: float
    kind: ClassVar[str] = "additive_cosine"

    def __post_init__(self) -> None:
        checks.number("m", self.m, low=0)
        _warn_if_negative_at_zero(self, "m", "is subtracted from the cosine", 1 - self.m)

    def __call__(self, theta: Tensor, norms: Tensor) -> Tensor:
        return torch.cos(theta) - self.m

    def formula(self) -> str:
        return f"(cos θ − {self.m:g})"


@dataclass(frozen=True)
class AdditiveAngle(Margin):
    """cos(θ + m), 0 ≤ m < π in radians. ArcFace. Source: IAM Eq. 6.

    Args:
        m: the angle in radians; 0.5 in the papers.
        beyond_pi: the value where θ + m > π: `"linear"` cosθ − m sin m, monotone with a small step down at π − m
            (up for m > 2.33); `"plain"` as written, so that the margin vanishes and turns back; `"easy"` the margin
            only where cosθ > 0, with a jump up by sin m at 90°.
        gradient: `"exact"`, or `"straight_through"`: the value of the margin with the gradient of cosθ.

    Differs: the equation turns back where θ + m > π (`beyond_pi="plain"`); insightface's code continues linearly, as
    here, or has the margin only where cosθ > 0 (`"easy"`).
    """

    m: float
    beyond_pi: str = "linear"
    gradient: str = "exact"
    kind: ClassVar[str] = "additive_angle"

    def __post_init__(self) -> None:
        check_angle("m", self.m)
        checks.choice("beyond_pi", self.beyond_pi, BEYOND_PI)
        checks.choice("gradient", self.gradient, GRADIENTS)
        _warn_if_negative_at_zero(self, "m", "is an angle in radians", math.cos(self.m))

    def __call__(self, theta: Tensor, norms: Tensor) -> Tensor:
        return _with_gradient(add_angle(theta, self.m, self.beyond_pi), torch.cos(theta), self.gradient)

    def past_pi(self, theta: Tensor) -> Tensor:
        """Where θ + m exceeds π, [B] of bool."""
        return theta + self.m > math.pi

    @property
    def options(self) -> str:
        beyond_pi = "" if self.beyond_pi == "linear" else f"beyond_pi = {self.beyond_pi}"
        return ", ".join(filter(None, (beyond_pi, _gradient_option(self.gradient))))

    def formula(self) -> str:
        return f"cos(θ + {self.m:g})"


@dataclass(frozen=True)
class Annealing:
    """λ = max(low, start · (1 + rate · step)^−power): from nearly no margin to nearly all of it.

    Source: the practice of L-Softmax and A-Softmax.

    Args:
        start: λ at step 0, ≥ 0.
        low: the smallest λ, ≥ 0.
        rate: how fast λ falls per step, ≥ 0.
        power: ≥ 0; 1 in A-Softmax's practice, 35 and 45 (with rates of 2.5e-5 and 2e-5) in L-Softmax's.
    """

    start: float = 1000.0
    low: float = 5.0
    rate: float = 0.1
    power: float = 1.0

    def __post_init__(self) -> None:
        for name in ("start", "low", "rate", "power"):
            checks.number(f"annealing.{name}", getattr(self, name), low=0)

    def at(self, step: Tensor) -> Tensor:
        return torch.clamp(self.start * (1 + self.rate * step) ** -self.power, min=self.low)


@dataclass(frozen=True)
class Multiplicative(Margin):
    """ψ(θ) = (−1)^k cos(mθ) − 2k on θ in [kπ/m, (k+1)π/m] (`form="psi"`, monotone), or cos(mθ) (`form="raw"`).

    Args:
        m: the factor of the angle; a whole number ≥ 1 for `psi`, any m ≥ 1 for `raw`. The papers use 3, 4.
        form: `"psi"` or `"raw"`.
        annealing: the target becomes (λ cosθ + margin) / (1 + λ), λ this number or an `Annealing` of the step.
        gradient: `"exact"` or `"straight_through"`.

    Source: L-Softmax (FI), A-Softmax (IAM Eq. 4). Differs: the equation has no λ; the authors' code starts at nearly
    no margin, `annealing=margins.Annealing()`.
    """

    m: float
    form: str = "psi"
    annealing: float | Annealing | None = None
    gradient: str = "exact"
    kind: ClassVar[str] = "multiplicative"

    def __post_init__(self) -> None:
        checks.choice("form", self.form, ("psi", "raw"))
        checks.choice("gradient", self.gradient, GRADIENTS)
        if self.form == "psi":
            whole = int(self.m) if isinstance(self.m, float) and self.m.is_integer() else self.m
            checks.integer("m", whole, low=1, hint="form='raw' takes a fraction")
        else:
            checks.number("m", self.m, low=1)
        _warn_if_large(self, "m", self.m)
        if self.annealing is not None and not isinstance(self.annealing, Annealing):
            checks.number("annealing", self.annealing, low=0, hint="or an Annealing schedule")

    @property
    def stateful(self) -> bool:
        return isinstance(self.annealing, Annealing)

    def bind(self, embedding_size: int, num_classes: int) -> Multiplicative | AnnealedMargin:
        return AnnealedMargin(self, self.annealing) if isinstance(self.annealing, Annealing) else self

    def __call__(self, theta: Tensor, norms: Tensor) -> Tensor:
        assert not isinstance(self.annealing, Annealing)  # bind() returns AnnealedMargin for it
        return self.blend(theta, self.annealing)

    def blend(self, theta: Tensor, lam: float | Tensor | None) -> Tensor:
        """(λ cosθ + margin) / (1 + λ); without annealing if λ is None."""
        cos = torch.cos(theta)
        angle = self.m * theta
        value = monotone_cos(angle, self.m * math.pi) if self.form == "psi" else torch.cos(angle)
        value = _with_gradient(value, cos, self.gradient)
        return value if lam is None else (lam * cos + value) / (1 + lam)

    def formula(self) -> str:
        body = f"ψ_{self.m:g}(θ)" if self.form == "psi" else f"cos({self.m:g}θ)"
        if self.annealing is None:
            return body
        lam = "λ" if isinstance(self.annealing, Annealing) else f"{self.annealing:g}"
        return f"({lam} cos θ + {body})/(1 + {lam})"

    @property
    def options(self) -> str:
        return _gradient_option(self.gradient)


class AnnealedMargin(nn.Module):
    """`Multiplicative` with an `Annealing` schedule, bound: counts the steps."""

    def __init__(self, spec: Multiplicative, annealing: Annealing) -> None:
        super().__init__()
        self.spec = spec
        self.annealing = annealing
        self.counter = StepCount()

    def forward(self, theta: Tensor, norms: Tensor) -> Tensor:
        return self.spec.blend(theta, self.annealing.at(self.counter.step.to(theta.dtype)))

    def observe(self, stats: Statistics) -> None:
        self.counter.observe(stats)


@dataclass(frozen=True, kw_only=True)
class Combined(Margin):
    """cos(multiplier·θ + angle) − cosine: A-, Arc- and AM-Softmax in one. Source: MV Sec. 3.1.

    Keyword arguments only. Differs: MV writes cos(m1·θ + m3) − m2, but insightface's `margin_list=(m1, m2, m3)` means
    cos(m1·θ + m2) − m3: its (1.0, 0.5, 0.0) is `angle=0.5`, and its (1.0, 0.0, 0.4) is `cosine=0.4`.

    Args:
        multiplier: factor of the angle, ≥ 1.
        angle: added to the angle, radians in [0, π).
        cosine: subtracted from the cosine, ≥ 0.
        form: `"raw"` as written, or `"psi"`: cos continued past π so that it is monotone.
        gradient: `"exact"` or `"straight_through"`.
    """

    multiplier: float = 1.0
    angle: float = 0.0
    cosine: float = 0.0
    form: str = "raw"
    gradient: str = "exact"
    kind: ClassVar[str] = "combined"

    def __post_init__(self) -> None:
        checks.number("multiplier", self.multiplier, low=1)
        _warn_if_large(self, "multiplier", self.multiplier)
        checks.number("angle", self.angle, low=0, high=math.pi, open_high=True, hint="angle is in radians")
        checks.number("cosine", self.cosine, low=0)
        checks.choice("form", self.form, ("raw", "psi"))
        checks.choice("gradient", self.gradient, GRADIENTS)
        _warn_if_negative_at_zero(self, "angle", "is in radians", math.cos(self.angle))
        _warn_if_negative_at_zero(self, "cosine", "is subtracted from the cosine", 1 - self.cosine)

    def __call__(self, theta: Tensor, norms: Tensor) -> Tensor:
        angle = self.multiplier * theta + self.angle
        largest = self.multiplier * math.pi + self.angle
        value = monotone_cos(angle, largest) if self.form == "psi" else torch.cos(angle)
        return _with_gradient(value - self.cosine, torch.cos(theta), self.gradient)

    def past_pi(self, theta: Tensor) -> Tensor:
        """Where multiplier·θ + angle exceeds π, [B] of bool."""
        return self.multiplier * theta + self.angle > math.pi

    def formula(self) -> str:
        angle = ("" if self.multiplier == 1 else f"{self.multiplier:g}") + "θ"
        angle += f" + {self.angle:g}" if self.angle else ""
        body = f"cos({angle})" if self.form == "raw" else f"ψ({angle})"
        return f"({body} − {self.cosine:g})" if self.cosine else body

    @property
    def options(self) -> str:
        return _gradient_option(self.gradient)


@dataclass(frozen=True)
class PowerCosine(Margin):
    """g(cosθ) − m, with g(c) = 2((c + 1)/2)^t − 1. SphereFace2.

    Args:
        m: the margin.
        t: the power of g, ≥ 1; 3 in the paper, 1 leaves the cosine.
        form: `"cosine"`: g(cosθ) − m, m ≥ 0 (SphereFace2-C); `"angle"`: g(cos(min(π, θ + m))), 0 ≤ m < π (A); or
            `"multiple"`: g(cos(min(π, m·θ))), m ≥ 1 (M). The last two have the gradient of g(cosθ).
        gradient: `"exact"`, or `"straight_through"`: the gradient of cosθ.

    Source: Wen et al. 2022, Eq. 5 to 9. Differs: the authors' code takes g without gradient
    (`gradient="straight_through"`) and multiplies the loss by 50 (`50 * losses.sphereface2()`).
    """

    m: float = 0.4
    t: float = 3.0
    form: str = "cosine"
    gradient: str = "exact"
    kind: ClassVar[str] = "power_cosine"

    def __post_init__(self) -> None:
        checks.choice("form", self.form, ("cosine", "angle", "multiple"))
        low, high = {"cosine": (0.0, math.inf), "angle": (0.0, math.pi), "multiple": (1.0, math.inf)}[self.form]
        checks.number("m", self.m, low=low, high=high, open_high=self.form == "angle")
        checks.number("t", self.t, low=1)
        checks.choice("gradient", self.gradient, GRADIENTS)

    def __call__(self, theta: Tensor, norms: Tensor) -> Tensor:
        cos = torch.cos(theta)
        plain = self._power(cos)
        if self.form == "cosine":
            value = plain - self.m
        else:
            angle = theta.detach() + self.m if self.form == "angle" else self.m * theta.detach()
            value = plain + (self._power(torch.cos(angle.clamp_max(math.pi))) - plain).detach()
        return _with_gradient(value, cos, self.gradient)

    def _power(self, cos: Tensor) -> Tensor:
        return 2 * ((cos + 1) / 2).clamp_min(0).pow(self.t) - 1

    def formula(self) -> str:
        angle = {"cosine": " θ", "angle": f"(min(π, θ + {self.m:g}))", "multiple": f"(min(π, {self.m:g}θ))"}[self.form]
        body = f"cos{angle}" if self.t == 1 else f"(2((1 + cos{angle})/2)^{self.t:g} − 1)"
        return f"({body} − {self.m:g})" if self.form == "cosine" else body

    @property
    def options(self) -> str:
        return _gradient_option(self.gradient)


@dataclass(frozen=True)
class CircleCosine(Margin):
    """max(0, 1 + m − cosθ) · (cosθ − 1 + m): circle loss at class level.

    Args:
        m: in [0, 1); 0.25 in the paper.
        detach: whether the factor max(0, 1 + m − cosθ) has no gradient, as in the paper.

    Source: Sun et al. 2020, Eq. 6 to 8.
    """

    m: float = 0.25
    detach: bool = True
    kind: ClassVar[str] = "circle"

    def __post_init__(self) -> None:
        checks.number("m", self.m, low=0, high=1, open_high=True)
        checks.flag("detach", self.detach)

    def __call__(self, theta: Tensor, norms: Tensor) -> Tensor:
        cos = torch.cos(theta)
        factor = (1 + self.m - cos).clamp_min(0)
        return (factor.detach() if self.detach else factor) * (cos - 1 + self.m)

    def formula(self) -> str:
        return f"[{1 + self.m:g} − cos θ]₊·(cos θ − {1 - self.m:g})"

    @property
    def options(self) -> str:
        return "[·]₊ without gradient" if self.detach else ""


def monotone_cos(angle: Tensor, largest: float) -> Tensor:
    """(−1)^k cos(angle) − 2k, k = floor(angle / π): cos continued monotonically past π, up to `largest`.

    `largest` bounds k, so that rounding at θ = π does not start another period.
    """
    k = torch.floor(angle.detach() / math.pi).clamp(0, max(0, math.ceil(largest / math.pi - 1e-9) - 1))
    return (1 - 2 * (k % 2)) * torch.cos(angle) - 2 * k


def _warn_if_negative_at_zero(margin: Margin, name: str, unit: str, at_zero: float) -> None:
    """Warn if the target is negative even at θ = 0, a feature on its own class weight: often degrees for radians."""
    if at_zero < 0:
        checks.warn(
            f"{margin.kind}: {name} = {getattr(margin, name):g} {unit}, and the target is negative even at θ = 0; the "
            "papers use 0.5 radians, or 0.35 off the cosine"
        )


def _warn_if_large(margin: Margin, name: str, times: float) -> None:
    """Warn if the factor of the angle is larger than any use: probably a scale, or degrees, instead of m."""
    if times > MOST_TIMES:
        checks.warn(f"{margin.kind}: {name} = {times:g} multiplies the angle; the papers use 3 and 4")


def _gradient_option(gradient: str) -> str:
    return "" if gradient == "exact" else f"gradient = {gradient}"


def _with_gradient(value: Tensor, cos: Tensor, gradient: str) -> Tensor:
    return value if gradient == "exact" else cos + (value - cos).detach()


TABLE: dict[str, type[Margin]] = {
    piece.kind: piece
    for piece in (
        AdditiveCosine,
        AdditiveAngle,
        Multiplicative,
        Combined,
        NormAngle,
        NormQuality,
        Elastic,
        ClassAngle,
        PowerCosine,
        CircleCosine,
    )
}
