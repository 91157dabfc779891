"""What changed between two models: the samples that the second fixes and breaks, and their norms in both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angulus.evaluation.metrics.intervals import Statistic, Units
from angulus.evaluation.protocols.judged import Flags, Floats, Judged, refuse_other_samples
from angulus.evaluation.protocols.numbers import numbers, resampling, without_interval
from angulus.evaluation.protocols.result import Result
from angulus.evaluation.protocols.scored import units_of

PROTOCOL = "changed"
MEASURED = ("correct", "norms", "correct_after", "norms_after")  # the samples that the models gave


def evaluate(before: Judged, after: Judged, *, draws: int = 1000, seed: int = 0) -> Result:
    """Which samples a second model fixes and breaks, and their mean norm in both. FI Table 5.

    `right` and `wrong` are a model's own; `fixed` was wrong and is right, `broken` the reverse, `right in both` and
    `wrong in both` stayed.
    """
    refuse_other_samples(after, before)
    samples = {**before.samples, "correct_after": after.correct, "norms_after": after.norms}
    counts = {name: int(member.sum()) for name, member in _kinds(samples).items()}
    absent = [name for name, count in counts.items() if not count]
    figures = numbers(*statistic(samples), draws=draws, seed=seed)
    notes = (f"no sample is {', '.join(absent)}: such have no mean norm",) if absent else ()
    return Result(
        PROTOCOL,
        figures,
        resampling(before.unit, draws, seed),
        {"samples": len(before.correct), **counts},
        notes=notes + without_interval(figures),
        samples=samples,
        about={**after.about, "embeddings before": before.source},
    )


def statistic(samples: Mapping[str, NDArray[Any]]) -> tuple[Statistic, Units]:
    """What gives `evaluate`'s figures for weights of the samples, and the units."""
    kinds = _kinds(samples)
    norms = {"before": samples["norms"], "after": samples["norms_after"]}

    def figures(weights: Floats) -> dict[str, float]:
        values = {f"share {name}": float(np.average(member, weights=weights)) for name, member in kinds.items()}
        for name, member in kinds.items():
            amount = weights * member
            for when in [when for when in norms if when in name.split()] or list(norms):
                if amount.any():
                    values[f"mean norm {when}, {name}"] = float(np.average(norms[when], weights=amount))
        return values

    return figures, units_of(samples)


def _kinds(samples: Mapping[str, NDArray[Any]]) -> dict[str, Flags]:
    before, after = samples["correct"], samples["correct_after"]
    return {
        "right before": before,
        "wrong before": ~before,
        "right after": after,
        "wrong after": ~after,
        "fixed": ~before & after,
        "broken": before & ~after,
        "right in both": before & after,
        "wrong in both": ~before & ~after,
    }
