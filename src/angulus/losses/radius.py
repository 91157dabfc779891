"""Radius: maps the norm of a feature to the factor of its cosines, `radius(norms[B]) -> [B]`."""

from __future__ import annotations

import dataclasses
import math
import warnings
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from angulus.core import checks
from angulus.losses import theory
from angulus.losses.roles import Radius
from angulus.losses.running import Batch, RunningMean, Statistics, Wide, batch_mean, wide_dtype


@dataclass(frozen=True)
class Identity(Radius):
    """The norm itself, or a multiple of it: radius = k ‖x‖. Softmax, A-Softmax, L-Softmax.

    Args:
        factor: k > 0; k ≠ 1 is softmax on features multiplied by k (FI Sec. 4.4, Table 4).
    """

    factor: float = 1.0
    kind: ClassVar[str] = "identity"
    linear: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.number("factor", self.factor, low=0, open_low=True)

    def __call__(self, norms: Tensor) -> Tensor:
        return norms if self.factor == 1 else self.factor * norms

    def formula(self) -> str:
        return "‖x‖" if self.factor == 1 else f"{self.factor:g}‖x‖"

    def words(self) -> str:
        times = "" if self.factor == 1 else f"{self.factor:g} times "
        return f"radius {self.formula()}, {times}the feature's own norm"


@dataclass(frozen=True)
class Fixed(Radius):
    """A constant: radius = s, s > 0. ArcFace, CosFace, L2-softmax."""

    s: float
    kind: ClassVar[str] = "fixed"
    has_scale: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.number("s", self.s, low=0, open_low=True)

    @property
    def scale(self) -> float:
        return self.s

    def __call__(self, norms: Tensor) -> Tensor:
        return torch.full_like(norms, self.s)

    def formula(self) -> str:
        return f"{self.s:g}"

    def words(self) -> str:
        return f"radius fixed at s = {self.s:g}"


@dataclass(frozen=True)
class Coco(Radius):
    """COCO's constant: radius = α = ½ log(C − 1) + 3, computed by `bind`. Source: Liu et al. 2017c."""

    kind: ClassVar[str] = "coco"
    has_scale: ClassVar[bool] = True

    def bind(self, embedding_size: int, num_classes: int) -> Fixed:
        return Fixed(theory.coco_scale(num_classes))

    def formula(self) -> str:
        return "(½ log(C − 1) + 3)"

    def words(self) -> str:
        return "radius fixed at ½ log(C − 1) + 3"


@dataclass(frozen=True)
class Learned(Radius):
    """One learned scale for all samples: radius = s, starting at `s`. NormFace (NF Sec. 3.3), where s = ℓ²."""

    s: float = 20.0
    kind: ClassVar[str] = "learned"
    stateful: ClassVar[bool] = True
    has_scale: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.number("s", self.s, low=0, open_low=True)

    def bind(self, embedding_size: int, num_classes: int) -> LearnedRadius:
        return LearnedRadius(self.s)

    def formula(self) -> str:
        return "s"

    def words(self) -> str:
        return f"radius a learned s, starting at {self.s:g}"


class LearnedRadius(nn.Module):
    """`Learned`, bound: holds the parameter `s` (0-d)."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.s = nn.Parameter(torch.tensor(float(start)))

    @property
    def scale(self) -> Tensor:
        return self.s

    def forward(self, norms: Tensor) -> Tensor:
        return self.s.to(norms.dtype).expand_as(norms)


@dataclass(frozen=True)
class Contraction(Radius):
    """CM-Softmax's contraction of the norms: f(‖x‖) = lower + (2 sigmoid(γ‖x‖) − 1)(upper − lower).

    f(0) = lower, f < upper, and f keeps the order of the norms.

    Args:
        p: mean target probability that `lower` must make possible, in (0, 1); the paper uses 0.9.
        gamma: γ > 0, how fast the norms saturate; the paper uses 1. `"auto"` sets γ · (running mean norm) = ln 3 =
            1.0986, so that the mean norm maps to the middle of the range.
        lower: the lower bound, or None to take it from `p` and the number of classes.
        upper: the upper bound, or None for `upper_factor` · lower.
        bound: `"ideal"`: lower = ln(p (C − 2) / (1 − p)), C ≥ 3; `"exact"`: the s that solves
            e^s / (e^s + C − 2 + e^{−s}) = p, C ≥ 2.
        upper_factor: upper / lower, > 1; 3 in the paper (classes apart by 180°), 1 + √2 at 90°.
        detach_norm: True stops the gradient through f.

    Source: CM Eq. 8 and 9.
    """

    p: float = 0.9
    gamma: float | Literal["auto"] = 1.0
    lower: float | None = None
    upper: float | None = None
    bound: str = "ideal"
    upper_factor: float = 3.0
    detach_norm: bool = False
    kind: ClassVar[str] = "contraction"
    where: ClassVar[str] = "f(‖x‖) = lower + (2 sigmoid(γ‖x‖) − 1)(upper − lower)"

    def __post_init__(self) -> None:
        checks.number("p", self.p, low=0, high=1, open_low=True, open_high=True)
        if self.gamma != "auto":
            checks.number("gamma", self.gamma, low=0, open_low=True, hint="or 'auto', from the mean norm")
        checks.choice("bound", self.bound, ("ideal", "exact"))
        checks.number("upper_factor", self.upper_factor, low=1, open_low=True)
        checks.flag("detach_norm", self.detach_norm)
        if self.lower is not None:
            checks.number("lower", self.lower, low=0, open_low=True)
        if self.upper is not None:
            checks.number("upper", self.upper, low=self.lower or 0, open_low=self.lower is None)

    @property
    def stateful(self) -> bool:
        return self.gamma == "auto"

    @property
    def reads_batch(self) -> bool:
        return self.stateful  # until it has seen a step, the batch's own mean norm stands in

    def bind(self, embedding_size: int, num_classes: int) -> Contraction | AutoContraction:
        """Compute `lower` and `upper` from C; warn if the bound's premise C ≤ 2d fails.

        Raises:
            checks.InputError: no positive lower bound exists for C and p.
        """
        lower = self.lower
        if lower is None:
            lower = theory.contraction_lower(self.p, num_classes, bound=self.bound)
            if num_classes > 2 * embedding_size:
                warnings.warn(
                    f"contraction bounds assume that C <= 2 d classes can lie 90° apart; here C = {num_classes} and "
                    f"d = {embedding_size}, so a target probability of p = {self.p:g} needs more than "
                    f"lower = {lower:.4g}; give lower and upper, or a larger embedding_size",
                    stacklevel=2,
                )
        upper = self.upper_factor * lower if self.upper is None else self.upper
        if upper < lower:
            raise checks.InputError(f"upper must be >= lower = {lower:.6g}; got {upper:.6g}; give both, or neither")
        resolved = dataclasses.replace(self, lower=lower, upper=upper)
        return AutoContraction(resolved) if self.gamma == "auto" else resolved

    def __call__(self, norms: Tensor) -> Tensor:
        assert not isinstance(self.gamma, str)  # bind() returns AutoContraction for it
        return self.map(norms, self.gamma)

    def map(self, norms: Tensor, gamma: float | Tensor) -> Tensor:
        """The contraction f of `norms` at this γ; needs the bounds that `bind` computes."""
        assert self.lower is not None and self.upper is not None
        norms = norms.detach() if self.detach_norm else norms
        # 2 sigmoid(z) − 1 = tanh(z / 2), without the cancellation at small z
        return self.lower + torch.tanh(gamma * norms / 2) * (self.upper - self.lower)

    def saturation(self, norms: Tensor, gamma: float | Tensor | None = None) -> Tensor:
        """The used share of the range, (f − lower) / (upper − lower) in [0, 1); near 1 the order of norms is lost."""
        if gamma is None:
            assert not isinstance(self.gamma, str)
            gamma = self.gamma
        return torch.tanh(gamma * norms / 2)

    def formula(self) -> str:
        return "f(‖x‖)"

    def words(self) -> str:
        low = f"p = {self.p:g} ({self.bound} bound)" if self.lower is None else f"lower = {self.lower:g}"
        high = f"upper = {self.upper_factor:g}·lower" if self.upper is None else f"upper = {self.upper:g}"
        gradient = ", no gradient through f" if self.detach_norm else ""
        return f"radius f(‖x‖), the contraction of the norm with γ = {self.gamma}, {low}, {high}{gradient}"


class AutoContraction(nn.Module):
    """`Contraction(gamma="auto")`, bound: keeps the running mean norm that γ is chosen from.

    Before its first update, the batch's own mean norm is used.
    """

    scale = None

    def __init__(self, spec: Contraction) -> None:
        super().__init__()
        self.spec = spec
        self.mean_norm = RunningMean()

    def gamma(self, norms: Tensor) -> Tensor:
        mean = self.mean_norm.value_or(batch_mean(norms))
        return math.log(3.0) / mean.to(norms.dtype).clamp_min(torch.finfo(norms.dtype).tiny)

    def forward(self, norms: Tensor) -> Tensor:
        return self.spec.map(norms, self.gamma(norms))

    def saturation(self, norms: Tensor) -> Tensor:
        return self.spec.saturation(norms, self.gamma(norms))

    def observe(self, stats: Statistics) -> None:
        self.mean_norm.update(stats.values["norm"])


@dataclass(frozen=True)
class AdaCos(Radius):
    """AdaCos: radius = s, √2·log(C − 1) or updated at every step from there.

    `"dynamic"`: s ← log(B)/cos(min(π/4, θ_med)) before the step's loss uses it, with θ_med the median of the target
    angles (of an even number of rows the mean of the middle two) and B the mean of Σ_{j≠y} e^{s cos θ_j} at the
    previous s, over the rows of all ranks. This costs another pass over the classes per step, without gradient.

    Args:
        mode: `"dynamic"`, or `"fixed"`: √2·log(C − 1) for all of training. Both need C ≥ 3.

    Source: Zhang et al. 2019 (AdaCos), Eq. 12 to 14. Differs: where log B ≤ 0, which a few classes can give, the
    formula has no positive scale, and s stays as it was.
    """

    mode: str = "dynamic"
    kind: ClassVar[str] = "adacos"
    has_scale: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.choice("mode", self.mode, ("dynamic", "fixed"))

    @property
    def stateful(self) -> bool:
        return self.mode == "dynamic"

    @property
    def reads_batch(self) -> bool:
        return self.mode == "dynamic"

    def bind(self, embedding_size: int, num_classes: int) -> BoundAdaCos | Fixed:
        start = theory.adacos_scale(num_classes)
        return BoundAdaCos(start) if self.mode == "dynamic" else Fixed(start)

    def formula(self) -> str:
        return "s" if self.mode == "dynamic" else "(√2·log(C − 1))"

    @property
    def asks_log_sums(self) -> bool:
        """Whether s follows Σ_{j≠y} e^{s cos θ_j} over all classes, computed before the loss."""
        return self.mode == "dynamic"

    @property
    def where(self) -> str:  # type: ignore[override]  # a constant for other radii
        return "s = log(B)/cos(min(π/4, θ_med)) at every step" if self.mode == "dynamic" else ""

    def words(self) -> str:
        way = ", then log(B)/cos(min(π/4, θ_med)) at every step" if self.mode == "dynamic" else ""
        return f"radius AdaCos's s = √2·log(C − 1){way}"


class BoundAdaCos(Wide):
    """`AdaCos(mode="dynamic")`, bound: keeps s."""

    s: Tensor
    masks: ClassVar[bool] = True

    def __init__(self, start: float) -> None:
        super().__init__()
        self.register_buffer("s", torch.tensor(start, dtype=wide_dtype()))
        self.current: Tensor | None = None  # s of the step, within its loss

    @property
    def scale(self) -> Tensor:
        return self.s.clone() if self.current is None else self.current  # a copy: s moves before backward

    def forward(self, norms: Tensor) -> Tensor:
        return self.scale.to(norms.dtype).expand_as(norms)

    def prepare(self, batch: Batch | None) -> None:
        self.current = None if batch is None else self._moved(batch)

    @torch.no_grad()
    def observe(self, stats: Statistics) -> None:
        self.s.copy_(self._moved(stats.rows_seen))

    def _moved(self, batch: Batch) -> Tensor:
        assert batch.log_sums is not None
        total = torch.logsumexp(batch.where_kept(batch.log_sums, -torch.inf), 0)
        log_mean = total - (math.log(batch.count) if isinstance(batch.count, int) else batch.count.to(total).log())
        median = batch.median(batch.theta).clamp_max(math.pi / 4)
        return torch.where(log_mean > 0, (log_mean / torch.cos(median)).to(self.s), self.s)


TABLE: dict[str, type[Radius]] = {piece.kind: piece for piece in (Identity, Fixed, Coco, Learned, Contraction, AdaCos)}
