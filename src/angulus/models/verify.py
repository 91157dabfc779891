"""Decide whether two images show the same person, by the model's calibrated threshold or one of your own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from angulus.core import checks
from angulus.core.checks import InputError
from angulus.core.contract import describe_model
from angulus.evaluation.protocols.calibration import Rate
from angulus.models.artifact import Model, check_comparable
from angulus.models.photos import ChosenFace, choose_faces, read_photo

if TYPE_CHECKING:
    from angulus.data.faces.detector import Detector


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
    stored_by: Model | None = None,
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
        stored_by: the model that embeds `second`, as a gallery holds it; `model` must be compatible with it, and the
            calibration of the pair decides. None: `model` embeds both.

    Raises:
        checks.InputError: models that are not compatible, a model without calibration and no threshold, a calibration
            for another flip rule, an image that cannot be read or is of another size, a photo without a face, a feature
            of length zero.
    """
    checks.number("prior", prior, low=0, high=1, open_low=True, open_high=True)
    stored = model if stored_by is None else stored_by
    check_comparable(model, model.name, stored.name, "verify")
    _limit(model, threshold, stored)  # before any image is read
    paths, models = (first, second), (model, stored)
    choices = choose_faces(model.config, detector, faces)
    if stored is not model:
        choices[1] = choose_faces(stored.config, detector, faces)[1]
    images = [read_photo(path, each.config, choice) for path, each, choice in zip(paths, models, choices, strict=True)]
    if stored is model:
        features = model.embed(torch.stack(images))
    else:
        features = torch.cat([each.embed(image[None]) for each, image in zip(models, images, strict=True)])
    names = (str(first), str(second))
    decided = decide(model, features.cpu().numpy(), names, threshold=threshold, prior=prior, stored_by=stored)
    taken = tuple(choice.chosen for choice in choices if choice is not None and choice.chosen is not None)
    warnings = [choice.warning(path) for path, choice in zip(paths, choices, strict=True) if choice is not None]
    issued = (*(warning for warning in warnings if warning), *decided.warnings)
    for warning in issued:
        checks.warn(warning)
    return replace(decided, faces=taken, warnings=issued)


def decide(
    model: Model,
    features: NDArray[np.float32],
    names: tuple[str, str] = ("the first image", "the second image"),
    *,
    threshold: float | None = None,
    prior: float = 0.5,
    stored_by: Model | None = None,
) -> Decision:
    """The decision on two images by their features [2, d], as `verify` makes it; errors call them by `names`."""
    stored = model if stored_by is None else stored_by
    limit = _limit(model, threshold, stored)
    score, norms = _compare(features, names)
    calibration = model.calibration_of(stored.name)
    warnings = () if calibration is None or not calibration.warning else (calibration.warning,)
    probability = None if calibration is None else float(calibration.probability([score], prior)[0])
    decided = Decision(score >= limit, score, limit, norms, probability=probability, warnings=warnings)
    if calibration is None or threshold is not None:
        return decided
    rates = {name: getattr(calibration, name) for name in ("fmr", "impostors", "fnmr", "genuine")}
    return replace(decided, **rates)


def _limit(model: Model, threshold: float | None, stored: Model) -> float:
    """The threshold to decide by."""
    if threshold is not None:
        return checks.number("threshold", threshold, low=-1, high=1)
    if stored.name != model.name:
        calibration = model.calibration_of(stored.name)
        if calibration is None:
            way = "run angulus calibrate with --gallery and --model, or give a threshold of your own with --threshold"
            fault = f"queries of {describe_model(model.name)} on vectors of {describe_model(stored.name)}"
            raise InputError(f"no threshold is known for {fault}: they are not calibrated; {way}")
        return calibration.threshold.value
    calibration = model.calibration or next((each for each in model.pairs.values() if each.gallery is None), None)
    if calibration is None:
        way = "run angulus calibrate with --model, or give a threshold of your own with --threshold"
        raise InputError(f"this model is not calibrated, so no threshold of its scores is known; {way}")
    if calibration.model != model.name:
        fault = f"the calibration is for {describe_model(calibration.model)}"
        way = "calibrate embeddings of that rule, or give the calibrated one with --flip"
        raise InputError(f"{fault}, and these features are of {describe_model(model.name)}; {way}")
    return calibration.threshold.value


def _compare(given: NDArray[np.float32], names: tuple[str, str]) -> tuple[float, tuple[float, float]]:
    """The cosine, in float64, and both norms."""
    features = given.astype(np.float64)
    norms = np.linalg.norm(features, axis=1)
    for name, norm in zip(names, norms, strict=True):
        if not 0 < norm < np.inf:
            raise InputError(f"the feature of {name} must have a length > 0, or it has no angle; got {norm:g}")
    score = float(np.clip(features[0] @ features[1] / norms[0] / norms[1], -1, 1))
    return score, (float(norms[0]), float(norms[1]))
