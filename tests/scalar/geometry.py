"""Vectors as lists of floats: norms, angles and the stable forms of log and exp."""

import math
from collections.abc import Callable, Iterable

Vector = list[float]
Matrix = list[list[float]]
Margin = Callable[[float], float]  # theta in radians -> value that stands in the place of cos(theta)


def dot(u: Vector, v: Vector) -> float:
    """Inner product."""
    return math.fsum(a * b for a, b in zip(u, v, strict=True))


def norm(u: Vector, eps: float = 0.0) -> float:
    """sqrt(sum u^2 + eps). Source: NormFace, Eq. 3 (eps = 0 elsewhere)."""
    return math.sqrt(math.fsum(a * a for a in u) + eps)


def unit(u: Vector, eps: float = 0.0) -> Vector:
    """u / ||u||; the zero vector stays zero."""
    n = norm(u, eps)
    return [a / (n if n > 0 else 1.0) for a in u]


def squared_distance(u: Vector, v: Vector) -> float:
    """||u - v||^2 of the vectors as they are given."""
    return math.fsum((a - b) ** 2 for a, b in zip(u, v, strict=True))


def cosine(u: Vector, v: Vector, eps: float = 0.0) -> float:
    """Inner product of the unit vectors; 0 where one of them is zero."""
    return dot(unit(u, eps), unit(v, eps))


def angle(u: Vector, v: Vector) -> float:
    """Angle in [0, pi], exact near both ends (acos is not); pi/2 where a vector is zero."""
    if norm(u) == 0 or norm(v) == 0:
        return math.pi / 2
    a, b = unit(u), unit(v)
    minus = norm([p - q for p, q in zip(a, b, strict=True)])
    plus = norm([p + q for p, q in zip(a, b, strict=True)])
    return 2 * math.atan2(minus, plus)


def log_sum_exp(values: Iterable[float]) -> float:
    """log(sum(exp(v))) after subtraction of the largest; -inf for no values."""
    values = list(values)
    top = max(values, default=-math.inf)
    if math.isinf(top):
        return top
    return top + math.log(math.fsum(math.exp(v - top) for v in values))


def softplus(x: float) -> float:
    """log(1 + exp(x))."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def cross_entropy(logits: Vector, label: int) -> float:
    """-log(e^{z_y} / sum_j e^{z_j}) = log(1 + sum_{j != y} e^{z_j - z_y}), so that tiny losses keep their digits."""
    others = [z for j, z in enumerate(logits) if j != label]
    return softplus(log_sum_exp(others) - logits[label])
