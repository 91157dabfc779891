"""Decide whether two images show the same person, by the model's calibrated threshold or one of your own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from angulus.core import checks, extras
from angulus.core.contract import describe_model
from angulus.data.records import Row
from angulus.evaluation.protocols.calibration import Rate
from angulus.models.artifact import Config, Model
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


@dataclass(frozen=True)
class Decision:
    """Whether two images show the same person, and how sure that is.

    Attributes:
        same: whether the score is at or above the threshold.
        score: the cosine of the two features, in [-1, 1].
        threshold: the calibrated one, or your own.
        norms: of the two features; images that say little have low norms.
        fmr, impostors: how often two people pass the calibrated threshold, and over how many pairs that was measured;
            None for a threshold of your own.
        fnmr, genuine: how often two images of one person fail it, and over how many pairs; None likewise.
        probability: that it is the same person, at the prior; None without a calibration.
        faces: the face compared on each photo; empty if nothing was aligned.
        warnings: what makes the answer doubtful: photos of several faces, a model that hardly tells people apart.
    """

    same: bool
    score: float
    threshold: float
    norms: tuple[float, float]
    fmr: Rate | None = None
    impostors: int | None = None
    probability: float | None = None
    fnmr: Rate | None = None
    genuine: int | None = None
    faces: tuple[ChosenFace, ...] = ()
    warnings: tuple[str, ...] = ()


def verify(
    model: Model,
    first: Path,
    second: Path,
    *,
    threshold: float | None = None,
    prior: float = 0.5,
    detector: str | Detector | None = None,
    faces: Sequence[int | None] = (),
) -> Decision:
    """Decide whether two images show the same person: cos(x_a, x_b) >= threshold.

    Args:
        model: as `angulus.load` gives it; its calibration decides.
        first, second: image files, aligned and of the size that the model's contract states; with a `detector`, photos.
        threshold: in [-1, 1], replaces the calibrated one.
        prior: in (0, 1), the share of compared pairs that are of one person, for the probability.
        detector: finds the faces on each photo, one of which is aligned: a name for `detect.make`, or your own.
        faces: which face of `first` and of `second` to compare, counted from the left, from 1; None: the largest that
            is large and sure enough, with a warning if there are others.

    Raises:
        checks.InputError: a model without calibration and no threshold, a calibration for another flip rule, an image
            that cannot be read or is of another size, a photo without a face, a feature of length zero.
    """
    checks.number("prior", prior, low=0, high=1, open_low=True, open_high=True)
    limit = _limit(model, threshold)
    paths = (first, second)
    fits = model.calibration is not None and model.calibration.model == model.name
    calibration = model.calibration if fits else None
    choices = _choices(model.config, detector, faces)
    images = [_read(path, model.config, choice) for path, choice in zip(paths, choices, strict=True)]
    score, norms = _compare(model, images, first, second)
    taken = tuple(choice.chosen for choice in choices if choice is not None and choice.chosen is not None)
    warnings = [choice.warning(path) for path, choice in zip(paths, choices, strict=True) if choice is not None]
    warnings.append(None if calibration is None else calibration.warning)
    issued = tuple(warning for warning in warnings if warning)
    for warning in issued:
        checks.warn(warning)
    probability = None if calibration is None else float(calibration.probability([score], prior)[0])
    decided = Decision(score >= limit, score, limit, norms, probability=probability, faces=taken, warnings=issued)
    if calibration is None or threshold is not None:
        return decided
    return replace(
        decided,
        fmr=calibration.fmr,
        impostors=calibration.impostors,
        fnmr=calibration.fnmr,
        genuine=calibration.genuine,
    )


def _limit(model: Model, threshold: float | None) -> float:
    """The threshold to decide by."""
    if threshold is not None:
        return checks.number("threshold", threshold, low=-1, high=1)
    if model.calibration is None:
        raise checks.InputError(
            "this model is not calibrated, so no threshold of its scores is known; run angulus calibrate with "
            "--model, or give a threshold of your own with --threshold"
        )
    if model.calibration.model != model.name:
        raise checks.InputError(
            f"the calibration is for {describe_model(model.calibration.model)}, and these features are of "
            f"{describe_model(model.name)}; calibrate embeddings of that rule, or give the calibrated one with --flip"
        )
    return model.calibration.threshold.value


def _read(path: Path, config: Config, choice: _Choice | None) -> torch.Tensor:
    """An image file as uint8 [channels, height, width] of the model's size."""
    data = read_image(path)
    return pixels_of(data if choice is None else _crop(data, path, choice), config, str(path))


def _choices(config: Config, detector: str | Detector | None, faces: Sequence[int | None]) -> list[_Choice | None]:
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
    from angulus.data.faces.detector import make_detector

    finder = make_detector(detector) if isinstance(detector, str) else detector
    height, width = config.image_size
    crops = Crops(height, width, template=config.contract.template)
    return [_Choice(finder, crops, number) for number in [*faces, None, None][:2]]


class _Choice:
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

    def warning(self, path: Path) -> str | None:
        """The warning for a photo on which another face could have been meant."""
        if self.chosen is None or self.chosen.total == 1 or self.number is not None:
            return None
        left, top, right, bottom = self.chosen.box
        return (
            f"{path} shows {self.chosen.total} faces; number {self.chosen.number} from the left was taken, the "
            f"{self.crops.choose} that can be used (x {left:.0f} to {right:.0f}, y {top:.0f} to {bottom:.0f}); choose "
            "another with --face"
        )


def _crop(photo: bytes, path: Path, choice: _Choice) -> bytes:
    """The chosen face of a photo, cut out and aligned as `angulus prepare faces` does."""
    from angulus.data.faces import align

    if not photo:
        raise checks.InputError(f"{path} must be an image; it is empty")
    try:
        (outcome,) = align.process([Row(str(path), photo, "")], choice, choice.crops)
    except checks.InputError as error:
        raise checks.InputError(f"{path}: {error}") from error
    if outcome.row is None:
        which = "a face" if choice.number is None else f"a face number {choice.number} from the left"
        detail = "" if outcome.note is None else f" ({outcome.note.detail})"
        raise checks.InputError(f"{path} must show {which} that can be used; it does not{detail}")
    return outcome.row.image


def _compare(model: Model, pixels: list[torch.Tensor], first: Path, second: Path) -> tuple[float, tuple[float, float]]:
    """The cosine, in float64, and both norms."""
    features = torch.cat([model.embed(image[None]) for image in pixels]).cpu().numpy().astype(np.float64)
    norms = np.linalg.norm(features, axis=1)
    for path, norm in zip((first, second), norms, strict=True):
        if not 0 < norm < np.inf:
            raise checks.InputError(f"the feature of {path} must have a length > 0, or it has no angle; got {norm:g}")
    score = float(np.clip(features[0] @ features[1] / norms[0] / norms[1], -1, 1))
    return score, (float(norms[0]), float(norms[1]))
