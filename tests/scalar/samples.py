"""Inputs that the tests share, and how close is close."""

import math
import random
from typing import Any

import pytest

from .geometry import Matrix, Vector

AXES = [[1.0, 0.0], [0.0, 1.0]]


def near(value: Any, rel: float = 1e-12, absolute: float = 1e-14) -> Any:
    """`pytest.approx` with the digits that float64 keeps."""
    return pytest.approx(value, rel=rel, abs=absolute)


def random_matrix(rows: int, dim: int, seed: int) -> Matrix:
    """Standard normal values."""
    source = random.Random(seed)
    return [[source.gauss(0, 1) for _ in range(dim)] for _ in range(rows)]


def at(degrees: float, length: float = 1.0) -> Vector:
    """The vector of the plane with this angle and length."""
    return [length * math.cos(math.radians(degrees)), length * math.sin(math.radians(degrees))]
