"""The figures of a protocol as a result: their intervals, the rates that the data support, and warnings."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from angulus.core import checks, environment
from angulus.evaluation.metrics.intervals import (
    MOST_DRAWS,
    UNDEFINED,
    Interval,
    Samples,
    Statistic,
    Units,
    bootstrap,
)
from angulus.evaluation.metrics.verification import least_count, require_support
from angulus.evaluation.protocols.group_rates import GroupFigures
from angulus.evaluation.protocols.result import WARNING, Curve, Number, Result

STANDARD_FARS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
RULE_OF_30 = 30  # errors needed to know a rate to ± 30 % with 90 % confidence
LOW_AUC = 0.6  # below it scores are little better than a coin; trained models have 0.9 and more

_ONE_UNIT = "one alone cannot be resampled"
_CHANCE = 0.5
_LEAST_HITS = 3  # expected below that gap before their absence means anything (rule of 3)


@dataclass(frozen=True)
class Resampling:
    """How a result's intervals come about."""

    unit: str  # what is resampled, in words
    draws: int  # 0 for no intervals
    seed: int
    keeps_sizes: bool = False  # for the accuracy each fold keeps its numbers of pairs
    needs: str = ""  # what to give more of where a figure is undefined in many resamples; else people and their pairs

    def __post_init__(self) -> None:
        checks.integer("draws", self.draws, low=0, high=MOST_DRAWS, hint="0 gives no intervals")
        checks.integer("seed", self.seed, low=0)

    def describe(self) -> str:
        """For a result's choices."""
        if not self.draws:
            return "none"
        more = "; for the accuracy each fold keeps its numbers of genuine and impostor pairs" * self.keeps_sizes
        return f"95 % of {self.draws} resamples of the {self.unit} (seed {self.seed}){more}"

    @staticmethod
    def of(result: Result) -> "Resampling":
        """How the intervals of a result came about, by its choices; without draws if it has none.

        >>> Resampling.of(Result("pairs", (), {"intervals": Resampling("people", 50, 7).describe()}, {}))
        Resampling(unit='people', draws=50, seed=7, keeps_sizes=False, needs='')
        """
        described = str(result.choices.get("intervals", ""))
        found = re.match(r"95 % of (\d+) resamples of the (.+?) \(seed (\d+)\)", described)
        if found is None or int(found[1]) > MOST_DRAWS:
            return Resampling("nothing", 0, 0)
        return Resampling(found[2], int(found[1]), int(found[3]), keeps_sizes="each fold" in described)


def measure(
    protocol: str,
    statistic: tuple[Statistic, Units],
    samples: Samples,
    choices: Mapping[str, Any],
    counts: Mapping[str, int],
    resampling: Resampling,
    *,
    thresholds: Mapping[str, float] | None = None,
    spreads: Mapping[str, float] | None = None,
    curves: tuple[Curve, ...] = (),
    notes: tuple[str, ...] = (),
    by_group: GroupFigures | None = None,
    about: Mapping[str, Any],
) -> Result:
    """The result of a protocol: its figures with their intervals, and notes on the figures without one.

    Args:
        statistic: gives the figures for weights of the units, and the units.
        protocol, samples, choices, counts, curves, notes: as in `Result`.
        about: where the samples came from; versions and machine are added.
        thresholds, spreads: as in `numbers`.
        by_group: what was found by group.
    """
    by_group = by_group or GroupFigures()
    figures = numbers(*statistic, resampling.draws, resampling.seed, thresholds=thresholds, spreads=spreads)
    if resampling.needs:
        more = f"{UNDEFINED}; give more {resampling.needs}"
        figures = tuple(
            replace(figure, no_interval=more) if figure.no_interval.startswith(UNDEFINED) else figure
            for figure in figures
        )
    warnings = [auc_warning(figure.value, figure.interval) for figure in figures if figure.name == "AUC"]
    notes = (*filter(None, warnings), *notes, *interval_notes(figures), *by_group.notes)
    choices = {**choices, "intervals": resampling.describe()}
    about = {**environment.describe(torch.device("cpu")), **about}
    return Result(protocol, figures, choices, counts, curves, notes, samples, about, by_group.points)


def numbers(
    statistic: Statistic,
    units: Units,
    draws: int,
    seed: int,
    *,
    thresholds: Mapping[str, float] | None = None,
    spreads: Mapping[str, float] | None = None,
) -> tuple[Number, ...]:
    """Each figure, with every unit counted once, and its percentile interval over resamples of the units.

    Args:
        statistic, units, seed: as `bootstrap` takes them.
        draws: resamples; 0 for no intervals.
        thresholds, spreads: by the figure's name, for figures that have one.
    """
    checks.integer("draws", draws, low=0, high=MOST_DRAWS, hint="0 gives no intervals")
    checks.integer("seed", seed, low=0)
    values = statistic(units.weights(np.ones(units.count)))
    intervals = bootstrap(statistic, units, draws=draws, seed=seed) if draws else None
    return tuple(
        with_interval(Number(name, value, None, (thresholds or {}).get(name), (spreads or {}).get(name)), intervals)
        for name, value in values.items()
    )


def with_interval(number: Number, intervals: Mapping[str, Interval] | None) -> Number:
    """A figure with its interval, or with the reason why it has none; None: no intervals were asked for."""
    if intervals is None or math.isnan(number.value):
        return number
    interval = intervals.get(number.name)
    reason = (interval.degenerate if interval else "") if intervals else _ONE_UNIT
    return replace(number, interval=None if reason else interval, no_interval=reason)


def interval_notes(figures: Sequence[Number]) -> tuple[str, ...]:
    """Notes on the figures that have no interval, grouped by the reason.

    >>> interval_notes([Number("AUC", 1.0, no_interval="all equal"), Number("EER", 0.0, no_interval="all equal")])
    ('no interval of AUC, EER: all equal',)
    """
    reasons: dict[str, list[str]] = {}
    for number in figures:
        if number.no_interval:
            reasons.setdefault(number.no_interval, []).append(number.name)
    return tuple(
        f"no interval of {('; ' if any(',' in name for name in names) else ', ').join(names)}: {reason}"
        for reason, names in reasons.items()
    )


def rate_label(rate: float) -> str:
    """A rate as figures name it.

    >>> rate_label(1e-3), rate_label(0.00025), rate_label(0)
    ('1e-3', '2.5e-4', '0')
    """
    return "0" if rate == 0 else np.format_float_scientific(rate, trim="-", exp_digits=1)


def few_pairs_notes(counts: Mapping[str, int]) -> tuple[str, ...]:
    """Notes on kinds of pairs, given by name and count, that are too few to measure any rate.

    Fewer than 30 pairs cannot give 30 errors. Without an error, the true rate may still be as high as 3 / n.

    Source: ISO/IEC 19795-1 (the rule of 3); G. Doddington et al., Speech Communication 31, 2000 (the rule of 30).
    """
    return tuple(
        f"{count} {kind} {'pair is' if count == 1 else 'pairs are'} too few: all figures that count them are rough, "
        f"for even without an error among them the true rate of errors may be as high as {min(1.0, 3 / count):.0%} "
        f"(rule of 3); give {RULE_OF_30} or more"
        for kind, count in counts.items()
        if 0 < count < RULE_OF_30
    )


def supported_rates(
    rates: Sequence[float] | None,
    count: int,
    *,
    standard: Sequence[float] = STANDARD_FARS,
    impostors: str = "impostor pairs",
    name: str = "TAR@FAR",
) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """The FARs (or FPIRs) to report, and a note on those that `count` impostors cannot show.

    Args:
        rates: what the caller asks for, each of which the data must support (0 asks for the point without false
            accepts); None: those of `standard` that the data support.
        count: number of impostors.
        standard: what is reported by default.
        impostors: what is counted, for messages.
        name: of the figure and its rate, for the note.

    Raises:
        checks.InputError: a FAR in `rates` that is below 1 / `count`.
    """
    if rates is not None:
        for far in rates:
            hint = ", or for 0, the point without a false accept"
            require_support(far, count, zero_ok=far == 0, of=impostors, hint=hint)
        return tuple(float(far) for far in dict.fromkeys(rates)), ()
    supported = tuple(far for far in standard if count and 1 / count <= far)
    left_out = [far for far in standard if far not in supported]
    if not left_out:
        return supported, ()
    needs = ", ".join(f"{rate_label(far)} ({least_count(far):,})" for far in left_out)
    rate = name.rpartition("@")[2]
    note = f"{name} is left out at {rate}s that need more {impostors} than the {count:,} there are: {needs}"
    return supported, (note,)


def auc_warning(auc: float, interval: Interval | None = None, people: str = "these people") -> str:
    """The warning about a model whose AUC is below 0.6, or whose interval includes guessing; otherwise empty.

    Args:
        auc: the share of pairs of a genuine and an impostor score that are in order, in [0, 1].
        interval: of the AUC over other people, if it was measured.
        people: who the model should distinguish.

    >>> auc_warning(0.486, Interval(0.45, 0.52))
    'warning: this model hardly tells these people apart (AUC 0.486 [0.45, 0.52]; chance is 0.5)'
    >>> auc_warning(0.97, Interval(0.95, 0.98))
    ''
    """
    between = f" [{interval.low:.2g}, {interval.high:.2g}]" if interval is not None else ""
    measured = f"(AUC {auc:.3f}{between}; chance is {_CHANCE})"
    if auc < 1 - LOW_AUC and (interval is None or interval.high < _CHANCE):
        return (
            f"{WARNING}two of {people} look more similar to this model than two images of one {measured}; "
            "are the flags, or the sign of the scores, the wrong way round?"
        )
    if auc < LOW_AUC:
        return f"{WARNING}this model hardly tells {people} apart {measured}"
    if interval is not None and interval.low <= _CHANCE:
        return f"{WARNING}whether this model tells {people} apart is not known {measured}; measure more people"
    return ""


def share_warnings(name: str, share: float, rate: float, count: int, people: str = "these people") -> tuple[str, ...]:
    """The same warning from one point of a curve: a TAR at a FAR, or rank-1, which guessing reaches with 1 / gallery.

    The share must be above that of normal scores whose AUC is 0.6. With very few trials, where no success is
    likely even then, there is no warning.

    Args:
        name: of the figure.
        share: of the `count` genuine trials that succeed.
        rate: what guessing reaches; there is no warning unless it is in (0, 1).
        count: of trials.
        people: who the model should distinguish.

    >>> share_warnings("TAR@FAR=1e-2", 0.011, 0.01, 5000)
    ('warning: this model hardly tells these people apart (TAR@FAR=1e-2 is 0.011; guessing reaches 0.01)',)
    >>> share_warnings("TAR@FAR=1e-2", 0.8, 0.01, 5000)
    ()
    """
    if not 0 < rate < 1:
        return ()
    from scipy import special  # slow to import

    gap = math.sqrt(2) * special.ndtri(LOW_AUC)  # deviations between normal scores that have that AUC
    limit = float(special.ndtr(special.ndtri(rate) + gap))
    if share >= limit or (share == 0 and count * limit < _LEAST_HITS):
        return ()
    return (f"{WARNING}this model hardly tells {people} apart ({name} is {share:.3g}; guessing reaches {rate:.3g})",)
