"""Looking through a block of low-precision scores at the speed of memory: by integer keys that order as floats do."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

BITS = {torch.bfloat16: (torch.int16, 15), torch.float32: (torch.int32, 31)}


def keys(scores: Tensor) -> Tensor:
    """Integers that order as the scores do: a < b in floats implies keys(a) < keys(b), and -0.0 comes before 0.0.

    The bits of a float, read as a signed integer, order non-negative floats as they are and negative ones backwards;
    flipping the lower bits of the negative ones mends that.

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
    """Keys at or above which lie all roundings to `dtype` of float32 products that are >= the bounds (float64).

    Rounding is monotone, so c >= t implies round(c) >= round(t): the product's own rounding to `dtype` adds nothing to
    the bound. Clamped to [-4, 4], so that -inf, which marks what must not be seen, is below every floor.
    """
    rounded = bounds.clamp(-4.0, 4.0).to(torch.float32).to(dtype)
    return keys(torch.where(rounded == 0, torch.full_like(rounded, -0.0), rounded))


def ceiling_keys(bounds: Tensor, dtype: torch.dtype) -> Tensor:
    """Keys at or below which lie all roundings to `dtype` of products that are <= the bounds; above them, none."""
    rounded = bounds.clamp(-4.0, 4.0).to(torch.float32).to(dtype)
    return keys(torch.where(rounded == 0, torch.zeros_like(rounded), rounded))


def peaks(scores: Tensor) -> Tensor:
    """The key of each row's highest score, [rows].

    The highest of the bare bits is right wherever a row has a score that is not negative, and costs one fast pass.
    """
    kind, _ = BITS[scores.dtype]
    highest = scores.view(kind).amax(dim=1)
    negative = (highest < 0).nonzero().squeeze(1)
    if len(negative):
        highest[negative] = keys(scores.index_select(0, negative)).amax(dim=1)
    return highest


def between(found: Tensor, low: Tensor, high: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Row and column of each key in [low, high]; the limits are one number or one a row, [rows, 1]."""
    flat = (_inside_cpu if found.device.type == "cpu" else _inside)(found, low, high)
    rows = torch.div(flat, found.shape[1], rounding_mode="floor")
    return rows, flat - rows * found.shape[1]


def count_above(found: Tensor, high: Tensor) -> Tensor:
    """How many keys of each row exceed its limit, [rows] of int64 on the CPU."""
    return (_above_cpu if found.device.type == "cpu" else _above)(found, high)


def _inside(found: Tensor, low: Tensor, high: Tensor | None) -> Tensor:
    inside = found >= low if high is None else (found >= low) & (found <= high)
    return inside.flatten().nonzero().squeeze(1)


def _inside_cpu(found: Tensor, low: Tensor, high: Tensor | None) -> Tensor:
    """NumPy compares 16-bit integers several times faster than torch does."""
    plain = found.numpy()
    mask = plain >= low.numpy()
    if high is not None:
        mask &= plain <= high.numpy()
    return torch.from_numpy(np.flatnonzero(mask))


def _above(found: Tensor, high: Tensor) -> Tensor:
    return (found > high).sum(dim=1).cpu()


def _above_cpu(found: Tensor, high: Tensor) -> Tensor:
    return torch.from_numpy(np.count_nonzero(found.numpy() > high.numpy(), axis=1).astype(np.int64))
