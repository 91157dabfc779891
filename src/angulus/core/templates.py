"""Where landmarks are in an aligned crop of a face. Without torch, which processes that align faces need not load."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from angulus.core import checks
from angulus.core.checks import InputError

# Positions (x, y) of a face's eyes, nose and mouth corners (the image's left first) in a crop of TEMPLATE_SIDE².
TEMPLATES: dict[str, tuple[tuple[float, float], ...]] = {
    "five_points": ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)),
}
TEMPLATE_SIDE = 112


def template_points(template: str, height: int, width: int) -> NDArray[np.float64]:
    """Positions of a face's landmarks in a crop of `height` x `width` pixels: [5, 2], x and y.

    The template, made for 112x112, scales with the longer side; the shorter side is cut equally at both ends. So 112x96
    is 112x112 without 8 columns on the left and on the right.

    >>> template_points("five_points", 112, 96)[0].round(4).tolist()
    [30.2946, 51.6963]
    """
    checks.choice("template", template, TEMPLATES)
    height, width = image_size((height, width))
    side = max(height, width)
    points = np.array(TEMPLATES[template], dtype=np.float64) * (side / TEMPLATE_SIDE)
    return points - np.array([side - width, side - height]) / 2


def image_size(size: object) -> tuple[int, int]:
    """Height and width, checked."""
    if not isinstance(size, list | tuple) or len(size) != 2:
        raise InputError(f"input.size must be two whole numbers, height and width; got {size!r}")
    height, width = (checks.integer("input.size", side, low=1) for side in size)
    return height, width
