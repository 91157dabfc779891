"""One binary classifier per class, and the other losses whose sums over the classes are not a plain softmax's."""

import math
from collections.abc import Callable

from .geometry import Margin, Matrix, Vector, angle, cosine, log_sum_exp, softplus

Map = Callable[[float, float], float]  # (cosine of another class, margined target) -> what replaces it


def keep(c: float, target: float) -> float:
    return c


def power(c: float, t: float) -> float:
    """g(c) = 2 ((c + 1) / 2)^t - 1. Source: SphereFace2, Eq. 6."""
    return 2 * math.pow((max(c, -1.0) + 1) / 2, t) - 1


def binary(
    features: Matrix,
    weight: Matrix,
    labels: list[int],
    radii: Vector,
    b: float,
    target: Margin = math.cos,
    others: Map = keep,
    factors: tuple[float, float] = (1.0, 1.0),
) -> Vector:
    """positive log(1 + e^{-(r target + b)}) + negative sum_{j != y} log(1 + e^{r others + b})."""
    losses = []
    for x, y, r in zip(features, labels, radii, strict=True):
        own = target(angle(x, weight[y]))
        terms = [factors[0] * softplus(-(r * own + b))]
        for j, w in enumerate(weight):
            if j != y:
                terms.append(factors[1] * softplus(r * others(cosine(x, w), own) + b))
        losses.append(math.fsum(terms))
    return losses


def sphereface2(
    features: Matrix, weight: Matrix, labels: list[int], b: float, r: float, m: float, t: float, lam: float
) -> Vector:
    """(lam/r) log(1 + e^{-(r (g(c_y) - m) + b)}) + ((1 - lam)/r) sum log(1 + e^{r (g(c_j) + m) + b}).

    Source: SphereFace2-C, Eq. 7.
    """
    losses = []
    for x, y in zip(features, labels, strict=True):
        loss = 0.0
        for j, w in enumerate(weight):
            g = power(cosine(x, w), t)
            if j == y:
                loss += lam / r * softplus(-(r * (g - m) + b))
            else:
                loss += (1 - lam) / r * softplus(r * (g + m) + b)
        losses.append(loss)
    return losses


def moved(theta: float, form: str, m: float, t: float) -> float:
    """What the margin of SphereFace2-A ("angle") or -M ("multiple") adds to g(cos theta). Source: Eq. 8 and 9."""
    angle_ = theta + m if form == "angle" else m * theta
    return power(math.cos(min(math.pi, angle_)), t) - power(math.cos(theta), t)


def smoothed(logits: Vector, label: int, smoothing: float) -> float:
    """-sum_j q_j log p_j, q_j = smoothing / C, and 1 - smoothing more for the label. Source: Szegedy et al. 2016."""
    total = log_sum_exp(logits)
    terms = []
    for j, z in enumerate(logits):
        q = smoothing / len(logits) + (1 - smoothing if j == label else 0.0)
        terms.append(q * (total - z))
    return math.fsum(terms)


def label_smoothing(
    features: Matrix,
    weight: Matrix,
    labels: list[int],
    radii: Vector,
    smoothing: float,
    margin: Margin = math.cos,
    others: Map = keep,
) -> Vector:
    """Of the logits with the margin."""
    losses = []
    for x, y, r in zip(features, labels, radii, strict=True):
        own = margin(angle(x, weight[y]))
        logits = [r * (own if j == y else others(cosine(x, w), own)) for j, w in enumerate(weight)]
        losses.append(smoothed(logits, y, smoothing))
    return losses


def circle(
    features: Matrix, weight: Matrix, labels: list[int], gamma: float, m: float, held: Matrix | None = None
) -> Vector:
    """log(1 + e^{-gamma a_p (c_y - 1 + m)} sum_j e^{gamma a_n (c_j - m)}). Source: circle loss, Eq. 6 to 8.

    a_p = max(0, 1 + m - c_y), a_n = max(0, c_j + m); of the cosines `held` where they have no gradient.
    """
    losses = []
    for i, (x, y) in enumerate(zip(features, labels, strict=True)):
        cosines = [cosine(x, w) for w in weight]
        factors = cosines if held is None else held[i]
        own = gamma * max(0.0, 1 + m - factors[y]) * (cosines[y] - 1 + m)
        others = [gamma * max(0.0, factors[j] + m) * (c - m) for j, c in enumerate(cosines) if j != y]
        losses.append(softplus(log_sum_exp(others) - own))
    return losses
