"""FROC and CPM: slow loops, scikit-learn's ROC, planted answers, ties, weights, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from angulus.core.checks import InputError
from angulus.evaluation.metrics.froc import FP_RATES, Froc, cpm, froc_curve, sensitivity_at

FINDINGS = st.lists(st.tuples(st.sampled_from([0.1, 0.25, 0.5, 0.9]), st.booleans()), min_size=1, max_size=30).filter(
    lambda rows: any(lesion for _, lesion in rows)
)


def slow_points(scores: list[float], lesion: list[bool], cases: int) -> list[tuple[float, float, float]]:
    points = [(math.inf, 0.0, 0.0)]
    for threshold in sorted({score for score in scores if score > -math.inf}, reverse=True):
        accepted = [kind for score, kind in zip(scores, lesion, strict=True) if score >= threshold]
        points.append((threshold, accepted.count(False) / cases, accepted.count(True) / lesion.count(True)))
    return points


def slow_sensitivity(points: list[tuple[float, float, float]], rate: float) -> float:
    """The straight line through the last point that is not beyond the rate and the first that is."""
    before = max((false, found) for _, false, found in points if false <= rate)
    beyond = [(false, found) for _, false, found in points if false > rate]
    if not beyond:
        return before[1]
    after = min(beyond)
    return before[1] + (after[1] - before[1]) * (rate - before[0]) / (after[0] - before[0])


@settings(max_examples=60)
@given(FINDINGS, st.integers(0, 3), st.integers(1, 9))
def test_the_curve_is_the_one_of_a_slow_loop(rows: list[tuple[float, bool]], missed: int, cases: int) -> None:
    scores = [score for score, _ in rows] + [-math.inf] * missed
    lesion = [kind for _, kind in rows] + [True] * missed
    curve = froc_curve(scores, lesion, cases)
    points = slow_points(scores, lesion, cases)
    assert curve.thresholds.tolist() == [point[0] for point in points]
    assert curve.fp_per_case == pytest.approx([point[1] for point in points], abs=1e-15)
    assert curve.sensitivity == pytest.approx([point[2] for point in points], abs=1e-15)
    expected = [slow_sensitivity(points, rate) for rate in FP_RATES]
    assert sensitivity_at(curve) == pytest.approx(expected, abs=1e-12)
    assert cpm(curve) == pytest.approx(sum(expected) / 7, abs=1e-12)


def test_it_is_scikit_learns_roc_with_other_axes() -> None:
    random = np.random.default_rng(0)
    lesion = random.random(500) < 0.3
    scores = np.round(random.normal(lesion * 1.0), 1)
    fpr, tpr, thresholds = roc_curve(lesion, scores, drop_intermediate=False)
    curve = froc_curve(scores, lesion, 40)
    assert np.array_equal(curve.thresholds, thresholds)
    assert curve.fp_per_case == pytest.approx(fpr * (~lesion).sum() / 40)
    assert curve.sensitivity == pytest.approx(tpr)


def test_a_perfect_and_a_blind_detector() -> None:
    assert cpm(froc_curve([0.9, 0.8, 0.1, 0.2], [True, True, False, False], 1)) == 1.0
    blind = froc_curve([-math.inf, -math.inf], [True, True], 3)
    assert blind.thresholds.tolist() == [math.inf]
    assert cpm(blind) == 0.0


def test_equal_scores_move_together() -> None:
    curve = froc_curve([0.5, 0.5], [True, False], 1)
    assert curve.fp_per_case.tolist() == [0.0, 1.0]
    assert curve.sensitivity.tolist() == [0.0, 1.0]
    assert sensitivity_at(curve, [0.5]).tolist() == [0.5]  # half-way along the tie


def test_where_the_curve_rises_its_highest_point_counts() -> None:
    curve = froc_curve([0.9, 0.8, 0.7, 0.6], [False, True, True, False], 1)
    assert sensitivity_at(curve, [0.0, 1.0, 2.0, 99.0]).tolist() == [0.0, 1.0, 1.0, 1.0]


def test_cases_without_findings_count() -> None:
    scores, lesion = [0.9, 0.8, 0.7], [False, True, True]
    assert froc_curve(scores, lesion, 8).fp_per_case[-1] == 1 / 8
    assert froc_curve(scores, lesion, 1).fp_per_case[-1] == 1.0
    assert cpm(froc_curve(scores, lesion, 8)) == 1.0 > cpm(froc_curve(scores, lesion, 1))


@settings(max_examples=40)
@given(FINDINGS, st.data())
def test_whole_weights_are_repeats(rows: list[tuple[float, bool]], data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows)))
    scores, lesion = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    if not (lesion & (np.array(weights) > 0)).any():
        with pytest.raises(InputError, match="at least one lesion; got none"):
            froc_curve(scores, lesion, 5, weights)
        return
    weighted = froc_curve(scores, lesion, 5, weights)
    repeated = froc_curve(np.repeat(scores, weights), np.repeat(lesion, weights), 5)
    rates = np.linspace(0, 20, 41)
    assert sensitivity_at(weighted, rates) == pytest.approx(sensitivity_at(repeated, rates), abs=1e-12)


@settings(max_examples=40)
@given(FINDINGS, st.randoms(use_true_random=False))
def test_order_does_not_matter_and_only_the_order_of_scores_does(
    rows: list[tuple[float, bool]], random: object
) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    curve, other = (froc_curve(*zip(*each, strict=True), 4) for each in (rows, shuffled))
    cubed = froc_curve([score**3 for score, _ in rows], [kind for _, kind in rows], 4)
    for changed in (other, cubed):
        assert np.array_equal(curve.fp_per_case, changed.fp_per_case)
        assert np.array_equal(curve.sensitivity, changed.sensitivity)


@pytest.mark.parametrize(
    ("scores", "lesion", "cases", "weights", "sentence"),
    [
        ([0.5], [True, False], 1, None, r"scores and lesion must be \[N\] each; got shapes \[1\] and \[2\]"),
        ([0.5], [2], 1, None, "lesion must hold True"),
        ([math.nan], [True], 1, None, "got nan at finding 0"),
        ([0.1, math.inf], [True, True], 1, None, "got inf at finding 1"),
        ([0.1, -math.inf], [True, False], 1, None, "scores must be finite, or -inf for a lesion not hit; got"),
        ([0.5], [False], 1, None, "a FROC needs at least one lesion; got none among 1 findings"),
        ([0.5], [True], 0, None, "cases must be a finite number > 0; got 0"),
        ([0.5], [True], 1, [-1.0], r"weights must be \[1\] of finite numbers >= 0"),
        ([0.5], [True], 1, [1.0, 1.0], r"weights must be \[1\] of finite numbers >= 0; got shape \[2\]"),
    ],
)
def test_what_is_refused(scores: list[float], lesion: list[object], cases: int, weights: object, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        froc_curve(scores, lesion, cases, weights)  # type: ignore[arg-type]


@pytest.mark.parametrize("rates", [[-1.0], [math.nan], [math.inf]])
def test_rates_that_make_no_sense_are_refused(rates: list[float]) -> None:
    curve = Froc(np.array([math.inf]), np.zeros(1), np.zeros(1))
    with pytest.raises(InputError, match="rates must be finite numbers >= 0"):
        sensitivity_at(curve, rates)
