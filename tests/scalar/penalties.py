"""Penalties and metric losses, per sample; the ones with a signature in common ignore what they do not need."""

import math

from .geometry import Margin, Matrix, Vector, angle, cosine, dot, log_sum_exp, norm, squared_distance, unit


def iam(
    features: Matrix, weight: Matrix, labels: list[int], beta: float, s: float, margin: Margin | None = None
) -> Vector:
    """beta [log sum_{j != y} e^{s cos_j} - log(C - 1) - log sum_j e^{s cos_j}]. Source: IAM, Eq. 7 and 8.

    With a margin, s margin(theta) replaces s cos(theta_y) in the sum over all classes.
    """
    if len(weight) < 2:
        raise ValueError("IAM needs another class")
    values = []
    for x, y in zip(features, labels, strict=True):
        own = s * (margin(angle(x, weight[y])) if margin else cosine(x, weight[y]))
        others = [s * cosine(x, w) for j, w in enumerate(weight) if j != y]
        values.append(beta * (log_sum_exp(others) - math.log(len(weight) - 1) - log_sum_exp([own, *others])))
    return values


def feature_incay(
    features: Matrix,
    weight: Matrix,
    labels: list[int],
    lam: float = 1.0,
    form: str = "reciprocal",
    eps: float = 1e-8,
    bound: float | None = None,
) -> Vector:
    """lam P(||x||), 0 where ||x|| > bound. Source: feature incay, Eq. 8, section 6.3, Property 3."""
    values = []
    for x in features:
        square = dot(x, x)
        if form == "reciprocal":
            value = 1 / (square + eps)
        elif form == "log":
            value = -math.log(square + eps)
        elif form == "linear":
            value = -square
        else:
            raise ValueError(f"form must be reciprocal, log or linear; got {form!r}")
        values.append(0.0 if bound is not None and norm(x) > bound else lam * value)
    return values


def ring(features: Matrix, weight: Matrix, labels: list[int], lam: float, R: float) -> Vector:
    """lam / 2 (||x|| - R)^2. Source: Zheng et al. 2018 (ring loss)."""
    return [lam / 2 * (norm(x) - R) ** 2 for x in features]


def over_classes(values: Vector, classes: str) -> float:
    """The sum, or the mean, over the classes other than the sample's own."""
    if classes == "sum":
        return math.fsum(values)
    if classes == "mean":
        return math.fsum(values) / len(values)
    raise ValueError(f"classes must be sum or mean; got {classes!r}")


def squared_distances(x: Vector, weight: Matrix, label: int) -> tuple[float, Vector]:
    """||x^ - w^_y||^2, and ||x^ - w^_j||^2 of the others; literally, so a zero feature is 1 from every class."""
    values = [squared_distance(unit(x), unit(w)) for w in weight]
    return values[label], [value for j, value in enumerate(values) if j != label]


def c_contrastive(features: Matrix, weight: Matrix, labels: list[int], m: float = 1.0, classes: str = "sum") -> Vector:
    """||x^ - w^_y||^2 + sum_{j != y} max(0, m - ||x^ - w^_j||^2). Source: NormFace, Eq. 10."""
    values = []
    for x, y in zip(features, labels, strict=True):
        own, others = squared_distances(x, weight, y)
        values.append(own + over_classes([max(0.0, m - other) for other in others], classes))
    return values


def c_triplet(
    features: Matrix,
    weight: Matrix,
    labels: list[int],
    m: float = 0.8,
    classes: str = "sum",
    center: str | None = None,
) -> Vector:
    """sum_{j != y} max(0, m + ||x^ - w^_y||^2 - ||x^ - w^_j||^2). Source: NormFace, Eq. 11, section 5.2.

    hardest: the nearest j alone. additive: the own term once more; gated: the own term in the place of each hinge that
    is zero.
    """
    if center not in (None, "additive", "gated"):
        raise ValueError(f"center must be None, additive or gated; got {center!r}")
    values = []
    for x, y in zip(features, labels, strict=True):
        own, others = squared_distances(x, weight, y)
        terms = [max(0.0, m + own - other) for other in (others if classes != "hardest" else [min(others)])]
        if center == "gated":
            terms = [term if term > 0 else own for term in terms]
        values.append(
            over_classes(terms, "sum" if classes == "hardest" else classes) + (own if center == "additive" else 0.0)
        )
    return values


def proxy_anchor(features: Matrix, weight: Matrix, labels: list[int], alpha: float, delta: float) -> Vector:
    """The batch's loss, for each sample. Source: Proxy-Anchor, Eq. 4."""
    total = 0.0
    for p, w in enumerate(weight):
        own, others = 0.0, 0.0
        for x, y in zip(features, labels, strict=True):
            c = cosine(x, w)
            if y == p:
                own += math.exp(-alpha * (c - delta))
            else:
                others += math.exp(alpha * (c + delta))
        total += math.log1p(own) / len(set(labels)) + math.log1p(others) / len(weight)
    return [total] * len(labels)


def center_loss(
    features: Matrix, labels: list[int], centers: Matrix, lam: float = 1.0, normalize: bool = False
) -> Vector:
    """lam / 2 ||x - c_y||^2; `normalize` takes x to unit length, the centres stay as they are. Source: Wen 2016."""
    points = [unit(x) if normalize else x for x in features]
    return [lam * 0.5 * squared_distance(x, centers[y]) for x, y in zip(points, labels, strict=True)]


def center_update(
    features: Matrix, labels: list[int], centers: Matrix, alpha: float = 0.5, normalize: bool = False
) -> Matrix:
    """c_j - alpha sum_{y_i = j} (c_j - x_i) / (1 + n_j), as new lists. Source: Wen et al. 2016."""
    points = [unit(x) if normalize else x for x in features]
    moved = []
    for j, center in enumerate(centers):
        own = [x for x, y in zip(points, labels, strict=True) if y == j]
        row = []
        for k, value in enumerate(center):
            row.append(value - alpha * math.fsum(value - x[k] for x in own) / (1 + len(own)))
        moved.append(row)
    return moved


def cross_batch_memory(
    features: Matrix,
    labels: list[int],
    held: Matrix,
    memory: list[tuple[Vector, int]],
    size: int,
    margin: float = 0.5,
    weight: float = 1.0,
) -> Vector:
    """Contrastive loss with the last `size` of memory and `held`, this step's features without gradient.

    Each row's share of mean (1 - cos) over pairs of one class with cos < 1 - 1e-5 plus mean (cos - margin) over pairs
    of two with cos > margin, times the number of rows. Source: Wang et al. 2020, Algorithm 1.
    """
    steps = [(x, y, -1) for x, y in memory] + [(x, y, i) for i, (x, y) in enumerate(zip(held, labels, strict=True))]
    pulled, pushed = [], []  # per row: the losses of its pairs
    for i, (x, y) in enumerate(zip(features, labels, strict=True)):
        pairs = [(cosine(held[i], other), cosine(x, other), y == own) for other, own, j in steps[-size:] if j != i]
        pulled.append([1 - now for then, now, same in pairs if same and then < 1 - 1e-5])
        pushed.append([now - margin for then, now, same in pairs if not same and then > margin])
    p, n = max(1, sum(map(len, pulled))), max(1, sum(map(len, pushed)))
    return [
        weight * len(features) * (math.fsum(near) / p + math.fsum(far) / n)
        for near, far in zip(pulled, pushed, strict=True)
    ]
