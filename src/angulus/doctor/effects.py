"""Measure a change: norms and separations of all images, and their paired differences with intervals."""

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
    """Whether the known identities give genuine and impostor pairs."""
    names, counts = np.unique(identities[identities != ""], return_counts=True)
    return len(names) > 1 and bool((counts > 1).any())


def separations(unit: Floats, identities: NDArray[np.str_]) -> Floats:
    """How far each image's genuine scores lie above its impostor scores, [N]; NaN for an image without genuine scores.

        d_i = (mean_{j of y_i, j ≠ i} s_ij − mean_{j not of y_i} s_ij) / σ,   σ² = the variance of all impostor scores

    Shifting or stretching the scores does not change it. It is 0 if all impostor scores are equal. Images without
    identity do not count.

    Args:
        unit: [N, d] features of unit length.
        identities: [N]; "" if unknown.
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
    """Statistics of the features of N images."""

    log_norms: Floats  # [N] natural logarithms of the norms
    separations: Floats  # [N], see `separations`; all NaN without genuine and impostor pairs
    mean_cosine: float | None  # of two images; None for one image


def measure(model: Model, sample: ImageSample, change: ImageChange | None, paired: bool) -> FeatureStatistics:
    """Embed the sample, changed or as it is; `paired`: it has genuine and impostor pairs."""
    device = next(model.parameters()).device
    parts = [features(model, pixels.to(device), change).cpu() for pixels in torch.split(sample.pixels, _BATCH)]
    embedded = torch.cat(parts).double().numpy()
    if not np.isfinite(embedded).all():
        if change is None:
            rule = "the model's features must be finite"
            raise InputError(f"{rule}; got NaN or Inf of the images as they are; its weights are damaged")
        embedded = np.zeros_like(embedded)  # a change that breaks the model mends nothing
    norms = np.linalg.norm(embedded, axis=1)
    unit = embedded / np.where(norms > 0, norms, 1)[:, None]
    count = len(unit)
    mean_cosine = (float((unit.sum(axis=0) ** 2).sum()) - count) / (count * (count - 1)) if count > 1 else None
    gaps = separations(unit, sample.identities) if paired else np.full(count, np.nan)
    return FeatureStatistics(np.log(np.maximum(norms, 1e-30)), gaps, mean_cosine)


def intervals(
    differences: Floats, units: NDArray[np.str_], draws: int, level: float
) -> list[tuple[float, Interval | None]]:
    """The mean of each row of differences [T, N] and its interval over resamples of the units [N]; None for one."""

    def means(weights: Floats) -> dict[str, float]:
        return {str(n): float(mean) for n, mean in enumerate(differences @ weights / weights.sum())}

    bounds = bootstrap(means, Units.of(units), draws=draws, level=level)
    return [(float(row.mean()), bounds.get(str(n))) for n, row in enumerate(differences)]
