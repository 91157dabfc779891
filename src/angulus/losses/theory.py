"""The papers' propositions and bounds as functions of numbers and NumPy arrays, in float64, ready to plot.

Here C (or n) is the number of classes, d the embedding size, s a scale (NormFace's ℓ²), angles in radians.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from angulus.core import checks

Array = NDArray[np.float64]


def ideal_probability(s: ArrayLike, num_classes: int) -> Array:
    """Mean target probability of a perfect classifier whose classes lie 0°, 90° or 180° apart.

    p = e^s / (e^s + C − 2 + e^{−s}). Source: CM Eq. 7.

    >>> round(float(ideal_probability(4.2767, 10)), 4)
    0.8998
    """
    checks.integer("num_classes", num_classes, low=2)
    s = np.asarray(s, dtype=np.float64)
    return np.asarray(1 / (1 + (num_classes - 2) * np.exp(-s) + np.exp(-2 * s)))


def contraction_lower(p: float, num_classes: int, *, bound: str = "ideal") -> float:
    """The smallest radius at which a target probability p can be reached, CM-Softmax's lower bound.

    `bound="ideal"`: ln(p (C − 2) / (1 − p)), which drops e^{−s} and so needs C ≥ 3 and p > 1 / (C − 1);
    `bound="exact"`: the s > 0 with `ideal_probability(s, C) = p`, for C ≥ 2 and p > 1 / C.

    The ideal form is also the bound on α of L2-softmax (Ranjan et al. 2017).

    Source: CM Eq. 8 (after Ranjan et al. 2017); the exact form solves CM Eq. 7.

    >>> round(contraction_lower(0.9, 10), 4), round(contraction_lower(0.9, 2, bound="exact"), 4)
    (4.2767, 1.0986)
    """
    p = checks.number("p", p, low=0, high=1, open_low=True, open_high=True)
    checks.integer("num_classes", num_classes, low=2)
    checks.choice("bound", bound, ("ideal", "exact"))
    if bound == "ideal":
        if num_classes < 3:
            raise checks.InputError(
                f"the ideal contraction bound ln(p (C - 2) / (1 - p)) needs C >= 3 classes; got C = {num_classes}; "
                "give lower and upper, or bound='exact'"
            )
        if p <= 1 / (num_classes - 1):
            raise checks.InputError(
                f"p must exceed 1 / (C - 1) = {1 / (num_classes - 1):.6g} for a positive lower bound with "
                f"C = {num_classes} classes; got {p:g}; raise p, give lower and upper, or use bound='exact'"
            )
        return math.log(p * (num_classes - 2) / (1 - p))
    if p <= 1 / num_classes:
        raise checks.InputError(
            f"p must exceed 1 / C = {1 / num_classes:.6g}, which chance reaches; got {p:g}; raise p, or give "
            "lower and upper"
        )
    # (1 − p) z² − p (C − 2) z − p = 0 for z = e^s
    half = p * (num_classes - 2) / (2 * (1 - p))
    return math.log(half + math.sqrt(half * half + p / (1 - p)))


def separation_factor(angle: float) -> float:
    """The ratio upper / lower that keeps classes `angle` apart: 1 + 2 sin(angle / 2), in [1, 3] for angle in [0, π].

    Norms in [a, factor · a] spread a class over (factor − 1) · a, less than the 2 a sin(angle / 2) between classes.

    Source: CM Sec. 4.2.1 (takes 3, angle = π); FI Property 3.

    >>> round(separation_factor(math.pi / 2), 6)
    2.414214
    """
    return 1 + 2 * math.sin(checks.number("angle", angle, low=0, high=math.pi) / 2)


def contraction(norms: ArrayLike, lower: float, upper: float, gamma: float = 1.0) -> Array:
    """f(‖x‖) = lower + (2 sigmoid(γ‖x‖) − 1)(upper − lower), CM-Softmax's radius. Source: CM Eq. 9.

    >>> contraction([0.0, 1e9], 4.0, 12.0).tolist()
    [4.0, 12.0]
    """
    return lower + contraction_saturation(norms, gamma) * (upper - lower)


def contraction_saturation(norms: ArrayLike, gamma: float = 1.0) -> Array:
    """2 sigmoid(γ‖x‖) − 1 in [0, 1): the share of [lower, upper] that a norm uses."""
    gamma = checks.number("gamma", gamma, low=0, open_low=True)
    return np.tanh(gamma * np.asarray(norms, dtype=np.float64) / 2)


def coco_scale(num_classes: int) -> float:
    """COCO's α = ½ log(C − 1) + 3, C ≥ 2. Source: Liu et al. 2017c."""
    checks.integer("num_classes", num_classes, low=2)
    return 0.5 * math.log(num_classes - 1) + 3


def margin_room(num_classes: int, embedding_size: int) -> float:
    """An upper bound on the smallest angle between C directions in d dimensions, in radians: the room for a margin.

    acos(−1/(C − 1)) for C ≤ d + 1 (the simplex) and π/2 for C ≤ 2d, both attained. Beyond, C caps of half the angle
    around the directions do not overlap, so they cover at most the sphere; attained for d = 2, where it is 2π/C. An
    additive angle m needs m < room, an additive cosine m < 1 − cos(room): otherwise no feature meets the margin.

    Source: Rankin 1955 for C ≤ 2d; the sphere's area for more.

    >>> round(math.degrees(margin_room(10, 2)), 6), round(math.degrees(margin_room(4, 3)), 2)
    (36.0, 109.47)
    """
    classes = checks.integer("num_classes", num_classes, low=2)
    size = checks.integer("embedding_size", embedding_size, low=1)
    if classes <= size + 1:
        return math.acos(-1 / (classes - 1))
    if size == 1:
        return 0.0
    if classes <= 2 * size:
        return math.pi / 2
    # a cap of angle a covers ∫₀ᵃ sin^(d − 2) / ∫₀^(π/2) sin^(d − 2) of half the sphere; by hand, since scipy is slow to
    # import and every head asks
    nodes, weights = np.polynomial.legendre.leggauss(128)
    half_sphere = math.sqrt(math.pi) / 2 * math.exp(math.lgamma((size - 1) / 2) - math.lgamma(size / 2))
    low, high = 0.0, math.pi / 2
    while high - low > 1e-15:
        angle = (low + high) / 2
        area = angle / 2 * float(weights @ np.sin(angle / 2 * (nodes + 1)) ** (size - 2))
        low, high = (angle, high) if area < 2 / classes * half_sphere else (low, angle)
    return min(math.pi / 2, 2 * low)


def adacos_scale(num_classes: int) -> float:
    """AdaCos's fixed scale √2·log(C − 1), C ≥ 3. Source: Zhang et al. 2019, Eq. 12.

    >>> round(adacos_scale(10_575), 2)
    13.1
    """
    checks.integer("num_classes", num_classes, low=3, hint="AdaCos's scale √2·log(C − 1) of two classes is 0")
    return math.sqrt(2) * math.log(num_classes - 1)


def loss_floor(s: ArrayLike, num_classes: int) -> Array:
    """The smallest softmax loss with unit features and weights scaled to s = ℓ²: log(1 + (n − 1) e^{−n s / (n − 1)}).

    Every class holds as many samples; a regular simplex, which exists for n ≤ d + 1, attains it.

    Args:
        s: ℓ², the product of the two lengths, > 0. NormFace's s.
        num_classes: n ≥ 2.

    Source: NF Prop. 2.

    >>> round(float(loss_floor(1.0, 10575)), 2)
    8.27
    """
    n = checks.integer("num_classes", num_classes, low=2)
    s = np.asarray(s, dtype=np.float64)
    if np.any(~(s > 0)):
        raise checks.InputError(f"s must be > 0; got {s.min():g}")
    return np.logaddexp(0.0, math.log(n - 1) - n * s / (n - 1))


def scale_for_loss(loss: ArrayLike, num_classes: int) -> Array:
    """The s = ℓ² at which `loss_floor` is `loss`: −(n − 1)/n · log((e^loss − 1) / (n − 1)).

    Args:
        loss: the target loss, in (0, log n): at log n the scale is 0.

    Source: NF Prop. 2, inverted.

    >>> round(float(scale_for_loss(loss_floor(20.0, 100), 100)), 6)
    20.0
    """
    n = checks.integer("num_classes", num_classes, low=2)
    loss = np.asarray(loss, dtype=np.float64)
    if np.any(~((loss > 0) & (loss < math.log(n)))):
        raise checks.InputError(f"loss must be in (0, log {n} = {math.log(n):.6g}); got {loss.tolist()}")
    return np.asarray(-(n - 1) / n * (np.log(np.expm1(loss)) - math.log(n - 1)))


def incay_bound(reference_norm: float, embedding_size: int, num_classes: int) -> float:
    """The norm beyond which feature incay stops: (1 + √2) · a where C < 2d, else 3 · a; a a reference (mean) norm.

    Source: FI Property 3. Differs: C < 2d permits classes 90° apart, but does not ensure it.

    >>> round(incay_bound(200.0, 64, 10))
    483
    """
    a = checks.number("reference_norm", reference_norm, low=0, open_low=True)
    return a * incay_factor(embedding_size, num_classes)


def incay_factor(embedding_size: int, num_classes: int) -> float:
    """`incay_bound` over its reference norm."""
    return separation_factor(math.pi / 2 if num_classes < 2 * embedding_size else math.pi)


def target_probability(logits: ArrayLike, label: int, scales: ArrayLike, *, bias: ArrayLike | None = None) -> Array:
    """Softmax probability of the label as the feature grows: P_y at features s·x, whose logits are s · logits + bias.

    Without bias, P_y rises with s if the label has the highest logit (NF Prop. 1; FI Property 1) and falls if it has
    not. With a bias neither holds: two classes may share a weight and be separated at s = 0 (NF Fig. 3).

    Args:
        logits: w_j·x of one sample at s = 1, [C].
        label: y in [0, C).
        scales: s ≥ 0, [K].
        bias: b_j, [C], or None.

    Returns:
        P_y, [K].

    >>> target_probability([2.0, 1.0, 0.0], 0, [1.0, 2.0, 4.0]).round(3).tolist()
    [0.665, 0.867, 0.982]
    """
    logits = np.asarray(logits, dtype=np.float64)
    checks.integer("label", label, low=0, high=len(logits) - 1)
    shifted = np.atleast_1d(np.asarray(scales, dtype=np.float64))[:, None] * logits
    if bias is not None:
        shifted = shifted + np.asarray(bias, dtype=np.float64)
    shifted = shifted - shifted[:, [label]]
    return np.asarray(np.exp(-np.logaddexp.reduce(shifted, axis=1)))


def class_weight_pull(logits: ArrayLike, label: int, norms: ArrayLike) -> Array:
    """How strongly a sample of that norm pulls its class weight: ‖∂loss/∂w_y‖ = (1 − P_y) ‖x‖.

    It vanishes with the norm: softmax passes over a misclassified sample with a small feature (FI Property 2).

    Args:
        logits: w_j·x of the sample at norm 1, [C].
        label: y.
        norms: ‖x‖ ≥ 0, [K].
    """
    norms = np.asarray(norms, dtype=np.float64)
    return np.asarray((1 - target_probability(logits, label, norms)) * norms)


def probability_floor(norm: ArrayLike, num_classes: int) -> Array:
    """The smallest P_y of a feature along its unit class weight, the others at least 90° away: e^r / (e^r + K − 1).

    Source: FI Property 4.

    >>> float(probability_floor(10.0, 10)) > 0.999
    True
    """
    checks.integer("num_classes", num_classes, low=2)
    r = np.asarray(norm, dtype=np.float64)
    return 1 / (1 + (num_classes - 1) * np.exp(-r))


def iam_own_pull(p: ArrayLike, beta: float) -> Array:
    """How strongly scaled softmax + β · IAM pulls w_y to a sample: 1 − p + βp, in units of s.

    β = 0 is softmax's own 1 − p; at β = 1 all samples pull equally; above, the well classified ones pull hardest,
    which is why β < 1 is the paper's range.

    Args:
        p: target probability, in [0, 1].
        beta: β ≥ 0.

    Source: IAM Eq. 13, its sum read over the samples with y_i = k.
    """
    p = np.asarray(p, dtype=np.float64)
    return np.asarray(1 - p + checks.number("beta", beta, low=0) * p)


def iam_other_push(p: ArrayLike, q: ArrayLike, beta: float) -> Array:
    """How strongly scaled softmax + β · IAM pushes w_j away from a sample of another class: (1 − β) q (1 − p) + β q.

    q is the share of class j among the classes other than y, so q (1 − p) is its softmax probability.

    Args:
        p: target probability of the sample, in [0, 1].
        q: e^{s c_j} / Σ_{k≠y} e^{s c_k}, in [0, 1].
        beta: β ≥ 0.

    Source: IAM Eq. 14, its sum read over the samples with y_i ≠ j. Differs: for C > 2 the push grows with q also when
    β > 1, against the paper's case 4.
    """
    p, q = np.asarray(p, dtype=np.float64), np.asarray(q, dtype=np.float64)
    beta = checks.number("beta", beta, low=0)
    return np.asarray((1 - beta) * q * (1 - p) + beta * q)


def iam_floor(s: float, num_classes: int, beta: float = 1.0) -> float:
    """The minimum of IAM: −β (2s + log(1 + (C − 1) e^{−2s})), with own cosine 1 and all others −1.

    Source: IAM Eq. 7.
    """
    checks.integer("num_classes", num_classes, low=2)
    s = checks.number("s", s, low=0, open_low=True)
    return -checks.number("beta", beta, low=0) * (2 * s + math.log1p((num_classes - 1) * math.exp(-2 * s)))


def agent_distortion(anchor: ArrayLike, features: ArrayLike, agent: ArrayLike) -> float:
    """The cost of representing a class by its class weight: mean_j (d(f_0, f_j) − d(f_0, w))², d on unit vectors.

    Args:
        anchor: f_0, [d].
        features: f_j of one class, [n, d].
        agent: w, [d].

    Source: NF Prop. 3. d is the Euclidean distance; the proof needs a metric, which its square is not.
    """
    anchor, features, agent = _unit(anchor), _unit(features), _unit(agent)
    to_features = np.linalg.norm(features - anchor, axis=-1)
    return float(np.mean((to_features - np.linalg.norm(anchor - agent)) ** 2))


def agent_distortion_bound(features: ArrayLike, agent: ArrayLike) -> float:
    """An upper bound of `agent_distortion` for any anchor: mean_j d(f_j, w)². NormFace reports 0.5 to 0.6.

    Source: NF Prop. 3. Training logs its mean over the samples of a step as `agent_distortion` (`head.seen`).

    >>> agent_distortion_bound([[1.0, 0.0], [0.0, 1.0]], [1.0, 0.0])
    1.0
    """
    return float(np.mean(np.sum((_unit(features) - _unit(agent)) ** 2, axis=-1)))


def _unit(vectors: ArrayLike) -> Array:
    vectors = np.asarray(vectors, dtype=np.float64)
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(norms > 0, norms, 1.0))
