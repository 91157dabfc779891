"""Margins that differ from sample to sample: by the norm, by a draw, or by the class."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from angulus.core import checks
from angulus.losses.angles import BEYOND_PI, add_angle, check_angle
from angulus.losses.per_class import PerClass, check_counts
from angulus.losses.roles import Margin
from angulus.losses.running import Batch, Statistics, Wide, exact_dtype, wide_dtype


@dataclass(frozen=True)
class NormAngle(Margin):
    """cos(θ + m(a)), a = ‖x‖ clipped to [l_a, u_a], m(a) = l_m + (u_m − l_m)(a − l_a)/(u_a − l_a). MagFace.

    The gradient flows through m(a) into the norm, within the clip.

    Args:
        l_a, u_a: norms between which the margin grows, 0 ≤ l_a < u_a; 10 and 110 in the paper.
        l_m, u_m: the margin at both, radians, 0 ≤ l_m ≤ u_m < π; 0.45 and 0.8 in the paper.
        beyond_pi: where θ + m(a) > π, as in `margins.AdditiveAngle`.

    Source: Meng et al. 2021 (MagFace), Eq. 3 and 5. Differs: where θ + m(a) > π the authors' code continues linearly,
    as here; the equation turns back (`beyond_pi="plain"`).
    """

    l_a: float = 10.0
    u_a: float = 110.0
    l_m: float = 0.45
    u_m: float = 0.8
    beyond_pi: str = "linear"
    kind: ClassVar[str] = "norm_angle"
    reads_norms: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_norm_range(self.l_a, self.u_a)
        check_angle("l_m", self.l_m)
        check_angle("u_m", self.u_m, low=self.l_m)
        checks.choice("beyond_pi", self.beyond_pi, BEYOND_PI)

    def __call__(self, theta: Tensor, norms: Tensor) -> Tensor:
        share = (norms.clamp(self.l_a, self.u_a) - self.l_a) / (self.u_a - self.l_a)
        return add_angle(theta, self.l_m + (self.u_m - self.l_m) * share, self.beyond_pi)

    @property
    def options(self) -> str:
        ends = f"m from {self.l_m:g} at ‖x‖ = {self.l_a:g} to {self.u_m:g} at {self.u_a:g}"
        return ends if self.beyond_pi == "linear" else f"{ends}, beyond_pi = {self.beyond_pi}"

    def formula(self) -> str:
        return "cos(θ + m(‖x‖))"


def check_norm_range(l_a: float, u_a: float, *, open_low: bool = False) -> None:
    """l_a < u_a, both norms."""
    low = checks.number("l_a", l_a, low=0, open_low=open_low)
    checks.number("u_a", u_a, low=low, open_low=True, hint="it is the larger norm of the two, l_a the smaller")


NORM_CLIP = (0.001, 100.0)  # of AdaFace's norms


@dataclass(frozen=True)
class NormQuality(Margin):
    """cos(θ − m·ẑ) − (m + m·ẑ), ẑ = (‖x‖ − μ)/(σ + ε)·h clipped to [−1, 1]. AdaFace.

    ẑ has no gradient; norms are clipped to [0.001, 100], θ − m·ẑ to [ε, π − ε]. μ and σ are means over the steps of
    the mean and the deviation (by N − 1; 0 for one row) of the norms of all ranks' rows, updated before their use.

    Args:
        m: the margin, in [0, π/2); 0.4 in the paper.
        h: how much the norm counts, ≥ 0; 0.333 in the paper.
        statistics: `"running"`, μ ← (1 − rate)·μ + rate·batch from 20, σ likewise from 100; or `"batch"`, the
            batch's own.
        rate: of the running means, in (0, 1]; 0.01 in the paper.
        eps: ε, in (0, π/2); 1e-3 in the paper.

    Source: Kim et al. 2022 (AdaFace), Eq. 14 to 16. Differs: the paper has running means, from 20 and 100; the default
    of the authors' code is each batch's own (`statistics="batch"`), and it evaluates with the last batch's.
    """

    m: float = 0.4
    h: float = 0.333
    statistics: str = "running"
    rate: float = 0.01
    eps: float = 1e-3
    kind: ClassVar[str] = "norm_quality"
    stateful: ClassVar[bool] = True
    reads_batch: ClassVar[bool] = True

    @property
    def reads_norms(self) -> bool:  # type: ignore[override]  # a constant for other margins
        return self.h > 0

    def __post_init__(self) -> None:
        checks.number("m", self.m, low=0, high=math.pi / 2, open_high=True, hint="m is in radians")
        checks.number("h", self.h, low=0)
        checks.choice("statistics", self.statistics, ("running", "batch"))
        checks.number("rate", self.rate, low=0, high=1, open_low=True)
        checks.number("eps", self.eps, low=0, high=math.pi / 2, open_low=True, open_high=True)

    def bind(self, embedding_size: int, num_classes: int) -> BoundQuality:
        return BoundQuality(self)

    def target(self, theta: Tensor, norms: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
        """What replaces cosθ, given μ and σ."""
        mean, deviation = mean.to(norms.dtype), deviation.to(norms.dtype)
        z = ((norms.detach().clamp(*NORM_CLIP) - mean) / (deviation + self.eps) * self.h).clamp(-1, 1)
        angle = (theta - self.m * z).clamp(self.eps, math.pi - self.eps)
        return torch.cos(angle) - (self.m + self.m * z)

    def formula(self) -> str:
        return f"(cos(θ − {self.m:g}ẑ) − ({self.m:g} + {self.m:g}ẑ))"

    @property
    def options(self) -> str:
        of = "the batch's mean and deviation" if self.statistics == "batch" else f"running means at rate {self.rate:g}"
        return f"ẑ = {self.h:g}(‖x‖ − μ)/(σ + {self.eps:g}) in [−1, 1], μ and σ {of}"


class BoundQuality(Wide):
    """`NormQuality`, bound: keeps μ and σ."""

    mean: Tensor
    deviation: Tensor
    masks: ClassVar[bool] = True

    def __init__(self, spec: NormQuality) -> None:
        super().__init__()
        self.spec = spec
        self.register_buffer("mean", torch.tensor(20.0, dtype=wide_dtype()))
        self.register_buffer("deviation", torch.tensor(100.0, dtype=wide_dtype()))
        self.current: tuple[Tensor, Tensor] | None = None  # those of the step, within its loss

    def forward(self, theta: Tensor, norms: Tensor) -> Tensor:
        return self.spec.target(theta, norms, *(self.current or (self.mean, self.deviation)))

    def prepare(self, batch: Batch | None) -> None:
        self.current = None if batch is None else self._moved(batch)

    @torch.no_grad()
    def observe(self, stats: Statistics) -> None:
        mean, deviation = self._moved(stats.rows_seen)
        self.mean.copy_(mean)
        self.deviation.copy_(deviation)

    def _moved(self, batch: Batch) -> tuple[Tensor, Tensor]:
        norms = batch.norms.clamp(*NORM_CLIP).to(torch.promote_types(batch.norms.dtype, self.mean.dtype))
        mean, deviation = batch.mean(norms), batch.deviation(norms)
        if self.spec.statistics == "batch":
            return mean, deviation
        rate = self.spec.rate
        return (1 - rate) * self.mean + rate * mean, (1 - rate) * self.deviation + rate * deviation


@dataclass(frozen=True)
class Elastic(Margin):
    """cos(θ + m_i) or cosθ − m_i, m_i drawn from N(m, σ) for each sample at each step. ElasticFace.

    The draws depend on the seed, the step and the row's number in it (of all ranks, in their order; micro-batches
    count on), so a resumed run draws the same. Without a step, as in eval mode, every m_i is m.

    Args:
        base: `"angle"` or `"cosine"`.
        m: mean margin; 0.5 radians and 0.35 in the paper.
        sigma: σ ≥ 0; 0.05 in the paper.
        plus: ElasticFace+: the largest draw goes to the row with the smallest target cosine, and so on.
        order: how `plus` assigns: `"rank"`, by the rank of the row's cosine; `"argsort"`, the sorted draws indexed by
            the argsort of the cosines.
        seed: of the draws.
        beyond_pi: with `base="angle"`, where θ + m_i > π, as in `margins.AdditiveAngle`.

    Source: Boutros et al. 2022 (ElasticFace), Eq. 4 to 6. Differs: `plus` follows the paper's words; the authors' code
    assigns by the inverse permutation, mostly another one (`order="argsort"`), and has `beyond_pi="plain"`.
    """

    base: str = "angle"
    m: float = 0.5
    sigma: float = 0.05
    plus: bool = False
    order: str = "rank"
    seed: int = 0
    beyond_pi: str = "linear"
    kind: ClassVar[str] = "elastic"
    stateful: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.choice("base", self.base, ("angle", "cosine"))
        if self.base == "angle":
            check_angle("m", self.m)
        checks.number("m", self.m, low=0)
        checks.number("sigma", self.sigma, low=0)
        checks.flag("plus", self.plus)
        checks.choice("order", self.order, ("rank", "argsort"))
        checks.integer("seed", self.seed, low=0)
        checks.choice("beyond_pi", self.beyond_pi, BEYOND_PI)

    @property
    def reads_batch(self) -> bool:
        return self.plus

    def bind(self, embedding_size: int, num_classes: int) -> BoundElastic:
        return BoundElastic(self)

    def target(self, theta: Tensor, m: float | Tensor) -> Tensor:
        """What replaces cosθ, given the margin of each row."""
        return add_angle(theta, m, self.beyond_pi) if self.base == "angle" else torch.cos(theta) - m

    def margins(self, step: int | Tensor, batch: Batch) -> Tensor:
        """The margin of each row of the batch, of all ranks, [rows]."""
        numbers = batch.numbers
        drawn = (self.m + self.sigma * draw_normal(self.seed, step, numbers)).to(batch.cos)
        if not self.plus:
            return drawn
        # rows that do not count come last
        order = torch.argsort(batch.where_kept(batch.cos, -torch.inf), descending=True, stable=True)
        ascending = batch.where_kept(drawn, torch.inf).sort().values
        if self.order == "argsort":
            places = numbers - batch.earlier
            return ascending[places[order]][places]
        return batch.where_kept(torch.empty_like(drawn).index_copy_(0, order, ascending), self.m)

    def formula(self) -> str:
        return "cos(θ + m_i)" if self.base == "angle" else "(cos θ − m_i)"

    @property
    def options(self) -> str:
        parts = [f"m_i from N({self.m:g}, {self.sigma:g}), seed {self.seed}"]
        if self.plus:
            parts.append("the largest for the smallest cos θ" + (" by argsort" if self.order == "argsort" else ""))
        if self.beyond_pi != "linear":
            parts.append(f"beyond_pi = {self.beyond_pi}")
        return ", ".join(parts)


class BoundElastic(Wide):
    """`Elastic`, bound: counts the steps."""

    step: Tensor
    masks: ClassVar[bool] = True

    def __init__(self, spec: Elastic) -> None:
        super().__init__()
        self.spec = spec
        self.register_buffer("step", torch.tensor(0, dtype=torch.int64))
        self.current: Tensor | None = None  # this rank's margins, within a step's loss

    def forward(self, theta: Tensor, norms: Tensor) -> Tensor:
        return self.spec.target(theta, self.spec.m if self.current is None else self.current)

    def prepare(self, batch: Batch | None) -> None:
        self.current = None if batch is None else self.spec.margins(self.step, batch)[batch.own]

    @torch.no_grad()
    def observe(self, stats: Statistics) -> None:
        self.step += 1


def draw_normal(seed: int, step: int | Tensor, rows: Tensor) -> Tensor:
    """A standard normal number for each row number [n] of a step, which depends on nothing else; float64.

    Computed where the numbers are, so that a step on a GPU neither reads the step nor copies draws.
    """
    key = int.from_bytes(hashlib.blake2b(str(seed).encode(), digest_size=8).digest(), "big", signed=True)
    bits = _mix(_mix((rows.new_zeros(()) + step) * _STRIDE + key) + rows * _STRIDE)
    dtype = exact_dtype(rows.device)
    kept = 52 if dtype == torch.float64 else 23  # one bit less than it holds, so that + 0.5 is exact and never gives 1
    uniform = (_shifted(bits, 64 - kept).to(dtype) + 0.5) * 2.0**-kept
    return math.sqrt(2) * torch.erfinv(2 * uniform - 1)  # a Mac's GPU has no ndtri


_STRIDE = -7046029254386353131  # 2^64 / golden ratio, as Steele et al. 2014 (SplitMix) step their generator


def _mix(bits: Tensor) -> Tensor:
    """SplitMix64's finaliser, of int64 whose products wrap: each input bit changes each output bit with chance 1/2."""
    bits = (bits ^ _shifted(bits, 30)) * -4658895280553007687
    bits = (bits ^ _shifted(bits, 27)) * -7723592293110705685
    return bits ^ _shifted(bits, 31)


def _shifted(bits: Tensor, by: int) -> Tensor:
    """The bits moved right, with zeros from the left."""
    return (bits >> by) & ((1 << (64 - by)) - 1)


@dataclass(frozen=True)
class ClassAngle(Margin):
    """cos(θ + m_y), m_y = a·n_y^(−power) + b, n_y the training images of the class. Dynamic margin.

    a and b follow from the range: the class with the fewest images has the margin `high`, that with the most `low`.

    Args:
        low, high: the range of the margins, radians, 0 ≤ low < high < π; 0.05 and 0.5 in the paper.
        power: > 0; 1/4 in the paper.
        counts: n_y ≥ 1 of each class in the order of the labels, at least two of them different; `"auto"`: a
            training counts its own images (`Objective.with_counts` in your own loop).
        beyond_pi: where θ + m_y > π, as in `margins.AdditiveAngle`.

    Source: Ha et al. 2020 (Google Landmark Recognition 2020), Sec. 3.
    """

    low: float = 0.05
    high: float = 0.5
    power: float = 0.25
    counts: tuple[int, ...] | Literal["auto"] = "auto"
    beyond_pi: str = "linear"
    kind: ClassVar[str] = "class_angle"
    reads_labels: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_angle("low", self.low)
        check_angle("high", self.high)
        if not self.low < self.high:
            raise checks.InputError(
                f"low must be < high, the range of the margins; got low = {self.low:g} and high = {self.high:g}; "
                "arcface(m=...) has one margin for all classes"
            )
        checks.number("power", self.power, low=0, open_low=True)
        object.__setattr__(self, "counts", check_counts(self.counts))
        checks.choice("beyond_pi", self.beyond_pi, BEYOND_PI)
        if self.counts != "auto" and len(self.counts) > 1:
            fewest, most = min(self.counts), max(self.counts)
            if fewest**-self.power == most**-self.power:
                have = str(most) if fewest == most else f"{fewest} to {most} (the same at power {self.power:g})"
                raise checks.InputError(
                    f"dynamic margins need classes with different numbers of images; all {len(self.counts)} have "
                    f"{have}, for which a and b are undefined: use arcface, with one margin for all"
                )

    def bind(self, embedding_size: int, num_classes: int) -> BoundClassAngle:
        counts = PerClass.check(self.kind, self.counts, num_classes)
        return BoundClassAngle(PerClass(self.margins(counts)), self.beyond_pi)

    def margins(self, counts: Sequence[int]) -> list[float]:
        """The margin of each class; `high` for a single class."""
        powers = [count**-self.power for count in counts]
        if len(powers) == 1:
            return [self.high]
        slope = (self.high - self.low) / (max(powers) - min(powers))
        return [self.low + slope * (power - min(powers)) for power in powers]

    def formula(self) -> str:
        return "cos(θ + m_y)"

    @property
    def options(self) -> str:
        parts = [f"m_y from {self.low:g} for the most images to {self.high:g} for the fewest, by n_y^−{self.power:g}"]
        if self.beyond_pi != "linear":
            parts.append(f"beyond_pi = {self.beyond_pi}")
        return ", ".join(parts)


@dataclass(frozen=True, eq=False)
class BoundClassAngle:
    """`ClassAngle`, bound: knows the margin of each class."""

    m: PerClass
    beyond_pi: str

    def __call__(self, theta: Tensor, norms: Tensor, labels: Tensor) -> Tensor:
        return add_angle(theta, self.m(labels, theta.dtype), self.beyond_pi)
