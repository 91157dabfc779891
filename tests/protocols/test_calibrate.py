"""Calibration: threshold and rates by counting, groups, intervals, the file, pairs of images, and what is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from angulus.core.checks import InputError
from angulus.core.embeddings import Embeddings
from angulus.evaluation.metrics.intervals import Interval
from angulus.evaluation.metrics.verification import likelihood_ratio
from angulus.evaluation.protocols.calibrate import calibrate, pairs_of_images, statistic
from angulus.evaluation.protocols.calibration import Calibration, Rate
from angulus.evaluation.protocols.group_rates import ByGroup, Cell, GroupRate
from angulus.evaluation.protocols.result import Number, Result
from people import crowd, crowd_pairs, written_out

CROWD = crowd(30, noise=0.9)
PAIRS = crowd_pairs(CROWD, per=80)


def groups_of_pairs() -> np.ndarray:
    left, right = (np.asarray(side).astype(int) % 2 for side in (PAIRS.left_identity, PAIRS.right_identity))
    return np.where(left == right, np.where(left == 0, "even", "odd"), "")


def test_the_threshold_is_the_lowest_that_keeps_to_the_target() -> None:
    calibration, result = calibrate(CROWD, PAIRS, target_fmr=0.05, draws=0)
    scores, others = result.samples["scores"], result.samples["scores"][~PAIRS.same]
    kept = [score for score in scores if (others >= score).mean() <= 0.05]
    assert calibration.threshold == Rate(min(kept))
    assert calibration.fmr.value == (others >= min(kept)).mean() <= 0.05
    assert calibration.fnmr.value == (scores[PAIRS.same] < min(kept)).mean()
    assert (calibration.genuine, calibration.impostors) == (180, 240)
    assert (calibration.slope, calibration.intercept) == likelihood_ratio(scores, PAIRS.same)
    assert np.array_equal(calibration.accepts(scores), scores >= min(kept))
    assert result["threshold for FMR=5e-2"] == min(kept)
    assert result.number("FNMR").threshold == min(kept)


def test_each_group_has_its_rates_at_the_one_threshold() -> None:
    calibration, result = calibrate(CROWD, PAIRS, target_fmr=0.1, draws=0)
    names, scores = groups_of_pairs(), result.samples["scores"]
    assert calibration.by_group is not None and calibration.by_group.groups == ("even", "odd")
    assert calibration.by_group.threshold == calibration.threshold.value
    for cell in calibration.by_group.cells[:2]:
        genuine, others = (scores[(names == cell.groups[0]) & kind] for kind in (PAIRS.same, ~PAIRS.same))
        match, miss = cell.false_match, cell.false_non_match
        assert match is not None and miss is not None
        assert (miss.trials, match.trials) == (len(genuine), len(others))
        assert match.value == pytest.approx((others >= calibration.threshold.value).mean())
        assert miss.value == pytest.approx((genuine < calibration.threshold.value).mean())
    between = int((names == "").sum())
    assert any(f"{between} pairs that belong to no one group" in note for note in result.notes)


def test_a_group_without_pairs_of_a_kind_has_no_rate_and_one_without_false_accept_a_bound() -> None:
    names = np.where(PAIRS.same, "all genuine", "the others")
    names[np.flatnonzero(~PAIRS.same)[:6]] = "six"
    order = np.argsort(calibrate(CROWD, PAIRS, target_fmr=0.1, draws=0)[1].samples["scores"])
    low = order[~PAIRS.same[order]][:6]
    names[~PAIRS.same] = "the others"
    names[low] = "six"
    calibration, result = calibrate(CROWD, replace(PAIRS, groups=names), target_fmr=0.1, draws=0)
    assert calibration.by_group is not None
    genuine, six, others = calibration.by_group.cells
    assert calibration.by_group.groups == ("all genuine", "six", "the others")
    for rate in (genuine.false_match, six.false_match, six.false_non_match, others.false_non_match):
        assert rate is not None and math.isnan(rate.value)
    assert others.false_match is not None and others.false_match.value > 0
    assert "group all genuine has no impostor pairs: its rate is undefined" in result.notes
    assert any("group six has no false accept among 6: its FMR may be as high as 0.5" in note for note in result.notes)


def test_without_groups_there_are_overall_rates_only() -> None:
    calibration, result = calibrate(replace(CROWD, groups=None), PAIRS, target_fmr=0.1, draws=0)
    assert calibration.by_group is None
    assert [number.name for number in result.numbers] == ["threshold for FMR=1e-1", "FMR", "FNMR", "AUC"]
    figures, _ = statistic(result.samples)
    assert set(figures(PAIRS.same.astype(float))) == {"FMR", "FNMR"}  # no impostor drawn: no threshold to choose


def test_few_errors_are_noted_and_many_are_not() -> None:
    notes = calibrate(CROWD, PAIRS, target_fmr=0.05, draws=0)[1].notes
    assert any("the FMR rests on 12 false accepts" in note and "takes 600 impostor pairs" in note for note in notes)
    assert not any("rests on" in note for note in calibrate(CROWD, PAIRS, target_fmr=0.2, draws=0)[1].notes)


def test_intervals_of_the_threshold_and_of_the_rates_at_it() -> None:
    calibration, result = calibrate(CROWD, PAIRS, target_fmr=0.1, draws=150)
    assert calibration.by_group is not None
    of_group = calibration.by_group.cells[0].false_match
    for rate in (calibration.threshold, calibration.fmr, calibration.fnmr, of_group):
        assert rate is not None and rate.interval is not None
        assert rate.interval.low <= rate.value <= rate.interval.high
    assert calibration.about["intervals"] == "95 % of 150 resamples of the people (seed 0)"
    assert result.choices["intervals"] == calibration.about["intervals"]


def test_the_statistic_of_weights_is_that_of_the_resample_written_out() -> None:
    samples = dict(calibrate(CROWD, PAIRS, target_fmr=0.1, draws=0)[1].samples)
    figures, units = statistic(samples)
    names = np.unique([samples["left_identity"], samples["right_identity"]]).tolist()
    rng = np.random.default_rng(1)
    for _ in range(10):
        drawn = rng.multinomial(units.count, np.full(units.count, 1 / units.count))
        rows = written_out(
            samples["left_identity"], samples["right_identity"], dict(zip(names, drawn.tolist(), strict=True))
        )
        copied = {name: values[rows] if values.ndim else values for name, values in samples.items()}
        expected = statistic(copied)[0](np.ones(len(rows)))
        assert figures(units.weights(drawn.astype(float))) == pytest.approx(expected, nan_ok=True, abs=1e-12)


@pytest.mark.parametrize(
    ("model", "flip", "said"),
    [
        ("0123456789abcdef-sum", None, "sum with the mirrored image's, by the model itself"),
        ("0123456789abcdef-concat", None, "concatenated with the mirrored image's, by the model itself"),
        ("0123456789abcdef-none", None, "none"),
        ("somebody's own-sum", None, "none"),
        ("0123456789abcdef-none", "sum", "sum with the mirrored image's"),
        (
            "0123456789abcdef-concat",
            "sum",
            "concatenated with the mirrored image's, by the model itself; then sum with the mirrored image's",
        ),
    ],
)
def test_the_result_says_what_was_done_with_mirror_images(model: str, flip: str | None, said: str) -> None:
    made = replace(CROWD, models=np.full(len(CROWD), model))
    _, result = calibrate(made, PAIRS, target_fmr=0.1, flip=flip, draws=0)
    assert result.choices["flip"] == said


def test_few_genuine_pairs_are_warned_of() -> None:
    _, result = calibrate(CROWD, PAIRS.select(~PAIRS.same | (np.cumsum(PAIRS.same) <= 29)), target_fmr=0.1, draws=0)
    assert any(note.startswith("29 genuine pairs are too few") for note in result.notes)
    _, result = calibrate(CROWD, PAIRS, target_fmr=0.1, draws=0)
    assert not any("too few" in note for note in result.notes)


def test_flip_is_kept_for_whoever_uses_the_threshold() -> None:
    calibration, _ = calibrate(CROWD, PAIRS, target_fmr=0.1, flip="sum", draws=0)
    assert (calibration.metric, calibration.flip) == ("cosine", "sum")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"target_fmr": 1e-3}, r"FMR 0\.001 needs at least 1,000 impostor pairs; got 240"),
        ({"target_fmr": 0}, r"target_fmr must be a finite number in \(0, 1\]; got 0"),
        ({"flip": "both"}, "flip must be one of"),
    ],
)
def test_what_the_data_cannot_support_is_refused(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        calibrate(CROWD, PAIRS, **options)  # type: ignore[arg-type]


def test_flags_the_wrong_way_round_are_refused() -> None:
    with pytest.raises(InputError, match="genuine scores must be higher on average"):
        calibrate(
            replace(CROWD, labels=None),
            replace(crowd_pairs(CROWD, named=False), same=~crowd_pairs(CROWD).same),
            target_fmr=0.1,
        )


CALIBRATION = Calibration(
    target_fmr=0.01,
    threshold=Rate(0.4, Interval(0.3, 0.5)),
    fmr=Rate(0.01, Interval(0.0, 0.02)),
    fnmr=Rate(0.2),
    genuine=10,
    impostors=100,
    slope=10.0,
    intercept=-3.0,
    flip="concat",
    by_group=ByGroup(
        "FAR=1e-2",
        "verification",
        0.4,
        (Cell(("a",), GroupRate(0, 0, math.nan, note="undefined: no trials"), GroupRate(4, 2, 0.5)),),
        (Number("FMR max/min", math.inf, no_interval="infinite: a group has no error"),),
    ),
    about={"embeddings": "mine.npz"},
)


def test_a_calibration_is_written_and_read(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    CALIBRATION.write(path)
    assert repr(Calibration.read(path)) == repr(CALIBRATION)  # NaN is unequal to itself
    assert "NaN" not in path.read_text()
    measured, _ = calibrate(CROWD, PAIRS, target_fmr=0.1, draws=20)
    measured.write(path)
    assert Calibration.read(path) == measured


def test_probabilities_follow_from_ratio_and_prior() -> None:
    assert CALIBRATION.log_likelihood_ratio([0.3, 0.5]).tolist() == [0.0, 2.0]
    assert CALIBRATION.probability([0.3])[0] == 0.5
    odds = math.exp(2) * 0.01 / 0.99
    assert CALIBRATION.probability([0.5], prior=0.01)[0] == pytest.approx(odds / (1 + odds))
    assert CALIBRATION.probability([-1e4, 1e4]).tolist() == [0.0, 1.0]  # and no overflow
    assert CALIBRATION.accepts([0.39, 0.4, 0.41]).tolist() == [False, True, True]
    with pytest.raises(InputError, match=r"prior must be a finite number in \(0, 1\); got 1"):
        CALIBRATION.probability([0.5], prior=1)
    with pytest.raises(InputError, match="scores must be finite"):
        CALIBRATION.accepts([math.nan])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"format": 1}, "its format is 1 and not 2: calibrate again"),
        ({"threshold": {"value": None, "interval": None}}, "threshold must be a finite number in .-1, 1.; got nan"),
        ({"fmr": {"value": -7, "interval": None}}, "FMR must be a finite number in .0, 0.01.; got -7"),
        ({"fmr": {"value": 0.5, "interval": None}}, "FMR must be a finite number in .0, 0.01.; got 0.5"),
        ({"fmr": None}, "FMR must have a value and an interval; got None"),
        ({"fmr": {"value": 0.01, "interval": {"low": 0.5, "high": 0.1, "level": 0.95}}}, "go from low to high"),
        ({"fmr": {"value": 0.01, "interval": {"low": -3, "high": 0.1, "level": 0.95}}}, "interval of FMR must be .*-3"),
        ({"fnmr": {"value": 1.5, "interval": None}}, "FNMR must be a finite number in .0, 1.; got 1.5"),
        ({"auc": {"value": 2, "interval": None}}, "AUC must be a finite number in .0, 1.; got 2"),
        ({"threshold": {"value": 10**400, "interval": None}}, "too large"),
        ({"threshold": {"value": 60, "interval": None}}, "threshold must be a finite number in .-1, 1.; got 60"),
        ({"by_group": json.loads("[" * 100 + "]" * 100)}, "at most 64 deep"),
        ({"by_group": 5}, "the group rates must be a mapping of names to values; got 5"),
        (
            {"by_group": {"at": "FAR=1", "kind": "verification", "cells": [{"groups": ["a"], "false_match": {}}]}},
            r"cells.0..false_match must have 'trials'",
        ),
        ({"slope": -1.0}, "slope must be a finite number > 0"),
        ({"metric": "inner"}, "metric must be one of 'cosine'"),
        ({"flip": "mean"}, "flip must be one of 'sum', 'concat'; got 'mean'; or null"),
        ({"genuine": 0}, "genuine must be a whole number >= 1"),
        ({"surplus": 1}, "unexpected keyword argument 'surplus'"),
    ],
)
def test_a_file_that_is_no_calibration_is_refused(change: dict[str, object], sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    CALIBRATION.write(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=f"{path} is not a calibration .*{sentence}"):
        Calibration.read(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "{"])
def test_other_files_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(InputError, match="is not a calibration"):
        Calibration.read(path)
    with pytest.raises(InputError, match="is not a calibration"):
        Calibration.read(tmp_path / "absent.json")
    with pytest.raises(InputError, match=r"a calibration is written as \.json; got"):
        CALIBRATION.write(tmp_path / "calibration.yaml")


def test_all_pairs_of_images() -> None:
    few = crowd(4, 3)
    pairs = pairs_of_images(few)
    found = set(zip(pairs.left.tolist(), pairs.right.tolist(), pairs.same.tolist(), strict=True))
    people = dict(zip(few.ids.tolist(), np.asarray(few.labels).tolist(), strict=True))
    ids = few.ids.tolist()
    assert found == {(a, b, people[a] == people[b]) for place, a in enumerate(ids) for b in ids[place + 1 :]}
    assert len(pairs) == len(found) == 66
    assert [people[name] for name in pairs.left.tolist()] == np.asarray(pairs.left_identity).tolist()
    calibration, _ = calibrate(few, pairs, target_fmr=0.1, draws=0)
    assert (calibration.genuine, calibration.impostors) == (12, 54)


@pytest.mark.parametrize("count", [1, 20, 40, 54])
def test_drawn_impostor_pairs_are_different_ones_by_seed(count: int) -> None:
    few = crowd(4, 3)
    pairs = pairs_of_images(few, impostors=count, seed=3)
    every = {tuple(sorted(pair)) for pair in zip(pairs.left.tolist(), pairs.right.tolist(), strict=True)}
    assert len(pairs) == len(every) == 12 + count
    assert int((~pairs.same).sum()) == count
    assert all(a.split("/")[0] != b.split("/")[0] for a, b in zip(pairs.left[12:], pairs.right[12:], strict=True))
    assert np.array_equal(pairs_of_images(few, impostors=count, seed=3).left, pairs.left)


def test_drawn_pairs_are_drawn_evenly() -> None:
    few = crowd(4, 3)
    counts: dict[tuple[str, str], int] = {}
    for seed in range(600):
        pairs = pairs_of_images(few, impostors=9, seed=seed)
        for pair in zip(pairs.left[12:].tolist(), pairs.right[12:].tolist(), strict=True):
            counts[pair] = counts.get(pair, 0) + 1
    assert len(counts) == 54
    assert 60 < min(counts.values()) <= 100 <= max(counts.values()) < 140  # 100 each, deviation 9


@pytest.mark.parametrize(
    ("given", "options", "sentence"),
    [
        (replace(crowd(4, 3), labels=None), {}, "crowd must have labels, the identities; it has none"),
        (crowd(12, 1), {}, "must show two people or more, and one of them twice; got 0 genuine and 66 impostor pairs"),
        (crowd(1, 5), {}, "got 10 genuine and 0 impostor pairs"),
        (crowd(4, 3), {"impostors": 55}, r"impostors must be a whole number in \[1, 54\]; got 55"),
        (crowd(4, 3), {"impostors": 0}, r"impostors must be a whole number in \[1, 54\]; got 0"),
        (crowd(800, 2, 2), {}, r"gives 1,278,400 impostor pairs; draw fewer, such as impostors="),
    ],
)
def test_images_that_make_no_pairs_are_refused(given: Embeddings, options: dict[str, int], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        pairs_of_images(given, **options)


def test_the_result_is_saved_and_read(tmp_path: Path) -> None:
    _, result = calibrate(CROWD, PAIRS, target_fmr=0.1, draws=10)
    result.save(tmp_path / "calibrate.json")
    again = Result.read(tmp_path / "calibrate.json")
    figures, units = statistic(again.samples)
    found = figures(units.weights(np.ones(units.count)))
    assert found == {number.name: number.value for number in result.numbers}
