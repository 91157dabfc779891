"""FROC of any detector: plain loops, lesions painted into masks, LUNA16 as a preset, patients, and what is said."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from angulus.core.checks import InputError
from angulus.evaluation.lists.detection_csv import Cases, Lesions, Marks
from angulus.evaluation.lists.luna16_csv import read_excluded, read_findings, read_marks, read_scans
from angulus.evaluation.metrics.froc import FP_RATES
from angulus.evaluation.protocols import detection, matching
from angulus.evaluation.protocols.differences import compare_results
from angulus.evaluation.protocols.result import Result


def marks(*rows: tuple[str, float, float]) -> Marks:
    """Marks on the x axis of the plane: case, x, score."""
    return Marks(np.array([row[0] for row in rows], dtype=np.str_), _on_axis(rows), np.array([row[2] for row in rows]))


def lesions(*rows: tuple[str, float, float], ignore: tuple[int, ...] = ()) -> Lesions:
    """Lesions on the x axis of the plane: case, x, diameter."""
    sizes, flags = np.array([row[2] for row in rows]), np.isin(np.arange(len(rows)), ignore)
    return Lesions(np.array([row[0] for row in rows], dtype=np.str_), _on_axis(rows), sizes, flags)


def _on_axis(rows: tuple[tuple[str, float, float], ...]) -> np.ndarray:
    return np.array([[row[1], 0.0] for row in rows]).reshape(-1, 2)


def cases(names: str, patients: str | None = None) -> Cases:
    return Cases(np.array(list(names)), None if patients is None else np.array(list(patients)))


def slow(given: Marks, there: Lesions, names: list[str], reach: list[float]) -> list[tuple[float, bool]]:
    """Score and kind of each lesion to find and each false positive, one mark and one lesion at a time."""
    found = []
    for name in names:
        best = {row: -math.inf for row in range(len(there)) if there.cases[row] == name and not there.ignore[row]}
        for mark in range(len(given)):
            if given.cases[mark] != name:
                continue
            hits = [
                row
                for row in range(len(there))
                if there.cases[row] == name and math.dist(given.centres[mark], there.centres[row]) < reach[row]
            ]
            wanted = [row for row in hits if not there.ignore[row]]
            for row in wanted:
                best[row] = max(best[row], given.scores[mark])
            if not hits:
                found.append((given.scores[mark], False))
        found += [(score, True) for score in best.values()]
    return found


def sensitivities(found: list[tuple[float, bool]], count: int, rates: list[float]) -> list[float]:
    """Of every threshold, from the highest, false positives per case and sensitivity; straight lines between."""
    wanted = sum(lesion for _, lesion in found)
    points = [(0.0, 0.0)]
    for threshold in sorted({score for score, _ in found if score > -math.inf}, reverse=True):
        accepted = [lesion for score, lesion in found if score >= threshold]
        points.append((accepted.count(False) / count, accepted.count(True) / wanted))
    return np.interp(rates, *zip(*points, strict=True)).tolist()


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("distance", [None, 6.5])
def test_it_is_the_plain_loop(axes: int, distance: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(axes)
    monkeypatch.setattr(matching, "_PAIRS", 40)  # so that a case's marks are matched in several blocks
    names = random.choice(list("aabc"), 150), random.choice(list("aabc"), 30)
    given = Marks(names[0], random.uniform(0, 40, (150, axes)), random.choice(np.linspace(0, 1, 40), 150))
    sizes = random.uniform(4, 16, 30)
    there = Lesions(names[1], random.uniform(0, 40, (30, axes)), sizes, random.random(30) < 0.3)
    rates = [0.0, 0.3, 2.0, 11.0, 500.0]
    result = detection.evaluate(given, there, cases("abcd"), distance=distance, rates=rates, draws=0)
    reach = (sizes / 2).tolist() if distance is None else [distance] * 30
    found = slow(given, there, list("abcd"), reach)
    expected = sensitivities(found, 4, rates)
    assert [result[f"sensitivity@FP/case={rate:g}"] for rate in rates] == pytest.approx(expected, abs=1e-12)
    assert result["CPM"] == pytest.approx(np.mean(sensitivities(found, 4, list(FP_RATES))), abs=1e-12)
    assert result.counts["false positives"] == sum(not lesion for _, lesion in found) > 0
    assert result.counts["ignored on lesions to ignore"] > 0
    assert (result.counts["cases"], result.counts["lesions"]) == (4, int((~there.ignore).sum()))


def test_it_is_the_count_of_painted_masks() -> None:
    """As evaluations of slides do it: each disc is painted with its number, and a mark reads the pixel below it."""
    random = np.random.default_rng(0)
    names, found, every_mark, every_lesion = list("abcde"), [], [], []
    for name in names:
        mask = np.zeros((60, 60), dtype=int)
        for number, (row, column) in enumerate(random.permutation([(10, 10), (10, 40), (40, 10), (40, 45)])[:3], 1):
            radius, ignored = float(random.uniform(4, 9)), number == 3
            every_lesion.append((name, column, row, 2 * radius, ignored))
            for y in range(60):
                for x in range(60):
                    if (y - row) ** 2 + (x - column) ** 2 < radius**2:
                        mask[y, x] = number
        best = {1: -math.inf, 2: -math.inf}
        for x, y, score in zip(*random.integers(0, 60, (2, 40)), random.permutation(40) / 40, strict=True):
            every_mark.append((name, x, y, score))
            if mask[y, x] == 0:
                found.append((float(score), False))
            elif mask[y, x] < 3:
                best[mask[y, x]] = max(best[mask[y, x]], float(score))
        found += [(score, True) for score in best.values()]
    who, x, y, scores = zip(*every_mark, strict=True)
    given = Marks(np.array(who), np.stack([x, y], axis=1).astype(float), np.array(scores, dtype=float))
    who, x, y, sizes, ignore = zip(*every_lesion, strict=True)
    there = Lesions(np.array(who), np.stack([x, y], axis=1).astype(float), np.array(sizes), np.array(ignore))
    result = detection.evaluate(given, there, cases("abcde"), draws=0)
    rates = list(FP_RATES)
    expected = sensitivities(found, 5, rates)
    assert [result[f"sensitivity@FP/case={rate:g}"] for rate in rates] == pytest.approx(expected, abs=1e-12)
    assert 0 < expected[-1] < 1 and result.counts["ignored on lesions to ignore"] > 0


def test_luna16_is_a_preset(data_folder: Path) -> None:
    folder = data_folder / "luna16"
    given, scans = read_marks(folder / "dpn26_submission.csv.gz"), read_scans(folder / "seriesuids.csv")
    nodules, excluded = read_findings(folder / "annotations.csv"), read_excluded(folder / "annotations_excluded.csv.gz")
    both = Lesions(
        *(np.concatenate([getattr(part, name) for part in (nodules, excluded)]) for name in ("cases", "centres")),
        np.concatenate([nodules.diameters, excluded.diameters]),
        np.concatenate([nodules.ignore, excluded.ignore]),
    )
    general = detection.evaluate(given, both, Cases(scans), unmeasured=10, most_marks=100, draws=0)
    preset = detection.luna16(given, nodules, excluded, scans, draws=0)
    assert [number.value for number in general.numbers] == [number.value for number in preset.numbers]
    assert general["CPM"] == pytest.approx(0.8419658, abs=1e-6)
    assert general.counts["negative cases"] == 888 - len(set(nodules.cases.tolist())) == 287
    for ours, theirs in (("lesions", "nodules"), ("false positives",) * 2, ("true positives",) * 2):
        assert general.counts[ours] == preset.counts[theirs]


def test_a_border_is_outside() -> None:
    for reach, place in (({}, 5.0), ({"distance": 3.0}, 3.0)):
        there, where = lesions(("a", 0.0, 10.0)), cases("a")
        on, inside = (detection.evaluate(marks(("a", x, 0.9)), there, where, **reach) for x in (place, place - 1e-9))
        assert (on.counts["true positives"], inside.counts["true positives"]) == (0, 1)


def test_negative_cases_count_and_are_explained() -> None:
    given, there = marks(("a", 0, 0.9), ("n", 0, 0.95)), lesions(("a", 0, 6))
    listed = detection.evaluate(given, there, cases("anmk"), rates=[0.25], draws=0)
    assert (listed.counts["cases"], listed.counts["negative cases"]) == (4, 3)
    assert listed["sensitivity@FP/case=0.25"] == 1 and listed["CPM"] == pytest.approx(6 / 7)
    assert listed.choices["negative cases"] == "those of the list without a lesion to find"
    known = detection.evaluate(given, there, rates=[0.25], draws=0)
    assert (known.counts["cases"], known.counts["negative cases"]) == (2, 1)
    assert known["sensitivity@FP/case=0.25"] == 0 and known["CPM"] == pytest.approx(5 / 7)
    assert known.choices["cases"] == "those that a mark or a lesion names"
    assert any(note.startswith("without a list of cases, a case with neither mark nor lesion") for note in known.notes)
    assert "with 2 cases one false positive is 0.5 per case: the sensitivity at 0.25 is interp" in " ".join(known.notes)


def test_patients_are_drawn_with_all_their_cases() -> None:
    """Patient p has three of four cases and one found lesion each; q has one, missed, and all false positives."""
    given = marks(("a", 0, 0.9), ("b", 0, 0.9), ("c", 0, 0.9), ("d", 50, 0.95), ("d", 60, 0.95))
    there = lesions(*((name, 0.0, 6.0) for name in "abcd"))
    result = detection.evaluate(given, there, cases("abcd", "pppq"), rates=[1.0], draws=400, seed=5)
    assert (result.counts["patients"], result.choices["intervals"][:32]) == (2, "95 % of 400 resamples of the pat")
    random, drawn = np.random.default_rng(5), []
    for _ in range(400):
        times_p, times_q = random.multinomial(2, [0.5, 0.5])
        count = 3 * times_p + times_q  # cases of the resample
        found = 3 * times_p / (3 * times_p + times_q)
        drawn.append(found * min(1.0, count / (2 * times_q)) if times_q else found)
    interval = result.number("sensitivity@FP/case=1").interval
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])))
    unknown = detection.evaluate(given, there, Cases(np.array(list("abcd")), np.array(["p", "p", "p", ""])), draws=9)
    assert "cases (seed 0)" in unknown.choices["intervals"]
    assert any(note.startswith("the patient of 1 of 4 cases is not known") for note in unknown.notes)


def test_what_is_said_about_marks() -> None:
    there, where = lesions(("a", 0, 6), ("b", 0, 6)), cases("ab")
    repeated = detection.evaluate(marks(("a", 0, 0.9), ("b", 9, 0.5), ("b", 9, 0.5)), there, where, draws=0)
    assert repeated.counts["false positives"] == 2
    assert repeated.notes[-1].startswith("1 marks repeat another (case, place and score)")
    none = detection.evaluate(marks(), there, where, draws=0)
    assert none["CPM"] == 0 and none.notes[0] == "warning: there are no marks: the detector found nothing"
    missed = detection.evaluate(marks(("a", 99, 0.5)), there, where, draws=0)
    assert missed.notes[0] == "warning: no mark hits a lesion; are their coordinates in the same axes and unit?"
    other = detection.evaluate(marks(("a", 0, 0.9), ("z", 0, 0.9)), there, where, draws=0)
    assert other.counts["marks of other cases"] == 1
    assert other.notes[0] == "1 marks lie in cases that are not in the list, 'z' first; they are left out"
    few = detection.evaluate(marks(("a", 0, 0.9)), lesions(("a", 0, 6)), where, draws=50)
    assert few.number("CPM").no_interval.endswith("of the resamples; give more cases with a lesion")
    one = detection.evaluate(marks(("a", 0, 0.9)), lesions(("a", 0, 6)), cases("a"), draws=50)
    assert one.number("CPM").no_interval == "one alone cannot be resampled"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"distance": 0}, "distance must be a finite number > 0; got 0"),
        ({"distance": 5, "unmeasured": 3}, "distance holds for all lesions, so unmeasured changes nothing"),
        ({}, r"every lesion must have a diameter or radius; 1 have none, the first in 'b'; give .*\(distance\)"),
        ({"unmeasured": math.nan}, "unmeasured must be a finite number > 0; got nan"),
        ({"distance": 5, "most_marks": 0}, "most_marks must be a whole number >= 1; got 0"),
        ({"distance": 5, "rates": []}, "rates must hold at least one number"),
        ({"distance": 5, "rates": [0.5, 1, 0.5000001]}, "six digits .* got 0.5 and 0.5000001; leave one out"),
        ({"distance": 5, "rates": [-1]}, "rates must be a finite number >= 0; got -1"),
        ({"distance": 5, "cases": cases("z")}, "the marks must lie in the listed cases; none of 1 does: .* like 'z'"),
    ],
)
def test_what_is_refused(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        detection.evaluate(marks(("a", 0, 0.9)), lesions(("a", 0, 6), ("b", 0, math.nan)), **options)  # type: ignore[arg-type]


def test_cases_of_two_spellings_get_a_warning_that_shows_both() -> None:
    result = detection.evaluate(marks(("img/a.jpg", 0, 0.9)), lesions(("a", 0, 6)), draws=0)
    assert result.notes[0] == (
        "warning: no mark hits a lesion; none lies in a case with one: the first mark is in 'img/a.jpg', "
        "the first lesion in 'a'; do both files name the cases alike?"
    )


def test_only_lesions_to_ignore_are_no_lesions() -> None:
    with pytest.raises(InputError, match="froc needs at least one lesion in the listed cases; got none"):
        detection.evaluate(marks(("a", 0, 0.9)), lesions(("a", 0, 6), ignore=(0,)))


def test_two_detectors_are_compared_on_the_same_patients(tmp_path: Path) -> None:
    there, where = lesions(*((name, 0.0, 6.0) for name in "abcdef")), cases("abcdef", "ppqqrr")
    good = detection.evaluate(marks(*((name, 0, 0.9) for name in "abcdef")), there, where, rates=[1], draws=0)
    poor = detection.evaluate(marks(*((name, 0, 0.9) for name in "ace")), there, where, rates=[1], draws=0)
    for name, result in (("good", good), ("poor", poor)):
        result.save(tmp_path / f"{name}.json")
    read = [Result.read(tmp_path / f"{name}.json") for name in ("poor", "good")]
    difference = compare_results(*read, draws=20)
    assert difference["sensitivity@FP/case=1"] == 0.5
    other = detection.evaluate(marks(("a", 0, 0.9)), there, cases("abcdef", "pqqqrr"), rates=[1], draws=0)
    with pytest.raises(InputError, match="'patients' differs"):
        compare_results(good, other, draws=20)
