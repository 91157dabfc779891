"""How far one result is from another of the same protocol: paired differences, on the same resamples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angulus.core import checks
from angulus.evaluation.metrics.intervals import Statistic, Units, paired_bootstrap
from angulus.evaluation.protocols import (
    calibrate,
    changed,
    classification,
    degradation,
    detection,
    discard,
    gallery,
    groups,
    norm_bins,
    open_set,
    pairs,
    quality,
    template_identification,
    template_verification,
    videos,
)
from angulus.evaluation.protocols.numbers import with_interval, without_interval
from angulus.evaluation.protocols.result import Number, Result

Samples = Mapping[str, NDArray[Any]]

_PROTOCOLS = (
    calibrate,
    changed,
    classification,
    degradation,
    detection,
    discard,
    groups,
    norm_bins,
    open_set,
    pairs,
    quality,
    template_identification,
    template_verification,
    videos,
)  # modules, each with its name PROTOCOL, its `statistic` and what is MEASURED

# What gives a protocol's figures from the samples of its results, and who is resampled.
STATISTICS: dict[str, Callable[[Samples], tuple[Statistic, Units]]] = {
    **{module.PROTOCOL: module.statistic for module in _PROTOCOLS},
    detection.CANDIDATES: detection.statistic,
    gallery.MEGAFACE: gallery.statistic,
    gallery.TRILLION_PAIRS: gallery.statistic,
}

# Samples that the model gave. All others say what was measured on, and have to be the same in both results.
MEASURED: dict[str, tuple[str, ...]] = {
    **{module.PROTOCOL: module.MEASURED for module in _PROTOCOLS},
    detection.CANDIDATES: detection.MEASURED,
    gallery.MEGAFACE: gallery.MEASURED,
    gallery.TRILLION_PAIRS: gallery.MEASURED,
}

_OWN_CHOICES = ("intervals", "log-likelihood ratio")  # these say what came out, or how a result's own intervals did


def compare_results(
    first: Result, second: Result, *, differing: Sequence[str] = (), draws: int = 1000, seed: int = 0
) -> Result:
    """Second − first of every figure that both have, each with an interval over the same resamples of both.

    People are drawn, and both results are measured on those drawn; a figure's interval is over the differences, in
    which what both share cancels: it is narrower than the two results' own intervals suggest.

    Args:
        first, second: of one protocol, on the same pairs (trials, scans, ...) in the same order, by the same choices.
        differing: names of choices that may differ, such as "flip", to compare these.
        draws: resamples, >= 1.
        seed: of the resamples.

    Raises:
        checks.InputError: what differs and must not: the protocol, a choice, the samples, the figures; or the protocol
            has no table entry in `STATISTICS`, or a result was saved without samples.

    Source: B. Efron and R. Tibshirani, An Introduction to the Bootstrap, 1993, Ch. 13; ISO/IEC 19795-1 (subjects are
    drawn).
    """
    _same_protocol(first, second)
    _same_choices(first, second, differing)
    _same_samples(first, second)
    (before, units), (after, others) = _statistic("first", first), _statistic("second", second)
    if units.count != others.count or not np.array_equal([units.first, units.second], [others.first, others.second]):
        raise checks.InputError("both results must be of the same people in the same order; got others")
    intervals = paired_bootstrap(before, after, units, draws=draws, seed=seed)
    theirs = {number.name for number in second.numbers}
    shared = [number.name for number in first.numbers if number.name in theirs]
    own = [number.name for result in (first, second) for number in result.numbers if number.name not in shared]
    unlike = {name: f"{first.choices.get(name)} | {second.choices.get(name)}" for name in differing}
    figures = tuple(with_interval(Number(name, second[name] - first[name]), intervals) for name in shared)
    notes = [note for note in first.notes if note in second.notes]
    return Result(
        f"{first.protocol}, second − first",
        figures,
        {
            **{name: value for name, value in first.choices.items() if name not in _OWN_CHOICES},
            **unlike,
            "intervals": f"95 % of {draws} paired resamples (seed {seed})",
        },
        first.counts,
        notes=(
            f"first: {_source(first)}; second: {_source(second)}",
            *((f"only one of the two has {', '.join(dict.fromkeys(own))}",) if own else ()),
            *notes,
            *(f"first: {note}" for note in first.notes if note not in notes),
            *(f"second: {note}" for note in second.notes if note not in notes),
            *(note for note in without_interval(figures) if note not in notes),
        ),
    )


def _statistic(place: str, result: Result) -> tuple[Statistic, Units]:
    try:
        return STATISTICS[result.protocol](result.samples)
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise checks.InputError(
            f"the {place} result's samples must be those of {result.protocol}; they are not ({error}); evaluate again"
        ) from error


def _same_protocol(first: Result, second: Result) -> None:
    if first.protocol != second.protocol:
        raise checks.InputError(
            f"results must be of one protocol to be compared; got {first.protocol!r} and {second.protocol!r}"
        )
    checks.choice("protocol", first.protocol, STATISTICS, hint="only these can be computed again from their samples")
    for place, result in (("first", first), ("second", second)):
        if not result.samples:
            raise checks.InputError(f"the {place} result holds no samples to compute its figures from; evaluate again")


def _same_choices(first: Result, second: Result, differing: Sequence[str]) -> None:
    names = list(dict.fromkeys([*first.choices, *second.choices]))
    for name in differing:
        checks.choice("differing", name, names)
    for name in names:
        mine, theirs = first.choices.get(name), second.choices.get(name)
        if mine != theirs and name not in (*differing, *_OWN_CHOICES):
            raise checks.InputError(
                f"results must be of the same choices to be compared; {name} is {mine!r} in the first and {theirs!r} "
                f"in the second; to compare just that, name {name!r} as differing"
            )


def _same_samples(first: Result, second: Result) -> None:
    measured = MEASURED[first.protocol]
    for name in dict.fromkeys([*first.samples, *second.samples]):
        if name in measured:
            continue
        if name not in first.samples or name not in second.samples:
            place = "second" if name in first.samples else "first"
            raise checks.InputError(f"results must be of the same samples to be compared; the {place} lacks {name!r}")
        mine, theirs = first.samples[name], second.samples[name]
        if mine.shape != theirs.shape:
            raise checks.InputError(
                f"results must be of the same samples to be compared; {name!r} has shape {list(mine.shape)} in the "
                f"first and {list(theirs.shape)} in the second"
            )
        if not np.array_equal(mine, theirs):
            place = np.argwhere(np.atleast_1d(mine != theirs))[0]
            raise checks.InputError(
                f"results must be of the same samples to be compared; {name!r} differs, first at {place.tolist()}: "
                f"{np.atleast_1d(mine)[tuple(place)]!s} and {np.atleast_1d(theirs)[tuple(place)]!s}"
            )


def _source(result: Result) -> str:
    return str(result.about.get("embeddings", "unknown embeddings"))
