"""Photos for a model: the face that is meant, found, chosen, cut out and aligned; crops are taken as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from angulus.core import checks, extras
from angulus.data import decode
from angulus.data.records import Row
from angulus.models.artifact import Config
from angulus.models.inputs import pixels_of, read_image

if TYPE_CHECKING:  # it needs OpenCV, and only photos need it
    from angulus.data.faces.align import Crops
    from angulus.data.faces.detector import Detector, Faces, Image


@dataclass(frozen=True)
class ChosenFace:
    """The face that was compared, of those on a photo.

    Attributes:
        total: number of faces that the detector found.
        number: position of this one from the left, from 1.
        box: left, top, right, bottom in pixels of the photo.
    """

    total: int
    number: int
    box: tuple[float, float, float, float]


def read_photo(path: Path, config: Config, choice: FaceChoice | None) -> torch.Tensor:
    """An image file as uint8 [channels, height, width] of the model's size."""
    return photo_pixels(read_image(path), str(path), config, choice)


def photo_pixels(data: bytes, what: str, config: Config, choice: FaceChoice | None) -> torch.Tensor:
    """An encoded image as uint8 [channels, height, width] of the model's size; errors call it `what`."""
    return pixels_of(data if choice is None else _crop(data, what, choice), config, what)


def choose_faces(
    config: Config, detector: str | Detector | None, faces: Sequence[int | None]
) -> list[FaceChoice | None]:
    """What picks the face on the first and on the second photo; None if nothing is aligned."""
    if len(faces) > 2:
        raise checks.InputError(f"faces must be at most two, one per photo; got {len(faces)}")
    for number in faces:
        if number is not None:
            checks.integer("the number of a face", number, low=1)
    if detector is None:
        if faces:
            raise checks.InputError("a face is chosen on photos that are aligned; choose none, or give a detector")
        return [None, None]
    if config.contract.template is None:
        raise checks.InputError(
            "photos can be aligned for a model whose contract names a template, and this one's does not; give images "
            "that are as its config.json says, without --align"
        )
    extras.require("faces", "aligning photos", "cv2")
    from angulus.data.faces.align import Crops
    from angulus.data.faces.registry import make_detector

    finder = make_detector(detector) if isinstance(detector, str) else detector
    height, width = config.image_size
    crops = Crops(height, width, template=config.contract.template)
    return [FaceChoice(finder, crops, number) for number in [*faces, None, None][:2]]


class FaceChoice:
    """A detector that returns one of the faces that another detector finds, and remembers which.

    Args:
        detector: finds all faces.
        crops: which face to choose, and how to cut it out.
        number: of the face, counted from the left, from 1; None: as `crops` says.
    """

    def __init__(self, detector: Detector, crops: Crops, number: int | None) -> None:
        self.detector, self.crops, self.number = detector, crops, number
        self.chosen: ChosenFace | None = None

    def detect(self, images: Sequence[Image]) -> list[Faces]:
        """Of one image, one face or none; of a photo that could not be read, nothing."""
        from angulus.data.faces.align import choose_face, usable_faces

        if not images:
            return []
        (faces,) = self.detector.detect(images)
        if not len(faces):
            return [faces]
        order = np.argsort(faces.boxes[:, [0, 2]].sum(axis=1), kind="stable")
        if self.number is None:
            good = usable_faces(faces, self.crops)
            row = choose_face(faces, good if len(good) else order, self.crops.choose, images[0])
        else:
            checks.integer("the number of a face", self.number, high=len(faces), hint="they are counted from the left")
            row = int(order[self.number - 1])
        number = int(np.flatnonzero(order == row)[0]) + 1
        left, top, right, bottom = map(float, faces.boxes[row])
        self.chosen = ChosenFace(len(faces), number, (left, top, right, bottom))
        return [replace(faces, boxes=faces.boxes[[row]], landmarks=faces.landmarks[[row]], scores=faces.scores[[row]])]

    def warning(self, path: Path | str) -> str | None:
        """The warning for a photo on which another face could have been meant."""
        if self.chosen is None or self.chosen.total == 1 or self.number is not None:
            return None
        left, top, right, bottom = self.chosen.box
        return (
            f"{path} shows {self.chosen.total} faces; number {self.chosen.number} from the left was taken, the "
            f"{self.crops.choose} that can be used (x {left:.0f} to {right:.0f}, y {top:.0f} to {bottom:.0f}); choose "
            "another with --face"
        )


def _crop(photo: bytes, path: str, choice: FaceChoice) -> bytes:
    """The chosen face of a photo, cut out and aligned as `angulus prepare faces` does."""
    from angulus.data.faces import align

    if not photo:
        raise checks.InputError(f"{path} must be an image; it is empty")
    try:
        (outcome,) = align.process([Row(path, photo, "")], choice, choice.crops)
    except checks.InputError as error:
        raise checks.InputError(f"{path}: {error}") from error
    if outcome.row is None:
        which = "a face" if choice.number is None else f"a face number {choice.number} from the left"
        detail = "" if outcome.note is None else f" ({outcome.note.detail})"
        raise checks.InputError(f"{path} must show {which} that can be used; it does not{detail}")
    return outcome.row.image


def read_crop_or_photo(
    path: Path, config: Config, detector: str | Detector | None = None, face: int | None = None
) -> tuple[torch.Tensor, FaceChoice | None]:
    """The pixels of a crop as it is; of a photo, the face that is meant, aligned, if the contract names a template.

    Args:
        path: an image file; one of the model's size is a crop, unless a detector or a face is given.
        config: of the model.
        detector: as `choose_faces` takes it; None: mtcnn.
        face: which one, counted from the left, from 1; None: the largest.
    """
    plain = detector is None and face is None
    if plain and (config.contract.template is None or is_crop(read_image(path), config, str(path))):
        return read_photo(path, config, None), None
    choice = choose_faces(config, detector or "mtcnn", [face])[0]
    return read_photo(path, config, choice), choice


def is_crop(data: bytes, config: Config, what: str) -> bool:
    """Whether an encoded image has the model's size."""
    header = decode.header(data, what)
    return (header.height, header.width) == config.image_size
