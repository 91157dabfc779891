"""Sizes of tiles and blocks for each GPU, and which kernel was measured fastest there: a stored table, no search.

`benchmarks/gpu/run --stages tune` measures a few candidates and prints the entry of its GPU for `TABLE`.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch


class TileShape(NamedTuple):
    """The size of the tile that one program of `kernels.fused` multiplies, its warps and its pipeline stages."""

    rows: int
    classes: int
    inner: int  # of d at a time
    warps: int
    stages: int


class PassShape(NamedTuple):
    """The size of the tile that one program of `kernels.blocked` has at a time, and its warps."""

    classes: int
    rows: int
    warps: int


class Blocking(NamedTuple):
    """How `kernels.blocked` walks the classes."""

    elements: int  # of a block's products [n, B]
    reduce: PassShape
    coefficients: PassShape


# (forward, backward), for an H100, by arithmetic and by the registers that the compiler reports. A large tile reads
# less from L2, the bottleneck: 128 x 256 in bfloat16 does 85 operations per byte, 128 x 128 does 64. Backward holds
# more per product: 256 classes would spill. Three stages take 144 and 96 KiB of the 227 that a program may use.
TILES = {
    "bf16": (TileShape(128, 256, 64, 8, 3), TileShape(128, 128, 64, 8, 3)),
    "tf32": (TileShape(128, 256, 32, 8, 3), TileShape(128, 128, 32, 8, 3)),
    # without tensor cores: operands come to registers
    "ieee": (TileShape(64, 64, 32, 4, 2), TileShape(64, 64, 32, 4, 2)),
    "exact": (TileShape(16, 16, 16, 4, 1), TileShape(16, 16, 16, 4, 1)),  # holds rows x classes x inner
}
# 2^22 products are 16 MiB in float32 and their coefficients 8 MiB in bfloat16: half of an H100's L2 of 50 MiB, so that
# both stay there together with the operands. By arithmetic, too
BLOCKING = Blocking(1 << 22, PassShape(64, 64, 4), PassShape(8, 256, 4))


@dataclass(frozen=True)
class Tuned:
    """What was measured on one GPU; what was not is the default."""

    tiles: dict[str, tuple[TileShape, TileShape]] = field(default_factory=lambda: TILES)
    blocking: Blocking = BLOCKING
    fastest: tuple[tuple[int, int, str], ...] = ()  # (batch, classes, impl), one per measured shape


TABLE: dict[str, Tuned] = {}  # by the name that the driver gives the GPU; none was measured yet
DEFAULT = Tuned()


def tuned(device: torch.device) -> Tuned:
    """The entry of that device, or the default."""
    if device.type != "cuda":
        return DEFAULT
    return TABLE.get(_name(torch.cuda.current_device() if device.index is None else device.index), DEFAULT)


@functools.cache
def _name(index: int) -> str:
    return torch.cuda.get_device_name(index)


def fastest(device: torch.device, batch: int, classes: int) -> str | None:
    """The kernel that was fastest at the measured shape nearest to this one; None if none was measured."""

    def distance(row: tuple[int, int, str]) -> float:
        return abs(math.log(row[0] / batch)) + abs(math.log(row[1] / classes))

    measured = tuned(device).fastest
    return min(measured, key=distance)[2] if measured else None
