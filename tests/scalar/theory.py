"""The papers' propositions as functions."""

import math

from .geometry import Matrix, Vector, cross_entropy, dot, squared_distance, unit


def simplex(n: int) -> Matrix:
    """n unit vectors in n dimensions with cosine -1 / (n - 1) between any two: (e_i - 1/n), normalised."""
    return [unit([(1.0 if j == i else 0.0) - 1 / n for j in range(n)]) for i in range(n)]


def loss_floor(l2: float, n: int) -> float:
    """log(1 + (n - 1) e^{-n l^2 / (n - 1)}). Source: NormFace, Proposition 2."""
    return math.log1p((n - 1) * math.exp(-n * l2 / (n - 1)))


def loss_floor_of_simplex(l2: float, n: int) -> float:
    """The mean softmax loss of features and weights that are the same simplex of radius l: NormFace, Eq. 14."""
    points = simplex(n)
    losses = [cross_entropy([l2 * dot(points[i], w) for w in points], i) for i in range(n)]
    return math.fsum(losses) / n


def scale_for_loss(loss: float, n: int) -> float:
    """The l^2 whose floor is `loss`: the inverse of NormFace, Proposition 2."""
    return -(n - 1) / n * math.log(math.expm1(loss) / (n - 1))


def property_4_bound(r: float, classes: int) -> float:
    """P_y >= e^r / (e^r + K - 1) for a feature of norm r on its weight. Source: feature incay, Property 4."""
    return 1 / (1 + (classes - 1) * math.exp(-r))


def incay_bound(reference_norm: float, classes: int, dim: int) -> float:
    """(1 + sqrt 2) a where K < 2 D, else 3 a. Source: feature incay, Property 3."""
    return (1 + math.sqrt(2) if classes < 2 * dim else 3.0) * reference_norm


def agent_distortion(anchor: Vector, members: Matrix, agent: Vector, normalize: bool = True) -> float:
    """mean_j (d(f_0, f_j) - d(f_0, w))^2 over a class, d Euclidean. Source: NormFace, Proposition 3."""
    if normalize:
        anchor, members, agent = unit(anchor), [unit(x) for x in members], unit(agent)
    to_agent = math.sqrt(squared_distance(anchor, agent))
    return math.fsum((math.sqrt(squared_distance(anchor, x)) - to_agent) ** 2 for x in members) / len(members)


def agent_distortion_bound(members: Matrix, agent: Vector, normalize: bool = True) -> float:
    """mean_j d(f_j, w)^2 over a class. Source: NormFace, Proposition 3."""
    if normalize:
        members, agent = [unit(x) for x in members], unit(agent)
    return math.fsum(squared_distance(x, agent) for x in members) / len(members)


def agent_distortion_bounds(
    features: Matrix, weight: Matrix, labels: list[int], normalize: bool = True
) -> dict[int, float]:
    """The bound of every class that has a sample."""
    values = {}
    for j in sorted(set(labels)):
        members = [x for x, y in zip(features, labels, strict=True) if y == j]
        values[j] = agent_distortion_bound(members, weight[j], normalize)
    return values
