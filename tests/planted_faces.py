"""Photos with planted faces, and a detector that finds exactly those: squares on black, as bright as they are sure."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from angulus.core.templates import TEMPLATES
from angulus.data.faces.detector import Faces, Image

POINTS = np.array(TEMPLATES["five_points"]) / 112


@dataclass(frozen=True)
class Planted:
    """Finds the squares; its landmarks are the template, scaled into the square. Writes what it saw into a file."""

    log: Path | None = None

    def detect(self, images: Sequence[Image]) -> list[Faces]:
        if self.log is not None:
            with self.log.open("a") as file:
                file.writelines(f"{image.shape[1]}x{image.shape[0]}\n" for image in images)
        return [find(image) for image in images]


@dataclass(frozen=True)
class DiesOnce(Planted):
    """As `Planted`, but ends its process at the fourth photo that it sees of those that are counted in `log`."""

    def detect(self, images: Sequence[Image]) -> list[Faces]:
        found = super().detect(images)
        if self.log is not None and self.log.read_text().count("\n") == 4:
            os._exit(9)
        return found


def find(image: Image) -> Faces:
    grey = image.max(axis=2)
    count, _, stats, _ = cv2.connectedComponentsWithStats((grey > 32).astype(np.uint8))
    boxes, scores = [], []
    for left, top, width, height, _ in stats[1:count]:
        boxes.append((left, top, left + width, top + height))
        scores.append(np.median(grey[top : top + height, left : left + width]) / 255)
    edges = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    sides = edges[:, None, 2:] - edges[:, None, :2]
    order = np.argsort(scores, kind="stable")[::-1]
    landmarks = (edges[:, None, :2] + POINTS * sides).astype(np.float32)
    return Faces(edges[order], landmarks[order], np.array(scores, dtype=np.float32)[order])


def photo(*squares: tuple[int, int, int, int], width: int = 200, height: int = 160) -> NDArray[np.uint8]:
    """RGB, black, with squares (left, top, side, grey level)."""
    image = np.zeros((height, width, 3), dtype=np.uint8)
    for left, top, side, level in squares:
        image[top : top + side, left : left + side] = level
    return image


def png(image: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()
