"""What the stages share: the device, two losses, the kernels that run here, and the time of a call."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from angulus import losses
from angulus.kernels import fused

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
ARCFACE = losses.arcface()
MV_IAM = losses.mv_softmax(32, losses.margins.AdditiveAngle(0.5), 0.3, "adaptive") + losses.iam(0.1)
Row = dict[str, Any]


def kernels() -> list[str]:
    """The kernels that run here, besides the reference."""
    return ["chunked"] + ["blocked", "fused"] * (fused.unavailable(DEVICE) is None)


def milliseconds_of(call: Callable[[], object]) -> float:
    """One call, until the GPU has done it."""
    if GPU:
        torch.cuda.synchronize()
    began = time.perf_counter()
    call()
    if GPU:
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - began)
