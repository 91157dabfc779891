"""What a kernel is asked and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Request:
    """The reductions wanted of each row's non-target classes. A base_j is the cosine, or w_j·x̂ for raw weights.

    Args:
        radius: [B] of N = log Σ_{j≠y} exp(radius · mapped_j + b_j), or None for no N. Differentiable.
        threshold: [B], detached, or None: a base above it is mapped to a2·c² + a1·c + a0.
        coefficients: (a2, a1, a0).
        unit_weight: True divides every w_j by its length.
        eps: the length of w_j is sqrt(‖w_j‖² + eps).
        plain_scales: [B] each, of P = log Σ_{j≠y} exp(scale · cos_j). Differentiable.
        hinge_offsets: [B] each, detached, of H = Σ_{j≠y} max(0, offset + 2 cos_j) and its number of active terms.
        products: the dtype that the operands of w_j·x̂, and of the products of both gradients, are rounded to; None for
            unit's own. Sums, lengths and statistics stay in unit's dtype.
        update: called in backward with each block of classes and the gradient of its weight, which it may change in
            place; no gradient of the whole weight is then made. "reference" does not know it.
    """

    radius: Tensor | None
    threshold: Tensor | None = None
    coefficients: tuple[float, float, float] = (0.0, 1.0, 0.0)
    unit_weight: bool = True
    eps: float = 0.0
    plain_scales: tuple[Tensor, ...] = ()
    hinge_offsets: tuple[Tensor, ...] = ()
    products: torch.dtype | None = None
    update: Callable[[slice, Tensor], None] | None = None


class Reduced(NamedTuple):
    """What `reduce_rows` returns; all [B] but `rows`."""

    log_sum: Tensor | None  # N
    plain: tuple[Tensor, ...]  # P, one per scale
    hinges: tuple[tuple[Tensor, Tensor], ...]  # H and its active number (no gradient), one per offset
    rows: Tensor  # weight[labels], [B, d]; any row of weight where the label is −1


class ReduceRows(Protocol):
    """The signature of every kernel.

    A label of −1 says that the row's own class is not among these (another rank holds it): nothing is masked for it.
    Gradients reach unit, weight, bias, radius and the plain scales. Threshold and offsets are constants: who calls adds
    what their own gradient brings (for an offset: active number times its gradient).
    """

    def __call__(
        self, unit: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, request: Request
    ) -> Reduced: ...
