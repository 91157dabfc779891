"""Does a model tell people apart at all: what is said, loudly, where its scores hardly do."""

from __future__ import annotations

import math
from collections.abc import Iterable

from angulus.evaluation.metrics.intervals import Interval
from angulus.evaluation.protocols.result import WARNING, Number

HARDLY = 0.6  # the AUC below which scores are little better than a coin; of trained models it is 0.9 and more
_CHANCE = 0.5
_LEAST_HITS = 3  # expected below that gap, for their absence to say anything (rule of 3)


def warning(auc: float, interval: Interval | None = None, whom: str = "these people") -> str:
    """The sentence for a model whose AUC is below 0.6, or may by its interval be that of guessing; else empty.

    Args:
        auc: the share of pairs of a genuine and an impostor score that are in order, in [0, 1].
        interval: where it lies with other people, if that is known.
        whom: who is to be told apart.

    >>> warning(0.486, Interval(0.45, 0.52))
    'warning: this model hardly tells these people apart (AUC 0.486 [0.45, 0.52]; chance is 0.5)'
    >>> warning(0.97, Interval(0.95, 0.98))
    ''
    """
    between = f" [{interval.low:.2g}, {interval.high:.2g}]" if interval is not None else ""
    said = f"(AUC {auc:.3f}{between}; chance is {_CHANCE})"
    if auc < 1 - HARDLY and (interval is None or interval.high < _CHANCE):
        return (
            f"{WARNING}two of {whom} look more alike to this model than two images of one {said}; "
            "are the flags, or the sign of the scores, the wrong way round?"
        )
    if auc < HARDLY:
        return f"{WARNING}this model hardly tells {whom} apart {said}"
    if interval is not None and interval.low <= _CHANCE:
        return f"{WARNING}whether this model tells {whom} apart is not known {said}; measure more people"
    return ""


def warning_at(name: str, share: float, rate: float, count: int, whom: str = "these people") -> str:
    """The same from one point of a curve: a TAR at a FAR (or rank-1, which guessing reaches with 1 / gallery).

    The share has to be above that of normal scores whose AUC is 0.6. So few trials that none need succeed at that say
    nothing.

    Args:
        name: of the figure.
        share: of the `count` genuine trials that succeed.
        rate: what guessing reaches, in (0, 1).
        count: of trials.
        whom: who is to be told apart.

    >>> warning_at("TAR@FAR=1e-2", 0.011, 0.01, 5000)
    'warning: this model hardly tells these people apart (TAR@FAR=1e-2 is 0.011; guessing reaches 0.01)'
    >>> warning_at("TAR@FAR=1e-2", 0.8, 0.01, 5000)
    ''
    """
    from scipy import special  # slow to import

    gap = math.sqrt(2) * special.ndtri(HARDLY)  # deviations between normal scores that have that AUC
    limit = float(special.ndtr(special.ndtri(rate) + gap))
    if share >= limit or (share == 0 and count * limit < _LEAST_HITS):
        return ""
    return f"{WARNING}this model hardly tells {whom} apart ({name} is {share:.3g}; guessing reaches {rate:.3g})"


def notes_of(figures: Iterable[Number]) -> tuple[str, ...]:
    """A result's note on its figure "AUC", where there is something to warn of."""
    said = (warning(each.value, each.interval) for each in figures if each.name == "AUC")
    return tuple(filter(None, said))
