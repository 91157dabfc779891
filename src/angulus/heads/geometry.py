"""What of a batch costs O(B · d): norms, unit features, and the target's cosine and angle, without acos."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from angulus.kernels.reference import lengths


@dataclass(frozen=True)
class Geometry:
    """What of a batch costs O(B · d): norms, unit features, and the target's cosine and angle."""

    norms: Tensor  # [B]
    unit: Tensor  # [B, d]
    dot: Tensor  # [B], x̂·w_y
    cos: Tensor  # [B]
    theta: Tensor  # [B], radians
    length: Tensor  # [B], ‖w_y‖


def normalize(features: Tensor, eps: float = 0.0) -> tuple[Tensor, Tensor]:
    """(norms ‖x‖ [B], x / sqrt(‖x‖² + eps) [B, d]) in float32 or wider; a zero feature stays zero.

    Rows whose squares would over- or underflow are scaled first; one of entries below 2^-110 (float64: 2^-1006) counts
    as zero, since 1 / ‖x‖ would overflow. Without a branch, so that it can be exported.
    """
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    limits = torch.finfo(features.dtype)
    limit, least = limits.max**0.5, limits.tiny * 2**16
    with torch.no_grad():
        length = torch.linalg.vector_norm(features, dim=1)
        outside = length > limit / 16
        if eps == 0:  # a positive one outweighs small squares
            outside = outside | (length < 16 / limit)
        largest = features.abs().amax(dim=1)
        zero = largest < least
        scale = torch.where(outside & ~zero, largest, torch.ones_like(largest))
    scaled = features / scale[:, None]
    norms = torch.linalg.vector_norm(scaled, dim=1).masked_fill(zero, 0.0)
    if eps == 0:
        divisor = torch.where(norms > 0, norms, torch.ones_like(norms))
    else:
        divisor = torch.sqrt(scaled.square().sum(dim=1) + eps / scale**2)
    return scale * norms, scaled / divisor[:, None]


def geometry(norms: Tensor, unit: Tensor, rows: Tensor, eps: float) -> Geometry:
    """The target's angle from x̂ and its class weights, without acos: θ = 2·atan2(‖x̂ − ŵ‖, ‖x̂ + ŵ‖)."""
    rows = rows.to(unit.dtype)
    divisor = lengths(rows, eps)
    direction = rows / divisor[:, None]
    apart = torch.linalg.vector_norm(unit - direction, dim=1)
    along = torch.linalg.vector_norm(unit + direction, dim=1)
    nowhere = (apart == 0) & (along == 0)  # a zero feature and a zero weight: at right angles, like either alone
    one = torch.ones_like(apart)
    theta = 2 * torch.atan2(torch.where(nowhere, one, apart), torch.where(nowhere, one, along))
    dot = (unit * rows).sum(dim=1)
    return Geometry(norms, unit, dot, dot / divisor, theta, torch.linalg.vector_norm(rows, dim=1))
