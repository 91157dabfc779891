"""What a trial does: the norms and the separations of all images, and their paired differences with intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from angulus.core.checks import InputError
from angulus.doctor.changes import ImageChange, features
from angulus.doctor.sample import ImageSample
from angulus.evaluation.metrics.intervals import Interval, Units, bootstrap
from angulus.models.artifact import Model

Floats = NDArray[np.float64]
_BATCH = 64


def has_pairs(identities: NDArray[np.str_]) -> bool:
    """Whether there are genuine and impostor pairs among known identities."""
    names, counts = np.unique(identities[identities != ""], return_counts=True)
    return len(names) > 1 and bool((counts > 1).any())


def separations(unit: Floats, identities: NDArray[np.str_]) -> Floats:
    """How far each image's genuine scores lie above its impostor scores, [N]; NaN for one without a genuine score.

        d_i = (mean_{j of y_i, j ≠ i} s_ij − mean_{j not of y_i} s_ij) / σ,   σ² = the variance of all impostor scores

    It does not change when scores are shifted or stretched; 0 where all impostor scores are the same, so that nothing
    is told apart. Images without identity take no part.

    Args:
        unit: [N, d] features of unit length.
        identities: [N]; "" where not known.
    """
    scores = unit @ unit.T
    known = identities != ""
    both = known[:, None] & known[None, :]
    same = (identities[:, None] == identities[None, :]) & both & ~np.eye(len(unit), dtype=bool)
    different = (identities[:, None] != identities[None, :]) & both
    deviation = float(scores[different].std())
    with np.errstate(invalid="ignore"):
        genuine = np.where(same, scores, 0).sum(axis=1) / same.sum(axis=1)
        impostor = np.where(different, scores, 0).sum(axis=1) / different.sum(axis=1)
    gaps: Floats = (genuine - impostor) / deviation if deviation > 1e-9 else np.where(np.isnan(genuine), np.nan, 0.0)
    return gaps


@dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """Of one trial, or of the images as they are.

    Attributes:
        log_norms: [N] natural logarithms of the features' norms.
        separations: [N], see `separations`; all NaN where there are no genuine or no impostor pairs.
        alike: the mean cosine of two images; None of one image.
    """

    log_norms: Floats
    separations: Floats
    alike: float | None


def measure(model: Model, sample: ImageSample, trial: ImageChange | None, paired: bool) -> FeatureStatistics:
    """Embed the sample under a trial, or as it is.

    Args:
        model, sample, trial: what of what, and how.
        paired: whether there are genuine and impostor pairs.

    Raises:
        checks.InputError: features of the images as they are that are not finite.
    """
    device = next(model.parameters()).device
    parts = [
        features(model, sample.pixels[start : start + _BATCH].to(device), trial).cpu()
        for start in range(0, len(sample.pixels), _BATCH)
    ]
    found = torch.cat(parts).double().numpy()
    what = "the images as they are" if trial is None else f"images with {trial.name}"
    if not np.isfinite(found).all():
        if trial is None:
            raise InputError(f"the model's features must be finite; got NaN or Inf of {what}; its weights are damaged")
        found = np.zeros_like(found)  # a change that breaks the model mends nothing
    norms = np.linalg.norm(found, axis=1)
    unit = found / np.where(norms > 0, norms, 1)[:, None]
    count = len(unit)
    alike = (float((unit.sum(axis=0) ** 2).sum()) - count) / (count * (count - 1)) if count > 1 else None
    return FeatureStatistics(
        np.log(np.maximum(norms, 1e-30)),
        separations(unit, sample.identities) if paired else np.full(count, np.nan),
        alike,
    )


def intervals(
    differences: Floats, units: NDArray[np.str_], draws: int, level: float
) -> list[tuple[float, Interval | None]]:
    """The mean of each row of differences [T, N], and its interval when the units [N] are drawn again; None for one."""

    def means(weights: Floats) -> dict[str, float]:
        return {str(n): float(mean) for n, mean in enumerate(differences @ weights / weights.sum())}

    found = bootstrap(means, Units.of(units), draws=draws, level=level)
    return [(float(row.mean()), found.get(str(n))) for n, row in enumerate(differences)]
