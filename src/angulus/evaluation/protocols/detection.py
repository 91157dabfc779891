"""Lung-nodule detection by LUNA16's rules: marks or scored candidates to FROC and CPM."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from angulus.core import checks, formats
from angulus.evaluation.lists.luna16_csv import Findings, Marks
from angulus.evaluation.metrics import froc
from angulus.evaluation.metrics.intervals import Flags, Floats, Rows, Samples, Statistic, Units
from angulus.evaluation.protocols.figures import Resampling, measure
from angulus.evaluation.protocols.result import WARNING, Curve, Result

PROTOCOL, CANDIDATES = "luna16", "luna16-candidates"
MEASURED = ("scores", "nodule", "scan")  # the samples that the detector gave; `scans` says which were searched

MOST_MARKS = 100  # per scan
UNMEASURED_MM = 10.0  # the diameter of a finding that was not measured; LUNA16


@dataclass(frozen=True)
class Matched:
    """Nodules and false positives with their score, kind and scan, and how many marks count as neither."""

    scores: Floats  # [N] of nodules (their most probable mark; −inf where nothing hit them) and false positives
    nodule: Flags  # [N] of bool
    scan: Rows  # [N] int64, positions in `scans`
    scans: NDArray[np.str_]  # [S] of str, all that were searched
    counts: Mapping[str, int]  # marks used, marks beyond the most a scan may have, marks ignored


def luna16(
    marks: Marks,
    nodules: Findings,
    excluded: Findings,
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
    matched = match(marks, nodules, excluded, scans)
    where_all = {"marks": marks.scans, "nodules": nodules.scans, "excluded findings": excluded.scans}
    outside = {name: where[~np.isin(where, scans)] for name, where in where_all.items()}
    if len(marks) and len(outside["marks"]) == len(marks):
        raise checks.InputError(
            f"the marks must lie in the listed scans; none of {len(marks):,} does: the first is in "
            f"{str(marks.scans[0])!r}, and the list names scans like {str(scans[0])!r}"
        )
    notes = tuple(
        f"{len(where):,} {name} lie in scans that are not in the list, {str(where[0])!r} first; they are left out"
        for name, where in outside.items()
        if len(where)
    )
    if len(marks) and not (matched.nodule & (matched.scores > -np.inf)).any():
        notes = (
            f"{WARNING}no mark hits a nodule; are their coordinates x, y, z in millimetres of the scanner's world?",
            *notes,
        )
    left_out = {f"{name} of other scans": len(where) for name, where in outside.items() if len(where)}
    matched = replace(matched, counts={**matched.counts, **left_out})
    choices = {
        "hit": "nearer to the centre than diameter / 2",
        "diameter of unmeasured findings": f"{UNMEASURED_MM:g} mm",
        "most marks a scan": f"{MOST_MARKS} (of more, those above the next one's probability)",
    }
    return _result(PROTOCOL, matched, choices, notes, source, Resampling("scans", draws, seed))


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
    choices = {"nodules": named}
    notes = (
        "the sensitivity is a share of the nodules that have a candidate, and the scans are those with a candidate; "
        "nodules without one are not known here",
    )
    return _result(CANDIDATES, matched, choices, notes, source, Resampling("scans", draws, seed))


def read_candidates(path: Path) -> dict[str, NDArray[Any]]:
    """Read `.npz`: labels, probabilities, scans, and where they are known nodules; what `candidates` takes.

    Raises:
        checks.InputError: the file cannot be read, or lacks one of them.
    """
    if path.suffix != ".npz":
        raise checks.InputError(f"candidates must be in a file that ends in .npz; got {path}")
    names = ("labels", "probabilities", "scans", "nodules")
    return formats.read(path, names, ("scans", "nodules"), needed=names[:3])


def match(marks: Marks, nodules: Findings, excluded: Findings, scans: NDArray[np.str_]) -> Matched:
    """What each mark is: a hit of a nodule, a second one, ignored on an excluded finding, or a false positive.

    A mark that hits two nodules finds both; a mark that hits a nodule is not ignored, whatever else it hits.
    """
    scores: list[Floats] = []
    nodule: list[Flags] = []
    scan: list[Rows] = []
    used = dropped = double = ignored = 0
    rows = (_by_scan(given.scans, scans) for given in (marks, nodules, excluded))
    for number, (own, there, neither) in enumerate(zip(*rows, strict=True)):
        chosen = own[most_probable(marks.probabilities[own])]
        probabilities, centres = marks.probabilities[chosen], marks.centres[chosen]
        hits = _hits(nodules.centres[there], nodules.diameters[there], centres)
        hit = hits.any(axis=0)
        on_excluded = _hits(excluded.centres[neither], excluded.diameters[neither], centres).any(axis=0) & ~hit
        best = np.where(hits, probabilities, -np.inf).max(axis=1, initial=-np.inf)
        false = probabilities[~hit & ~on_excluded]
        scores += [best, false]
        nodule += [np.ones(len(best), dtype=bool), np.zeros(len(false), dtype=bool)]
        scan.append(np.full(len(best) + len(false), number))
        used, dropped = used + len(chosen), dropped + len(own) - len(chosen)
        double += int((hits.sum(axis=1) - 1).clip(min=0).sum())
        ignored += int(on_excluded.sum())
    counts = {
        "marks": used,
        "marks beyond the most a scan": dropped,
        "ignored on excluded findings": ignored,
        "ignored second hits of a nodule": double,
    }
    return Matched(np.concatenate(scores), np.concatenate(nodule), np.concatenate(scan), scans, counts)


def most_probable(probabilities: Floats, most: int = MOST_MARKS) -> Flags:
    """Which marks of one scan are used: all, or where there are more than `most`, those above the next one.

    Marks that tie across the limit are all left out, as the challenge's evaluation does.
    """
    if len(probabilities) <= most:
        return np.ones(len(probabilities), dtype=bool)
    return np.asarray(probabilities > np.sort(probabilities)[-most - 1])


def statistic(samples: Samples) -> tuple[Statistic, Units]:
    """The figures by weights of the scans, and the scans; `samples` are those of a result.

    A resample without any nodule has no figures.
    """
    scores, nodule, scan = samples["scores"], samples["nodule"], samples["scan"]
    count = len(samples["scans"])

    def figures(weights: Floats) -> dict[str, float]:
        amount = weights[scan]
        if not amount[nodule].any():
            return {}
        curve = froc.froc_curve(scores, nodule, count, amount)
        at_rates = dict(zip(_NAMES, froc.sensitivity_at(curve).tolist(), strict=True))
        return {"CPM": froc.cpm(curve), **at_rates, "sensitivity of all marks": float(curve.sensitivity[-1])}

    return figures, Units.of(np.arange(count))


_NAMES = tuple(f"sensitivity@FP/scan={rate:g}" for rate in froc.FP_RATES)


def _result(
    name: str, matched: Matched, choices: Mapping[str, Any], notes: tuple[str, ...], source: str, resampling: Resampling
) -> Result:
    if not matched.nodule.any():
        raise checks.InputError(f"{name} needs at least one nodule in the listed scans; got none")
    order = np.argsort(-matched.scores, kind="stable")  # sorted once, the sort of each resample costs little
    samples = {column: getattr(matched, column)[order] for column in ("scores", "nodule", "scan")} | {
        "scans": matched.scans
    }
    curve = froc.froc_curve(samples["scores"], samples["nodule"], len(matched.scans))
    hit = matched.nodule & (matched.scores > -np.inf)
    return measure(
        name,
        statistic(samples),
        samples,
        {**choices, "interpolation": "linear"},
        {
            "scans": len(matched.scans),
            "nodules": int(matched.nodule.sum()),
            "true positives": int(hit.sum()),
            "false positives": int((~matched.nodule).sum()),
            "false negatives": int((matched.nodule & ~hit).sum()),
            **matched.counts,
        },
        resampling,
        curves=(Curve("froc", name, curve.fp_per_scan, curve.sensitivity),),
        notes=notes,
        about={"embeddings": source},
    )


def _by_scan(names: NDArray[np.str_], scans: NDArray[np.str_]) -> Iterator[Rows]:
    """For each scan, the rows that name it, in their order."""
    order = np.argsort(names, kind="stable")
    ordered = names[order]
    left, right = np.searchsorted(ordered, scans), np.searchsorted(ordered, scans, side="right")
    return (order[start:end] for start, end in zip(left, right, strict=True))


def _hits(centres: Floats, diameters: Floats, marks: Floats) -> Flags:
    """Which marks [M, 3] lie inside which findings: [F, M]."""
    radii = np.where(np.isnan(diameters), UNMEASURED_MM, diameters) / 2
    square = (centres[:, None, :] - marks[None, :, :]) ** 2
    distance = square[..., 0] + square[..., 1] + square[..., 2]  # in the published evaluation's order, to its last bit
    return np.asarray(distance < (radii**2)[:, None])
