"""Mining by loss value, over any margin."""

import math

from .geometry import Margin, Matrix, Vector
from .softmax_family import angular


def focal_softmax(
    features: Matrix,
    weight: Matrix,
    labels: list[int],
    s: float,
    gamma: float = 2.0,
    margin: Margin | None = None,
    probability: str = "margin",
) -> Vector:
    """(1 - p_y)^gamma loss, p_y from the loss's own logits or from those without margin.

    Source: MV-Softmax, Eq. 2 and 4 (F-Softmax, F-Arc, F-AM). No margin: s cos(theta_j) throughout.
    """
    if probability not in ("margin", "plain"):
        raise ValueError(f"probability must be margin or plain; got {probability!r}")
    radii = [s] * len(labels)
    losses = angular(features, weight, labels, radii, margin or math.cos)
    sources = losses if probability == "margin" else angular(features, weight, labels, radii, math.cos)
    return [(-math.expm1(-source)) ** gamma * loss for source, loss in zip(sources, losses, strict=True)]


def kept_count(n: int, keep: float) -> int:
    """floor(keep n), at least one; the 1e-9 reads keep as the decimal it was written as (0.29 of 100 is 29)."""
    return max(1, math.floor(keep * n + 1e-9))


def hm_softmax(
    features: Matrix,
    weight: Matrix,
    labels: list[int],
    s: float,
    keep: float = 0.9,
    margin: Margin | None = None,
) -> tuple[Vector, int]:
    """The floor(keep N) highest losses, the others 0, and how many were kept; a tie goes to the lower row.

    Source: MV-Softmax, Eq. 2 and 4 with g in {0, 1} (HM-Softmax, HM-Arc, HM-AM).
    """
    losses = angular(features, weight, labels, [s] * len(labels), margin or math.cos)
    count = kept_count(len(losses), keep)
    hardest = set(sorted(range(len(losses)), key=lambda i: (-losses[i], i))[:count])
    return [loss if i in hardest else 0.0 for i, loss in enumerate(losses)], count
