"""Losses whose margin, negatives or scale follow the batch, the norm or the class; figures and draws are arguments."""

import math

from .geometry import Matrix, Vector, angle, cosine, cross_entropy, log_sum_exp, norm
from .margins import additive_angle, additive_cosine


def with_targets(features: Matrix, weight: Matrix, labels: list[int], s: float, targets: Vector) -> Vector:
    """s target_i against s cos(theta_ij)."""
    losses = []
    for x, y, target in zip(features, labels, targets, strict=True):
        logits = [s * (target if j == y else cosine(x, w)) for j, w in enumerate(weight)]
        losses.append(cross_entropy(logits, y))
    return losses


def magnitude_margin(n: float, l_a: float, u_a: float, l_m: float, u_m: float) -> float:
    """m(a) with a the norm clipped to [l_a, u_a]. Source: MagFace, Eq. 3."""
    a = min(max(n, l_a), u_a)
    return l_m + (u_m - l_m) * (a - l_a) / (u_a - l_a)


def magnitude_penalty(
    features: Matrix, weight: Matrix, labels: list[int], lam: float = 35.0, l_a: float = 10.0, u_a: float = 110.0
) -> Vector:
    """lam (1/a + a/u_a^2). Source: MagFace, Eq. 4 and section 3.2."""
    clipped = [min(max(norm(x), l_a), u_a) for x in features]
    return [lam * (1 / a + a / u_a**2) for a in clipped]


def magface(
    features: Matrix, weight: Matrix, labels: list[int], s: float, l_a: float, u_a: float, l_m: float, u_m: float
) -> Vector:
    """s cos(theta + m(a)) against s cos(theta_j), without the penalty. Source: MagFace, Eq. 3."""
    targets = []
    for x, y in zip(features, labels, strict=True):
        m = magnitude_margin(norm(x), l_a, u_a, l_m, u_m)
        targets.append(additive_angle(angle(x, weight[y]), m))
    return with_targets(features, weight, labels, s, targets)


def mean_and_deviation(norms: Vector) -> tuple[float, float]:
    """Of the norms clipped to [0.001, 100]; the deviation by N - 1, 0 of one."""
    clipped = [min(max(n, 0.001), 100.0) for n in norms]
    mean = math.fsum(clipped) / len(clipped)
    if len(clipped) == 1:
        return mean, 0.0
    return mean, math.sqrt(math.fsum((n - mean) ** 2 for n in clipped) / (len(clipped) - 1))


def running(old: float, new: float, rate: float = 0.01) -> float:
    """(1 - rate) old + rate new. Source: AdaFace, Eq. 14; CurricularFace, Eq. 7."""
    return (1 - rate) * old + rate * new


def adaface(
    features: Matrix,
    weight: Matrix,
    labels: list[int],
    s: float,
    m: float,
    h: float,
    mean: float,
    deviation: float,
    norms: Vector,
    eps: float = 1e-3,
) -> Vector:
    """s (cos(theta - m z) - (m + m z)) against s cos(theta_j); `norms` are held. Source: AdaFace, Eq. 14 to 16."""
    targets = []
    for x, y, n in zip(features, labels, norms[: len(labels)], strict=True):
        clipped = min(max(n, 0.001), 100.0)
        z = min(max((clipped - mean) / (deviation + eps) * h, -1.0), 1.0)
        moved = min(max(angle(x, weight[y]) - m * z, eps), math.pi - eps)
        targets.append(math.cos(moved) - (m + m * z))
    return with_targets(features, weight, labels, s, targets)


def curricularface(
    features: Matrix, weight: Matrix, labels: list[int], s: float, m: float = 0.5, t: float = 0.0
) -> Vector:
    """s cos(theta + m) against s cos_j, or s cos_j (t + cos_j) where cos_j exceeds the target.

    Source: CurricularFace, Eq. 4 to 6. Both sides of the comparison come from `angle`, so equal weights tie exactly.
    """
    losses = []
    for x, y in zip(features, labels, strict=True):
        target = additive_angle(angle(x, weight[y]), m)
        logits = []
        for j, w in enumerate(weight):
            cos = math.cos(angle(x, w))
            logits.append(s * (target if j == y else cos if target >= cos else cos * (t + cos)))
        losses.append(cross_entropy(logits, y))
    return losses


def elasticface(
    features: Matrix, weight: Matrix, labels: list[int], s: float, margins: Vector, form: str = "arc"
) -> Vector:
    """s cos(theta + m_i), or s (cos(theta) - m_i), against s cos(theta_j). Source: ElasticFace, Eq. 4 and 5."""
    function = {"arc": additive_angle, "cos": additive_cosine}[form]
    targets = [function(angle(x, weight[y]), m) for x, y, m in zip(features, labels, margins, strict=True)]
    return with_targets(features, weight, labels, s, targets)


def assign_by_rank(draws: Vector, cosines: Vector) -> Vector:
    """The largest draw for the smallest cosine, and so on. Source: ElasticFace, section 3.3."""
    rows = sorted(range(len(draws)), key=lambda i: cosines[i])
    values = [0.0] * len(draws)
    for row, draw in zip(rows, sorted(draws, reverse=True), strict=True):
        values[row] = draw
    return values


def assign_by_argsort(draws: Vector, cosines: Vector) -> Vector:
    """What the authors' code does: sorted draws, indexed by the descending argsort of the cosines."""
    indices, ascending = sorted(range(len(draws)), key=lambda i: -cosines[i]), sorted(draws)
    return [ascending[i] for i in indices]


def class_margins(counts: list[int], low: float, high: float, power: float = 0.25) -> Vector:
    """a n^-power + b, with a and b from the range: Ha et al. 2020, section 3."""
    fewest, most = min(counts), max(counts)
    if fewest == most:
        return [high] * len(counts)
    a = (high - low) / (fewest**-power - most**-power)
    b = high - a * fewest**-power
    return [a * n**-power + b for n in counts]


def dynamic_margin(
    features: Matrix, weight: Matrix, labels: list[int], s: float, counts: list[int], low: float, high: float
) -> Vector:
    """s cos(theta + m_y) against s cos(theta_j)."""
    margins = class_margins(counts, low, high)
    return elasticface(features, weight, labels, s, [margins[y] for y in labels])


def balanced(counts: list[int]) -> Vector:
    """N / (C n_j)."""
    return [sum(counts) / (len(counts) * n) for n in counts]


def adacos_scale(classes: int) -> float:
    """sqrt(2) log(C - 1). Source: AdaCos, Eq. 12."""
    return math.sqrt(2) * math.log(classes - 1)


def adacos_step(features: Matrix, weight: Matrix, labels: list[int], s: float) -> float:
    """log(B) / cos(min(pi/4, median)). Source: AdaCos, Eq. 14."""
    sums, angles = [], []
    for x, y in zip(features, labels, strict=True):
        sums.append(log_sum_exp([s * cosine(x, w) for j, w in enumerate(weight) if j != y]))
        angles.append(angle(x, weight[y]))
    return adacos_of(sums, angles, s)


def adacos_of(log_sums: Vector, angles: Vector, s: float) -> float:
    """The same from the rows' log-sum-exps and angles; s stays where log(B) is not positive."""
    ordered, middle = sorted(angles), len(angles) // 2
    median = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    log_mean = log_sum_exp(log_sums) - math.log(len(log_sums))
    return log_mean / math.cos(min(math.pi / 4, median)) if log_mean > 0 else s
