"""The reduction over the classes: its request, its result, and its definition in plain PyTorch (impl="reference")."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from angulus.core import checks
from angulus.losses.roles import Coefficients

SOFTPLUS_LINEAR = 40.0  # above it log(1 + e^z) is z, to the last digit of float64


@dataclass(frozen=True)
class Request:
    """The reductions wanted of each row's non-target classes. A base_j is the cosine, or w_j·x̂ for raw weights."""

    radius: Tensor | None  # [B] of N = log Σ_{j≠y} exp(radius · mapped_j + b_j), or None for no N. Differentiable
    threshold: Tensor | None = None  # [B], detached, or None: a base above it is mapped to a2·c² + a1·c + a0
    coefficients: Coefficients = (0.0, 1.0, 0.0)  # (a2, a1, a0)
    unit_weight: bool = True  # True divides every w_j by its length
    eps: float = 0.0  # the length of w_j is sqrt(‖w_j‖² + eps)
    plain_scales: tuple[Tensor, ...] = ()  # [B] each, of P = log Σ_{j≠y} exp(scale · cos_j). Differentiable
    # [B] each, detached, of H = Σ_{j≠y} max(0, offset + 2 cos_j) and its number of active terms
    hinge_offsets: tuple[Tensor, ...] = ()
    # the dtype to which the operands of w_j·x̂ and of both gradients' products are rounded; None for unit's own. Sums,
    # lengths and statistics stay in unit's dtype
    products: torch.dtype | None = None
    # called in backward with each block of weight rows and their gradient, which it may change in place; the
    # gradient of the whole weight is then never built. "reference" does not support it
    update: Callable[[slice, Tensor], None] | None = None
    # N is Σ_{j≠y} log(1 + exp(radius · mapped_j + b_j + shift)) instead, [B] or None. Differentiable
    shift: Tensor | None = None
    below: float | None = None  # what replaces a base that is not above the threshold; None keeps it
    slope: tuple[float, float] | None = None  # (d1, d0): a changed base has the gradient d1·c + d0, not its map's
    power: tuple[float, float] | None = None  # (t, m): every base is mapped to 2((c + 1)/2)^t − 1 + m; no threshold
    # (α, δ) each, of sums over the batch for each class: K = Σ_j log(1 + Σ_{i: y=j} e^{−α (cos_j − δ)}),
    # Σ_j log(1 + Σ_{i: y≠j} e^{α (cos_j + δ)}), and the number of classes j with a row
    class_sums: tuple[tuple[float, float], ...] = ()
    kept: Tensor | None = None  # [B] of bool, the rows i in `class_sums`; None: all
    sums_logits: bool = False  # whether T = Σ_{j≠y} (radius · mapped_j + b_j) is wanted, too
    # for weights [C, K, d], whose cosines need unit_weight: γ of the softmax that weights the K cosines of a class, or
    # None for the largest of them
    softness: float | None = None
    spreads: tuple[float, ...] = ()  # eps of each mean distance between two sub-centres of a class

    @property
    def read_coefficients(self) -> tuple[float, float, float]:
        """The coefficients as numbers, which waits for a GPU if they are there."""
        a2, a1, a0 = self.coefficients
        return float(a2), float(a1), float(a0)

    @property
    def needs_cosines(self) -> bool:
        """Whether a product is divided by the length of its weight."""
        return bool(self.unit_weight or self.plain_scales or self.hinge_offsets or self.class_sums)


class Reduced(NamedTuple):
    """What `reduce_rows` returns; all [B] but `rows`."""

    log_sum: Tensor | None  # N
    plain: tuple[Tensor, ...]  # P, one per scale
    hinges: tuple[tuple[Tensor, Tensor], ...]  # H and its active number (no gradient), one per offset
    rows: Tensor  # weight[labels], [B, d] or [B, K, d]; any row of weight where the label is −1
    total: Tensor | None = None  # T
    class_sums: tuple[tuple[Tensor, Tensor, Tensor], ...] = ()  # K, 0-d each, the last without gradient
    spreads: tuple[tuple[Tensor, Tensor], ...] = ()  # Σ_j mean distance, and the number of classes; equal for all rows

    @property
    def first(self) -> Tensor:
        """The first answer that there is."""
        pairs = [*self.hinges, *self.spreads, *self.class_sums]
        given = [*([] if self.log_sum is None else [self.log_sum]), *self.plain, *(numbers[0] for numbers in pairs)]
        return given[0]

    @property
    def summed(self) -> list[Tensor]:
        """All numbers of `class_sums`."""
        return [number for numbers in self.class_sums for number in numbers]


class ReduceRows(Protocol):
    """The signature of every kernel.

    A label of −1 means that another rank holds the row's class: nothing is masked for it. Gradients reach unit, weight,
    bias, radius, shift and the plain scales. Threshold and offsets are constants: the caller adds what their own
    gradient contributes (for an offset: active number times its gradient).
    """

    def __call__(
        self, unit: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, request: Request
    ) -> Reduced: ...


def reduce_rows(unit: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, request: Request) -> Reduced:
    """Reduce every row's non-target classes to the numbers that `request` names; any dtype, derivatives of any order.

    Args:
        unit: unit features x̂, [B, d]; its dtype is that of the statistics.
        weight: class weights, [C, d], or [C, K, d] with sub-centres.
        bias: [C] or None.
        labels: the target class of each row, [B], in [0, C), or −1.
        request: see `Request`.
    """
    if request.update is not None:
        raise checks.InputError("an update within backward needs impl='chunked', 'fused' or 'blocked'; got 'reference'")
    rows = weight[labels.clamp_min(0)]
    weight = weight.to(unit.dtype)
    flat = weight.flatten(0, -2)
    dots = rounded(unit, request.products) @ rounded(flat, request.products).T  # [B, C], or [B, C · K]
    target = torch.arange(len(weight), device=labels.device) == labels[:, None]
    cosines = dots
    if request.needs_cosines:
        cosines = dots / lengths(flat, request.eps)
    if weight.ndim == 3:
        cosines = combine(cosines.view(-1, *weight.shape[:2]), request.softness, dim=2)
    base = cosines if request.unit_weight else dots

    log_sum = total = None
    if request.radius is not None:
        logits = request.radius[:, None] * _mapped(base, request)
        if bias is not None:
            logits = logits + bias.to(logits.dtype)
        if request.shift is None:
            log_sum = log_sum_exp(logits, target)
        else:
            log_sum = softplus(logits + request.shift[:, None]).masked_fill(target, 0.0).sum(dim=1)
        total = logits.masked_fill(target, 0.0).sum(dim=1) if request.sums_logits else None
    plain = tuple(log_sum_exp(scale[:, None] * cosines, target) for scale in request.plain_scales)
    hinges = tuple(_hinge(offset, cosines, target) for offset in request.hinge_offsets)
    sums = tuple(_class_sums(cosines, target, request.kept, alpha, delta) for alpha, delta in request.class_sums)
    spreads = tuple(per_row(mean_distances(weight, eps), weight, len(unit)) for eps in request.spreads)
    return Reduced(log_sum, plain, hinges, rows, total, sums, spreads)


def _class_sums(
    cosines: Tensor, target: Tensor, kept: Tensor | None, alpha: float, delta: float
) -> tuple[Tensor, Tensor, Tensor]:
    rows, other_rows = target.T, ~target.T
    if kept is not None:
        rows, other_rows = rows & kept, other_rows & kept
    own = log_sum_exp(-alpha * (cosines - delta).T, ~rows)
    others = log_sum_exp(alpha * (cosines + delta).T, ~other_rows)
    return softplus(own).sum(), softplus(others).sum(), rows.any(dim=1).sum().to(cosines.dtype)


def _mapped(base: Tensor, request: Request) -> Tensor:
    if request.power is not None:
        t, m = request.power
        value = 2 * ((base + 1) / 2).clamp_min(0).pow(t) - 1 + m
        return value if request.slope is None else _with_slope(value, base, request.slope)
    if request.threshold is None:
        return base
    a2, a1, a0 = request.coefficients
    value = a2 * base * base + a1 * base + a0
    if request.slope is not None:
        value = _with_slope(value, base, request.slope)
    below = base if request.below is None else torch.full_like(base, request.below)
    return torch.where(base > request.threshold[:, None], value, below)


def _with_slope(value: Tensor, base: Tensor, slope: tuple[float, float]) -> Tensor:
    """The value, with the gradient d1·base + d0; the second derivative is that of base alone."""
    factor = (slope[0] * base + slope[1]).detach()
    return value.detach() + factor * (base - base.detach())


def softplus(logits: Tensor) -> Tensor:
    """log(1 + e^z), exact in float64 too, without overflow."""
    return torch.nn.functional.softplus(logits, threshold=SOFTPLUS_LINEAR)


def combine(cosines: Tensor, softness: float | None, dim: int) -> Tensor:
    """The one cosine of each class from those of its K sub-centres, along `dim`; of equal ones the first is nearest."""
    if softness is None:
        return cosines.max(dim=dim).values
    return (torch.softmax(cosines / softness, dim=dim) * cosines).sum(dim=dim)


def mean_distances(weight: Tensor, eps: float) -> Tensor:
    """Σ_j of the mean over k < l of √(‖ŵ_jk − ŵ_jl‖² + eps), of weights [C, K, d], K ≥ 2."""
    count = weight.shape[1]
    first, second = torch.triu_indices(count, count, 1, device=weight.device)
    unit = weight / lengths(weight.flatten(0, 1)).view(-1, count, 1)
    apart = unit[:, first] - unit[:, second]  # exact for near ones, as 2 − 2 cos is not
    if eps > 0:
        return torch.sqrt(apart.square().sum(dim=2) + eps).mean(dim=1).sum()
    distances: Tensor = torch.linalg.vector_norm(apart, dim=2)
    return distances.mean(dim=1).sum()


def per_row(total: Tensor, weight: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """A sum over the classes, and their number, repeated for each row."""
    return total.expand(rows), total.new_full((rows,), len(weight))


def rounded(operand: Tensor, products: torch.dtype | None) -> Tensor:
    """The operand of a product as its dtype holds it, still in its own dtype; the gradient passes as it is."""
    return operand if products is None else operand.to(products).to(operand.dtype)


def lengths(vectors: Tensor, eps: float = 0.0) -> Tensor:
    """sqrt(‖v‖² + eps) of each row, [N]; 1 for a zero row with eps = 0, so that its unit vector is zero."""
    if eps > 0:
        return torch.sqrt(vectors.square().sum(dim=1) + eps)
    norms = torch.linalg.vector_norm(vectors, dim=1)
    return torch.where(norms > 0, norms, torch.ones_like(norms))


def log_sum_exp(logits: Tensor, masked: Tensor) -> Tensor:
    """The log-sum-exp over what is not masked, [B]; −inf, with zero gradient, where a row is all masked."""
    logits = logits.masked_fill(masked, -torch.inf)
    empty = masked.all(dim=1)
    return torch.where(empty, -torch.inf, torch.logsumexp(logits.masked_fill(empty[:, None], 0.0), dim=1))


def _hinge(offset: Tensor, cosines: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    inner = (offset[:, None] + 2 * cosines).masked_fill(target, 0.0)
    active = inner > 0
    return (inner * active).sum(dim=1), active.sum(dim=1)
