"""The preprocessing contract: what a model's pixels must be, stored with it, and how bytes become them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from angulus import checks


@dataclass(frozen=True)
class Contract:
    """Pixels x in 0..255 become (x − mean) / scale.

    Args:
        mean: taken off every pixel, in 0..255 units.
        scale: divides, > 0, in the same units.
    """

    mean: float = 127.5
    scale: float = 127.5
    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "strict": True}

    def __post_init__(self) -> None:
        checks.number("input.mean", self.mean)
        checks.number("input.scale", self.scale, low=0, open_low=True)

    def __call__(self, pixels: Tensor) -> Tensor:
        """uint8 [B, channels, height, width] -> float32 of the same shape."""
        if pixels.dtype != torch.uint8:
            raise checks.InputError(f"pixels must be uint8 in 0..255; got {pixels.dtype}")
        return (pixels.float() - self.mean) / self.scale
