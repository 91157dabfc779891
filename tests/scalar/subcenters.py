"""Losses with K weight rows per class, one function a loss: per-sample losses from loops over classes and rows."""

import math
from collections.abc import Callable

from .geometry import Margin, Matrix, Vector, cosine, cross_entropy, dot, log_sum_exp, unit

Negative = Callable[[float, float], float]  # (cosine, margined target) -> what stands in the place of the cosine


def weighted_cosine(x: Vector, rows: Matrix, gamma: float) -> float:
    """sum_k e^{c_k / gamma} c_k / sum_k e^{c_k / gamma}. Source: SoftTriple, Eq. 8."""
    cosines = [cosine(x, w) for w in rows]
    total = log_sum_exp(c / gamma for c in cosines)
    return math.fsum(math.exp(c / gamma - total) * c for c in cosines)


def weighted(
    features: Matrix,
    weight: list[Matrix],
    labels: list[int],
    s: float,
    gamma: float,
    margin: Margin,
    negative: Negative = lambda c, threshold: c,
) -> Vector:
    """s margin(theta) against s negative(c_j), c_j the weighted cosine and theta = acos(c_y)."""
    losses = []
    for x, y in zip(features, labels, strict=True):
        cosines = [weighted_cosine(x, rows, gamma) for rows in weight]
        target = margin(math.acos(max(-1.0, min(1.0, cosines[y]))))
        logits = [s * (target if j == y else negative(c, target)) for j, c in enumerate(cosines)]
        losses.append(cross_entropy(logits, y))
    return losses


def soft_triple(features: Matrix, weight: list[Matrix], labels: list[int], s: float, delta: float, g: float) -> Vector:
    """s (c_y - delta) against s c_j. Source: SoftTriple, Eq. 10."""
    losses = []
    for x, y in zip(features, labels, strict=True):
        cosines = [weighted_cosine(x, rows, g) for rows in weight]
        losses.append(cross_entropy([s * (c - delta if j == y else c) for j, c in enumerate(cosines)], y))
    return losses


def spread(features: Matrix, weight: list[Matrix], labels: list[int], tau: float, eps: float = 0.0) -> Vector:
    """tau / (C K (K - 1)) sum_j sum_{k < l} sqrt(2 + eps - 2 w^_jk . w^_jl) for each sample. Source: Eq. 9, 11."""
    count, total = len(weight[0]), 0.0
    for rows in weight:
        for k in range(count):
            for other in range(k + 1, count):
                inner = 2 + eps - 2 * dot(unit(rows[k]), unit(rows[other]))
                total += math.sqrt(max(0.0, inner))
    return [tau / (len(weight) * count * (count - 1)) * total] * len(labels)
