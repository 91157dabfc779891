"""The result of a detection protocol: what was matched, as FROC and CPM with intervals."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angulus.core import checks
from angulus.evaluation.lists.detection_csv import Lesions, Marks
from angulus.evaluation.metrics import froc
from angulus.evaluation.metrics.intervals import Floats, Samples, Statistic, Units
from angulus.evaluation.protocols.figures import Resampling, measure
from angulus.evaluation.protocols.matching import Matched, match
from angulus.evaluation.protocols.result import WARNING, Curve, Result

MEASURED = ("scores", "lesion", "case")  # the samples that the detector gave; `cases` says which were searched


@dataclass(frozen=True)
class Words:
    """What a protocol calls a case, a lesion, and one to ignore, and what to ask where no mark hits."""

    case: str = "case"
    lesion: str = "lesion"
    to_ignore: str = "lesions to ignore"
    places: str = "are their coordinates in the same axes and unit?"
    negatives: bool = True  # whether the counts name the cases without a lesion to find


OF_LUNA16 = Words(
    "scan",
    "nodule",
    "excluded findings",
    "are their coordinates x, y, z in millimetres of the scanner's world?",
    negatives=False,
)


@dataclass(frozen=True)
class Setting:
    """What a result says about itself."""

    protocol: str
    words: Words
    choices: Mapping[str, Any]
    source: str
    resampling: Resampling
    samples: Samples = field(default_factory=dict)  # other than those of the matching


def statistic(samples: Samples, case: str = "case") -> tuple[Statistic, Units]:
    """The figures by weights of the cases, and what is resampled; `samples` are those of a result.

    Resampled are the patients that `samples` names, else the cases. A resample without any lesion has no figures.
    """
    scores, lesion, owner = samples["scores"], samples["lesion"], samples["case"]
    rates = samples["rates"] if "rates" in samples else np.array(froc.FP_RATES)
    names = tuple(f"sensitivity@FP/{case}={rate:g}" for rate in rates.tolist())

    def figures(weights: Floats) -> dict[str, float]:
        amount = weights[owner]
        if not amount[lesion].any():
            return {}
        curve = froc.froc_curve(scores, lesion, float(weights.sum()), amount)
        at_rates = dict(zip(names, froc.sensitivity_at(curve, rates).tolist(), strict=True))
        return {"CPM": froc.cpm(curve), **at_rates, "sensitivity of all marks": float(curve.sensitivity[-1])}

    return figures, Units.of(samples["patients"] if "patients" in samples else np.arange(len(samples["cases"])))


scan_statistic = partial(statistic, case="scan")  # of LUNA16


def measure_marks(
    setting: Setting,
    marks: Marks,
    lesions: Lesions,
    cases: NDArray[np.str_],
    most: int | None,
    notes: tuple[str, ...],
) -> Result:
    """Match marks and lesions of the listed cases, count what lies in others, and measure."""
    words = setting.words
    wanted, neither = lesions.cases[~lesions.ignore], lesions.cases[lesions.ignore]
    outside = {
        "marks": marks.cases[~np.isin(marks.cases, cases)],
        f"{words.lesion}s": wanted[~np.isin(wanted, cases)],
        words.to_ignore: neither[~np.isin(neither, cases)],
    }
    if len(marks) and len(outside["marks"]) == len(marks):
        raise checks.InputError(
            f"the marks must lie in the listed {words.case}s; none of {len(marks):,} does: the first is in "
            f"{str(marks.cases[0])!r}, and the list names {words.case}s like {str(cases[0])!r}"
        )
    matched = match(marks, lesions, cases, most, (words.case, words.lesion, words.to_ignore))
    outside_notes = tuple(
        f"{len(where):,} {name} lie in {words.case}s that are not in the list, {str(where[0])!r} first; they are left "
        "out"
        for name, where in outside.items()
        if len(where)
    )
    warnings: tuple[str, ...] = ()
    if not len(marks):
        warnings = (f"{WARNING}there are no marks: the detector found nothing",)
    elif not (matched.lesion & (matched.scores > -np.inf)).any():
        warnings = (f"{WARNING}no mark hits a {words.lesion}; {words.places}",)
    left_out = {f"{name} of other {words.case}s": len(where) for name, where in outside.items() if len(where)}
    matched = replace(matched, counts={**matched.counts, **left_out})
    return measure_matched(setting, matched, (*warnings, *outside_notes, *notes))


def measure_matched(setting: Setting, matched: Matched, notes: tuple[str, ...]) -> Result:
    """Measure lesions and false positives that are matched already."""
    words = setting.words
    if not matched.lesion.any():
        raise checks.InputError(
            f"{setting.protocol} needs at least one {words.lesion} in the listed {words.case}s; got none"
        )
    order = np.argsort(-matched.scores, kind="stable")  # sorted once, the sort of each resample costs little
    samples = {column: getattr(matched, column)[order] for column in MEASURED}
    samples |= {"cases": matched.cases, **setting.samples}
    curve = froc.froc_curve(samples["scores"], samples["lesion"], len(matched.cases))
    hit = matched.lesion & (matched.scores > -np.inf)
    positive = len(np.unique(matched.case[matched.lesion]))
    patients = {"patients": len(np.unique(samples["patients"]))} if "patients" in samples else {}
    return measure(
        setting.protocol,
        statistic(samples, words.case),
        samples,
        {**setting.choices, "interpolation": "linear"},
        {
            f"{words.case}s": len(matched.cases),
            **({f"negative {words.case}s": len(matched.cases) - positive} if words.negatives else {}),
            **patients,
            f"{words.lesion}s": int(matched.lesion.sum()),
            "true positives": int(hit.sum()),
            "false positives": int((~matched.lesion).sum()),
            "false negatives": int((matched.lesion & ~hit).sum()),
            **matched.counts,
        },
        setting.resampling,
        curves=(Curve("froc", setting.protocol, curve.fp_per_case, curve.sensitivity),),
        notes=notes,
        about={"embeddings": setting.source},
    )
