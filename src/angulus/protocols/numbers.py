"""The figures of a statistic as numbers of a result, with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from angulus import checks
from angulus.metrics.intervals import Statistic, Units, bootstrap
from angulus.protocols.result import Number


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
    checks.integer("draws", draws, low=0, hint="0 gives no intervals")
    checks.integer("seed", seed, low=0)
    values = statistic(units.weights(np.ones(units.count)))
    intervals = bootstrap(statistic, units, draws=draws, seed=seed) if draws else {}
    return tuple(
        Number(name, value, intervals.get(name), (thresholds or {}).get(name), (spreads or {}).get(name))
        for name, value in values.items()
    )


def resampling(unit: str, draws: int, seed: int, *, sized: bool = False) -> dict[str, object]:
    """The choices behind the intervals, for a result's `choices`; `sized` where `keeping_sizes` weighs the accuracy."""
    if not draws:
        return {"intervals": "none"}
    more = "; for the accuracy each fold keeps its numbers of genuine and impostor pairs" if sized else ""
    return {"intervals": f"95 % of {draws} resamples of the {unit} (seed {seed}){more}"}


def without_interval(figures: Sequence[Number]) -> tuple[str, ...]:
    """A note on the figures whose interval is undefined, for so few people that most resamples lose what they need."""
    names = [number.name for number in figures if number.interval is not None and np.isnan(number.interval.low)]
    return (f"no interval of {', '.join(names)}: undefined in more than a tenth of the resamples",) if names else ()
