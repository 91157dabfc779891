"""Products of float32 matrices on a CPU with operands rounded to bfloat16 within, and sums in float32, where AMX is.

A CPU product of bfloat16 tensors returns bfloat16, which rounds its sums as well. oneDNN can round the operands itself:
nothing is copied beforehand, and what comes back is float32. It does so only with AMX, and only when PyTorch's setting
for all of the process says so; the setting is changed for as long as a kernel walks, by one thread at a time. Small
products, of less than about 24 rows, it may leave in float32.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from angulus.kernels.reduction import Request

_TURN = threading.RLock()


def applies(unit: Tensor, request: Request) -> bool:
    """Whether the products of this request are rounded that way."""
    wanted = request.products == torch.bfloat16 and unit.dtype == torch.float32 and unit.device.type == "cpu"
    return wanted and available()


@functools.cache
def available() -> bool:
    """Whether oneDNN rounds here when it is told to: 1 + 2^-12 is no bfloat16 number."""
    if not hasattr(torch.backends.mkldnn, "matmul"):  # the setting came with PyTorch 2.9
        return False
    with rounded(True):
        return bool((torch.full((64, 64), 1 + 2**-12) @ torch.ones(64, 64) == 64).all())


@contextlib.contextmanager
def rounded(wanted: bool) -> Iterator[None]:
    """Within it, if wanted, float32 products of the CPU round their operands to bfloat16."""
    if not wanted:
        yield
        return
    setting: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    with _TURN:
        before = setting.fp32_precision
        setting.fp32_precision = "bf16"
        try:
            yield
        finally:
            setting.fp32_precision = before
