"""Penalties: terms added to the loss, one number per sample. IAM, C-contrastive and C-triplet; `TABLE` has all."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from angulus.core import checks
from angulus.losses.norm_penalties import FeatureIncay, Magnitude, Ring
from angulus.losses.roles import Ask, ClassSums, Hinge, LogSumExp, Penalty, Rows, Spread

__all__ = [
    "IAM", "TABLE", "CContrastive", "CTriplet", "FeatureIncay", "Magnitude", "ProxyAnchor", "Ring", "SubcenterSpread",
]  # fmt: skip


@dataclass(frozen=True)
class IAM(Penalty):
    """Inter-class angular margin: β · [log Σ_{j≠y} e^{s c_j} − log(C − 1) − log Σ_j e^{s c_j}].

    Always on unit features and unit weights. It is negative, at least −β(2s + log(1 + (C − 1) e^{−2s})), so the total
    loss may be negative too. C ≥ 2.

    Args:
        beta: β ≥ 0; the paper's range is [0, 1).
        s: its scale, > 0; None takes the base loss's, fixed or learned. The paper's experiments use 30.
        logits: `"plain"`, or `"margin"`: the own class enters the full sum with the base's margined cosine.

    Source: IAM Eq. 7, 8, 12. Differs: Eq. 9's sum over i holds for one sample only; here each sample has its own term,
    and the batch mean is taken once (the paper's Algorithm 1 divides by N twice).
    """

    beta: float
    s: float | None = None
    logits: str = "plain"
    name: ClassVar[str] = "iam"
    asks: ClassVar[type[LogSumExp]] = LogSumExp
    asks_of_target: ClassVar[bool] = False

    def __post_init__(self) -> None:
        beta = checks.number("beta", self.beta, low=0)
        if beta >= 1:
            checks.warn(f"IAM's beta should be in [0, 1); got {beta:g}, with which the push outweighs the base loss")
        if self.s is not None:
            checks.number("s", self.s, low=0, open_low=True)
        checks.choice("logits", self.logits, ("plain", "margin"))

    @property
    def needs_scale(self) -> bool:
        return self.s is None

    @property
    def needs_margin(self) -> bool:
        return self.logits == "margin"

    def at_scale(self, s: float) -> IAM:
        return dataclasses.replace(self, s=s) if self.s is None else self

    def bind(self, embedding_size: int, num_classes: int) -> _BoundIAM:
        return _BoundIAM(self, math.log(_count_others(self.name, num_classes)))

    def formula(self) -> str:
        s = "s" if self.s is None else f"{self.s:g}"
        margin = " (in Σ_j with margin(θ) for cos θ_y)" if self.logits == "margin" else ""
        return f"{self.beta:g}·[log Σ_{{j≠y}} e^{{{s}·cos θ_j}} − log(C − 1) − log Σ_j e^{{{s}·cos θ_j}}]{margin}"

    def words(self) -> str:
        scale = "the base's scale" if self.s is None else f"s = {self.s:g}"
        margin = ", margined own class" if self.logits == "margin" else ""
        return f"inter-class angular margin (IAM) with β = {self.beta:g} at {scale}{margin}"


@dataclass(frozen=True)
class _BoundIAM:
    spec: IAM
    log_others: float  # log(C − 1)

    def ask(self, rows: Rows) -> Ask:
        scale = rows.scale if self.spec.s is None else self.spec.s
        assert scale is not None  # Objective refuses IAM without a scale
        return LogSumExp(torch.zeros_like(rows.norms) + scale)

    def __call__(self, rows: Rows, answer: Any) -> Tensor:
        ask = self.ask(rows)
        assert isinstance(ask, LogSumExp)
        own = rows.cos if self.spec.logits == "plain" else rows.target
        # log Σ_{j≠y} − log Σ_j = −softplus(own logit − log Σ_{j≠y}): by log-sum-exps, never exp then log
        return self.spec.beta * (F.logsigmoid(answer - ask.scale * own) - self.log_others)


@dataclass(frozen=True)
class CContrastive(Penalty):
    """C-contrastive: ‖x̂ − ŵ_y‖² + Σ_{j≠y} max(0, m − ‖x̂ − ŵ_j‖²). Needs no cross-entropy. C ≥ 2.

    Args:
        m: margin on squared distances of unit vectors, in (0, 4]; 1 in the paper.
        classes: `"sum"` over j, or `"mean"` over the C − 1 of them.

    Source: NF Eq. 10. Differs: the paper states no reduction over the classes.
    """

    m: float = 1.0
    classes: str = "sum"
    name: ClassVar[str] = "c_contrastive"
    asks: ClassVar[type[Hinge]] = Hinge
    asks_of_target: ClassVar[bool] = False
    trains_classes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.number("m", self.m, low=0, high=4, open_low=True)
        checks.choice("classes", self.classes, ("sum", "mean"))

    def bind(self, embedding_size: int, num_classes: int) -> _BoundCContrastive:
        return _BoundCContrastive(self, _count_others(self.name, num_classes))

    def formula(self) -> str:
        mean = "" if self.classes == "sum" else "1/(C − 1)·"
        return f"[‖x̂ − ŵ_y‖² + {mean}Σ_{{j≠y}} max(0, {self.m:g} − ‖x̂ − ŵ_j‖²)]"

    def words(self) -> str:
        return f"C-contrastive with m = {self.m:g}, {self.classes} over classes"


@dataclass(frozen=True)
class _BoundCContrastive:
    spec: CContrastive
    others: int

    def ask(self, rows: Rows) -> Ask:
        return Hinge(torch.full_like(rows.norms, self.spec.m - 2))

    def __call__(self, rows: Rows, answer: Any) -> Tensor:
        hinge, _ = answer
        value: Tensor = 2 - 2 * rows.cos + (hinge if self.spec.classes == "sum" else hinge / self.others)
        return value


@dataclass(frozen=True)
class CTriplet(Penalty):
    """C-triplet: Σ_{j≠y} max(0, m + ‖x̂ − ŵ_y‖² − ‖x̂ − ŵ_j‖²). Needs no cross-entropy. C ≥ 2.

    With `"hardest"`, min_{j≠y} ‖x̂ − ŵ_j‖² is 2 − 2/k · log Σ_{j≠y} e^{k cos θ_j} at a k that grows with the precision:
    2^15 in float32, 2^34 in float64. The largest cosine is exact up to log(n)/k where n classes tie, and these share
    the gradient; in float32 so do classes within about 1e-4 of it. Products in bfloat16 round cosines more than that.

    Args:
        m: margin on squared distances of unit vectors, in (0, 4]; 0.8 in the paper.
        classes: `"sum"` over j, `"mean"` over the C − 1 of them, or `"hardest"`: the nearest of them alone, which with
            class sampling is the nearest one drawn.
        center: None; `"additive"`: ‖x̂ − ŵ_y‖² is added once per sample; `"gated"`: it replaces every hinge that is
            zero, so that every pair pulls (the paper's words for C-triplet + center). With `"hardest"` a sample has one
            hinge, and `"gated"` is the released layer's rule: the pull to the own class has weight 1 in any case.

    Source: NF Eq. 11, Sec. 5.2; `"hardest"` from the settings that its authors released. Differs: the paper states no
    reduction over the classes.
    """

    m: float = 0.8
    classes: str = "sum"
    center: str | None = None
    name: ClassVar[str] = "c_triplet"
    trains_classes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.number("m", self.m, low=0, high=4, open_low=True)
        checks.choice("classes", self.classes, ("sum", "mean", "hardest"))
        if self.center is not None:
            checks.choice("center", self.center, ("additive", "gated"), hint="or null")

    @property
    def asks(self) -> type[Hinge] | type[LogSumExp]:
        return LogSumExp if self.classes == "hardest" else Hinge

    @property
    def asks_of_target(self) -> bool:
        return self.asks is Hinge

    def bind(self, embedding_size: int, num_classes: int) -> _BoundCTriplet:
        others = _count_others(self.name, num_classes)
        return _BoundCTriplet(self, 1 if self.classes == "hardest" else others)

    def formula(self) -> str:
        over = {"sum": "Σ_{j≠y} ", "mean": "1/(C − 1)·Σ_{j≠y} ", "hardest": ""}[self.classes]
        least = "min_{j≠y} " if self.classes == "hardest" else ""
        own = {None: "", "additive": " + ‖x̂ − ŵ_y‖²", "gated": " + (‖x̂ − ŵ_y‖² for every hinge at zero)"}[self.center]
        return f"[{over}max(0, {self.m:g} + ‖x̂ − ŵ_y‖² − {least}‖x̂ − ŵ_j‖²){own}]"

    def words(self) -> str:
        over = "hardest class alone" if self.classes == "hardest" else f"{self.classes} over classes"
        center = f", own-class term {self.center}" if self.center else ""
        return f"C-triplet with m = {self.m:g}, {over}{center}"


@dataclass(frozen=True)
class _BoundCTriplet:
    spec: CTriplet
    hinges: int  # of a row

    def ask(self, rows: Rows) -> Ask:
        if self.spec.classes == "hardest":
            return LogSumExp(torch.full_like(rows.norms, _sharpness(rows.norms.dtype)))
        return Hinge(self.spec.m - 2 * rows.cos)

    def __call__(self, rows: Rows, answer: Any) -> Tensor:
        own = 2 - 2 * rows.cos
        if self.spec.classes == "hardest":
            hinge = F.relu(self.spec.m - 2 * rows.cos + 2 * answer / _sharpness(answer.dtype))
            active = (hinge > 0).to(hinge.dtype)
        else:
            hinge, active = answer
        if self.spec.center == "gated":
            hinge = hinge + (self.hinges - active) * own
        value: Tensor = hinge / self.hinges if self.spec.classes == "mean" else hinge
        return value + own if self.spec.center == "additive" else value


def _sharpness(dtype: torch.dtype) -> float:
    """The k of log Σ e^{k cos} for a largest cosine: near ε^{−2/3}, a power of two, so that k cos is exact."""
    return float(2.0 ** (-2 * math.log2(torch.finfo(dtype).eps) // 3))


@dataclass(frozen=True)
class ProxyAnchor(Penalty):
    """Proxy-Anchor: the mean of log(1 + Σ_{x of p} e^{−α(cos − δ)}) over the classes p with a row in the batch, plus
    the mean of log(1 + Σ_{x not of p} e^{α(cos + δ)}) over all C classes.

    Needs no cross-entropy. It reduces over the batch for each class, so a row has no loss of its own: every row has the
    loss of the batch, and the mean over the rows is that.

    Args:
        alpha: α > 0; 32 in the paper.
        delta: δ, the margin of the cosines, in [0, 1]; 0.1 in the paper.

    Source: Kim et al. 2020, Eq. 4.
    """

    alpha: float = 32.0
    delta: float = 0.1
    name: ClassVar[str] = "proxy_anchor"
    asks: ClassVar[type[ClassSums]] = ClassSums
    asks_of_target: ClassVar[bool] = False
    trains_classes: ClassVar[bool] = True
    reads_batch: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.number("alpha", self.alpha, low=0, open_low=True)
        checks.number("delta", self.delta, low=0, high=1)

    def bind(self, embedding_size: int, num_classes: int) -> _BoundProxyAnchor:
        return _BoundProxyAnchor(self, num_classes)

    def formula(self) -> str:
        a, d = f"{self.alpha:g}", f"{self.delta:g}"
        return (
            f"[mean over p⁺ of log(1 + Σ_{{x∈p}} e^{{−{a}(cos θ_p − {d})}}) + 1/C·Σ_p log(1 + Σ_{{x∉p}} "
            f"e^{{{a}(cos θ_p + {d})}})]"
        )

    def words(self) -> str:
        return f"Proxy-Anchor with α = {self.alpha:g}, δ = {self.delta:g}"


@dataclass(frozen=True)
class _BoundProxyAnchor:
    spec: ProxyAnchor
    num_classes: int

    def ask(self, rows: Rows) -> Ask:
        return ClassSums(self.spec.alpha, self.spec.delta)

    def __call__(self, rows: Rows, answer: Any) -> Tensor:
        own, others, count = answer
        value: Tensor = own / count + others / self.num_classes
        return value


@dataclass(frozen=True)
class SubcenterSpread(Penalty):
    """τ/(C·K(K − 1)) · Σ_j Σ_{k<l} √(2 − 2 ŵ_jk·ŵ_jl): draws the K ≥ 2 sub-centres of each class together.

    One number for all rows. With class sampling the mean is over the classes that the step sees.

    Args:
        tau: τ ≥ 0; 0.2 in the paper.
        eps: added under the root, ≥ 0.

    Source: Qian et al. 2019, Eq. 9 to 11. Differs: the paper's root has no eps; its gradient at equal sub-centres,
    which is undefined, is 0 here. The authors' code has `eps=1e-5`.
    """

    tau: float = 0.2
    eps: float = 0.0
    name: ClassVar[str] = "subcenter_spread"
    asks: ClassVar[type[Spread]] = Spread
    asks_of_target: ClassVar[bool] = False

    def __post_init__(self) -> None:
        checks.number("tau", self.tau, low=0)
        checks.number("eps", self.eps, low=0)

    def ask(self, rows: Rows) -> Ask:
        return Spread(self.eps)

    def __call__(self, rows: Rows, answer: Any) -> Tensor:
        total, classes = answer
        value: Tensor = self.tau / 2 * total / classes  # of K(K − 1)/2 pairs: half of the mean
        return value

    def formula(self) -> str:
        eps = f" + {self.eps:g}" if self.eps else ""
        return f"{self.tau:g}/(C·K(K − 1))·Σ_j Σ_{{k<l}} √(2 − 2 ŵ_jk·ŵ_jl{eps})"

    def words(self) -> str:
        return f"sub-centres of a class drawn together with τ = {self.tau:g}"


def _count_others(name: str, num_classes: int) -> int:
    if num_classes < 2:
        raise checks.InputError(f"{name} needs another class: num_classes must be >= 2; got {num_classes}")
    return num_classes - 1


TABLE: dict[str, type[Penalty]] = {
    piece.name: piece
    for piece in (IAM, FeatureIncay, Ring, CContrastive, CTriplet, Magnitude, ProxyAnchor, SubcenterSpread)
}
