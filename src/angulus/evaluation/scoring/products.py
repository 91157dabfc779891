"""Products of unit rows in a low precision, and the proven bound on their error."""

from __future__ import annotations

import math
import time
from functools import lru_cache

import torch
from torch import Tensor

from angulus.core import checks

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def product(rows: Tensor, columns: Tensor, buffer: Tensor) -> Tensor:
    """The product rows · columnsᵀ in their precision, added up in float32, into the buffer."""
    scores = buffer[: len(rows) * len(columns)].view(len(rows), len(columns))
    if rows.device.type != "cuda":
        return torch.mm(rows, columns.T, out=scores)
    settings = torch.backends.cuda.matmul
    before = settings.allow_bf16_reduced_precision_reduction
    settings.allow_bf16_reduced_precision_reduction = False  # it would add up in bfloat16
    try:
        return torch.mm(rows, columns.T, out=scores)
    finally:
        settings.allow_bf16_reduced_precision_reduction = before


def slack(near: float, far: float, size: int, dtype: torch.dtype) -> float:
    """A bound on |c − s|: c is the product, added up in float32, before it is rounded to `dtype`; s the exact score.

    With ã = â + α and b̃ = b̂ + β the low-precision rows, and ‖α‖ ≤ ε (near), ‖β‖ ≤ ζ (far) as `Rows.low` measured:

        |ã·b̃ − â·b̂| ≤ ‖ã‖ ζ + ε ≤ (1 + ε) ζ + ε        (Cauchy-Schwarz; â and b̂ have unit length)
        |c − ã·b̃| ≤ γ ‖ã‖ ‖b̃‖, γ = g / (1 − g), g = (d + 16) u

    with u = 2⁻²⁴ for float32 (any order of additions, fused or not) and 2⁻²² for bfloat16, whose products are exact in
    float32, but which some hardware adds up with truncation. bfloat16 keeps 8 bits: ε and ζ are at most 2⁻⁸, and 0.0015
    to 0.002 in practice, so that the bound is about 0.004. 1e-12 stands for the rounding of the exact score itself.
    """
    unit = 2.0**-24 if dtype == torch.float32 else 2.0**-22
    grown = (size + 16) * unit
    gamma = grown / (1 - grown) if grown < 1 else math.inf  # of rows so long nothing is known, and all is scored
    return (1 + near) * far + near + gamma * (1 + near) * (1 + far) + 1e-12


def rounding(low: Tensor, dtype: torch.dtype) -> Tensor:
    """How far the product c was at most from what it was rounded to."""
    return low.abs() * 2.0**-8 if dtype == torch.bfloat16 else torch.zeros_like(low)


def check_products(device: torch.device, dtype: torch.dtype, size: int) -> None:
    """Refuse float32 products that the process has set to TF32 or bfloat16, which no bound here covers.

    1 + 2⁻¹¹ is a float32 that both would round to 1, twice in each term: 2⁻¹⁰ off, relatively.
    """
    if dtype != torch.float32:
        return
    ones = torch.full((256, size), 1 + 2.0**-11, device=device)
    got = torch.mm(ones, ones.T, out=torch.empty(256, 256, device=device)) / size
    if float((got - (1 + 2.0**-11) ** 2).abs().max()) > max(2.0**-12, (size + 16) * 2.0**-24):
        raise checks.InputError(
            "float32 products must not be rounded to TF32 or bfloat16; this process lets them be; "
            "call torch.set_float32_matmul_precision('highest') first"
        )


@lru_cache
def bfloat16_time(device: torch.device, size: int) -> float:
    """Time of a bfloat16 product over that of a float32 one, by a short trial; it steers speed and no result."""
    seconds = {}
    for dtype in PRECISIONS.values():
        rows, columns = (
            torch.ones(256, size, dtype=dtype, device=device),
            torch.ones(2048, size, dtype=dtype, device=device),
        )
        buffer = torch.empty(256 * 2048, dtype=dtype, device=device)
        trials = []
        for _ in range(4):
            started = time.perf_counter()
            float(product(rows, columns, buffer)[0, 0])  # waits for the device
            trials.append(time.perf_counter() - started)
        seconds[dtype] = min(trials[1:])
    return seconds[torch.bfloat16] / seconds[torch.float32]
