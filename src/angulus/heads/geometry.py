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
    """(norms ‖x‖ [B], x / sqrt(‖x‖² + eps) [B, d]) in float32 or wider; a zero feature stays zero."""
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    norms = torch.linalg.vector_norm(features, dim=1)
    limit = torch.finfo(features.dtype).max ** 0.5
    if bool(((norms > limit / 16) | (norms < 16 / limit)).any()):  # the squares over- or underflow
        largest = features.detach().abs().amax(dim=1)
        scale = torch.where(largest > 0, largest, torch.ones_like(largest))
        norms = scale * torch.linalg.vector_norm(features / scale[:, None], dim=1)
        if eps == 0:
            return norms, features / torch.where(norms > 0, norms, torch.ones_like(norms))[:, None]
    return norms, features / lengths(features, eps)[:, None]


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
