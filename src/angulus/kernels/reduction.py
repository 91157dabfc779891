"""The reduction over the classes: its request, its result, and its definition in plain PyTorch (impl="reference")."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from angulus.core import checks


@dataclass(frozen=True)
class Request:
    """The reductions wanted of each row's non-target classes. A base_j is the cosine, or w_j·x̂ for raw weights."""

    radius: Tensor | None  # [B] of N = log Σ_{j≠y} exp(radius · mapped_j + b_j), or None for no N. Differentiable
    threshold: Tensor | None = None  # [B], detached, or None: a base above it is mapped to a2·c² + a1·c + a0
    coefficients: tuple[float, float, float] = (0.0, 1.0, 0.0)  # (a2, a1, a0)
    unit_weight: bool = True  # True divides every w_j by its length
    eps: float = 0.0  # the length of w_j is sqrt(‖w_j‖² + eps)
    plain_scales: tuple[Tensor, ...] = ()  # [B] each, of P = log Σ_{j≠y} exp(scale · cos_j). Differentiable
    # [B] each, detached, of H = Σ_{j≠y} max(0, offset + 2 cos_j) and its number of active terms
    hinge_offsets: tuple[Tensor, ...] = ()
    # the dtype to which the operands of w_j·x̂ and of both gradients' products are rounded; None for unit's own. Sums,
    # lengths and statistics stay in unit's dtype
    products: torch.dtype | None = None
    # called in backward with each block of classes and the gradient of its weight, which it may change in place; the
    # gradient of the whole weight is then never built. "reference" does not support it
    update: Callable[[slice, Tensor], None] | None = None


class Reduced(NamedTuple):
    """What `reduce_rows` returns; all [B] but `rows`."""

    log_sum: Tensor | None  # N
    plain: tuple[Tensor, ...]  # P, one per scale
    hinges: tuple[tuple[Tensor, Tensor], ...]  # H and its active number (no gradient), one per offset
    rows: Tensor  # weight[labels], [B, d]; any row of weight where the label is −1


class ReduceRows(Protocol):
    """The signature of every kernel.

    A label of −1 means that another rank holds the row's class: nothing is masked for it. Gradients reach unit, weight,
    bias, radius and the plain scales. Threshold and offsets are constants: the caller adds what their own gradient
    contributes (for an offset: active number times its gradient).
    """

    def __call__(
        self, unit: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, request: Request
    ) -> Reduced: ...


def reduce_rows(unit: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, request: Request) -> Reduced:
    """Reduce every row's non-target classes to the numbers that `request` names; any dtype, derivatives of any order.

    Args:
        unit: unit features x̂, [B, d]; its dtype is that of the statistics.
        weight: class weights, [C, d].
        bias: [C] or None.
        labels: the target class of each row, [B], in [0, C), or −1.
        request: see `Request`.
    """
    if request.update is not None:
        raise checks.InputError("an update within backward needs impl='chunked', 'fused' or 'blocked'; got 'reference'")
    rows = weight[labels.clamp_min(0)]
    weight = weight.to(unit.dtype)
    dots = rounded(unit, request.products) @ rounded(weight, request.products).T  # [B, C]
    target = torch.arange(len(weight), device=labels.device) == labels[:, None]
    cosines = dots
    if request.unit_weight or request.plain_scales or request.hinge_offsets:
        cosines = dots / lengths(weight, request.eps)
    base = cosines if request.unit_weight else dots

    log_sum = None
    if request.radius is not None:
        if request.threshold is not None:
            a2, a1, a0 = request.coefficients
            base = torch.where(base > request.threshold[:, None], a2 * base * base + a1 * base + a0, base)
        logits = request.radius[:, None] * base
        log_sum = log_sum_exp(logits if bias is None else logits + bias.to(logits.dtype), target)
    plain = tuple(log_sum_exp(scale[:, None] * cosines, target) for scale in request.plain_scales)
    hinges = tuple(_hinge(offset, cosines, target) for offset in request.hinge_offsets)
    return Reduced(log_sum, plain, hinges, rows)


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
