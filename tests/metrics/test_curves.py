"""Error curves, AUC and EER: slow loops, scikit-learn, ties, weights against copies, and what is refused."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from angulus.core.checks import InputError
from angulus.evaluation.metrics.curves import ErrorCurve, Presorted, auc, eer, error_curve

SCORES = [-2.0, -0.5, -0.0, 0.0, 0.3, 0.30000000000000004, 7.0]  # few values, many ties; two zeros are one score
PAIRS = st.lists(st.tuples(st.sampled_from(SCORES), st.booleans(), st.integers(0, 3)), min_size=2, max_size=40).filter(
    lambda rows: all(any(weight for _, same, weight in rows if same == kind) for kind in (True, False))
)
RANDOM = np.random.default_rng(0)
SAME = RANDOM.random(400) < 0.4
VALUES = (RANDOM.normal(size=400) + 1.2 * SAME).round(1)


def columns(rows: list[tuple[float, bool, int]]) -> tuple[list[float], list[bool], list[int]]:
    scores, same, weights = zip(*rows, strict=True)
    return list(scores), list(same), list(weights)


def slow_rows(scores: list[float], same: list[bool]) -> list[tuple[float, int, int]]:
    """(threshold, genuine accepted, impostors accepted), by counting for each distinct score."""
    rows = []
    for threshold in sorted(set(scores), reverse=True):
        accepted = [kind for score, kind in zip(scores, same, strict=True) if score >= threshold]
        rows.append((threshold, accepted.count(True), accepted.count(False)))
    return rows


def slow_eer(scores: list[float], same: list[bool]) -> float:
    """max over priors p of min over thresholds of p · FNMR + (1 − p) · FMR, which the convex hull's EER is.

    The maximum is where two thresholds tie (or at an end), so all pairs of thresholds name the priors to try.
    """
    genuine, impostors = same.count(True), same.count(False)
    points = [(0.0, 1.0)] + [(i / impostors, 1 - g / genuine) for _, g, i in slow_rows(scores, same)]
    priors = {0.0, 1.0}
    for (a, b), (c, d) in itertools.combinations(points, 2):
        if (b - d) + (c - a) != 0:
            priors.add(min(1.0, max(0.0, (c - a) / ((b - d) + (c - a)))))
    return max(min(p * fnmr + (1 - p) * fmr for fmr, fnmr in points) for p in priors)


def rows_of(curve: ErrorCurve) -> list[tuple[float, float, float]]:
    return list(zip(curve.thresholds.tolist(), curve.genuine.tolist(), curve.impostors.tolist(), strict=True))


@settings(max_examples=80, deadline=None)
@given(PAIRS)
def test_every_way_to_a_curve_is_the_slow_loop(rows: list[tuple[float, bool, int]]) -> None:
    scores, same, _ = columns(rows)
    slow = slow_rows(scores, same)
    assert rows_of(error_curve(scores, same)) == slow
    assert rows_of(error_curve(scores, same, np.ones(len(scores)))) == slow
    assert rows_of(Presorted.of(scores, same).curve()) == slow


@settings(max_examples=80, deadline=None)
@given(PAIRS)
def test_weights_are_copies(rows: list[tuple[float, bool, int]]) -> None:
    scores, same, weights = columns(rows)
    copies = [(score, kind) for score, kind, weight in rows for _ in range(weight)]
    copied = slow_rows([score for score, _ in copies], [kind for _, kind in copies])
    assert rows_of(error_curve(scores, same, weights)) == copied


def test_the_curve_is_scikit_learns() -> None:
    curve = error_curve(VALUES, SAME)
    fmr, tar, thresholds = roc_curve(SAME, VALUES, drop_intermediate=False)
    assert np.array_equal(curve.thresholds, thresholds[1:])
    assert curve.tar == pytest.approx(tar[1:], abs=1e-15)
    assert curve.fmr == pytest.approx(fmr[1:], abs=1e-15)


def test_auc_is_scikit_learns_with_and_without_weights() -> None:
    weights = np.random.default_rng(1).integers(0, 4, 400)
    assert auc(error_curve(VALUES, SAME)) == pytest.approx(roc_auc_score(SAME, VALUES), abs=1e-14)
    assert auc(error_curve(VALUES, SAME, weights)) == pytest.approx(
        roc_auc_score(SAME, VALUES, sample_weight=weights), abs=1e-14
    )


@settings(max_examples=60, deadline=None)
@given(PAIRS)
def test_auc_is_the_share_of_pairs_of_pairs_in_order(rows: list[tuple[float, bool, int]]) -> None:
    scores, same, _ = columns(rows)
    genuine = [score for score, kind in zip(scores, same, strict=True) if kind]
    others = [score for score, kind in zip(scores, same, strict=True) if not kind]
    won = sum((a > b) + 0.5 * (a == b) for a in genuine for b in others)
    assert auc(error_curve(scores, same)) == pytest.approx(won / len(genuine) / len(others), abs=1e-15)


@settings(max_examples=80, deadline=None)
@given(PAIRS)
def test_eer_is_the_least_favourable_prior_of_the_slow_loop(rows: list[tuple[float, bool, int]]) -> None:
    scores, same, _ = columns(rows)
    assert eer(error_curve(scores, same)) == pytest.approx(slow_eer(scores, same), abs=1e-12)


def test_eer_of_many_scores_is_the_slow_loops() -> None:
    values = VALUES[:150] + 1e-3 * np.random.default_rng(2).normal(size=150)
    assert eer(error_curve(values, SAME[:150])) == pytest.approx(slow_eer(values.tolist(), SAME[:150].tolist()))


@pytest.mark.parametrize(
    ("scores", "same", "rate"),
    [
        ([0.9, 0.8, 0.2, 0.1], [True, True, False, False], 0.0),  # apart
        ([0.9, 0.8, 0.2, 0.1], [False, False, True, True], 0.5),  # the wrong way round: the hull is the diagonal
        ([0.5, 0.5], [True, False], 0.5),  # one score
        ([4.0, 3.0, 2.0, 1.0], [True, False, True, False], 0.25),  # corners (0, 1/2) and (1/2, 0): crossed at 1/4
    ],
)
def test_eer_by_hand(scores: list[float], same: list[bool], rate: float) -> None:
    assert eer(error_curve(scores, same)) == pytest.approx(rate)


def test_float32_scores_tie_as_float32() -> None:
    scores = np.array([0.1, 0.1, 0.7], dtype=np.float32)
    curve = error_curve(scores, [True, False, True])
    assert curve.thresholds.tolist() == [float(np.float32(0.7)), float(np.float32(0.1))]


def test_scores_are_not_changed() -> None:
    scores, same = VALUES.copy(), SAME.copy()
    error_curve(scores, same)
    Presorted.of(scores, same).curve(np.ones(400))
    assert np.array_equal(scores, VALUES)
    assert np.array_equal(same, SAME)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (([0.1, 0.2], [True]), r"scores and same must be \[N\] each; got shapes \[2\] and \[1\]"),
        (([[0.1, 0.2]], [[True, False]]), r"got shapes \[1, 2\] and \[1, 2\]"),
        (([0.1, 0.2], [2, 0]), r"same must hold True \(genuine\) or False \(impostor\); got other values"),
        (([0.1, float("nan")], [True, False]), "scores must be finite; got nan at pair 1"),
        (([float("-inf"), 0.1], [True, False]), "scores must be finite; got -inf at pair 0"),
        (([0.1, 0.2], [True, True]), "scores need at least one impostor pair; got none among 2"),
        (([0.1, 0.2], [0, 0]), "scores need at least one genuine pair; got none among 2"),
        (([], []), "scores need at least one genuine pair; got none among 0"),
        (([0.1, 0.2], [True, False], [1, 0]), "scores need at least one impostor pair; got none among 2"),
        (([0.1, 0.2], [True, False], [1]), r"weights must be \[2\] of finite numbers >= 0; got shape \[1\]"),
        (([0.1, 0.2], [True, False], [1, -1]), r"weights must be \[2\] of finite numbers >= 0"),
        (([0.1, 0.2], [True, False], [1, float("nan")]), r"weights must be \[2\] of finite numbers >= 0"),
    ],
)
def test_what_has_no_curve_is_refused(arguments: tuple[list[float], ...], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        error_curve(*arguments)
