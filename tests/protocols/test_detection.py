"""LUNA16: the published counts and CPM, its rules as slow loops, planted scenes, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from angulus.core.checks import InputError
from angulus.evaluation.lists.detection_csv import Lesions, Marks
from angulus.evaluation.lists.luna16_csv import read_excluded, read_findings, read_marks, read_scans
from angulus.evaluation.metrics.froc import froc_curve
from angulus.evaluation.protocols import detection
from angulus.evaluation.protocols.detection_result import scan_statistic
from angulus.evaluation.protocols.matching import best_marks
from angulus.evaluation.protocols.result import Result

RATES = (0.125, 0.25, 0.5, 1, 2, 4, 8)


def findings(*rows: tuple[str, float, float]) -> Lesions:
    """Findings on the x axis: scan, x, diameter."""
    scans, x, diameters = zip(*rows, strict=True) if rows else ((), (), ())
    return Lesions(
        np.array(scans, dtype=np.str_), _on_axis(x), np.array(diameters, dtype=float), np.zeros(len(rows), dtype=bool)
    )


def marks(*rows: tuple[str, float, float]) -> Marks:
    """Marks on the x axis: scan, x, probability."""
    scans, x, probabilities = zip(*rows, strict=True) if rows else ((), (), ())
    return Marks(np.array(scans, dtype=np.str_), _on_axis(x), np.array(probabilities, dtype=float))


def _on_axis(x: object) -> np.ndarray:
    x = np.array(x, dtype=float)
    return np.stack([x, 0 * x, 0 * x], axis=1) if len(x) else np.zeros((0, 3))


def evaluate(given: Marks, nodules: Lesions, excluded: Lesions | None = None, scans: str = "ab") -> Result:
    return detection.luna16(given, nodules, excluded or findings(), np.array(list(scans)), draws=0)


def test_the_published_marks_give_the_published_counts_and_cpm(data_folder: Path) -> None:
    folder = data_folder / "luna16"
    published = json.loads((folder / "expected_cpm.json").read_text())["dpn26"]
    given = (
        read_marks(folder / "dpn26_submission.csv.gz"),
        read_findings(folder / "annotations.csv"),
        read_excluded(folder / "annotations_excluded.csv.gz"),
        read_scans(folder / "seriesuids.csv"),
    )
    result = detection.luna16(*given, draws=1000, seed=0)
    assert result["CPM"] == pytest.approx(published["cpm"], abs=1e-6)
    for rate, sensitivity in zip(published["fp_per_scan"], published["sensitivity"], strict=True):
        assert result[f"sensitivity@FP/scan={rate:g}"] == pytest.approx(sensitivity, abs=1e-9)
    assert result["sensitivity of all marks"] == pytest.approx(0.957841484, abs=1e-9)
    assert dict(result.counts) == {
        "scans": 888,
        "nodules": 1186,
        "true positives": 1136,
        "false positives": 46078,
        "false negatives": 50,
        "marks": 52708,
        "marks beyond the most per scan": 55677 - 52708,
        "ignored on excluded findings": 5308,
        "ignored second hits of a nodule": 186,
    }
    assert not result.notes
    interval = result.number("CPM").interval
    assert interval is not None
    assert 0.80 < interval.low < result["CPM"] < interval.high < 0.88

    rows = np.loadtxt(folder / "froc_dpn26_submission.txt", delimiter=",")
    samples = result.samples
    curve = froc_curve(samples["scores"], samples["lesion"], 888)
    place = {round(threshold, 9): row for row, threshold in enumerate(curve.thresholds.tolist())}
    at = [place[round(threshold, 9)] for threshold in rows[:, 2].tolist()]
    assert curve.fp_per_case[at] == pytest.approx(rows[:, 0], abs=1e-9)
    assert curve.sensitivity[at] == pytest.approx(rows[:, 1], abs=1e-9)


def slow_luna16(given: Marks, nodules: Lesions, excluded: Lesions, scans: list[str]) -> tuple[dict[str, int], list]:
    """The rules of the protocol, one mark and one finding at a time."""
    counts = dict.fromkeys(("marks", "ignored", "double", "true", "false", "missed"), 0)
    entries = []
    for scan in scans:
        own = [row for row in range(len(given)) if given.cases[row] == scan]
        if len(own) > 100:
            limit = sorted((given.scores[row] for row in own), reverse=True)[100]
            own = [row for row in own if given.scores[row] > limit]
        counts["marks"] += len(own)
        left = set(own)
        for row in range(len(nodules)):
            if nodules.cases[row] != scan:
                continue
            hits = [mark for mark in own if _inside(given, mark, nodules, row)]
            left -= set(hits)
            counts["true" if hits else "missed"] += 1
            counts["double"] += max(len(hits) - 1, 0)
            entries.append((max((given.scores[mark] for mark in hits), default=-math.inf), True))
        for row in range(len(excluded)):
            if excluded.cases[row] == scan:
                hits = [mark for mark in left if _inside(given, mark, excluded, row)]
                counts["ignored"] += len(hits)
                left -= set(hits)
        counts["false"] += len(left)
        entries += [(given.scores[mark], False) for mark in left]
    return counts, entries


def _inside(given: Marks, mark: int, there: Lesions, row: int) -> bool:
    diameter = 10.0 if math.isnan(there.diameters[row]) else there.diameters[row]
    return math.dist(given.centres[mark], there.centres[row]) < diameter / 2


@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_slow_loop_on_crowded_scans(seed: int) -> None:
    random = np.random.default_rng(seed)
    scans = ["a", "b", "c", "empty"]

    def many(count: int, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return (
            random.choice(["a", "a", "b", "c"], count),
            random.uniform(0, 60, (count, 3)),
            random.choice(values, count),
        )

    given = Marks(*many(330, np.round(np.linspace(0, 1, 80), 3)))
    nodules = Lesions(*many(25, np.array([8.0, 20.0, 30.0])), np.zeros(25, dtype=bool))
    excluded = Lesions(*many(25, np.array([5.0, 12.0, np.nan])), np.ones(25, dtype=bool))
    result = detection.luna16(given, nodules, excluded, np.array(scans), draws=0)
    counts, entries = slow_luna16(given, nodules, excluded, scans)
    assert counts["double"] > 0 and counts["ignored"] > 0 and counts["marks"] < len(given)
    names = {
        "marks": "marks",
        "true": "true positives",
        "false": "false positives",
        "missed": "false negatives",
        "ignored": "ignored on excluded findings",
        "double": "ignored second hits of a nodule",
    }
    assert {short: result.counts[name] for short, name in names.items()} == counts
    expected = np.interp(RATES, *_slow_curve(entries, len(scans)))
    assert [result[f"sensitivity@FP/scan={rate:g}"] for rate in RATES] == pytest.approx(expected.tolist(), abs=1e-12)
    assert result["CPM"] == pytest.approx(expected.mean(), abs=1e-12)


def _slow_curve(entries: list[tuple[float, bool]], scans: int) -> tuple[list[float], list[float]]:
    nodules = sum(nodule for _, nodule in entries)
    false, found = [0.0], [0.0]
    for threshold in sorted({score for score, _ in entries if score > -math.inf}, reverse=True):
        false.append(sum(score >= threshold and not nodule for score, nodule in entries) / scans)
        found.append(sum(score >= threshold and nodule for score, nodule in entries) / nodules)
    return false, found


def test_a_mark_on_the_border_misses_and_one_inside_hits() -> None:
    nodule = findings(("a", 0.0, 10.0))
    assert evaluate(marks(("a", 5.0, 0.9)), nodule).counts["true positives"] == 0
    assert evaluate(marks(("a", 4.999, 0.9)), nodule).counts["true positives"] == 1


def test_an_excluded_finding_that_nobody_measured_has_ten_millimetres() -> None:
    nodule, excluded = findings(("a", 100.0, 5.0)), findings(("a", 0.0, np.nan))
    assert evaluate(marks(("a", 4.9, 0.9)), nodule, excluded).counts["ignored on excluded findings"] == 1
    assert evaluate(marks(("a", 5.0, 0.9)), nodule, excluded).counts["false positives"] == 1


def test_a_nodule_keeps_its_most_probable_mark() -> None:
    result = evaluate(marks(("a", 0.0, 0.2), ("a", 1.0, 0.9), ("a", 50.0, 0.5)), findings(("a", 0.0, 10.0)))
    assert result.counts["ignored second hits of a nodule"] == 1
    assert sorted(zip(result.samples["scores"].tolist(), result.samples["lesion"].tolist(), strict=True)) == [
        (0.5, False),
        (0.9, True),
    ]


def test_a_mark_finds_two_nodules_and_is_not_ignored_for_what_else_it_hits() -> None:
    nodules, excluded = findings(("a", 0.0, 10.0), ("a", 2.0, 10.0)), findings(("a", 1.0, 10.0))
    result = evaluate(marks(("a", 1.0, 0.9)), nodules, excluded)
    assert result.counts["true positives"] == 2
    assert result.counts["false positives"] == result.counts["ignored on excluded findings"] == 0


def test_a_mark_on_two_excluded_findings_is_ignored_once() -> None:
    excluded = findings(("a", 0.0, 10.0), ("a", 2.0, 10.0))
    result = evaluate(marks(("a", 1.0, 0.9)), findings(("a", 99.0, 5.0)), excluded)
    assert result.counts["ignored on excluded findings"] == 1


def test_of_more_than_a_hundred_marks_those_above_the_next_are_used() -> None:
    assert best_marks(np.linspace(0, 1, 100), 100).all()
    assert best_marks(np.linspace(0, 1, 101), 100).tolist() == [False] + [True] * 100
    tied = np.array([0.5] * 3 + [0.9] * 99)
    assert best_marks(tied, 100).sum() == 99  # the three of 0.5 tie across the limit
    result = evaluate(marks(*[("a", 9.0, p) for p in tied.tolist()]), findings(("a", 0.0, 5.0)))
    assert (result.counts["marks"], result.counts["marks beyond the most per scan"]) == (99, 3)


def test_marks_find_nothing_in_another_scan() -> None:
    result = evaluate(marks(("b", 0.0, 0.9)), findings(("a", 0.0, 10.0)))
    assert (result.counts["true positives"], result.counts["false positives"]) == (0, 1)
    assert result["CPM"] == 0.0


def test_what_lies_outside_the_list_is_counted_in_a_note() -> None:
    given, nodules = marks(("a", 0.0, 0.9), ("z", 0.0, 0.9)), findings(("a", 0.0, 10.0), ("y", 0.0, 9.0))
    result = evaluate(given, nodules)
    assert result.notes == (
        "1 marks lie in scans that are not in the list, 'z' first; they are left out",
        "1 nodules lie in scans that are not in the list, 'y' first; they are left out",
    )
    assert result.counts["nodules"] == result.counts["marks"] == 1
    with pytest.raises(InputError, match="luna16 needs at least one nodule in the listed scans; got none"):
        evaluate(given, nodules, scans="z")


def test_order_of_scans_marks_and_findings_does_not_matter() -> None:
    random = np.random.default_rng(5)
    given = Marks(random.choice(list("abc"), 60), random.uniform(0, 20, (60, 3)), random.choice([0.2, 0.4, 0.6], 60))
    nodules = Lesions(
        random.choice(list("abc"), 9), random.uniform(0, 20, (9, 3)), np.full(9, 9.0), np.zeros(9, dtype=bool)
    )
    result = detection.luna16(given, nodules, findings(), np.array(list("abc")), draws=0)
    order = random.permutation(60)
    mixed = Marks(given.cases[order], given.centres[order], given.scores[order])
    other = detection.luna16(mixed, nodules, findings(), np.array(list("cab")), draws=0)
    assert [number.value for number in other.numbers] == [number.value for number in result.numbers]
    assert other.counts == result.counts


def test_the_interval_is_a_bootstrap_over_scans() -> None:
    """Each of ten scans has one nodule; nine are found without a false positive: CPM of a resample is 1 − misses/10."""
    scans = [f"{number:02d}" for number in range(10)]
    given = marks(*[(scan, 0.0, 0.9) for scan in scans[1:]])
    result = detection.luna16(given, findings(*[(s, 0.0, 9.0) for s in scans]), findings(), np.array(scans), seed=3)
    random = np.random.default_rng(3)
    drawn = [1 - random.multinomial(10, np.full(10, 0.1))[0] / 10 for _ in range(1000)]
    number = result.number("CPM")
    assert number.value == pytest.approx(0.9)
    assert number.interval is not None
    assert (number.interval.low, number.interval.high) == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])))
    again = detection.luna16(given, findings(*[(s, 0.0, 9.0) for s in scans]), findings(), np.array(scans), seed=3)
    assert again.numbers == result.numbers


def test_a_saved_result_gives_its_figures_again(tmp_path: Path) -> None:
    given = marks(("a", 0.0, 0.9), ("a", 30.0, 0.95), ("b", 30.0, 0.4))
    result = evaluate(given, findings(("a", 0.0, 9.0), ("b", 0.0, 9.0)))
    result.save(tmp_path / "luna.json")
    figures, units = scan_statistic(Result.read(tmp_path / "luna.json").samples)
    assert dict(figures(np.ones(2))) == {number.name: number.value for number in result.numbers}
    assert units.count == 2
    assert figures(np.array([2.0, 0.0]))["sensitivity of all marks"] == 1.0
    assert figures(np.array([0.0, 2.0]))["sensitivity of all marks"] == 0.0


def test_a_resample_without_nodules_has_no_figures() -> None:
    figures, _ = scan_statistic(evaluate(marks(("a", 0.0, 0.9)), findings(("a", 0.0, 9.0))).samples)
    assert figures(np.array([0.0, 2.0])) == {}


def test_candidates_are_marks_that_need_no_places() -> None:
    """Marks at their nodules, or far from them, give what their labels give."""
    random = np.random.default_rng(2)
    scans = random.choice(list("abcd"), 80)
    nodule = np.where(random.random(80) < 0.4, random.integers(1, 6, 80), 0)  # 0: a false positive
    probabilities = random.choice(np.linspace(0, 1, 12), 80)
    x = np.where(nodule > 0, nodule * 100.0, -500.0)
    there = sorted(
        {(scan, number * 100.0, 10.0) for scan, number in zip(scans, nodule.tolist(), strict=True) if number}
    )
    geometric = detection.luna16(
        Marks(scans, _on_axis(x), probabilities), findings(*there), findings(), np.array(list("abcd")), seed=1, draws=50
    )
    named = detection.candidates(nodule > 0, probabilities, scans, nodule, seed=1, draws=50)
    assert named.numbers == geometric.numbers
    shared = ("scans", "nodules", "true positives", "false positives", "marks", "ignored second hits of a nodule")
    assert [named.counts[name] for name in shared] == [geometric.counts[name] for name in shared]
    assert "nodules that have a candidate" in named.notes[0]


def test_without_names_each_positive_candidate_is_a_nodule() -> None:
    result = detection.candidates([1, 1, 0], [0.9, 0.1, 0.5], ["a", "a", "b"], draws=0)
    assert result.counts["nodules"] == 2
    assert result["sensitivity@FP/scan=0.125"] == pytest.approx(0.5 + 0.0)
    assert result["sensitivity@FP/scan=0.5"] == 1.0
    same = detection.candidates([1, 1, 0], [0.9, 0.1, 0.5], ["a", "a", "b"], ["n", "n", ""], draws=0)
    assert (same.counts["nodules"], same["CPM"]) == (1, 1.0)


@pytest.mark.parametrize(
    ("labels", "probabilities", "scans", "nodules", "sentence"),
    [
        ([0, 0], [0.1, 0.2], ["a", "a"], None, "luna16-candidates needs at least one nodule"),
        ([0, 2], [0.1, 0.2], ["a", "a"], None, "labels must be 0 or 1"),
        ([0, 1], [0.1, math.nan], ["a", "a"], None, "probabilities finite"),
        ([0, 1], [0.1], ["a", "a"], None, r"must be \[N\] each with N >= 1; got shapes \[2\], \[1\], \[2\]"),
        ([0, 1], [0.1, 0.2], ["a", "a"], ["x"], r"got shapes \[2\], \[2\], \[2\], \[1\]"),
        ([], [], [], None, r"N >= 1; got shapes \[0\]"),
    ],
)
def test_candidates_that_are_refused(
    labels: object, probabilities: object, scans: object, nodules: object, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        detection.candidates(labels, probabilities, scans, nodules)  # type: ignore[arg-type]


def test_files_of_candidates(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "c.npz", labels=[1, 1, 0], probabilities=[0.9, 0.1, 0.5], scans=["a", "a", "b"], nodules=[7, 7, 0]
    )
    found = detection.read_candidates(tmp_path / "c.npz")
    assert detection.candidates(**found, draws=0).counts["nodules"] == 1
    np.savez(tmp_path / "d.npz", labels=[1], probabilities=[0.9])
    np.savez(tmp_path / "e.npz", label=[1], probabilities=[0.9], scans=["a"])
    for name, sentence in {
        "d.npz": "must hold 'scans'; it holds labels, probabilities$",
        "e.npz": "must hold 'labels'; it holds label, .*; rename 'label' to 'labels'",
        "f.npz": "there is no file",
        "g.csv": "must be in a file that ends in .npz",
    }.items():
        with pytest.raises(InputError, match=sentence):
            detection.read_candidates(tmp_path / name)


@pytest.mark.parametrize("draws", [-1, 2.5])
def test_draws_must_be_a_count(draws: object) -> None:
    with pytest.raises(InputError, match="draws must be a whole number"):
        detection.luna16(
            marks(("a", 0.0, 0.5)),
            findings(("a", 0.0, 5.0)),
            findings(),
            np.array(["a"]),
            draws=draws,  # type: ignore[arg-type]
        )


def test_marks_of_unknown_scans_only_are_refused() -> None:
    there = findings(("a", 0, 6))
    sentence = r"the marks must lie in the listed scans; none of 2 does: the first is in 'x', .* scans like 'a'"
    with pytest.raises(InputError, match=sentence):
        evaluate(marks(("x", 0, 0.5), ("y", 0, 0.5)), there)


def test_a_partial_mismatch_is_counted() -> None:
    given, there = marks(("a", 0, 0.9), ("x", 0, 0.5), ("x", 9, 0.5)), findings(("a", 0, 6), ("y", 0, 6))
    result = evaluate(given, there)
    assert (result.counts["marks"], result.counts["marks of other scans"]) == (1, 2)
    assert result.counts["nodules of other scans"] == 1
    assert "excluded findings of other scans" not in result.counts


def test_marks_that_hit_nothing_are_warned_of() -> None:
    result = evaluate(marks(("a", 900, 0.9)), findings(("a", 0, 6)))
    assert result["CPM"] == 0
    assert result.notes[0].startswith("warning: no mark hits a nodule")
    assert not evaluate(marks(("a", 0, 0.9)), findings(("a", 0, 6))).notes


def test_one_scan_has_no_interval() -> None:
    given = marks(("a", 0, 0.9)), findings(("a", 0, 6)), findings(), np.array(["a"])
    result = detection.luna16(*given, draws=200)
    assert result["CPM"] == 1
    assert all(number.interval is None for number in result.numbers)
    assert any(
        note.startswith("no interval of CPM, ") and note.endswith("one alone cannot be resampled")
        for note in result.notes
    )


def test_scans_that_are_all_found_have_no_interval() -> None:
    names = [f"s{number}" for number in range(20)]
    given = marks(*((name, 0.0, 0.9) for name in names)), findings(*((name, 0.0, 6.0) for name in names))
    result = detection.luna16(*given, findings(), np.array(names), draws=200)
    assert (result["CPM"], result.number("CPM").interval) == (1, None)
    assert any(note.endswith("all resamples agree") for note in result.notes)
