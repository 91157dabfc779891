"""What stands in the place of cos(theta) in the target logit; theta in radians, in [0, pi]."""

import math


def additive_cosine(theta: float, m: float) -> float:
    """cos(theta) - m. Source: IAM, Eq. 5; MV-Softmax, f(m_2, theta)."""
    return math.cos(theta) - m


def additive_angle(theta: float, m: float, beyond_pi: str = "linear") -> float:
    """cos(theta + m). Source: IAM, Eq. 6; MV-Softmax, f(m_3, theta).

    linear: cos(theta) - m sin(pi - m) where theta + m > pi; plain: as written; easy: cos(theta) unless cos(theta) > 0.
    """
    if beyond_pi == "linear":
        return math.cos(theta) - m * math.sin(math.pi - m) if theta + m > math.pi else math.cos(theta + m)
    if beyond_pi == "plain":
        return math.cos(theta + m)
    if beyond_pi == "easy":  # compared as angles: math.cos(math.pi / 2) is 6e-17, not 0
        return math.cos(theta + m) if theta < math.pi / 2 else math.cos(theta)
    raise ValueError(f"beyond_pi must be linear, plain or easy; got {beyond_pi!r}")


def monotone_cos(phi: float) -> float:
    """(-1)^k cos(phi) - 2k on [k pi, (k + 1) pi]: cos that keeps falling."""
    k = math.floor(phi / math.pi)
    sign = -1.0 if k % 2 else 1.0
    return sign * math.cos(phi) - 2 * k


def psi(theta: float, m: float) -> float:
    """(-1)^k cos(m theta) - 2k on [k pi/m, (k + 1) pi/m]. Source: Liu et al. 2016, 2017a (L-Softmax, A-Softmax)."""
    return monotone_cos(m * theta)


def multiplicative_raw(theta: float, m: float) -> float:
    """cos(m theta), as printed. Source: IAM, Eq. 4; CM, Eq. 5; MV-Softmax, f(m_1, theta)."""
    return math.cos(m * theta)


def combined(theta: float, m1: float, m2: float, m3: float, form: str = "raw") -> float:
    """cos(m1 theta + m3) - m2, or its monotone extension. Source: MV-Softmax, text below Eq. 3."""
    phi = m1 * theta + m3
    if form == "raw":
        return math.cos(phi) - m2
    if form == "psi":
        return monotone_cos(phi) - m2
    raise ValueError(f"form must be raw or psi; got {form!r}")


def annealed(theta: float, margin_value: float, lam: float) -> float:
    """(lam cos(theta) + margin) / (1 + lam). Source: Liu et al. 2016, 2017a."""
    return (lam * math.cos(theta) + margin_value) / (1 + lam)


def annealing_lam(step: int, start: float, least: float) -> float:
    """max(lam_min, lam_0 / (1 + 0.1 step))."""
    return max(least, start / (1 + 0.1 * step))
