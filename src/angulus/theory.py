"""The papers' propositions and bounds as functions of numbers and NumPy arrays, in float64, fit to be plotted.

In what follows C (or n) is the number of classes, d the embedding size, s a scale (NormFace's ℓ²), angles in radians.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from angulus import checks

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
    """The least radius with which a target probability p can be reached, CM-Softmax's lower bound.

    `bound="ideal"`: ln(p (C − 2) / (1 − p)), which drops e^{−s} and so needs C ≥ 3 and p > 1 / (C − 1);
    `bound="exact"`: the s > 0 with `ideal_probability(s, C) = p`, for C ≥ 2 and p > 1 / C.

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
    """2 sigmoid(γ‖x‖) − 1 in [0, 1): the share of [lower, upper] that a norm has used up."""
    gamma = checks.number("gamma", gamma, low=0, open_low=True)
    return np.tanh(gamma * np.asarray(norms, dtype=np.float64) / 2)


def coco_scale(num_classes: int) -> float:
    """COCO's α = ½ log(C − 1) + 3, C ≥ 2. Source: Liu et al. 2017c."""
    checks.integer("num_classes", num_classes, low=2)
    return 0.5 * math.log(num_classes - 1) + 3


def loss_floor(s: ArrayLike, num_classes: int) -> Array:
    """The least softmax loss with unit features and weights scaled to s = ℓ²: log(1 + (n − 1) e^{−n s / (n − 1)}).

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
        loss: the wanted loss, in (0, log n): at log n the scale is 0.

    Source: NF Prop. 2, inverted.

    >>> round(float(scale_for_loss(loss_floor(20.0, 100), 100)), 6)
    20.0
    """
    n = checks.integer("num_classes", num_classes, low=2)
    loss = np.asarray(loss, dtype=np.float64)
    if np.any(~((loss > 0) & (loss < math.log(n)))):
        raise checks.InputError(f"loss must be in (0, log {n} = {math.log(n):.6g}); got {loss.tolist()}")
    return np.asarray(-(n - 1) / n * (np.log(np.expm1(loss)) - math.log(n - 1)))


def incay_bound(reference_norm: float, num_classes: int, embedding_size: int) -> float:
    """The norm beyond which feature incay stops: (1 + √2) · a where C < 2d, else 3 · a; a a reference (mean) norm.

    Source: FI Property 3. Differs: C < 2d permits classes 90° apart, but does not ensure it.

    >>> round(incay_bound(200.0, 10, 64))
    483
    """
    a = checks.number("reference_norm", reference_norm, low=0, open_low=True)
    return a * incay_factor(num_classes, embedding_size)


def incay_factor(num_classes: int, embedding_size: int) -> float:
    """`incay_bound` over its reference norm."""
    return separation_factor(math.pi / 2 if num_classes < 2 * embedding_size else math.pi)
