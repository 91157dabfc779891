"""Good and low quality: accuracy and mean norm of the samples with large and with small feature norms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angulus.evaluation.metrics import image_quality
from angulus.evaluation.metrics.intervals import Statistic, Units
from angulus.evaluation.protocols.judged import QUALITY, Flags, Floats, Judged, of_quality, refuse_other_samples
from angulus.evaluation.protocols.numbers import numbers, resampling, without_interval
from angulus.evaluation.protocols.result import Result
from angulus.evaluation.protocols.scored import units_of

PROTOCOL = QUALITY
MEASURED = ("correct", "norms", "low", "own_low")  # the samples that the model gave


def evaluate(
    given: Judged, reference: Judged | None = None, *, low_fraction: float = 0.2, draws: int = 1000, seed: int = 0
) -> Result:
    """Accuracy and mean norm of the samples of good and of low quality, and of all.

    Args:
        given: one model's samples.
        reference: the same samples by the model whose norms decide which are low; the split by the own norms then
            stands second. CM compares all losses by the norms of the softmax model.
        low_fraction: how many are low.
        draws: resamples of the people (or samples) for the intervals; 0 for none.
        seed: of the resamples.

    Source: CM Secs. 3 and 5, Tables 1, 2 and 4.
    """
    lows = low_samples(given, reference, low_fraction)
    samples = {**given.samples, **lows}
    figures = numbers(*statistic(samples), draws=draws, seed=seed)
    return Result(
        PROTOCOL,
        figures,
        {
            "split by": "own norms" if reference is None else f"norms of {reference.source}",
            "low fraction": low_fraction,
            **resampling(given.unit, draws, seed),
        },
        {"good": int((~lows["low"]).sum()), "low": int(lows["low"].sum()), "entire": len(given.correct)},
        notes=without_interval(figures),
        samples=samples,
        about=given.about,
    )


def by_norms_of(own: Result, reference: Result) -> Result:
    """A saved result split again, by the norms of another model's result of the same samples; without intervals.

    Raises:
        checks.InputError: results of another protocol, without samples, or of other samples.
    """
    fraction = float(own.choices["low fraction"])
    return evaluate(of_quality(own), of_quality(reference), low_fraction=fraction, draws=0)


def low_samples(given: Judged, reference: Judged | None, fraction: float) -> dict[str, Flags]:
    """Which samples are low: `low`, and where another model's norms decide that, `own_low` by the own norms."""
    if reference is None:
        return {"low": image_quality.low_quality(given.norms, fraction)}
    refuse_other_samples(given, reference)
    return {
        "low": image_quality.low_quality(reference.norms, fraction),
        "own_low": image_quality.low_quality(given.norms, fraction),
    }


def statistic(samples: Mapping[str, NDArray[Any]]) -> tuple[Statistic, Units]:
    """What gives `evaluate`'s figures for weights of the samples, and the units; a part without weight has none."""
    return part_figures(samples), units_of(samples)


def part_figures(samples: Mapping[str, NDArray[Any]]) -> Callable[[Floats], dict[str, float]]:
    """Accuracy and mean norm of good, low and entire, under weights of the samples."""
    parts = {"entire": np.ones(len(samples["correct"]), dtype=bool)}
    for name, said in (("low", ""), ("own_low", " (own norms)")):
        if name in samples:
            parts |= {f"good{said}": ~samples[name], f"low{said}": samples[name]}

    def figures(weights: Floats) -> dict[str, float]:
        values = {}
        for part, member in parts.items():
            amount = weights * member
            if amount.any():
                values[f"accuracy, {part}"] = float(np.average(samples["correct"], weights=amount))
                values[f"mean norm, {part}"] = float(np.average(samples["norms"], weights=amount))
        return values

    return figures
