"""Functions of the target's angle that margins share; a margin m may be one number, or one per row."""

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
