"""Are two images of the same person? By the threshold that was calibrated for the model, or by a given one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from angulus import checks
from angulus.artifact import Config, Model
from angulus.data.rows import Row
from angulus.fingerprint import described
from angulus.model_images import check_size, pixels_of
from angulus.protocols.calibration import Rate

if TYPE_CHECKING:  # it needs OpenCV, and only photos need it
    from angulus.data.detect import Detector


@dataclass(frozen=True)
class Decision:
    """What was decided of two images, and how sure that is.

    Attributes:
        same: whether the score is at or above the threshold.
        score: the cosine of the two features, in [-1, 1].
        threshold: the calibrated one, or the one that was given.
        norms: of the two features: low ones are of images that say little.
        fmr: how often two people pass the calibrated threshold; None for a threshold that was given.
        impostors: pairs that the FMR was measured on; None as before.
        probability: that it is the same person, at the prior; None without a calibration.
    """

    same: bool
    score: float
    threshold: float
    norms: tuple[float, float]
    fmr: Rate | None = None
    impostors: int | None = None
    probability: float | None = None


def verify(
    model: Model,
    first: Path,
    second: Path,
    *,
    threshold: float | None = None,
    prior: float = 0.5,
    detector: str | Detector | None = None,
) -> Decision:
    """Decide whether two images show the same person: cos(x_a, x_b) >= threshold.

    Args:
        model: as `angulus.load` gives it; its calibration decides.
        first, second: image files, aligned and as large as the model's contract says; with a `detector`, photos.
        threshold: in [-1, 1], in place of the calibrated one.
        prior: in (0, 1), the share of the pairs compared that are of one person, for the probability.
        detector: finds the face on each photo, of which the largest is aligned: a word as `detect.make` takes, or one
            of your own.

    Raises:
        checks.InputError: a model without calibration and no threshold, a calibration for another flip rule, an image
            that cannot be read or is of another size, a photo without a face, a feature of length zero.
    """
    checks.number("prior", prior, low=0, high=1, open_low=True, open_high=True)
    limit = _limit(model, threshold)
    read = _reader(model.config, detector)
    score, norms = _compare(model, [read(first), read(second)], first, second)
    fits = model.calibration is not None and model.calibration.model == model.name
    calibration = model.calibration if fits else None
    probability = None if calibration is None else float(calibration.probability([score], prior)[0])
    if calibration is None or threshold is not None:
        return Decision(score >= limit, score, limit, norms, probability=probability)
    return Decision(score >= limit, score, limit, norms, calibration.fmr, calibration.impostors, probability)


def _limit(model: Model, threshold: float | None) -> float:
    """The threshold that decides."""
    if threshold is not None:
        return checks.number("threshold", threshold, low=-1, high=1)
    if model.calibration is None:
        raise checks.InputError(
            "this model is not calibrated, so no threshold of its scores is known; run angulus calibrate with "
            "--model, or give a threshold of your own with --threshold"
        )
    if model.calibration.model != model.name:
        raise checks.InputError(
            f"the calibration is for {described(model.calibration.model)}, and these features would be of "
            f"{described(model.name)}; calibrate embeddings of that rule, or ask for the calibrated one with --flip"
        )
    return model.calibration.threshold.value


def _reader(config: Config, detector: str | Detector | None) -> Callable[[Path], torch.Tensor]:
    """What reads an image file as uint8 [channels, height, width] of the model's size."""
    crop = None if detector is None else _cropper(config, detector)

    def read(path: Path) -> torch.Tensor:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise checks.InputError(f"the image {path} cannot be read: {error.strerror}; give an image file") from error
        pixels = pixels_of(data if crop is None else crop(data, path), str(path), config.in_channels)
        check_size(pixels, config, str(path))
        return pixels

    return read


def _cropper(config: Config, detector: str | Detector) -> Callable[[bytes, Path], bytes]:
    """What cuts the largest face out of a photo and aligns it, as `angulus prepare faces` does."""
    from angulus.data import detect, photos

    template = config.contract.template
    if template is None:
        raise checks.InputError(
            "photos can be aligned for a model whose contract names a template, and this one's does not; give images "
            "that are as its config.json says, without --align"
        )
    found = detect.make(detector) if isinstance(detector, str) else detector
    height, width = config.image_size
    crops = photos.Crops(height, width, template=template)

    def crop(photo: bytes, path: Path) -> bytes:
        if not photo:
            raise checks.InputError(f"{path} must be an image; it is empty")
        (outcome,) = photos.process([Row(str(path), photo, "")], found, crops)
        if outcome.row is None:
            said = "" if outcome.note is None else f" ({outcome.note.detail})"
            raise checks.InputError(f"{path} must show a face that can be used; it does not{said}")
        return outcome.row.image

    return crop


def _compare(model: Model, pixels: list[torch.Tensor], first: Path, second: Path) -> tuple[float, tuple[float, float]]:
    """The cosine, in float64, and both norms."""
    features = torch.cat([model.embed(each[None]) for each in pixels]).cpu().numpy().astype(np.float64)
    norms = np.linalg.norm(features, axis=1)
    for path, norm in zip((first, second), norms, strict=True):
        if not 0 < norm < np.inf:
            raise checks.InputError(f"the feature of {path} must have a length > 0, or it has no angle; got {norm:g}")
    score = float(np.clip(features[0] @ features[1] / norms[0] / norms[1], -1, 1))
    return score, (float(norms[0]), float(norms[1]))
