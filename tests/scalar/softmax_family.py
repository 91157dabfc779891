"""The softmax family, one function a loss: the per-sample losses -log(e^{z_y} / sum_j e^{z_j})."""

import math

from .geometry import Margin, Matrix, Vector, angle, cosine, cross_entropy, dot, norm, unit
from .margins import additive_angle, additive_cosine, annealed, combined, multiplicative_raw, psi


def linear(features: Matrix, weight: Matrix, labels: list[int], scale: float, bias: Vector | None = None) -> Vector:
    """z_ij = scale w_j . x_i + b_j."""
    losses = []
    for x, y in zip(features, labels, strict=True):
        logits = []
        for j, w in enumerate(weight):
            logits.append(scale * dot(w, x) + (bias[j] if bias is not None else 0.0))
        losses.append(cross_entropy(logits, y))
    return losses


def angular(features: Matrix, weight: Matrix, labels: list[int], radii: Vector, margin: Margin) -> Vector:
    """z_iy = r_i margin(theta_i), z_ij = r_i cos(theta_ij)."""
    losses = []
    for x, y, r in zip(features, labels, radii, strict=True):
        logits = []
        for j, w in enumerate(weight):
            logits.append(r * (margin(angle(x, w)) if j == y else cosine(x, w)))
        losses.append(cross_entropy(logits, y))
    return losses


def softmax(features: Matrix, weight: Matrix, labels: list[int], bias: Vector | None = None) -> Vector:
    """w_j . x + b_j. Source: CM, Eq. 1; NormFace, Eq. 1; feature incay, Eq. 1."""
    return linear(features, weight, labels, 1.0, bias)


def scaled_softmax(features: Matrix, weight: Matrix, labels: list[int], factor: float) -> Vector:
    """w_j . (factor x): softmax on features that are multiplied. Source: feature incay, Sec. 4.4 and Table 4."""
    return softmax([[factor * value for value in x] for x in features], weight, labels)


def weight_normalized(features: Matrix, weight: Matrix, labels: list[int]) -> Vector:
    """||x|| cos(theta_j). Source: CM, Eq. 3."""
    return angular(features, weight, labels, [norm(x) for x in features], math.cos)


def feature_normalized(features: Matrix, weight: Matrix, labels: list[int], s: float) -> Vector:
    """s w_j . x^. Source: NormFace, Table 2, "feature only"."""
    return linear([unit(x) for x in features], weight, labels, s)


def l2_softmax(features: Matrix, weight: Matrix, labels: list[int], alpha: float, bias: Vector | None = None) -> Vector:
    """alpha w_j . x^ + b_j. Source: Ranjan et al. 2017."""
    return linear([unit(x) for x in features], weight, labels, alpha, bias)


def normface(features: Matrix, weight: Matrix, labels: list[int], s: float = 20.0, eps: float = 0.0) -> Vector:
    """s w^_j . x^ with ||v|| = sqrt(sum v^2 + eps) on both sides. Source: NormFace, Eq. 3 and 6."""
    losses = []
    for x, y in zip(features, labels, strict=True):
        losses.append(cross_entropy([s * cosine(x, w, eps) for w in weight], y))
    return losses


def coco(features: Matrix, weight: Matrix, labels: list[int], alpha: float | None = None) -> Vector:
    """alpha cos(theta_j), alpha = log(C - 1) / 2 + 3 unless given. Source: Liu et al. 2017c."""
    if alpha is None:
        alpha = 0.5 * math.log(len(weight) - 1) + 3
    return normface(features, weight, labels, alpha)


def cosface(features: Matrix, weight: Matrix, labels: list[int], s: float, m: float = 0.35) -> Vector:
    """s (cos(theta) - m) against s cos(theta_j). Source: IAM, Eq. 5; MV-Softmax, Eq. 3."""
    return angular(features, weight, labels, [s] * len(labels), lambda theta: additive_cosine(theta, m))


def arcface(
    features: Matrix, weight: Matrix, labels: list[int], s: float, m: float = 0.5, beyond_pi: str = "linear"
) -> Vector:
    """s cos(theta + m) against s cos(theta_j). Source: IAM, Eq. 6; MV-Softmax, Eq. 3."""
    return angular(features, weight, labels, [s] * len(labels), lambda theta: additive_angle(theta, m, beyond_pi))


def multiplicative(m: float, form: str = "psi", lam: float | None = None) -> Margin:
    """The target of A- and L-Softmax: psi or cos(m theta), annealed where lam is given."""
    if form not in ("psi", "raw"):
        raise ValueError(f"form must be psi or raw; got {form!r}")

    def margin(theta: float) -> float:
        value = psi(theta, m) if form == "psi" else multiplicative_raw(theta, m)
        return value if lam is None else annealed(theta, value, lam)

    return margin


def sphereface(
    features: Matrix,
    weight: Matrix,
    labels: list[int],
    m: float = 3,
    s: float | None = None,
    form: str = "psi",
    lam: float | None = None,
) -> Vector:
    """||x|| psi(theta) against ||x|| cos(theta_j); s in the place of ||x|| where given. Source: IAM, Eq. 4."""
    radii = [norm(x) if s is None else s for x in features]
    return angular(features, weight, labels, radii, multiplicative(m, form, lam))


def l_softmax(
    features: Matrix, weight: Matrix, labels: list[int], m: float, lam: float | None = None, form: str = "psi"
) -> Vector:
    """||w_y|| ||x|| psi(theta) against w_j . x. Source: Liu et al. 2016, by way of the feature-incay paper."""
    margin = multiplicative(m, form, lam)
    losses = []
    for x, y in zip(features, labels, strict=True):
        logits = []
        for j, w in enumerate(weight):
            logits.append(norm(w) * norm(x) * margin(angle(x, w)) if j == y else dot(w, x))
        losses.append(cross_entropy(logits, y))
    return losses


def combined_margin(
    features: Matrix,
    weight: Matrix,
    labels: list[int],
    s: float,
    m1: float = 1.0,
    m2: float = 0.0,
    m3: float = 0.0,
    form: str = "raw",
) -> Vector:
    """s (cos(m1 theta + m3) - m2) against s cos(theta_j). Source: MV-Softmax, text below Eq. 3."""
    return angular(features, weight, labels, [s] * len(labels), lambda theta: combined(theta, m1, m2, m3, form))


def f_contraction(norm: float, lower: float, upper: float, gamma: float = 1.0) -> float:
    """lower + (2 sigmoid(gamma ||x||) - 1)(upper - lower). Source: CM, Eq. 9."""
    sigmoid = 1 / (1 + math.exp(-gamma * norm))
    return lower + (2 * sigmoid - 1) * (upper - lower)


def gamma_auto(mean_norm: float) -> float:
    """gamma with f(mean norm) half-way: 2 sigmoid(gamma n) - 1 = 1/2 at gamma n = log 3 = 1.0986."""
    return math.log(3) / mean_norm


def lower_ideal(p: float, classes: int) -> float:
    """log(p (C - 2) / (1 - p)). Source: CM, Eq. 8."""
    if classes < 3 or p <= 1 / (classes - 1):
        raise ValueError(f"no positive lower bound for p = {p} and {classes} classes")
    return math.log(p * (classes - 2) / (1 - p))


def lower_exact(p: float, classes: int) -> float:
    """The s > 0 with e^s / (e^s + C - 2 + e^-s) = p, by bisection. Source: CM, Eq. 7."""
    if classes < 2 or not 1 / classes < p < 1:
        raise ValueError(f"no positive lower bound for p = {p} and {classes} classes")

    def probability(s: float) -> float:
        return 1 / (1 + (classes - 2) * math.exp(-s) + math.exp(-2 * s))

    low, high = 0.0, 1.0
    while probability(high) < p:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if probability(middle) < p else (low, middle)
    return (low + high) / 2


def bounds(
    classes: int,
    p: float = 0.9,
    lower: float | None = None,
    upper: float | None = None,
    bound: str = "ideal",
    upper_factor: float = 3.0,
) -> tuple[float, float]:
    """(lower, upper = upper_factor lower), each unless given. Source: CM, section 4.2.1."""
    if bound not in ("ideal", "exact"):
        raise ValueError(f"bound must be ideal or exact; got {bound!r}")
    if lower is None:
        lower = lower_ideal(p, classes) if bound == "ideal" else lower_exact(p, classes)
    return lower, upper_factor * lower if upper is None else upper


def cm_m_softmax(
    features: Matrix,
    weight: Matrix,
    labels: list[int],
    margin: Margin,
    p: float = 0.9,
    gamma: float = 1.0,
    lower: float | None = None,
    upper: float | None = None,
    bound: str = "ideal",
    upper_factor: float = 3.0,
    norms: Vector | None = None,
) -> Vector:
    """f(||x||) margin(theta) against f(||x||) cos(theta_j). Source: CM, Eq. 5.

    `norms` stands in the place of ||x_i||: held fixed, a finite difference sees f without its gradient.
    """
    low, high = bounds(len(weight), p, lower, upper, bound, upper_factor)
    if norms is None:
        norms = [norm(x) for x in features]
    return angular(features, weight, labels, [f_contraction(n, low, high, gamma) for n in norms], margin)


def cm_softmax(
    features: Matrix,
    weight: Matrix,
    labels: list[int],
    p: float = 0.9,
    gamma: float = 1.0,
    lower: float | None = None,
    upper: float | None = None,
    bound: str = "ideal",
    upper_factor: float = 3.0,
    norms: Vector | None = None,
) -> Vector:
    """f(||x||) cos(theta_j). Source: CM, Eq. 4."""
    return cm_m_softmax(features, weight, labels, math.cos, p, gamma, lower, upper, bound, upper_factor, norms)


def mv_softmax(
    features: Matrix, weight: Matrix, labels: list[int], s: float, margin: Margin, t: float, mode: str = "fixed"
) -> Vector:
    """s margin(theta) against s cos(theta_j), or s (cos + t), s ((1 + t) cos + t) where the class wins.

    Source: MV-Softmax, Eq. 5 to 8. Both sides of the comparison come from `angle`, so equal weights tie exactly.
    """
    if mode not in ("fixed", "adaptive"):
        raise ValueError(f"mode must be fixed or adaptive; got {mode!r}")
    losses = []
    for x, y in zip(features, labels, strict=True):
        target = margin(angle(x, weight[y]))
        logits = []
        for j, w in enumerate(weight):
            cos = math.cos(angle(x, w))
            if j == y:
                logits.append(s * target)
            elif target >= cos:
                logits.append(s * cos)
            elif mode == "fixed":
                logits.append(s * (cos + t))
            else:
                logits.append(s * ((1 + t) * cos + t))
        losses.append(cross_entropy(logits, y))
    return losses
