"""From a photo to one aligned face: decode, detect, choose, judge, and cut out the crop.

Alignment is the similarity transform that takes five landmarks to a template. Source: S. Umeyama, "Least-Squares
Estimation of Transformation Parameters Between Two Point Patterns", IEEE TPAMI 13(4), 1991. In the plane, with points
as complex numbers, its solution is the linear regression w ≈ a z + b.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from angulus.core import checks, extras
from angulus.core.checks import InputError
from angulus.core.templates import template_points
from angulus.data.decode import decode
from angulus.data.faces.detector import Detector, Faces, Image, areas
from angulus.data.records import Row

Points = NDArray[np.float64]  # [..., K, 2], x and y; a pixel's centre is at whole numbers
Choose = Literal["largest", "central"]
Problem = Literal[
    "left out", "cannot be read", "no face", "too small", "low score", "cannot be aligned", "several faces", "one photo"
]

_PICTURE_SIDE = 240  # of a report's picture, in pixels
_JPEG_QUALITY = 95
_GREEN, _RED = (0, 200, 0), (255, 60, 60)


@dataclass(frozen=True)
class Crops:
    """Which face to take from a photo, and the crop to make of it.

    Args:
        height, width: of the crop, in pixels.
        choose: the face with the largest box, or the one whose centre is nearest to the photo's.
        min_score: the detector's lowest confidence, in [0, 1].
        min_size: the smallest width and height of the face's box, in pixels of the photo, >= 0.
        encoding: of the crop; JPEG of quality 95, or PNG, which is lossless.
        template: one of `angulus.core.templates.TEMPLATES`.
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
    """What the report says about a photo."""

    id: str  # of the photo in its source
    identity: str  # "" if unknown
    problem: Problem
    kept: bool  # whether there is a crop in spite of the problem
    detail: str  # a sentence
    faces: int | None = None  # found by the detector
    score: float | None = None  # of the chosen face
    size_px: float | None = None  # the shorter side of its box
    residual_px: float | None = None  # `AlignedFace.residual_px`
    picture: bytes = b""  # a small JPEG of the photo, the faces framed; empty if the photo cannot be read
    source: int | None = None  # `Row.checksum` of the photo; None for what is left out


@dataclass(frozen=True, eq=False)
class ProcessedPhoto:
    """The result for one photo: a row, a note, or both; `source` is the photo's own `Row.checksum`."""

    row: Row | None
    note: Note | None
    source: int | None = None


@dataclass(frozen=True, eq=False)
class AlignedFace:
    """A face's crop; `residual_px`, the landmarks' RMS distance from the template, is large for profiles."""

    pixels: NDArray[np.uint8]  # [height, width, 3]
    landmarks: NDArray[np.float32]  # [5, 2], in pixels of the crop
    residual_px: float  # in pixels of the crop


def process(photos: Sequence[Row], detector: Detector, crops: Crops) -> list[ProcessedPhoto]:
    """Turn photos into crops and notes, in order.

    The detector sees one photo at a time, so that the result for a photo depends on nothing else.
    """
    results = []
    for photo in photos:
        row, note = _process(photo, detector, crops)
        source = photo.checksum()
        results.append(ProcessedPhoto(row, note and replace(note, source=source), source))
    return results


def _process(photo: Row, detector: Detector, crops: Crops) -> tuple[Row | None, Note | None]:
    try:
        image = decode(photo.image, "the file")
    except InputError as error:
        return None, Note(photo.id, photo.identity, "cannot be read", False, str(error))
    faces = detector.detect([image])[0]
    if not len(faces):
        picture = _picture(image, faces, -1)
        return None, Note(photo.id, photo.identity, "no face", False, "no face was found", 0, picture=picture)
    sizes, usable = _shorter_sides(faces), usable_faces(faces, crops)
    face = choose_face(faces, usable if len(usable) else np.arange(len(faces)), crops.choose, image)
    score, size = float(faces.scores[face]), float(sizes[face])

    def note(problem: Problem, detail: str, kept: bool = False, residual_px: float | None = None) -> Note:
        seen = len(faces), score, size, residual_px, _picture(image, faces, face)
        return Note(photo.id, photo.identity, problem, kept, detail, *seen)

    if not len(usable):
        seen = f"the {crops.choose} face is {size:.1f} pixels across, with a score of {score:.3f}"
        detail = f"{seen}; the least are {crops.min_size:g} pixels and {crops.min_score:g}"
        return None, note("low score" if sizes[face] >= crops.min_size else "too small", detail)
    try:
        aligned = align(image, faces.landmarks[face], crops.height, crops.width, crops.template)
    except InputError as error:
        return None, note("cannot be aligned", str(error))
    row = Row(photo.id, _encode(aligned.pixels, crops.encoding), photo.identity, aligned.landmarks, score)
    if len(faces) == 1:
        return row, None
    detail = f"{len(faces)} faces, {len(usable)} of them usable by size and score"
    detail = f"{detail}; the {crops.choose} of these was taken"
    return row, note("several faces", detail, True, aligned.residual_px)


def usable_faces(faces: Faces, crops: Crops) -> NDArray[np.intp]:
    """The rows of the faces that are large enough and have a high enough score."""
    return np.flatnonzero((_shorter_sides(faces) >= crops.min_size) & (faces.scores >= crops.min_score))


def choose_face(faces: Faces, rows: NDArray[np.intp], choose: Choose, image: Image) -> int:
    """The row of the face to take, out of `rows`; between equals the better score decides."""
    if not len(rows):
        raise InputError("rows must name at least one face")
    boxes = faces.boxes[rows].astype(np.float64)
    if choose == "largest":
        value = areas(boxes)
    else:
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        value = -((centres - np.array(image.shape[1::-1]) / 2) ** 2).sum(axis=1)
    return int(rows[np.lexsort((-faces.scores[rows], -value))[0]])


def align(
    image: NDArray[np.uint8], landmarks: ArrayLike, height: int = 112, width: int = 112, template: str = "five_points"
) -> AlignedFace:
    """Cut a face out of RGB [H, W, 3], upright and at the template's place and size.

    `landmarks` are [5, 2], x and y in its pixels: eyes, nose, mouth corners, the image's left first.
    """
    target = template_points(template, height, width)
    matrix = similarity(landmarks, target)
    moved = transform(landmarks, matrix)
    return AlignedFace(warp(image, matrix, height, width), moved.astype(np.float32), float(residual(moved, target)))


def similarity(source: ArrayLike, target: ArrayLike) -> NDArray[np.float64]:
    """The rotation, scale and shift that move K points closest to K others in the sum of squares; never a reflection.

    a = Σ conj(z − z̄)(w − w̄) / Σ |z − z̄|², b = w̄ − a z̄, as the matrix [[Re a, −Im a, Re b], [Im a, Re a, Im b]].

    Shapes: source [..., K, 2], K >= 2; target the same, or [K, 2] for all -> [..., 2, 3].

    >>> similarity([[0, 0], [1, 0]], [[5, 5], [5, 7]]).tolist()
    [[0.0, -2.0, 5.0], [2.0, 0.0, 5.0]]
    """
    z, w = _complex("source", source), _complex("target", target)
    if z.shape[-1] != w.shape[-1] or z.shape[-1] < 2:
        rule = "source and target must hold the same number of points, two or more"
        raise InputError(f"{rule}; got {z.shape[-1]} and {w.shape[-1]}")
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
    """Move points [..., K, 2] by matrices [..., 2, 3]."""
    turned = np.asarray(points, dtype=np.float64) @ np.swapaxes(matrix[..., :2], -1, -2)
    return np.asarray(turned + matrix[..., None, :, 2])


def residual(moved: ArrayLike, target: ArrayLike) -> NDArray[np.float64]:
    """The root mean square distance between two sets of K points, [..., K, 2] twice -> [...]."""
    offsets = np.asarray(moved, dtype=np.float64) - np.asarray(target, dtype=np.float64)
    return np.asarray(np.sqrt((offsets**2).sum(-1).mean(-1)))


def warp(image: NDArray[np.uint8], matrix: NDArray[np.float64], height: int, width: int) -> NDArray[np.uint8]:
    """Transform an image [H, W, 3] by a matrix [2, 3] into a crop, bilinearly; black beyond the image's edge."""
    cv2 = extras.load("cv2", "faces", "aligning faces")
    edge = {"borderMode": cv2.BORDER_CONSTANT, "borderValue": 0}
    return np.asarray(cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, **edge), dtype=np.uint8)


def _complex(name: str, points: ArrayLike) -> NDArray[np.complex128]:
    values = np.asarray(points, dtype=np.float64)
    if values.ndim < 2 or values.shape[-1] != 2:
        raise InputError(f"{name} must have shape [..., points, 2]; got {list(values.shape)}")
    if not np.isfinite(values).all():
        raise InputError(f"{name} must be finite; got NaN or Inf")
    return values[..., 0] + 1j * values[..., 1]


def _shorter_sides(faces: Faces) -> NDArray[np.float32]:
    return np.asarray((faces.boxes[:, 2:] - faces.boxes[:, :2]).min(axis=1))


def _picture(image: Image, faces: Faces, face: int) -> bytes:
    """The photo scaled down, the considered face in a green frame and the others in red ones."""
    cv2 = extras.load("cv2", "faces", "preparing faces")
    height, width = image.shape[:2]
    scale = min(1.0, _PICTURE_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    for row in sorted(range(len(faces)), key=lambda row: row == face):  # the considered face last, on top
        left, top, right, bottom = (round(float(edge) * scale) for edge in faces.boxes[row])
        cv2.rectangle(small, (left, top), (right, bottom), _GREEN if row == face else _RED, 2)
    return _encode(np.asarray(small, dtype=np.uint8), "jpeg", 80)


def _encode(pixels: Image, encoding: str, quality: int = _JPEG_QUALITY) -> bytes:
    cv2 = extras.load("cv2", "faces", "preparing faces")
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if encoding == "jpeg" else []
    data: bytes = cv2.imencode(f".{encoding}", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)[1].tobytes()
    return data
