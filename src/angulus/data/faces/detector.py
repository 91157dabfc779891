"""Face detectors: what each one takes and returns, overlapping boxes, and YuNet through OpenCV.

Boxes are [N, 4]: left, top, right, bottom in pixels, with the right and bottom edges outside.

Source of YuNet: W. Wu, H. Peng, S. Yu, "YuNet: A Tiny Millisecond-level Face Detector", Machine Intelligence Research
20, 2023.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from angulus.core import checks, extras
from angulus.core.checks import InputError

Image = NDArray[np.uint8]  # RGB [height, width, 3]
Floats = NDArray[np.floating[Any]]
Relative = Literal["union", "smaller"]

_BLOCK = 128  # boxes compared with each other at once: the matrix stays in the cache


@dataclass(frozen=True, eq=False)
class Faces:
    """The K faces found in one image, best first; pixel (0, 0) spans 0..1 in x and y.

    Alignment uses the landmarks as they are, half a pixel off from pixel centres, as other face libraries do.

    Args:
        boxes: [K, 4] float32; may reach beyond the image's edge.
        landmarks: [K, 5, 2] float32, x and y of eyes, nose, mouth corners, the image's left first.
        scores: [K] float32, the detector's confidence in 0..1.
    """

    boxes: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.scores)


class Detector(Protocol):
    """Finds faces in images of any sizes."""

    def detect(self, images: Sequence[Image]) -> list[Faces]:
        """Return one `Faces` per image, in order."""


def check_image(image: Image) -> None:
    """Refuse anything but RGB bytes."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        got = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError(f"images must be uint8 arrays; got {got}")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise InputError(f"images must have shape [height, width, 3] and at least one pixel; got {list(image.shape)}")


def overlaps(first: Floats, second: Floats, relative: Relative = "union") -> Floats:
    """The area that two boxes share, divided by that of their union or of the smaller one: [N, 4], [M, 4] -> [N, M].

    >>> overlaps(np.array([[0.0, 0, 2, 2]]), np.array([[1.0, 0, 3, 2], [5, 5, 6, 6]])).round(3).tolist()
    [[0.333, 0.0]]
    """
    left, top, right, bottom = (first[:, None, k] for k in range(4))
    width = np.minimum(right, second[:, 2]) - np.maximum(left, second[:, 0])
    height = np.minimum(bottom, second[:, 3]) - np.maximum(top, second[:, 1])
    shared = np.maximum(width, 0) * np.maximum(height, 0)
    area, other = areas(first)[:, None], areas(second)
    total = np.minimum(area, other) if relative == "smaller" else area + other - shared
    return np.asarray(np.divide(shared, total, out=np.zeros_like(shared), where=total > 0))


def areas(boxes: Floats) -> Floats:
    """Width times height, [N]."""
    return np.asarray((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))


def suppress(boxes: Floats, scores: Floats, max_overlap: float, relative: Relative = "union") -> NDArray[np.intp]:
    """Greedy non-maximum suppression: keep the best box, drop all that overlap it by more than `max_overlap`, repeat.

    Returns the rows of the boxes to keep, best first; among equal scores the earlier box counts as better.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = boxes[order]
    keep = np.zeros(0, dtype=np.intp)
    for start in range(0, len(ranked), _BLOCK):
        block = np.arange(start, min(start + _BLOCK, len(ranked)))
        if len(keep):
            block = block[~(overlaps(ranked[block], ranked[keep], relative) > max_overlap).any(axis=1)]
        clash = overlaps(ranked[block], ranked[block], relative) > max_overlap
        alive = np.ones(len(block), dtype=bool)
        for row in range(len(block)):
            if alive[row]:
                alive[row + 1 :] &= ~clash[row, row + 1 :]
        keep = np.concatenate([keep, block[alive]])
    return order[keep]


class YuNet:
    """OpenCV's FaceDetectorYN, one image at a time."""

    def __init__(self, path: str | os.PathLike[str], threshold: float = 0.6, overlap: float = 0.3) -> None:
        """Read face_detection_yunet_*.onnx; the lowest score of a face and the largest overlap of two are in (0, 1)."""
        checks.number("threshold", threshold, low=0, high=1, open_low=True, open_high=True)
        checks.number("overlap", overlap, low=0, high=1, open_low=True, open_high=True)
        self._cv2 = cv2 = extras.load("cv2", "faces", "the detector yunet")
        if not os.path.isfile(path):
            raise InputError(f"detector yunet needs its ONNX file; there is no file {os.fspath(path)}")
        try:
            self._model = cv2.FaceDetectorYN.create(os.fspath(path), "", (320, 320), threshold, overlap)
            self.detect([np.zeros((320, 320, 3), dtype=np.uint8)])  # another network fails only when it runs
        except cv2.error as error:
            fault = f"detector yunet needs an ONNX file that OpenCV {cv2.__version__} takes for YuNet"
            raise InputError(f"{fault}; {os.fspath(path)} is none: {' '.join(str(error.err).split())}") from error

    def detect(self, images: Sequence[Image]) -> list[Faces]:
        """Find the faces in images uint8 RGB [height, width, 3]."""
        return [self._detect(image) for image in images]

    def _detect(self, image: Image) -> Faces:
        check_image(image)
        height, width = image.shape[:2]
        self._model.setInputSize((width, height))
        _, output = self._model.detect(self._cv2.cvtColor(image, self._cv2.COLOR_RGB2BGR))
        rows = np.zeros((0, 15), dtype=np.float32) if output is None else np.asarray(output, dtype=np.float32)
        rows = rows[np.argsort(-rows[:, 14], kind="stable")]
        # left, top, width, height; then five points, the person's right eye, which is the image's left, first
        boxes = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1)
        return Faces(boxes, rows[:, 4:14].reshape(-1, 5, 2), rows[:, 14])
