"""The figures of a statistic as numbers of a result, with their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from angulus.core import checks
from angulus.evaluation.metrics.intervals import MOST_DRAWS, Interval, Statistic, Units, bootstrap
from angulus.evaluation.protocols.result import Number

_ALONE = "one alone cannot be resampled"


def numbers(
    statistic: Statistic,
    units: Units,
    *,
    draws: int,
    seed: int,
    thresholds: Mapping[str, float] | None = None,
    spreads: Mapping[str, float] | None = None,
) -> tuple[Number, ...]:
    """Each figure, of all units once, and its percentile interval over resamples of the units.

    Args:
        statistic, units, seed: as `bootstrap` takes them.
        draws: resamples; 0 for no intervals.
        thresholds, spreads: of the figures that have one.
    """
    checks.integer("draws", draws, low=0, high=MOST_DRAWS, hint="0 gives no intervals")
    checks.integer("seed", seed, low=0)
    values = statistic(units.weights(np.ones(units.count)))
    intervals = bootstrap(statistic, units, draws=draws, seed=seed) if draws else {}
    return tuple(
        with_interval(
            Number(name, value, None, (thresholds or {}).get(name), (spreads or {}).get(name)),
            intervals if draws else None,
        )
        for name, value in values.items()
    )


def with_interval(number: Number, intervals: Mapping[str, Interval] | None) -> Number:
    """A figure with its interval of these, or with why it has none; None for intervals that nobody asked for."""
    if intervals is None or math.isnan(number.value):
        return number
    interval = intervals.get(number.name)
    why = (interval.degenerate if interval else "") if intervals else _ALONE
    return replace(number, interval=None if why else interval, no_interval=why)


def resampling(unit: str, draws: int, seed: int, *, sized: bool = False) -> dict[str, object]:
    """The choices behind the intervals, for a result's `choices`; `sized` where `keeping_sizes` weighs the accuracy."""
    if not draws:
        return {"intervals": "none"}
    more = "; for the accuracy each fold keeps its numbers of genuine and impostor pairs" if sized else ""
    return {"intervals": f"95 % of {draws} resamples of the {unit} (seed {seed}){more}"}


def without_interval(figures: Sequence[Number]) -> tuple[str, ...]:
    """Notes on the figures that have no interval, by the reason."""
    reasons: dict[str, list[str]] = {}
    for number in figures:
        if number.no_interval:
            reasons.setdefault(number.no_interval, []).append(number.name)
    return tuple(f"no interval of {_listed(names)}: {why}" for why, names in reasons.items())


def _listed(names: Sequence[str]) -> str:
    """Names with commas between them, or semicolons where a name holds a comma of its own.

    >>> _listed(["AUC", "EER"]), _listed(["accuracy, good", "accuracy, low"])
    ('AUC, EER', 'accuracy, good; accuracy, low')
    """
    return ("; " if any("," in name for name in names) else ", ").join(names)
