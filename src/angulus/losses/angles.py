"""Unit vectors, and functions of the target's angle that margins share; a margin m may be one per row."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from angulus.core import checks

BEYOND_PI = ("linear", "plain", "easy")


def check_angle(name: str, value: float, *, low: float = 0.0) -> float:
    """An angle in radians in [low, π)."""
    return checks.number(name, value, low=low, high=math.pi, open_high=True, hint=f"{name} is in radians")


def add_angle(theta: Tensor, m: float | Tensor, beyond_pi: str = "linear") -> Tensor:
    """cos(θ + m); where θ + m > π by `beyond_pi`, as `margins.AdditiveAngle` describes it."""
    cos, value = torch.cos(theta), torch.cos(theta + m)
    if beyond_pi == "linear":
        # sin(π − m), as published, and not sin m, which rounds otherwise
        step = m * (torch.sin(math.pi - m) if isinstance(m, Tensor) else math.sin(math.pi - m))
        return torch.where(theta + m > math.pi, cos - step, value)
    if beyond_pi == "easy":
        return torch.where(theta < math.pi / 2, value, cos)  # as angles: cos(π / 2) is 6e-17
    return value


def normalize(features: Tensor, eps: float = 0.0) -> tuple[Tensor, Tensor]:
    """(norms ‖x‖ [B], x / sqrt(‖x‖² + eps) [B, d]) in float32 or wider; a zero feature stays zero.

    Rows whose squares would over- or underflow are scaled first. A row whose entries are all below 2^-110 (float64:
    2^-1006) counts as zero, since 1 / ‖x‖ would overflow. There is no branch, so the function can be exported.
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
