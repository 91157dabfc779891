"""Face alignment: the similarity transform that takes five landmarks to a template, and the crop that it gives.

Source: S. Umeyama, "Least-Squares Estimation of Transformation Parameters Between Two Point Patterns", IEEE TPAMI
13(4), 1991. In the plane, with points as complex numbers, its solution is the linear regression w ≈ a z + b.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from angulus.core import extras
from angulus.core.checks import InputError
from angulus.core.contract import template_points

Points = NDArray[np.float64]  # [..., K, 2], x and y; a pixel's centre is at whole numbers


@dataclass(frozen=True, eq=False)
class Aligned:
    """A face's crop.

    Attributes:
        pixels: uint8 [height, width, 3].
        landmarks: [5, 2] float32, in pixels of the crop.
        residual_px: root mean square distance of the landmarks from the template, in pixels of the crop: what turning,
            scaling and shifting cannot mend, so a profile or a wrong landmark.
    """

    pixels: NDArray[np.uint8]
    landmarks: NDArray[np.float32]
    residual_px: float


def align(
    image: NDArray[np.uint8], landmarks: ArrayLike, height: int = 112, width: int = 112, template: str = "five_points"
) -> Aligned:
    """Cut a face out, upright and at the template's place and size.

    Args:
        image: uint8 RGB [H, W, 3].
        landmarks: [5, 2], x and y in its pixels: eyes, nose, mouth corners, the image's left first.
        height, width: of the crop.
        template: one of `angulus.core.contract.TEMPLATES`.

    Raises:
        InputError: landmarks of another shape, not finite, or all at one place.
    """
    points = np.asarray(landmarks, dtype=np.float64)
    target = template_points(template, height, width)
    matrix = similarity(points, target)
    moved = transform(points, matrix)
    pixels = warp(image, matrix, height, width)
    return Aligned(pixels, moved.astype(np.float32), float(residual(moved, target)))


def similarity(source: ArrayLike, target: ArrayLike) -> NDArray[np.float64]:
    """The rotation, scale and shift that bring K points nearest to K others in the sum of squares; never a reflection.

    a = Σ conj(z − z̄)(w − w̄) / Σ |z − z̄|², b = w̄ − a z̄, as the matrix [[Re a, −Im a, Re b], [Im a, Re a, Im b]].

    Args:
        source: [..., K, 2].
        target: the same shape, or [K, 2] for all.

    Returns:
        [..., 2, 3].

    Raises:
        InputError: other shapes, fewer than two points, NaN or Inf, or points that fix no scale.

    >>> similarity([[0, 0], [1, 0]], [[5, 5], [5, 7]]).tolist()
    [[0.0, -2.0, 5.0], [2.0, 0.0, 5.0]]
    """
    z, w = _complex("source", source), _complex("target", target)
    if z.shape[-1] != w.shape[-1] or z.shape[-1] < 2:
        raise InputError(
            f"source and target must hold the same number of points, two or more; got {z.shape[-1]} and {w.shape[-1]}"
        )
    z_mean, w_mean = z.mean(-1, keepdims=True), w.mean(-1, keepdims=True)
    spread = (np.abs(z - z_mean) ** 2).sum(-1)
    shared = (np.conj(z - z_mean) * (w - w_mean)).sum(-1)
    if (spread == 0).any() or (shared == 0).any():
        raise InputError("source and target must be points that fix a rotation and a scale; got all at one place")
    a = shared / spread
    b = w_mean[..., 0] - a * z_mean[..., 0]
    rows = [a.real, -a.imag, b.real, a.imag, a.real, b.imag]
    return np.stack(rows, axis=-1).reshape(*a.shape, 2, 3)


def transform(points: ArrayLike, matrix: NDArray[np.float64]) -> Points:
    """Points [..., K, 2] moved by matrices [..., 2, 3]."""
    turned = np.asarray(points, dtype=np.float64) @ np.swapaxes(matrix[..., :2], -1, -2)
    moved: Points = turned + matrix[..., None, :, 2]
    return moved


def residual(moved: ArrayLike, target: ArrayLike) -> NDArray[np.float64]:
    """The root mean square distance of K points from K others, [..., K, 2] twice -> [...]."""
    offsets = np.asarray(moved, dtype=np.float64) - np.asarray(target, dtype=np.float64)
    distance: NDArray[np.float64] = np.sqrt((offsets**2).sum(-1).mean(-1))
    return distance


def warp(image: NDArray[np.uint8], matrix: NDArray[np.float64], height: int, width: int) -> NDArray[np.uint8]:
    """The image under a transform: each pixel of the crop looked up where it comes from, bilinearly, 0 beyond the edge.

    Args:
        image: uint8 [H, W, 3].
        matrix: [2, 3], from the image to the crop.
        height, width: of the crop.
    """
    cv2 = extras.load("cv2", "faces", "aligning faces")
    crop: Any = cv2.warpAffine(
        image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0
    )
    return np.asarray(crop, dtype=np.uint8)


def _complex(name: str, points: ArrayLike) -> NDArray[np.complex128]:
    values = np.asarray(points, dtype=np.float64)
    if values.ndim < 2 or values.shape[-1] != 2:
        raise InputError(f"{name} must have shape [..., points, 2]; got {list(values.shape)}")
    if not np.isfinite(values).all():
        raise InputError(f"{name} must be finite; got NaN or Inf")
    return values[..., 0] + 1j * values[..., 1]
