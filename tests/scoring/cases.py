"""Small sets with planted ties, and every score of them by slow exact sums."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LEVELS = 9  # scores of the lattice: -1, -0.75, ..., 1


def lattice(rows: int, seed: int) -> Tensor:
    """Rows of 6 numbers with four of ±1: norms are 2 and scores multiples of 1/4, all exact, so ties are everywhere."""
    random = np.random.default_rng(seed)
    vectors = np.zeros((rows, 6), dtype=np.float32)
    for row in vectors:
        row[random.choice(6, 4, replace=False)] = random.choice([-1, 1], 4)
    return torch.from_numpy(vectors)


def cloud(rows: int, seed: int, size: int = 24) -> Tensor:
    """Random rows of very different lengths around a few centres, every fifth a copy of an earlier one."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((5, size))
    vectors = centres[random.integers(5, size=rows)] + random.standard_normal((rows, size))
    vectors *= 10.0 ** random.uniform(-3, 3, (rows, 1))
    for row in range(5, rows, 5):
        vectors[row] = vectors[random.integers(row)]
    return torch.from_numpy(vectors.astype(np.float32))


def every_score(probes: Tensor, gallery: Tensor) -> NDArray[np.float64]:
    """Cosines by sums that lose nothing, one pair at a time."""

    def dot(a: list[float], b: list[float]) -> float:
        return math.fsum(x * y for x, y in zip(a, b, strict=True))

    first, second = probes.double().tolist(), gallery.double().tolist()
    return np.array([[dot(a, b) / math.sqrt(dot(a, a) * dot(b, b)) for b in second] for a in first])
