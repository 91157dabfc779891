"""Scores in a low precision: products of unit rows, the proven bound on their error, and a fast search through them.

The search compares integer keys that order as floats do, at the speed of memory.
"""

import math
import time
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from angulus.core import checks

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
BITS = {torch.bfloat16: (torch.int16, 15), torch.float32: (torch.int32, 31)}


def product(rows: Tensor, columns: Tensor, buffer: Tensor) -> Tensor:
    """The product rows · columnsᵀ in their precision, summed in float32, written into the buffer."""
    scores = buffer[: len(rows) * len(columns)].view(len(rows), len(columns))
    if rows.device.type != "cuda":
        return torch.mm(rows, columns.T, out=scores)
    settings = torch.backends.cuda.matmul
    before = settings.allow_bf16_reduced_precision_reduction
    settings.allow_bf16_reduced_precision_reduction = False  # which would sum in bfloat16
    try:
        return torch.mm(rows, columns.T, out=scores)
    finally:
        settings.allow_bf16_reduced_precision_reduction = before


def slack(near: float, far: float, size: int, dtype: torch.dtype) -> float:
    """A bound on |c − s|: c is the product, summed in float32 before rounding to `dtype`; s is the exact score.

    With ã = â + α and b̃ = b̂ + β the low-precision rows, and ‖α‖ ≤ ε (near), ‖β‖ ≤ ζ (far) as `Rows.low` measured:

        |ã·b̃ − â·b̂| ≤ ‖ã‖ ζ + ε ≤ (1 + ε) ζ + ε        (Cauchy-Schwarz; â and b̂ have unit length)
        |c − ã·b̃| ≤ γ ‖ã‖ ‖b̃‖, γ = g / (1 − g), g = (d + 16) u

    with u = 2⁻²⁴ for float32 (any order of additions, fused or not) and 2⁻²² for bfloat16, whose products are exact in
    float32, but which some hardware sums with truncation. bfloat16 has 8 bits: ε and ζ are at most 2⁻⁸, and 0.0015 to
    0.002 in practice, so the bound is about 0.004. 1e-12 covers the rounding of the exact score.
    """
    unit = 2.0**-24 if dtype == torch.float32 else 2.0**-22
    grown = (size + 16) * unit
    gamma = grown / (1 - grown) if grown < 1 else math.inf  # no bound for such long rows: score every pair
    return (1 + near) * far + near + gamma * (1 + near) * (1 + far) + 1e-12


def rounding(low: Tensor, dtype: torch.dtype) -> Tensor:
    """The largest possible difference of the product c from its rounded value."""
    return low.abs() * 2.0**-8 if dtype == torch.bfloat16 else torch.zeros_like(low)


def check_products(device: torch.device, dtype: torch.dtype, size: int) -> None:
    """Refuse float32 products that the process has set to TF32 or bfloat16, which the bound does not cover.

    Both would round 1 + 2⁻¹¹ to 1, twice in each term: a relative error of 2⁻¹⁰.
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
    """Time of a bfloat16 product over that of a float32 product, by a short trial; affects speed, never results."""
    seconds = {}
    for dtype in PRECISIONS.values():
        rows, columns = (torch.ones(count, size, dtype=dtype, device=device) for count in (256, 2048))
        buffer = torch.empty(256 * 2048, dtype=dtype, device=device)
        trials = []
        for _ in range(4):
            started = time.perf_counter()
            float(product(rows, columns, buffer)[0, 0])  # waits for the device
            trials.append(time.perf_counter() - started)
        seconds[dtype] = min(trials[1:])
    return seconds[torch.bfloat16] / seconds[torch.float32]


def keys(scores: Tensor) -> Tensor:
    """Integers in the order of the scores: a < b implies keys(a) < keys(b), and -0.0 comes before 0.0.

    Read as signed integers, the bits of non-negative floats are in order, and those of negative floats reversed;
    flipping the lower bits of the negative ones corrects that.

    >>> keys(torch.tensor([-2.0, -1.0, -0.0, 0.0, 1.0])).diff().gt(0).all().item()
    True
    """
    kind, shift = BITS[scores.dtype]
    bits = scores.view(kind)
    return bits ^ ((bits >> shift) & ((1 << shift) - 1))


def values(key: Tensor, dtype: torch.dtype) -> Tensor:
    """The scores, as float64, whose keys these are."""
    shift = BITS[dtype][1]
    return (key ^ ((key >> shift) & ((1 << shift) - 1))).view(dtype).double()


def floor_keys(bounds: Tensor, dtype: torch.dtype) -> Tensor:
    """Lower limits of the keys of all float32 products >= the bounds (float64), after rounding to `dtype`.

    Rounding is monotone, so c >= t implies round(c) >= round(t), and adds nothing to the bound. Clamped to [-4, 4], so
    that -inf, which marks pairs left out, is below every floor.
    """
    rounded = bounds.clamp(-4.0, 4.0).to(torch.float32).to(dtype)
    return keys(torch.where(rounded == 0, torch.full_like(rounded, -0.0), rounded))


def ceiling_keys(bounds: Tensor, dtype: torch.dtype) -> Tensor:
    """Upper limits of the keys of all products <= the bounds, after rounding to `dtype`."""
    rounded = bounds.clamp(-4.0, 4.0).to(torch.float32).to(dtype)
    return keys(torch.where(rounded == 0, torch.zeros_like(rounded), rounded))


def peaks(scores: Tensor) -> Tensor:
    """The key of each row's highest score, [rows].

    The highest raw bits are right for every row with a non-negative score, and take one fast pass.
    """
    kind, _ = BITS[scores.dtype]
    highest = scores.view(kind).amax(dim=1)
    negative = (highest < 0).nonzero().squeeze(1)
    if len(negative):
        highest[negative] = keys(scores.index_select(0, negative)).amax(dim=1)
    return highest


def between(block: Tensor, low: Tensor, high: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Row and column of each key in [low, high]; the limits are one number, or one per row, [rows, 1]."""
    flat = (_inside_cpu if block.device.type == "cpu" else _inside)(block, low, high)
    rows = torch.div(flat, block.shape[1], rounding_mode="floor")
    return rows, flat - rows * block.shape[1]


def count_above(block: Tensor, high: Tensor) -> Tensor:
    """How many keys of each row exceed its limit, [rows] of int64 on the CPU."""
    return (_above_cpu if block.device.type == "cpu" else _above)(block, high)


def _inside(block: Tensor, low: Tensor, high: Tensor | None) -> Tensor:
    inside = block >= low if high is None else (block >= low) & (block <= high)
    return inside.flatten().nonzero().squeeze(1)


def _inside_cpu(block: Tensor, low: Tensor, high: Tensor | None) -> Tensor:
    """NumPy compares 16-bit integers several times faster than torch does."""
    plain = block.numpy()
    mask = plain >= low.numpy()
    if high is not None:
        mask &= plain <= high.numpy()
    return torch.from_numpy(np.flatnonzero(mask))


def _above(block: Tensor, high: Tensor) -> Tensor:
    return (block > high).sum(dim=1).cpu()


def _above_cpu(block: Tensor, high: Tensor) -> Tensor:
    return torch.from_numpy(np.count_nonzero(block.numpy() > high.numpy(), axis=1).astype(np.int64))
