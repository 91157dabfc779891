"""Accuracy by feature norm, in bins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angulus.evaluation.metrics import image_quality
from angulus.evaluation.metrics.intervals import Statistic, Units
from angulus.evaluation.protocols.judged import Floats, Judged
from angulus.evaluation.protocols.numbers import numbers, resampling, without_interval
from angulus.evaluation.protocols.result import Result
from angulus.evaluation.protocols.scored import units_of

PROTOCOL = "norm-bins"
MEASURED = ("correct", "norms", "edges")  # the samples that the model gave


def evaluate(given: Judged, bins: int = 10, *, edges: str = "quantile", draws: int = 1000, seed: int = 0) -> Result:
    """Accuracy by norm, in bins of equal count (`edges="quantile"`) or width. FI Fig. 1."""
    found = image_quality.norm_bins(given.norms, given.correct, bins, edges=edges)
    samples = {**given.samples, "edges": np.array([found[0].low, *(each.high for each in found)])}
    empty = sum(not each.count for each in found)
    figures = numbers(*statistic(samples), draws=draws, seed=seed)
    notes = (f"{empty} bins hold no sample and have no accuracy",) if empty else ()
    return Result(
        PROTOCOL,
        figures,
        {"edges": edges, **resampling(given.unit, draws, seed)},
        {"samples": len(given.correct), "bins": len(found)}
        | {f"in bin {k}": each.count for k, each in enumerate(found)},
        notes=notes + without_interval(figures),
        samples=samples,
        about=given.about,
    )


def statistic(samples: Mapping[str, NDArray[Any]]) -> tuple[Statistic, Units]:
    """What gives `evaluate`'s figures for weights of the samples, and the units; the edges stay."""
    edges, correct = samples["edges"], samples["correct"]
    count = len(edges) - 1
    index = image_quality.bin_of(samples["norms"], edges)
    ends = [*")" * (count - 1), "]"]
    names = [f"accuracy, bin {k} [{edges[k]:.6g}, {edges[k + 1]:.6g}{ends[k]}" for k in range(count)]

    def figures(weights: Floats) -> dict[str, float]:
        all_of, right = (np.bincount(index, values, count) for values in (weights, weights * correct))
        return {names[k]: float(right[k] / all_of[k]) for k in np.flatnonzero(all_of)}

    return figures, units_of(samples)
