"""Detection: marks against lesions, or scored candidates, to FROC and CPM; LUNA16's rules are a preset."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from angulus.core import checks, formats
from angulus.core.wording import plural
from angulus.evaluation.lists.detection_csv import Cases, Lesions, Marks, complete
from angulus.evaluation.metrics import froc
from angulus.evaluation.metrics.intervals import Floats
from angulus.evaluation.protocols.detection_result import OF_LUNA16, Setting, Words, measure_marks, measure_matched
from angulus.evaluation.protocols.figures import Resampling
from angulus.evaluation.protocols.matching import Matched
from angulus.evaluation.protocols.result import Result

PROTOCOL, LUNA16, CANDIDATES = "froc", "luna16", "luna16-candidates"
MOST_MARKS = 100  # per scan; LUNA16
UNMEASURED_MM = 10.0  # the diameter of a finding that was not measured; LUNA16


def evaluate(
    marks: Marks,
    lesions: Lesions,
    cases: Cases | None = None,
    *,
    distance: float | None = None,
    unmeasured: float | None = None,
    most_marks: int | None = None,
    rates: Sequence[float] | None = None,
    source: str = "these marks",
    draws: int = 1000,
    seed: int = 0,
) -> Result:
    """FROC of a detector's marks: sensitivity at false positives per case, CPM, intervals over cases or patients.

    A mark nearer to a lesion's centre than its radius, or than `distance`, hits it. A lesion is found with the score of
    its best hit, and its other hits do not count. A mark that hits only lesions to ignore does not count; every other
    mark is a false positive.

    Args:
        marks: the detector's.
        lesions: to be found, or to be ignored.
        cases: every case that was searched, those without mark or lesion included; None: those that a mark or a lesion
            names, which a note explains.
        distance: hit distance for all lesions, > 0 in the unit of the centres; None: diameter / 2 of each.
        unmeasured: the diameter of lesions without one, > 0; None: there must be none.
        most_marks: of a case with more marks, only those above the next one's score count; None: all count.
        rates: false positives per case where the sensitivity is reported, >= 0; None: 1/8, 1/4, 1/2, 1, 2, 4, 8.
        source: where the marks come from.
        draws, seed: resamples of the patients, or of the cases if patients are not known (0 for none), and their seed.

    Raises:
        checks.InputError: no lesion to find in these cases; no mark in them although there are marks; a lesion without
            a diameter; marks and lesions with different numbers of axes; a case of two patients.

    Source: D. P. Chakraborty and L. H. L. Winter, "Free-response methodology", Radiology 174(3), 1990, for the FROC;
    A. A. A. Setio et al., Medical Image Analysis 42, 2017, Sec. 3.3, for the rules.
    """
    if most_marks is not None:
        checks.integer("most_marks", most_marks, low=1)
    rates = froc.FP_RATES if rates is None else [checks.number("rates", rate, low=0) for rate in rates]
    if not len(rates):
        raise checks.InputError("rates must hold at least one number of false positives per case; got none")
    named: dict[str, float] = {}
    for rate in rates:
        if (other := named.setdefault(f"{rate:g}", rate)) != rate:
            raise checks.InputError(
                f"rates must differ within the six digits that figures name them by; got {other!r} and {rate!r}; "
                "leave one out"
            )
    cases = complete(marks, lesions, cases)
    sized, hit = _sized(lesions, distance, unmeasured)
    known = None if cases.patients is None or (cases.patients == "").any() else cases.patients
    samples: dict[str, NDArray[Any]] = {"rates": np.array(list(named.values()), dtype=np.float64)}
    if known is not None:
        samples["patients"] = known
    choices = {
        "hit": hit,
        "most marks per case": "all" if most_marks is None else most_marks,
        "cases": "of the list" if cases.listed else "those that a mark or a lesion names",
        "negative cases": "those of the list without a lesion to find"
        if cases.listed
        else "those that marks name, without a lesion to find",
    }
    notes = (*_case_notes(cases, samples["rates"]), *_repeat_notes(marks))
    unit = "cases" if known is None else "patients"
    resampling = Resampling(unit, draws, seed, needs=f"{unit} with a lesion")
    setting = Setting(PROTOCOL, Words(), choices, source, resampling, samples)
    return measure_marks(setting, marks, sized, cases.names, most_marks, notes)


def luna16(
    marks: Marks,
    nodules: Lesions,
    excluded: Lesions,
    scans: NDArray[np.str_],
    *,
    source: str = "these marks",
    draws: int = 1000,
    seed: int = 0,
) -> Result:
    """FROC and CPM of a detector's marks by LUNA16's rules, with intervals by a bootstrap over scans.

    Args:
        marks: the detector's.
        nodules: to be found.
        excluded: findings that count neither as hits nor as errors.
        scans: [S] of str, every scan that was searched, those without mark or nodule included.
        source: where the marks come from.
        draws, seed: resamples of the scans (0 for none), and their seed.

    Raises:
        checks.InputError: no nodule in these scans, or no mark in them although there are marks.

    Source: A. A. A. Setio et al., Medical Image Analysis 42, 2017, Sec. 3.3; the evaluation that the challenge
    publishes, whose counts this meets.
    """
    both = Lesions(
        np.concatenate([nodules.cases, excluded.cases]),
        np.concatenate([nodules.centres, excluded.centres]),
        np.concatenate([nodules.diameters, excluded.diameters]),
        np.arange(len(nodules) + len(excluded)) >= len(nodules),
    )
    choices = {
        "hit": "nearer to the centre than diameter / 2",
        "diameter of unmeasured findings": f"{UNMEASURED_MM:g} mm",
        "most marks per scan": f"{MOST_MARKS} (of more, those above the next one's probability)",
    }
    setting = Setting(LUNA16, OF_LUNA16, choices, source, Resampling("scans", draws, seed, needs="scans with a nodule"))
    return measure_marks(setting, marks, _sized(both, None, UNMEASURED_MM)[0], scans, MOST_MARKS, ())


def candidates(
    labels: ArrayLike,
    probabilities: ArrayLike,
    scans: ArrayLike,
    nodules: ArrayLike | None = None,
    *,
    source: str = "these marks",
    draws: int = 1000,
    seed: int = 0,
) -> Result:
    """FROC and CPM of scored candidates: each is a nodule's or a false positive, without a comparison of places.

    Args:
        labels: [N], 1 where the candidate is a nodule's.
        probabilities: [N], finite.
        scans: [N], the scan of each; a scan without candidates is not counted.
        nodules: [N], which nodule of its scan a positive candidate is of (others: anything): of one nodule the most
            probable candidate counts. None: each positive candidate is a nodule of its own.
        source, draws, seed: as in `luna16`.

    Raises:
        checks.InputError: shapes that differ, labels other than 0 and 1, or no positive candidate.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    names, scan = np.unique(np.asarray(scans).astype(np.str_), return_inverse=True)
    given = [labels, probabilities, scan] + ([] if nodules is None else [np.asarray(nodules)])
    if labels.ndim != 1 or not len(labels) or any(values.shape != labels.shape for values in given):
        raise checks.InputError(
            "labels, probabilities, scans and nodules must be [N] each with N >= 1; got shapes "
            + ", ".join(str(list(values.shape)) for values in given)
        )
    if not np.isin(labels, (0, 1)).all() or not np.isfinite(probabilities).all():
        raise checks.InputError("labels must be 0 or 1 and probabilities finite; got others")
    positive = labels.astype(bool)
    kept = np.flatnonzero(positive)
    if nodules is not None:
        best_first = kept[np.argsort(-probabilities[kept], kind="stable")]
        _, number = np.unique(np.asarray(nodules)[best_first].astype(np.str_), return_inverse=True)
        _, best = np.unique(number * len(names) + scan[best_first], return_index=True)
        ignored, kept = len(kept) - len(best), best_first[best]
    else:
        ignored = 0
    rows = np.concatenate([kept, np.flatnonzero(~positive)])
    counts = {"marks": len(labels), "ignored second hits of a nodule": ignored}
    matched = Matched(probabilities[rows], positive[rows], scan[rows], names, counts)
    named = "each positive candidate" if nodules is None else "as named (of each the most probable candidate)"
    notes = (
        "the sensitivity is a share of the nodules that have a candidate, and the scans are those with a candidate; "
        "nodules without one are not known here",
    )
    setting = Setting(
        CANDIDATES, OF_LUNA16, {"nodules": named}, source, Resampling("scans", draws, seed, needs="scans with a nodule")
    )
    return measure_matched(setting, matched, notes)


def read_candidates(path: Path) -> dict[str, NDArray[Any]]:
    """Read `.npz`: labels, probabilities, scans, and where they are known nodules; what `candidates` takes.

    Raises:
        checks.InputError: the file cannot be read, or lacks one of them.
    """
    if path.suffix != ".npz":
        raise checks.InputError(f"candidates must be in a file that ends in .npz; got {path}")
    names = ("labels", "probabilities", "scans", "nodules")
    return formats.read(path, names, ("scans", "nodules"), needed=names[:3])


def _sized(lesions: Lesions, distance: float | None, unmeasured: float | None) -> tuple[Lesions, str]:
    """The lesions with the diameter that a hit is judged by, and the rule in words."""
    if distance is not None and unmeasured is not None:
        raise checks.InputError("distance holds for all lesions, so unmeasured changes nothing; give one of the two")
    if distance is not None:
        checks.number("distance", distance, low=0, open_low=True)
        return replace(
            lesions, diameters=np.full(len(lesions), 2.0 * distance)
        ), f"nearer to the centre than {distance:g}"
    without = np.isnan(lesions.diameters)
    rule = "nearer to the centre than diameter / 2"
    if not without.any():
        return lesions, rule
    if unmeasured is None:
        row = int(np.flatnonzero(without)[0])
        raise checks.InputError(
            f"every lesion must have a diameter or radius; {int(without.sum()):,} have none, the first in "
            f"{str(lesions.cases[row])!r}; give the diameter of these (unmeasured), or one hit distance for all "
            "(distance)"
        )
    checks.number("unmeasured", unmeasured, low=0, open_low=True)
    rule += f"; of the {int(without.sum()):,} unmeasured {unmeasured:g} / 2"
    return replace(lesions, diameters=np.where(without, unmeasured, lesions.diameters)), rule


def _case_notes(cases: Cases, rates: Floats) -> tuple[str, ...]:
    notes = []
    if not cases.listed:
        notes.append(
            "without a list of cases, a case with neither mark nor lesion is not known: if there are such cases, the "
            "false positives per case are fewer than here; give the list of all cases"
        )
    if cases.patients is not None and (unknown := int((cases.patients == "").sum())):
        notes.append(
            f"the patient of {unknown:,} of {len(cases.names):,} cases is not known, so the intervals are over cases: "
            "too narrow if a patient has several; give the patient of each in the list of cases"
        )
    count = len(cases.names)
    coarse = [f"{rate:g}" for rate in rates.tolist() if 0 < rate * count < 1]
    if coarse:
        notes.append(
            f"with {count:,} {plural('case', count)} one false positive is {1 / count:.3g} per case: the sensitivity "
            f"at {', '.join(coarse)} is interpolated between none and one"
        )
    return tuple(notes)


def _repeat_notes(marks: Marks) -> tuple[str, ...]:
    rows = zip(marks.cases.tolist(), *marks.centres.T.tolist(), marks.scores.tolist(), strict=True)
    repeats = len(marks) - len(set(rows))
    if not repeats:
        return ()
    return (f"{repeats:,} marks repeat another (case, place and score); each that hits no lesion is a false positive",)
