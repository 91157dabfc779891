"""Which marks hit which lesions, case by case: what a FROC counts."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from angulus.evaluation.lists.detection_csv import Lesions, Marks
from angulus.evaluation.metrics.intervals import Flags, Floats, Rows

_PAIRS = 2**22  # of marks and lesions whose distances are in memory at a time


@dataclass(frozen=True)
class Matched:
    """Lesions and false positives with their score, kind and case, and how many marks count as neither."""

    scores: Floats  # [N] of lesions (their best mark; −inf where nothing hit them) and of false positives
    lesion: Flags  # [N] of bool
    case: Rows  # [N] int64, positions in `cases`
    cases: NDArray[np.str_]  # [C] of str, all that were searched
    counts: Mapping[str, int]  # marks used, marks beyond the most per case may have, marks ignored


def match(
    marks: Marks, lesions: Lesions, cases: NDArray[np.str_], most: int | None, words: tuple[str, str, str]
) -> Matched:
    """What each mark is: a hit of a lesion, a second one, ignored on a lesion to ignore, or a false positive.

    A mark hits a lesion whose centre is nearer than diameter / 2. A mark that hits two lesions finds both; a mark that
    hits a lesion is not ignored, whatever else it hits.

    Args:
        marks, lesions: with positions of one number of axes, every lesion with a diameter.
        cases: [C] of str, those that were searched; marks and lesions of other cases do not count.
        most: marks per case that are used, or None for all.
        words: what a case, a lesion and one to ignore are called, for the names of the counts.
    """
    a_case, a_lesion, to_ignore = words
    scores: list[Floats] = []
    lesion: list[Flags] = []
    case: list[Rows] = []
    used = dropped = double = ignored = 0
    rows = (_by_case(given.cases, cases) for given in (marks, lesions))
    for number, (own, there) in enumerate(zip(*rows, strict=True)):
        chosen = own if most is None else own[best_marks(marks.scores[own], most)]
        found = _match_case(marks.centres[chosen], marks.scores[chosen], lesions, there)
        false = marks.scores[chosen][found.false]
        scores += [found.best, false]
        lesion += [np.ones(len(found.best), dtype=bool), np.zeros(len(false), dtype=bool)]
        case.append(np.full(len(found.best) + len(false), number))
        used, dropped = used + len(chosen), dropped + len(own) - len(chosen)
        double, ignored = double + found.double, ignored + found.ignored
    counts = {
        "marks": used,
        **({f"marks beyond the most per {a_case}": dropped} if most is not None else {}),
        f"ignored on {to_ignore}": ignored,
        f"ignored second hits of a {a_lesion}": double,
    }
    return Matched(np.concatenate(scores), np.concatenate(lesion), np.concatenate(case), cases, counts)


def best_marks(scores: Floats, most: int) -> Flags:
    """Which marks of one case are used: all, or where there are more than `most`, those above the next one.

    Marks that tie across the limit are all left out, as LUNA16's evaluation does.
    """
    if len(scores) <= most:
        return np.ones(len(scores), dtype=bool)
    return np.asarray(scores > np.sort(scores)[-most - 1])


@dataclass(frozen=True)
class _Found:
    """Of one case: the best score of each lesion to find, which marks are false, and the marks that are neither."""

    best: Floats
    false: Flags
    double: int
    ignored: int


def _match_case(centres: Floats, scores: Floats, lesions: Lesions, rows: Rows) -> _Found:
    wanted, neither = rows[~lesions.ignore[rows]], rows[lesions.ignore[rows]]
    best, times = np.full(len(wanted), -np.inf), np.zeros(len(wanted), dtype=np.int64)
    false = np.ones(len(centres), dtype=bool)
    ignored, step = 0, max(1, _PAIRS // max(1, len(rows)))
    for start in range(0, len(centres), step):
        part = slice(start, start + step)
        hits = _hits(lesions, wanted, centres[part])
        hit = hits.any(axis=0)
        passed = _hits(lesions, neither, centres[part]).any(axis=0) & ~hit
        best = np.maximum(best, np.where(hits, scores[part], -np.inf).max(axis=1, initial=-np.inf))
        times += hits.sum(axis=1)
        false[part] = ~hit & ~passed
        ignored += int(passed.sum())
    return _Found(best, false, int((times - 1).clip(min=0).sum()), ignored)


def _hits(lesions: Lesions, rows: Rows, marks: Floats) -> Flags:
    """Which marks [M, D] lie inside which of the lesions: [L, M]."""
    centres, radii = lesions.centres[rows], lesions.diameters[rows] / 2
    distance: Floats = np.zeros((len(rows), len(marks)))
    for axis in range(marks.shape[1]):  # in the order of LUNA16's published evaluation, to its last bit
        distance += (centres[:, None, axis] - marks[None, :, axis]) ** 2
    return np.asarray(distance < (radii**2)[:, None])


def _by_case(names: NDArray[np.str_], cases: NDArray[np.str_]) -> Iterator[Rows]:
    """For each case, the rows that name it, in their order."""
    order = np.argsort(names, kind="stable")
    ordered = names[order]
    left, right = np.searchsorted(ordered, cases), np.searchsorted(ordered, cases, side="right")
    return (order[start:end] for start, end in zip(left, right, strict=True))
