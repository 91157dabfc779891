"""Penalties: terms added to the loss, a number a sample, from norms, target angle and what they ask of the classes.

A penalty is a frozen spec; bound, it is called `penalty(rows, answer) -> [B]`, where `answer` is what the reduction
over the classes gave to `penalty.ask(rows)`: to a `Plain` ask the log-sum-exp over j ≠ y of scale · cos_j, to a `Hinge`
ask the pair (Σ_{j≠y} max(0, offset + 2 cos_j), how many are active), to None nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from angulus import checks, theory
from angulus.losses.running import RunningMean, Statistics, StepCount, batch_mean


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


class _Penalty:
    """Defaults of a penalty that keeps no state and asks for nothing."""

    needs_scale: ClassVar[bool] = False
    trains_classes: ClassVar[bool] = False
    reads_norms: ClassVar[bool] = False

    @property
    def stateful(self) -> bool:
        return False

    def bind(self, num_classes: int, embedding_size: int) -> Any:
        return self

    def ask(self, rows: Rows) -> Ask:
        return None


@dataclass(frozen=True)
class IAM(_Penalty):
    """Inter-class angular margin: β · [log Σ_{j≠y} e^{s c_j} − log(C − 1) − log Σ_j e^{s c_j}].

    Always on unit features and unit weights. It is negative, at least −β(2s + log(1 + (C − 1) e^{−2s})), so a total
    loss may be negative too. C ≥ 2.

    Args:
        beta: β ≥ 0; the paper's range is [0, 1).
        s: its scale, > 0; None takes the base's where that is fixed or learned. The paper's recipes use 30.
        logits: `"plain"`, or `"margin"`: the own class enters the full sum with the base's margined cosine.

    Source: IAM Eq. 7, 8, 12. Differs: Eq. 9's sum over i holds for one sample only; here each sample has its own term,
    and the batch mean is taken once (the paper's Algorithm 1 divides by N twice).
    """

    beta: float
    s: float | None = None
    logits: str = "plain"
    name: ClassVar[str] = "iam"

    def __post_init__(self) -> None:
        beta = checks.number("beta", self.beta, low=0)
        if beta >= 1:
            checks.warn(
                f"IAM's beta is meant to be in [0, 1); got {beta:g}, with which the push outweighs the base loss"
            )
        if self.s is not None:
            checks.number("s", self.s, low=0, open_low=True)
        checks.choice("logits", self.logits, ("plain", "margin"))

    @property
    def needs_scale(self) -> bool:  # type: ignore[override]
        return self.s is None

    def bind(self, num_classes: int, embedding_size: int) -> _BoundIAM:
        if num_classes < 2:
            raise checks.InputError(f"iam needs another class to part from: num_classes >= 2; got {num_classes}")
        return _BoundIAM(self, math.log(num_classes - 1))

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
        return Plain(torch.zeros_like(rows.norms) + scale)

    def __call__(self, rows: Rows, answer: Any) -> Tensor:
        ask = self.ask(rows)
        assert isinstance(ask, Plain)
        own = rows.cos if self.spec.logits == "plain" else rows.target
        # log Σ_{j≠y} − log Σ_j = −softplus(own logit − log Σ_{j≠y}): by log-sum-exps, never exp then log
        return self.spec.beta * (F.logsigmoid(answer - ask.scale * own) - self.log_others)


@dataclass(frozen=True)
class FeatureIncay(_Penalty):
    """Feature incay: λ · P(‖x‖), which lets the norms grow. On the raw features, so before any normalisation.

    P is 1 / (‖x‖² + ε) (`form="reciprocal"`), −log(‖x‖² + ε) (`"log"`) or −‖x‖² (`"linear"`).

    Args:
        lam: λ ≥ 0; the paper tries 1, 0.1 and 0.01.
        form: which P.
        eps: ε ≥ 0; with 0 a zero feature is an error.
        bound: None; a norm beyond which a sample gets no incay (equal still counts); or `"auto"`:
            `theory.incay_bound` of a reference norm, (1 + √2) times it where C < 2d, else 3 times.
        start_step: no incay before this optimiser step.
        reference_norm: the reference of `bound="auto"`; None keeps a running mean norm.

    Source: FI Eq. 8, Sec. 6.3, Property 3. Differs: Sec. 6.3's reciprocal gradient has the wrong sign and power; it
    is −2x / (‖x‖² + ε)² here.
    """

    lam: float
    form: str = "reciprocal"
    eps: float = 1e-8
    bound: float | str | None = None
    start_step: int = 0
    reference_norm: float | None = None
    name: ClassVar[str] = "incay"
    reads_norms: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.number("lam", self.lam, low=0)
        checks.choice("form", self.form, ("reciprocal", "log", "linear"))
        checks.number("eps", self.eps, low=0)
        checks.integer("start_step", self.start_step, low=0)
        if isinstance(self.bound, str):
            checks.choice("bound", self.bound, ("auto",), hint="or a norm, or null")
        elif self.bound is not None:
            checks.number("bound", self.bound, low=0, open_low=True, hint="or 'auto'")
        if self.reference_norm is not None:
            checks.number("reference_norm", self.reference_norm, low=0, open_low=True)
            if self.bound != "auto":
                raise checks.InputError(f"reference_norm is read only with bound='auto'; got bound={self.bound!r}")

    @property
    def stateful(self) -> bool:
        return self.start_step > 0 or (self.bound == "auto" and self.reference_norm is None)

    def bind(self, num_classes: int, embedding_size: int) -> BoundIncay:
        return BoundIncay(self, theory.incay_factor(num_classes, embedding_size))

    def value(self, norms: Tensor) -> Tensor:
        """λ · P(‖x‖), without bound or start."""
        if self.eps == 0 and self.form != "linear" and bool((norms.detach() == 0).any()):
            row = int((norms.detach() == 0).nonzero()[0, 0])
            raise checks.InputError(
                f"feature incay's {self.form} form is infinite at a zero feature when eps = 0; row {row} is zero; "
                "give eps > 0"
            )
        square = norms * norms
        if self.form == "reciprocal":
            return self.lam / (square + self.eps)
        return -self.lam * (torch.log(square + self.eps) if self.form == "log" else square)

    def formula(self) -> str:
        body = {"reciprocal": f"/(‖x‖² + {self.eps:g})", "log": f"·(−log(‖x‖² + {self.eps:g}))", "linear": "·(−‖x‖²)"}
        limits = [] if self.bound is None else [f"where ‖x‖ ≤ {self.bound}"]
        limits += [f"from step {self.start_step}"] if self.start_step else []
        return f"{self.lam:g}{body[self.form]}{' (' * bool(limits)}{', '.join(limits)}{')' * bool(limits)}"

    def words(self) -> str:
        bound = "" if self.bound is None else f", up to the norm bound {self.bound}"
        start = f", from step {self.start_step}" if self.start_step else ""
        return f"feature incay ({self.form}) with λ = {self.lam:g}{bound}{start}"


class BoundIncay(nn.Module):
    """`FeatureIncay`, bound: keeps the running mean norm and the step where the spec reads them."""

    def __init__(self, spec: FeatureIncay, factor: float) -> None:
        super().__init__()
        self.spec = spec
        self.factor = factor
        self.mean_norm = RunningMean() if spec.bound == "auto" and spec.reference_norm is None else None
        self.counter = StepCount() if spec.start_step > 0 else None

    def ask(self, rows: Rows) -> Ask:
        return None

    def forward(self, rows: Rows, answer: object = None) -> Tensor:
        norms = rows.norms
        value = self.spec.value(norms)
        bound = self._bound(norms.detach())
        if bound is not None:
            value = torch.where(norms.detach() <= bound, value, torch.zeros_like(value))
        if self.counter is not None:
            value = torch.where(self.counter.step >= self.spec.start_step, value, torch.zeros_like(value))
        return value

    def _bound(self, norms: Tensor) -> Tensor | float | None:
        if self.spec.bound != "auto":
            return self.spec.bound  # type: ignore[return-value]  # a number or None
        if self.mean_norm is None:
            assert self.spec.reference_norm is not None
            return self.factor * self.spec.reference_norm
        return self.factor * self.mean_norm.value_or(batch_mean(norms))

    def observe(self, stats: Statistics) -> None:
        if self.mean_norm is not None:
            self.mean_norm.update(stats.values["norm"])
        if self.counter is not None:
            self.counter.observe(stats)


@dataclass(frozen=True)
class Ring(_Penalty):
    """Ring loss: λ/2 · (‖x‖ − R)², R given or learned.

    Args:
        lam: λ ≥ 0.
        radius: R > 0; None learns it, from the first batch's mean norm.

    Source: Zheng et al. 2018; compared with in IAM Table 5.
    """

    lam: float
    radius: float | None = None
    name: ClassVar[str] = "ring"
    reads_norms: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.number("lam", self.lam, low=0)
        if self.radius is not None:
            checks.number("radius", self.radius, low=0, open_low=True)

    @property
    def stateful(self) -> bool:
        return self.radius is None

    def bind(self, num_classes: int, embedding_size: int) -> Ring | LearnedRing:
        return LearnedRing(self.lam) if self.radius is None else self

    def __call__(self, rows: Rows, answer: object = None) -> Tensor:
        assert self.radius is not None
        return self.lam / 2 * (rows.norms - self.radius) ** 2

    def formula(self) -> str:
        return f"{self.lam / 2:g}·(‖x‖ − {'R' if self.radius is None else format(self.radius, 'g')})²"

    def words(self) -> str:
        radius = "a learned radius" if self.radius is None else f"radius {self.radius:g}"
        return f"ring loss with λ = {self.lam:g} at {radius}"


class LearnedRing(nn.Module):
    """`Ring(radius=None)`, bound: holds the parameter `R`, which the first `observe` sets to that step's mean norm.

    Until then the batch's own mean norm stands in for its value.
    """

    started: Tensor

    def __init__(self, lam: float) -> None:
        super().__init__()
        self.lam = lam
        self.R = nn.Parameter(torch.tensor(1.0))
        self.register_buffer("started", torch.tensor(False))

    def ask(self, rows: Rows) -> Ask:
        return None

    def forward(self, rows: Rows, answer: object = None) -> Tensor:
        R = self.R.to(rows.norms.dtype)
        R = torch.where(self.started, R, R + (batch_mean(rows.norms) - R).detach())
        return self.lam / 2 * (rows.norms - R) ** 2

    @torch.no_grad()
    def observe(self, stats: Statistics) -> None:
        if not bool(self.started):
            self.R.copy_(stats.values["norm"])
            self.started.fill_(True)


@dataclass(frozen=True)
class CContrastive(_Penalty):
    """C-contrastive: ‖x̂ − ŵ_y‖² + Σ_{j≠y} max(0, m − ‖x̂ − ŵ_j‖²). Trains the class weights by itself. C ≥ 2.

    Args:
        m: margin on squared distances of unit vectors, in (0, 4]; 1 in the paper.
        classes: `"sum"` over j, or `"mean"` over the C − 1 of them.

    Source: NF Eq. 10. Differs: the paper states no reduction over the classes.
    """

    m: float = 1.0
    classes: str = "sum"
    name: ClassVar[str] = "c_contrastive"
    trains_classes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.number("m", self.m, low=0, high=4, open_low=True)
        checks.choice("classes", self.classes, ("sum", "mean"))

    def bind(self, num_classes: int, embedding_size: int) -> _BoundCContrastive:
        return _BoundCContrastive(self, _others(self.name, num_classes))

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
class CTriplet(_Penalty):
    """C-triplet: Σ_{j≠y} max(0, m + ‖x̂ − ŵ_y‖² − ‖x̂ − ŵ_j‖²). Trains the class weights by itself. C ≥ 2.

    Args:
        m: margin on squared distances of unit vectors, in (0, 4]; 0.8 in the paper.
        classes: `"sum"` over j, or `"mean"` over the C − 1 of them.
        center: None; `"additive"`: ‖x̂ − ŵ_y‖² is added once a sample; `"gated"`: it stands in for every j whose
            hinge is zero, so that every pair pulls (the paper's words for C-triplet + center).

    Source: NF Eq. 11, Sec. 5.2. Differs: the paper states no reduction over the classes.
    """

    m: float = 0.8
    classes: str = "sum"
    center: str | None = None
    name: ClassVar[str] = "c_triplet"
    trains_classes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.number("m", self.m, low=0, high=4, open_low=True)
        checks.choice("classes", self.classes, ("sum", "mean"))
        if self.center is not None:
            checks.choice("center", self.center, ("additive", "gated"), hint="or null")

    def bind(self, num_classes: int, embedding_size: int) -> _BoundCTriplet:
        return _BoundCTriplet(self, _others(self.name, num_classes))

    def formula(self) -> str:
        mean = "" if self.classes == "sum" else "1/(C − 1)·"
        own = {
            None: "",
            "additive": " + ‖x̂ − ŵ_y‖²",
            "gated": " + (‖x̂ − ŵ_y‖² for every hinge at zero)",
        }[self.center]
        return f"[{mean}Σ_{{j≠y}} max(0, {self.m:g} + ‖x̂ − ŵ_y‖² − ‖x̂ − ŵ_j‖²){own}]"

    def words(self) -> str:
        center = f", own-class term {self.center}" if self.center else ""
        return f"C-triplet with m = {self.m:g}, {self.classes} over classes{center}"


@dataclass(frozen=True)
class _BoundCTriplet:
    spec: CTriplet
    others: int

    def ask(self, rows: Rows) -> Ask:
        return Hinge(self.spec.m - 2 * rows.cos)

    def __call__(self, rows: Rows, answer: Any) -> Tensor:
        hinge, active = answer
        own = 2 - 2 * rows.cos
        if self.spec.center == "gated":
            hinge = hinge + (self.others - active) * own
        value: Tensor = hinge if self.spec.classes == "sum" else hinge / self.others
        return value + own if self.spec.center == "additive" else value


def _others(name: str, num_classes: int) -> int:
    if num_classes < 2:
        raise checks.InputError(f"{name} needs another class: num_classes >= 2; got {num_classes}")
    return num_classes - 1


PenaltySpec = IAM | FeatureIncay | Ring | CContrastive | CTriplet
TABLE: dict[str, type[PenaltySpec]] = {piece.name: piece for piece in (IAM, FeatureIncay, Ring, CContrastive, CTriplet)}
