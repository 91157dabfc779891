"""From a photo to one aligned face: decode, detect, choose, judge, cut out; and what is to be said about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from angulus.core import checks, extras
from angulus.core.checks import InputError
from angulus.core.contract import template_points
from angulus.data.decode import decode
from angulus.data.faces.align import align
from angulus.data.faces.detect import Detector, Faces, Image
from angulus.data.records import Row

Choose = Literal["largest", "central"]
Problem = Literal[
    "left out", "cannot be read", "no face", "too small", "low score", "cannot be aligned", "several faces", "one photo"
]

_PICTURE_SIDE = 240  # of a report's picture, in pixels
_JPEG_QUALITY = 95
_GREEN, _RED = (0, 200, 0), (255, 60, 60)


@dataclass(frozen=True)
class Crops:
    """Which face is taken from a photo, and the crop that is made of it.

    Args:
        height, width: of the crop, in pixels.
        choose: the face with the largest box, or the one whose centre is nearest to the photo's.
        min_score: the least confidence of the detector, in [0, 1].
        min_size: the least width and height of the face's box, in pixels of the photo, >= 0.
        encoding: of the crop; JPEG of quality 95, or PNG, which keeps every bit.
        template: one of `angulus.core.contract.TEMPLATES`.
    """

    height: int = 112
    width: int = 112
    choose: Choose = "largest"
    min_score: float = 0.9
    min_size: float = 30.0
    encoding: Literal["jpeg", "png"] = "jpeg"
    template: str = "five_points"

    def __post_init__(self) -> None:
        template_points(self.template, self.height, self.width)
        checks.choice("choose", self.choose, get_args(Choose))
        checks.number("min_score", self.min_score, low=0, high=1)
        checks.number("min_size", self.min_size, low=0)
        checks.choice("encoding", self.encoding, ("jpeg", "png"))


@dataclass(frozen=True)
class Note:
    """What a report says of a photo.

    Attributes:
        id: of the photo in its source.
        identity: who it shows, "" where not known.
        problem: the section of the report.
        kept: whether a crop was made all the same.
        detail: a sentence.
        faces: how many were found.
        score, size_px, residual_px: of the chosen face: its confidence, the shorter side of its box, and how far its
            landmarks are from the template, in pixels of the crop.
        picture: a small JPEG of the photo, the faces framed; empty where it cannot be read.
        source: `Row.checksum` of the photo; None for what is left out.
    """

    id: str
    identity: str
    problem: Problem
    kept: bool
    detail: str
    faces: int | None = None
    score: float | None = None
    size_px: float | None = None
    residual_px: float | None = None
    picture: bytes = b""
    source: int | None = None


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of a photo: a row, a note, or both; and its own `Row.checksum`."""

    id: str
    row: Row | None
    note: Note | None
    source: int | None = None


def process(photos: Sequence[Row], detector: Detector, crops: Crops) -> list[Outcome]:
    """Photos to crops and notes, in their order.

    The detector is given one photo at a time: what becomes of a photo depends on nothing else.

    Args:
        photos: their bytes, ids and identities.
        detector: finds the faces.
        crops: which face, and which crop of it.
    """
    return [_with_source(_processed(photo, detector, crops), photo.checksum()) for photo in photos]


def _with_source(outcome: Outcome, source: int) -> Outcome:
    return replace(outcome, source=source, note=outcome.note and replace(outcome.note, source=source))


def _processed(photo: Row, detector: Detector, crops: Crops) -> Outcome:
    try:
        image = decode(photo.image, "the file")
    except InputError as error:
        return Outcome(photo.id, None, Note(photo.id, photo.identity, "cannot be read", False, str(error)))
    return _outcome(photo, image, detector.detect([image])[0], crops)


def usable(faces: Faces, crops: Crops) -> NDArray[np.intp]:
    """The rows of the faces that are large and sure enough."""
    return np.flatnonzero((_shorter_sides(faces) >= crops.min_size) & (faces.scores >= crops.min_score))


def chosen(faces: Faces, rows: NDArray[np.intp], choose: Choose, image: Image) -> int:
    """The row of the face to take, among some rows; the better score decides between equals.

    Raises:
        InputError: there are none to choose among.
    """
    if not len(rows):
        raise InputError("rows must name at least one face")
    boxes = faces.boxes[rows].astype(np.float64)
    if choose == "largest":
        value = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    else:
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        value = -((centres - np.array(image.shape[1::-1]) / 2) ** 2).sum(axis=1)
    return int(rows[np.lexsort((-faces.scores[rows], -value))[0]])


def _outcome(photo: Row, image: Image, faces: Faces, crops: Crops) -> Outcome:
    if not len(faces):
        note = Note(
            photo.id, photo.identity, "no face", False, "no face was found", 0, picture=_picture(image, faces, -1)
        )
        return Outcome(photo.id, None, note)
    sizes, good = _shorter_sides(faces), usable(faces, crops)
    face = chosen(faces, good if len(good) else np.arange(len(faces)), crops.choose, image)
    if not len(good):
        problem: Problem = "low score" if sizes[face] >= crops.min_size else "too small"
        detail = (
            f"the {crops.choose} face is {sizes[face]:.0f} pixels across, with a score of {faces.scores[face]:.3f}; "
            f"asked for are {crops.min_size:g} pixels and {crops.min_score:g}"
        )
        return Outcome(photo.id, None, _note(photo, problem, detail, image, faces, face))
    try:
        aligned = align(image, faces.landmarks[face], crops.height, crops.width, crops.template)
    except InputError as error:
        return Outcome(photo.id, None, _note(photo, "cannot be aligned", str(error), image, faces, face))
    score = float(faces.scores[face])
    row = Row(photo.id, _encoded(aligned.pixels, crops.encoding), photo.identity, aligned.landmarks, score)
    if len(faces) == 1:
        return Outcome(photo.id, row, None)
    detail = f"{len(faces)} faces, {len(good)} of them large and sure enough; the {crops.choose} of those was taken"
    note = _note(photo, "several faces", detail, image, faces, face)
    return Outcome(photo.id, row, replace(note, kept=True, residual_px=aligned.residual_px))


def _note(photo: Row, problem: Problem, detail: str, image: Image, faces: Faces, face: int) -> Note:
    """A note on a photo with faces, of which one was considered."""
    picture = _picture(image, faces, face)
    score, size = float(faces.scores[face]), float(_shorter_sides(faces)[face])
    return Note(photo.id, photo.identity, problem, False, detail, len(faces), score, size, picture=picture)


def _shorter_sides(faces: Faces) -> NDArray[np.float32]:
    sides: NDArray[np.float32] = (faces.boxes[:, 2:] - faces.boxes[:, :2]).min(axis=1)
    return sides


def _picture(image: Image, faces: Faces, face: int) -> bytes:
    """The photo scaled down, the considered face in a green frame and the others in red ones."""
    cv2 = extras.load("cv2", "faces", "preparing faces")
    height, width = image.shape[:2]
    scale = min(1.0, _PICTURE_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    for row in [*(row for row in range(len(faces)) if row != face), *([face] if face >= 0 else [])]:
        left, top, right, bottom = (round(float(edge) * scale) for edge in faces.boxes[row])
        cv2.rectangle(small, (left, top), (right, bottom), _GREEN if row == face else _RED, 2)
    return _encoded(np.asarray(small, dtype=np.uint8), "jpeg", 80)


def _encoded(pixels: Image, encoding: str, quality: int = _JPEG_QUALITY) -> bytes:
    cv2 = extras.load("cv2", "faces", "preparing faces")
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if encoding == "jpeg" else []
    data: bytes = cv2.imencode(f".{encoding}", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)[1].tobytes()
    return data
