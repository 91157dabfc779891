"""How far one result is from another of the same protocol: paired differences, on the same resamples."""

from collections.abc import Callable, Sequence

import numpy as np

from angulus.core import checks
from angulus.core.checks import InputError
from angulus.evaluation.metrics.intervals import Samples, Statistic, Units, paired_bootstrap
from angulus.evaluation.protocols import (
    calibrate,
    classification,
    degradation,
    detection,
    detection_result,
    distractors,
    error_discard,
    groups,
    open_set,
    pairs,
    quality,
    retrieval,
    sides,
    template_identification,
    template_verification,
    trillion_pairs,
    videos,
)
from angulus.evaluation.protocols.figures import interval_notes, with_interval
from angulus.evaluation.protocols.result import Number, Result

# Of each protocol: its figures from the samples of a result, and the samples that the model gave. All others say what
# was measured on, and must be the same in both results.
PROTOCOLS: dict[str, tuple[Callable[[Samples], tuple[Statistic, Units]], tuple[str, ...]]] = {
    **{
        module.PROTOCOL: (module.statistic, module.MEASURED)
        for module in (
            *(calibrate, classification, degradation, error_discard, groups, open_set, pairs, quality),
            *(template_identification, template_verification, videos),
        )
    },
    quality.BINS: (quality.bin_statistic, quality.BINS_MEASURED),
    quality.CHANGED: (quality.change_statistic, quality.CHANGED_MEASURED),
    detection.PROTOCOL: (detection_result.statistic, detection_result.MEASURED),
    detection.LUNA16: (detection_result.scan_statistic, detection_result.MEASURED),
    detection.CANDIDATES: (detection_result.scan_statistic, detection_result.MEASURED),
    distractors.MEGAFACE: (sides.statistic, sides.MEASURED),
    trillion_pairs.PROTOCOL: (sides.statistic, sides.MEASURED),
    retrieval.RETRIEVAL: (sides.statistic, retrieval.MEASURED),
    retrieval.REID: (sides.statistic, retrieval.MEASURED),
}

# these say what came out, or how a result's own intervals did, or are of no figure that is compared
_OWN_CHOICES = ("intervals", "log-likelihood ratio", "smaller galleries")


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
        InputError: what differs and must not: the protocol, a choice, the samples, the figures; or the protocol
            is not in `PROTOCOLS`, or a result was saved without samples.

    Source: B. Efron and R. Tibshirani, An Introduction to the Bootstrap, 1993, Ch. 13; ISO/IEC 19795-1 (subjects are
    drawn).
    """
    _same_protocol(first, second)
    _same_choices(first, second, differing)
    _same_samples(first, second)
    (before, units), (after, others) = _statistic("first", first), _statistic("second", second)
    if units.count != others.count or not np.array_equal([units.first, units.second], [others.first, others.second]):
        raise InputError("both results must be of the same people in the same order; got others")
    intervals = paired_bootstrap(before, after, units, draws=draws, seed=seed)
    names = {number.name for number in second.numbers}
    shared = [number.name for number in first.numbers if number.name in names]
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
            *(note for note in interval_notes(figures) if note not in notes),
        ),
    )


def _statistic(place: str, result: Result) -> tuple[Statistic, Units]:
    try:
        return PROTOCOLS[result.protocol][0](result.samples)
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise InputError(
            f"the {place} result's samples must be those of {result.protocol}; they are not ({error}); evaluate again"
        ) from error


def _same_protocol(first: Result, second: Result) -> None:
    if first.protocol != second.protocol:
        raise InputError(f"results to compare must be of one protocol; got {first.protocol!r} and {second.protocol!r}")
    checks.choice("protocol", first.protocol, PROTOCOLS, hint="only these can be computed again from their samples")
    for place, result in (("first", first), ("second", second)):
        if not result.samples:
            raise InputError(f"the {place} result holds no samples to compute its figures from; evaluate again")


def _same_choices(first: Result, second: Result, differing: Sequence[str]) -> None:
    names = list(dict.fromkeys([*first.choices, *second.choices]))
    for name in differing:
        checks.choice("differing", name, names)
    for name in names:
        one, other = first.choices.get(name), second.choices.get(name)
        if one != other and name not in (*differing, *_OWN_CHOICES):
            raise InputError(
                f"results must be of the same choices to be compared; {name} is {one!r} in the first and {other!r} "
                f"in the second; to compare just that, name {name!r} as differing"
            )


def _same_samples(first: Result, second: Result) -> None:
    measured = PROTOCOLS[first.protocol][1]
    for name in dict.fromkeys([*first.samples, *second.samples]):
        if name in measured:
            continue
        if name not in first.samples or name not in second.samples:
            place = "second" if name in first.samples else "first"
            raise InputError(f"results must be of the same samples to be compared; the {place} lacks {name!r}")
        one, other = first.samples[name], second.samples[name]
        if one.shape != other.shape:
            raise InputError(
                f"results must be of the same samples to be compared; {name!r} has shape {list(one.shape)} in the "
                f"first and {list(other.shape)} in the second"
            )
        if not np.array_equal(one, other):
            place = np.argwhere(np.atleast_1d(one != other))[0]
            raise InputError(
                f"results must be of the same samples to be compared; {name!r} differs, first at {place.tolist()}: "
                f"{np.atleast_1d(one)[tuple(place)]!s} and {np.atleast_1d(other)[tuple(place)]!s}"
            )


def _source(result: Result) -> str:
    return str(result.about.get("embeddings", "unknown embeddings"))
