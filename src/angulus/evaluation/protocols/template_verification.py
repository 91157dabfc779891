"""IJB's 1:1 verification: TAR at FARs, and accuracy over folds, of a stream of template comparisons."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from angulus.core import checks
from angulus.core.formats.columns import text_array
from angulus.evaluation.lists.ijb import Comparisons
from angulus.evaluation.metrics.curves import ErrorCurve, auc
from angulus.evaluation.metrics.intervals import Floats, Samples, Statistic, Units
from angulus.evaluation.metrics.verification import FoldAccuracy, balanced_accuracy, tar_at_far
from angulus.evaluation.protocols import figures as reporting
from angulus.evaluation.protocols.by_group import Point, measure_groups
from angulus.evaluation.protocols.failures import BELOW, renamed
from angulus.evaluation.protocols.figures import Resampling, measure, rate_label, supported_rates
from angulus.evaluation.protocols.group_rates import GroupFigures
from angulus.evaluation.protocols.group_trials import Trials, number_groups, searches, shared_group
from angulus.evaluation.protocols.pairs import curves as error_curves
from angulus.evaluation.protocols.result import Result
from angulus.evaluation.protocols.template_stream import Stream
from angulus.evaluation.protocols.template_tail import Folds, Tail
from angulus.evaluation.protocols.templates import Templates

PROTOCOL = "ijb-verify"
FAILED_COUNTS = "failed_counts"  # the sample of failed impostor comparisons by subjects, if templates failed
MEASURED = (  # the samples that the embeddings gave; the others say which comparisons they are of
    "genuine_scores",
    "genuine_norms",
    "impostor_scores",
    "impostor_first",
    "impostor_second",
    "cut",
    FAILED_COUNTS,
)

MOST_FOLDS = 1000  # each takes a threshold of its own in each resample

_SUBJECTS = {False: "as the list of images says", True: "templates that genuine comparisons link"}
_SPARE = 2.0  # how many times the impostors that the highest FAR accepts are kept, for resamples to move in


def verify(
    templates: Templates,
    comparisons: Iterable[Comparisons],
    *,
    fars: Sequence[float] | None = None,
    folds: int = 10,
    draws: int = 1000,
    seed: int = 0,
) -> Result:
    """TAR at FARs of template comparisons, their balanced accuracy and their accuracy over folds.

    Intervals are by a bootstrap over subjects. Among 8 million impostors and 10,270 genuine comparisons, as IJB-B has,
    to accept nothing is 99.87 % accurate: the balanced accuracy is the figure to read.

    A score is ⟨t_a, t_b⟩ of the pooled unit vectors, in float64. All are looked at; of the impostors' the highest are
    kept, as many as the figures and their resamples need.

    Args:
        templates: pooled.
        comparisons: blocks of the list.
        fars: where TAR is reported, each of which the list must support; None: those of 1e-1 ... 1e-6 that it does.
        folds: for the accuracy: a comparison is in its first template's subject's fold; subjects are dealt in turn.
            The threshold of a fold is the one most accurate on the others.
        draws: resamples for the intervals; 0 for none. Without subjects (see `templates.link`) there are none.
        seed: of the resamples.

    Raises:
        checks.InputError: a template that was not pooled, comparisons of one kind only, a FAR that they cannot show.

    Source: C. Whitelam et al., "IARPA Janus Benchmark-B Face Dataset", CVPR Workshops 2017; CM Sec. 5.3, Table 4.
    """
    checks.integer("folds", folds, low=2, high=MOST_FOLDS)
    stream = Stream(templates)
    for block in comparisons:
        stream.add(block)
    stream.require_both()
    distinct = stream.distinct()
    repeats = stream.genuine + stream.impostors - sum(distinct[:2])
    kept, notes = supported_rates(fars, distinct[2], impostors="distinct " * bool(repeats) + "impostor pairs")
    if repeats:
        notes += (f"{repeats:,} comparisons repeat another; they do not count for which FARs the list can show",)
    samples = {**stream.samples(kept, _SPARE), "folds": np.array(folds)}
    parts = _parts(samples)
    tail = parts[0][0]
    thresholds, spreads, accuracy = _operating(*parts[0], kept)
    for part in parts[1:]:
        more = _operating(*part, kept)
        thresholds, spreads = thresholds | renamed(more[0]), spreads | renamed(more[1])
    at_fars = {far: thresholds[f"TAR@FAR={rate_label(far)}"] for far in kept}
    once = tail.weigh(np.ones(len(samples["subjects"])))
    curve = tail.curve(once)
    if "balanced accuracy" not in thresholds:
        notes += ("no balanced accuracy: its threshold may lie below the impostors kept; a higher FAR keeps more",)
    if accuracy is not None:
        nothing = stream.impostors / (stream.genuine + stream.impostors)
        note = f"± of the accuracy: standard error over {folds} folds; to accept nothing is {nothing:.6g} accurate"
    elif templates.subjects is None:
        draws, note = 0, "the list does not say who is shown: no intervals, and no accuracy over folds of subjects"
    else:
        note = "no accuracy: a fold lacks genuine or impostor comparisons; use fewer folds"
    resampling = Resampling("subjects", draws, seed, keeps_sizes=accuracy is not None)
    return measure(
        PROTOCOL,
        _statistic(parts, kept),
        samples,
        {
            **templates.choices(),
            "subjects": _SUBJECTS[templates.linked] if templates.subjects is not None else "unknown",
            "balanced accuracy": "(TAR + 1 − FMR) / 2 at its best threshold, chosen on the same comparisons",
            "accuracy": f"threshold best on the other {folds - 1} folds (by subject of the first template)",
        },
        {
            "comparisons": stream.genuine + stream.impostors,
            "genuine": stream.genuine,
            "impostors": stream.impostors,
            **({"repeated comparisons": repeats} if repeats else {}),
            "templates": len(templates),
            "images": templates.images,
            **templates.counts(),
            "subjects": len(samples["subjects"]),
            "folds": folds,
        },
        resampling,
        thresholds=thresholds,
        spreads=spreads,
        curves=error_curves(curve, PROTOCOL, failures=FAILED_COUNTS in samples),
        notes=(*_warnings(tail, curve, kept), *notes, note),
        by_group=_by_group(tail, samples, templates, at_fars, resampling),
        about={**templates.origin, "templates": templates.source},
    )


def _by_group(
    tail: Tail, samples: Samples, templates: Templates, thresholds: Mapping[float, float], resampling: Resampling
) -> GroupFigures:
    """FMR and FNMR by the groups of the subjects; every impostor that a threshold accepts is among those kept."""
    if templates.groups is None or templates.subjects is None:
        reason = "the list does not say who is shown, and so whose group a comparison belongs to"
        return GroupFigures(notes=() if templates.groups is None else (f"no error rates by group: {reason}",))
    order = np.argsort(templates.subjects, kind="stable")
    subjects, starts = np.unique(templates.subjects[order], return_index=True)
    of_subject = [shared_group(part) for part in np.split(templates.groups[order], starts[1:])]
    rows = np.searchsorted(subjects, samples["subjects"])
    names, (group,) = number_groups(text_array(of_subject)[rows])
    at = np.array(list(thresholds.values()))[:, None]
    people = samples["pair_first"].astype(np.int64), samples["pair_second"].astype(np.int64)
    accepted = (samples["impostor_scores"] >= at).astype(np.float64)
    compared = np.zeros((len(at), len(people[0])))
    counts = samples["pair_counts"].astype(np.float64)
    matches = Trials.concatenate(  # how many there are, and apart from that how many are accepted
        [
            Trials(group[people[0]], group[people[1]], *people, counts, compared),
            Trials(group[tail.first], group[tail.second], tail.first, tail.second, np.zeros(len(tail.first)), accepted),
        ]
    )
    misses = searches(group[tail.genuine], tail.genuine, samples["genuine_scores"] < at)
    points = [Point(f"FAR={rate_label(far)}", far, threshold) for far, threshold in thresholds.items()]
    return measure_groups(names, matches, misses, points, resampling)


def _warnings(tail: Tail, curve: ErrorCurve, fars: Sequence[float]) -> tuple[str, ...]:
    """The warning if the model hardly tells subjects apart: by the AUC, or if the curve is cut, by its highest FAR."""
    if tail.whole:
        warning = reporting.auc_warning(auc(curve), people="these subjects")
        return (warning,) if warning else ()
    if not max(fars, default=0):
        return ()
    share, name = tar_at_far(curve, max(fars), zero_ok=True).tar, f"TAR@FAR={rate_label(max(fars))}"
    return reporting.share_warnings(name, share, max(fars), len(tail.genuine), "these subjects")


def statistic(samples: Samples) -> tuple[Statistic, Units]:
    """The figures of `verify` by how often each subject is drawn, and the subjects.

    A resample has no figure whose threshold would lie below the impostors that are kept.
    """
    return _statistic(_parts(samples), samples["fars"].tolist())


def _statistic(parts: Sequence[tuple[Tail, Folds]], fars: Sequence[float]) -> tuple[Statistic, Units]:
    units, whole = Units.of(np.arange(parts[0][0].pairs.shape[0])), _figures(*parts[0], fars)
    if len(parts) == 1:
        return whole, units
    rest = _figures(*parts[1], fars)
    return (lambda drawn: {**whole(drawn), **renamed(rest(drawn))}), units


def _parts(samples: Samples) -> list[tuple[Tail, Folds]]:
    """All comparisons, and if some failed, those without failures."""
    tail = Tail.from_samples(samples)
    both = [(tail, Folds.from_samples(samples, tail))]
    return both if FAILED_COUNTS not in samples else both + _parts(_without_failures(samples))


def _without_failures(samples: Samples) -> dict[str, Any]:
    """The samples of the comparisons whose templates both have embeddings; the subjects stay."""
    rest = {name: values for name, values in samples.items() if name != FAILED_COUNTS}
    for kind, columns in (("genuine", ("scores", "subjects", "norms")), ("impostor", ("scores", "first", "second"))):
        kept = samples[f"{kind}_scores"] > BELOW
        if not kept.any():
            raise checks.InputError(
                f"comparisons need at least one {kind} one of two templates with embeddings; got none"
            )
        rest |= {f"{kind}_{name}": samples[f"{kind}_{name}"][kept] for name in columns}
    rest["pair_counts"] = samples["pair_counts"] - samples[FAILED_COUNTS]
    return rest


def _operating(
    tail: Tail, folds: Folds, fars: Sequence[float]
) -> tuple[dict[str, float], dict[str, float], FoldAccuracy | None]:
    """Thresholds and spreads of the figures that have one, and the accuracy of the folds, if there is one."""
    once = tail.weigh(np.ones(tail.pairs.shape[0]))
    curve = tail.curve(once)
    thresholds = {f"TAR@FAR={rate_label(far)}": tar_at_far(curve, far, zero_ok=far == 0).threshold for far in fars}
    balanced = _balanced(curve, tail.reach(once))
    if balanced is not None:
        thresholds["balanced accuracy"] = balanced[0]
    accuracy = folds.accuracy(once)
    return thresholds, {} if accuracy is None else {"accuracy": accuracy.standard_error}, accuracy


def _figures(tail: Tail, folds: Folds, fars: Sequence[float]) -> Statistic:
    def figures(drawn: Floats) -> dict[str, float]:
        weights = tail.weigh(drawn)
        if not weights.genuine.any() or weights.kept <= 0:
            return {}
        reach = tail.reach(weights)
        curve = tail.curve(weights)
        values = {f"TAR@FAR={rate_label(far)}": tar_at_far(curve, far, zero_ok=True).tar for far in fars if far < reach}
        balanced = _balanced(curve, reach)
        if balanced is not None:
            values["balanced accuracy"] = balanced[1]
        accuracy = folds.accuracy(weights)
        return values if accuracy is None else {**values, "accuracy": accuracy.mean}

    return figures


def _balanced(curve: ErrorCurve, reach: float) -> tuple[float, float] | None:
    """Threshold and value of the balanced accuracy; None where it may be higher at an FMR above `reach`, which is cut.

    There it is at most (1 + 1 − reach) / 2.
    """
    found = balanced_accuracy(curve)
    return found if found[1] >= 1 - reach / 2 else None
