"""An image at the sizes at which networks with small windows look at it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from angulus.core import extras
from angulus.data.faces.boxes import Floats
from angulus.data.faces.detect import Image

_LEAST = 12  # pixels: no halving has a shorter side than that, so none is needed at less than half its size


@dataclass(frozen=True, eq=False)
class Level:
    """An image scaled down, and what a pixel of it measures in the image: width, height."""

    pixels: Image
    pixel: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Squares:
    """Squares [N, 4] on whole pixels of the halving that they are read from, [N], in pixels of the image."""

    boxes: Floats
    halvings: NDArray[np.intp]


class Pyramid:
    """An image and its halvings: what is scaled down a lot begins from one of those, at a fraction of the time."""

    def __init__(self, image: Image) -> None:
        self._cv2 = extras.load("cv2", "faces", "detecting faces")
        self.height, self.width = image.shape[:2]
        self._halved = [image]
        while min(image.shape[:2]) >= 2 * _LEAST:
            height, width = (side // 2 for side in image.shape[:2])
            even = image[: 2 * height, : 2 * width]  # an odd last row is left out
            image = self._resized(even, width, height, self._cv2.INTER_AREA)
            self._halved.append(image)

    def levels(self, scale: float, step: float, least: int) -> Iterator[Level]:
        """The image at `scale` of its size, then at `step` of the last one each, while a side has `least` pixels.

        Sides are rounded up to even numbers: pooling by two then leaves no rest.
        """
        while min(self.height, self.width) * scale >= least:
            number = min(max(0, math.floor(-math.log2(scale))), len(self._halved) - 1)
            source = self._halved[number]
            width, height = (2 * math.ceil(side * scale / 2) for side in (self.width, self.height))
            pixel = 2**number * source.shape[1] / width, 2**number * source.shape[0] / height
            # to no less than half the size four pixels see all that INTER_AREA would, in a fifth of the time
            yield Level(self._resized(source, width, height, self._cv2.INTER_LINEAR), pixel)
            scale *= step

    def squares(self, boxes: Floats, side: int) -> Squares:
        """The squares about the same centres whose side is the longer one of each box, to be read at `side`² pixels.

        They lie on the pixels of a halving that has twice the resolution that is asked for, or of the image. Those that
        hold no pixel of the image are left out.
        """
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        longer = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
        halvings = np.floor(np.log2(np.maximum(longer / (2 * side), 1))).astype(np.intp)
        halvings = np.minimum(halvings, len(self._halved) - 1)
        unit = (2.0**halvings)[:, None]
        longer = np.rint(longer[:, None] / unit) * unit
        corners = np.rint((centres - longer / 2) / unit) * unit
        found = np.concatenate([corners, corners + longer], axis=1)
        shown = (np.minimum(found[:, 2:], [self.width, self.height]) > np.maximum(found[:, :2], 0)).all(axis=1)
        return Squares(found[shown].astype(np.float32), halvings[shown])

    def patches(self, squares: Squares, side: int) -> NDArray[np.uint8]:
        """What the squares show: [N, side, side, 3], black beyond the image's edge."""
        patches = np.zeros((len(squares.boxes), side, side, 3), dtype=np.uint8)
        units = (2**squares.halvings)[:, None]
        places = np.rint(squares.boxes / units).astype(np.int64).tolist()
        for patch, number, (left, top, right, bottom) in zip(patches, squares.halvings.tolist(), places, strict=True):
            source = self._halved[number]
            height, width = source.shape[:2]
            inside = source[max(top, 0) : max(min(bottom, height), 0), max(left, 0) : max(min(right, width), 0)]
            if inside.shape[:2] != (bottom - top, right - left):
                beyond = (max(-top, 0), max(bottom - height, 0)), (max(-left, 0), max(right - width, 0)), (0, 0)
                inside = np.pad(inside, beyond)
            self._cv2.resize(inside, (side, side), dst=patch, interpolation=self._cv2.INTER_AREA)
        return patches

    def _resized(self, image: Image, width: int, height: int, interpolation: int) -> Image:
        return np.asarray(self._cv2.resize(image, (width, height), interpolation=interpolation), dtype=np.uint8)
