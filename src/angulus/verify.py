"""Are two images of the same person? By the threshold that was calibrated for the model, or by a given one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from angulus import checks
from angulus.artifact import Model
from angulus.embedding import check_size, pixels_of
from angulus.protocols.calibration import Rate


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


def verify(model: Model, first: Path, second: Path, *, threshold: float | None = None, prior: float = 0.5) -> Decision:
    """Decide whether two images show the same person: cos(x_a, x_b) >= threshold.

    Args:
        model: as `angulus.load` gives it; its calibration decides.
        first, second: image files, aligned and as large as the model's contract says.
        threshold: in [-1, 1], in place of the calibrated one.
        prior: in (0, 1), the share of the pairs compared that are of one person, for the probability.

    Raises:
        checks.InputError: a model without calibration and no threshold, a calibration for another flip rule, an image
            that cannot be read or is of another size, a feature of length zero.
    """
    checks.number("prior", prior, low=0, high=1, open_low=True, open_high=True)
    limit = _limit(model, threshold)
    score, norms = _compare(model, first, second)
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
            f"the calibration is for {model.calibration.model}, and these features would be {model.name} (the last "
            "word is the flip rule); calibrate embeddings of that rule, or ask for the calibrated one with --flip"
        )
    return model.calibration.threshold.value


def _compare(model: Model, first: Path, second: Path) -> tuple[float, tuple[float, float]]:
    """The cosine, in float64, and both norms."""
    pixels = torch.stack([_pixels(path, model) for path in (first, second)])
    features = torch.cat([model.embed(each[None]) for each in pixels]).cpu().numpy().astype(np.float64)
    norms = np.linalg.norm(features, axis=1)
    for path, norm in zip((first, second), norms, strict=True):
        if not 0 < norm < np.inf:
            raise checks.InputError(f"the feature of {path} must have a length > 0, or it has no angle; got {norm:g}")
    score = float(np.clip(features[0] @ features[1] / norms[0] / norms[1], -1, 1))
    return score, (float(norms[0]), float(norms[1]))


def _pixels(path: Path, model: Model) -> torch.Tensor:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise checks.InputError(f"the image {path} cannot be read: {error.strerror}") from error
    pixels = pixels_of(data, str(path), model.config.in_channels)
    check_size(pixels, model.config, str(path))
    return pixels
