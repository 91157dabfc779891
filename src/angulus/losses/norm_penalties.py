"""Penalties on the norms of the raw features, without a reduction over the classes: incay, ring loss, MagFace's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from angulus.core import checks
from angulus.losses import theory
from angulus.losses.roles import Ask, Penalty, Rows
from angulus.losses.running import RunningMean, Statistics, StepCount, batch_mean
from angulus.losses.sample_margins import check_norm_range


@dataclass(frozen=True)
class FeatureIncay(Penalty):
    """Feature incay: λ · P(‖x‖), which makes the norms of the raw features grow.

    P is 1 / (‖x‖² + ε) (`form="reciprocal"`), −log(‖x‖² + ε) (`"log"`) or −‖x‖² (`"linear"`).

    Args:
        lam: λ ≥ 0; the paper tries 1, 0.1 and 0.01.
        form: which P.
        eps: ε ≥ 0; with 0 a zero feature is an error.
        bound: None; a norm above which a sample gets no incay; or `"auto"`:
            `theory.incay_bound` of a reference norm, (1 + √2) times it where C < 2d, else 3 times.
        start_step: no incay before this optimiser step.
        reference_norm: the reference for `bound="auto"`; None uses a running mean norm.

    Source: FI Eq. 8, Sec. 6.3, Property 3. Differs: Sec. 6.3's reciprocal gradient has the wrong sign and power; it
    is −2x / (‖x‖² + ε)² here.
    """

    lam: float
    form: str = "reciprocal"
    eps: float = 1e-8
    bound: float | str | None = None
    start_step: int = 0
    reference_norm: float | None = None
    name: ClassVar[str] = "feature_incay"
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
        return self.start_step > 0 or self.reads_batch

    @property
    def reads_batch(self) -> bool:
        return self.bound == "auto" and self.reference_norm is None

    def bind(self, embedding_size: int, num_classes: int) -> BoundIncay:
        return BoundIncay(self, theory.incay_factor(embedding_size, num_classes))

    def value(self, norms: Tensor) -> Tensor:
        """λ · P(‖x‖), without bound and start step."""
        # on a GPU this would wait, and the loss that is not finite is found anyway
        if self.eps == 0 and self.form != "linear" and not norms.is_cuda and bool((norms.detach() == 0).any()):
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
    """`FeatureIncay`, bound: keeps the running mean norm and the step count, if needed."""

    def __init__(self, spec: FeatureIncay, factor: float) -> None:
        super().__init__()
        self.spec = spec
        self.factor = factor
        self.mean_norm = RunningMean() if spec.reads_batch else None
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
class Ring(Penalty):
    """Ring loss: λ/2 · (‖x‖ − R)², R fixed or learned.

    Args:
        lam: λ ≥ 0.
        radius: R > 0; None learns it, starting at the first batch's mean norm.

    Source: Zheng et al. 2018; a baseline in IAM Table 5. Differs: the authors' code also offers a
    smooth L1 distance, and to divide by the mean norm (its `type` "L1" and "auto"); here as in the equation, "L2".
    """

    lam: float
    radius: float | None = None
    name: ClassVar[str] = "ring_loss"
    reads_norms: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.number("lam", self.lam, low=0)
        if self.radius is not None:
            checks.number("radius", self.radius, low=0, open_low=True)

    @property
    def stateful(self) -> bool:
        return self.radius is None

    @property
    def reads_batch(self) -> bool:
        return self.stateful  # R starts at the first batch's mean norm

    def bind(self, embedding_size: int, num_classes: int) -> Ring | LearnedRing:
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
    """`Ring(radius=None)`, bound: holds the parameter `R`, which the first training step sets to its mean norm.

    That step's own loss uses the mean norm too; after it, the optimiser trains R.
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
        # a copy: the flag may be set before backward reads it
        R = torch.where(self.started.clone(), R, R + (batch_mean(rows.norms) - R).detach())
        return self.lam / 2 * (rows.norms - R) ** 2

    @torch.no_grad()
    def observe(self, stats: Statistics) -> None:
        # without a branch, which would wait for a GPU
        self.R.copy_(torch.where(self.started, self.R, stats.values["norm"].to(self.R.dtype)))
        self.started.fill_(True)


@dataclass(frozen=True)
class Magnitude(Penalty):
    """MagFace's penalty: λ · (1/a + a/u_a²), a = ‖x‖ clipped to [l_a, u_a]; it falls with the norm up to u_a.

    Args:
        lam: λ ≥ 0; 35 in the paper.
        l_a, u_a: 0 < l_a < u_a; 10 and 110 in the paper.

    Source: Meng et al. 2021 (MagFace), Eq. 4 and Sec. 3.2.
    """

    lam: float = 35.0
    l_a: float = 10.0
    u_a: float = 110.0
    name: ClassVar[str] = "magnitude"
    reads_norms: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.number("lam", self.lam, low=0)
        check_norm_range(self.l_a, self.u_a, open_low=True)

    def __call__(self, rows: Rows, answer: object = None) -> Tensor:
        a = rows.norms.clamp(self.l_a, self.u_a)
        return self.lam * (1 / a + a / self.u_a**2)

    def formula(self) -> str:
        return f"{self.lam:g}·(1/a + a/{self.u_a:g}²) with a = ‖x‖ in [{self.l_a:g}, {self.u_a:g}]"

    def words(self) -> str:
        return f"magnitude penalty with λ = {self.lam:g} on norms from {self.l_a:g} to {self.u_a:g}"
