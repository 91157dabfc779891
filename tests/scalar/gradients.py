"""Derivatives by central differences."""

import math
import sys
from collections.abc import Callable
from typing import Any

LEVELS = 7


def derivative(function: Callable[[float], float], x: float, step: float = 1e-6) -> float:
    """f'(x) by central differences at steps 4096 step, 1024 step, ... step, Richardson-extrapolated.

    The errors are in even powers of the step. Of all extrapolated values the one that agrees best with its two parents
    is taken (Ridders 1982); the rounding of f over the step counts as disagreement, or noise that agrees by chance at
    small steps would win. For values far from 1, scale `step`.
    """
    best, best_error = math.nan, math.inf
    previous: list[float] = []
    for level in range(LEVELS):
        h = step * 4 ** (LEVELS - 1 - level)
        high, low = x + h, x - h
        above, below = function(high), function(low)
        noise = 4 * sys.float_info.epsilon * (1 + abs(above) + abs(below)) / h
        row = [(above - below) / (high - low)]
        for k, parent in enumerate(previous):
            row.append(row[k] + (row[k] - parent) / (16 ** (k + 1) - 1))
            error = max(abs(row[k + 1] - row[k]), abs(row[k + 1] - parent)) + noise
            if error < best_error:
                best, best_error = row[k + 1], error
        previous = row
    return best


def central_difference(function: Callable[[Any], float], values: list[Any], step: float = 1e-6) -> list[Any]:
    """The gradient of a scalar function of a list, nested to any depth, in the same nesting."""
    gradient = []
    for i, value in enumerate(values):

        def replaced(new: Any, i: int = i) -> float:
            return function([*values[:i], new, *values[i + 1 :]])

        nested = isinstance(value, list)
        gradient.append(central_difference(replaced, value, step) if nested else derivative(replaced, value, step))
    return gradient
