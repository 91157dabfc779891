"""TAR at FAR, best thresholds and accuracy over folds: slow loops, ties, weights against copies, and refusals."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from angulus.core.checks import InputError
from angulus.evaluation.metrics.curves import ErrorCurve, error_curve
from angulus.evaluation.metrics.verification import (
    PresortedFolds,
    best_threshold,
    kfold_accuracy,
    least_count,
    tar_at_far,
)

VALUES = st.sampled_from([-1.0, 0.0, 0.25, 0.5, 1.0, 1.5])
PAIRS = st.lists(st.tuples(VALUES, st.booleans(), st.integers(0, 2)), min_size=2, max_size=30).filter(
    lambda rows: all(any(weight for _, same, weight in rows if same == kind) for kind in (True, False))
)
FOLDED = st.lists(
    st.lists(st.tuples(VALUES, st.integers(1, 2)), min_size=2, max_size=8), min_size=2, max_size=4
)  # within a fold, genuine and impostor by turns


def between(scores: list[float]) -> list[float]:
    """A threshold for everything that distinct scores tell apart: below all, on each, above all."""
    distinct = sorted(set(scores))
    return [*distinct, math.nextafter(distinct[-1], math.inf)]


def right(scores: list[float], same: list[bool], threshold: float) -> int:
    return sum((score >= threshold) == kind for score, kind in zip(scores, same, strict=True))


def slow_threshold(scores: list[float], same: list[bool]) -> tuple[float, float]:
    """(middle of the widest run of best thresholds, its accuracy), walking up the distinct scores."""
    distinct = sorted(set(scores))
    steps = between(scores)
    accuracy = [right(scores, same, step) / len(scores) for step in steps]
    runs: list[tuple[float, float]] = []
    place = 0
    while place < len(steps):
        if accuracy[place] < max(accuracy):
            place += 1
            continue
        first = place
        while place + 1 < len(steps) and accuracy[place + 1] == max(accuracy):
            place += 1
        # steps[first] accepts the same as anything above the score below it
        runs.append((steps[first - 1] if first else distinct[0], steps[place]))
        place += 1
    low, high = max(runs, key=lambda run: (run[1] / 2 - run[0] / 2, run[1]))
    middle = low / 2 + high / 2
    return (middle if low < middle <= high else high), max(accuracy)


@settings(max_examples=100, deadline=None)
@given(PAIRS, st.sampled_from([0.0, 0.1, 0.2, 1 / 3, 0.5, 2 / 3, 0.9, 1.0]))
def test_tar_at_far_is_the_largest_over_all_thresholds(rows: list[tuple[float, bool, int]], far: float) -> None:
    scores, same = [row[0] for row in rows], [row[1] for row in rows]
    genuine = [score for score, kind in zip(scores, same, strict=True) if kind]
    others = [score for score, kind in zip(scores, same, strict=True) if not kind]
    best = max(
        sum(score >= t for score in genuine) / len(genuine)
        for t in between(scores)
        if sum(score >= t for score in others) / len(others) <= far
    )
    point = tar_at_far(error_curve(scores, same), far, zero_ok=True)
    assert point.tar == best
    assert point.false_accepts == sum(score >= point.threshold for score in others)
    assert point.false_accepts / len(others) <= far
    assert sum(score >= point.threshold for score in genuine) / len(genuine) == best


def test_no_higher_tar_hides_between_the_threshold_and_the_next_lower_score() -> None:
    curve = error_curve([5, 4, 3, 2, 1], [True, False, True, True, False])
    for far, tar, threshold in ((0.5, 1.0, 2.0), (0.49, 1 / 3, 5.0), (1.0, 1.0, 1.0)):
        point = tar_at_far(curve, far, zero_ok=True)
        assert (point.tar, point.threshold) == (tar, threshold)


def test_where_an_impostor_is_on_top_nothing_is_accepted() -> None:
    point = tar_at_far(error_curve([0.9, 0.9, 0.5], [False, True, True]), 0.0, zero_ok=True)
    assert (point.tar, point.false_accepts) == (0.0, 0.0)
    assert 0.9 < point.threshold < 0.9 + 1e-12


@pytest.mark.parametrize("total", [7, 10, 100, 300, 997, 3000])
def test_a_far_of_exactly_m_of_n_accepts_m(total: int) -> None:
    """m/n as a float, and as a decimal where it is one, must not lose a pair to rounding."""
    curve = error_curve(np.arange(total + 1), [False] * total + [True])
    for accepted in range(1, total + 1):
        assert tar_at_far(curve, accepted / total).false_accepts == accepted
        hundredths = Fraction(100 * accepted, total)
        if hundredths.denominator == 1:
            assert tar_at_far(curve, float(f"{hundredths.numerator}e-2")).false_accepts == accepted


@pytest.mark.parametrize("far", [1e-1, 1e-3, 1e-5, 1e-6, 1e-9, 0.3, 0.7, 1.0, 1 / 3, 1 / 49])
def test_least_count_is_the_least(far: float) -> None:
    count = least_count(far)
    assert 1 / count <= far
    assert count == 1 or 1 / (count - 1) > far


def test_a_far_that_the_pairs_cannot_show_is_refused() -> None:
    curve = error_curve([0.9, 0.8, 0.1, 0.2], [True, True, False, False])
    assert tar_at_far(curve, 0.5).tar == 1.0
    with pytest.raises(InputError, match="FAR 1e-06 needs at least 1,000,000 impostor pairs; got 2"):
        tar_at_far(curve, 1e-6)
    with pytest.raises(InputError, match="far must be > 0; got 0; for the point without false accepts pass zero_ok"):
        tar_at_far(curve, 0)
    with pytest.raises(InputError, match=r"far must be a finite number in \[0, 1\]; got 1.5"):
        tar_at_far(curve, 1.5, zero_ok=True)
    for far in (0.0, 1e-6, 0.49):
        assert tar_at_far(curve, far, zero_ok=True).false_accepts == 0


def test_weights_count_towards_what_a_far_needs() -> None:
    with pytest.raises(InputError, match=r"FAR 0\.2 needs at least 5 impostor pairs; got 4"):
        tar_at_far(error_curve([0.9, 0.1, 0.2], [True, False, False], [1, 2, 2]), 0.2)


@settings(max_examples=100, deadline=None)
@given(PAIRS)
def test_best_threshold_is_the_slow_loops(rows: list[tuple[float, bool, int]]) -> None:
    scores, same = [row[0] for row in rows], [row[1] for row in rows]
    threshold, accuracy = best_threshold(scores, same)
    assert (threshold, accuracy) == slow_threshold(scores, same)
    assert right(scores, same, threshold) / len(scores) == accuracy


@settings(max_examples=100, deadline=None)
@given(PAIRS)
def test_best_threshold_under_weights_is_that_of_copies(rows: list[tuple[float, bool, int]]) -> None:
    copies = [(score, kind) for score, kind, weight in rows for _ in range(weight)]
    scores, same = [score for score, _ in copies], [kind for _, kind in copies]
    assert best_threshold(*map(list, zip(*rows, strict=True))) == slow_threshold(scores, same)


@pytest.mark.parametrize(
    ("scores", "same", "threshold", "accuracy"),
    [
        ([4.0, 3.0, 1.0, 0.0], [True, True, False, False], 2.0, 1.0),  # the middle of the gap
        ([3.0, 2.0, 1.0], [True, True, True], None, None),  # one kind only
        ([2.0, 1.0, 1.0], [True, False, True], 1.5, 2 / 3),  # (1, 2] or accept all, which is cut at 1: they touch
        ([1.0, 1.0], [True, False], 1.0, 0.5),  # anything will do
        ([10.0, 5.0, 4.5, 0.0], [True, False, True, False], 7.5, 0.75),  # (5, 10] is wider than (0, 4.5]
        ([9.0, 5.0, 4.5, 0.0], [True, False, True, False], 2.25, 0.75),  # and here it is not
        ([8.0, 4.0, 4.0, 0.0], [True, False, True, False], 4.0, 0.75),  # (4, 8] and (0, 4] touch: their middle
        ([2.0, 1.0, 0.0], [False, False, True], math.nextafter(2.0, 3.0), 2 / 3),  # accept none
        ([2.0, 1.0, 0.0], [False, True, True], 0.0, 2 / 3),  # accept all
    ],
)
def test_best_threshold_by_hand(scores: list[float], same: list[bool], threshold: float, accuracy: float) -> None:
    if threshold is None:
        with pytest.raises(InputError, match="a threshold needs at least one impostor pair; got none among 3"):
            best_threshold(scores, same)
        return
    found = best_threshold(scores, same)
    assert found == (pytest.approx(threshold, abs=1e-15), pytest.approx(accuracy))


def test_of_equally_wide_intervals_the_highest() -> None:
    scores, same = [5.0, 4.0, 3.0, 2.0, 1.0, 0.0], [False, True, False, True, False, False]
    # accepting {5, 4}, {5, 4, 3, 2} or nothing is right four times of six; (3, 4] and (1, 2] are equally wide
    assert best_threshold(scores, same) == (3.5, 4 / 6)


def test_between_neighbouring_floats_the_upper_one_is_taken() -> None:
    low = 0.3
    high = math.nextafter(low, 1.0)
    threshold, accuracy = best_threshold([low, high], [False, True])
    assert (threshold, accuracy) == (high, 1.0)


def test_huge_scores_do_not_overflow() -> None:
    assert best_threshold([1.7e308, -1.7e308], [True, False]) == (0.0, 1.0)


def folded(rows: list[list[tuple[float, int]]]) -> tuple[list[float], list[bool], list[int], list[int]]:
    scores = [score for fold in rows for score, _ in fold]
    same = [place % 2 == 0 for fold in rows for place in range(len(fold))]
    folds = [number for number, fold in enumerate(rows) for _ in fold]
    weights = [weight for fold in rows for _, weight in fold]
    return scores, same, folds, weights


def slow_folds(scores: list[float], same: list[bool], folds: list[int]) -> list[tuple[float, float]]:
    found = []
    for fold in sorted(set(folds)):
        inside = [place for place, number in enumerate(folds) if number == fold]
        outside = [place for place, number in enumerate(folds) if number != fold]
        threshold, _ = slow_threshold([scores[p] for p in outside], [same[p] for p in outside])
        found.append(
            (right([scores[p] for p in inside], [same[p] for p in inside], threshold) / len(inside), threshold)
        )
    return found


@settings(max_examples=80, deadline=None)
@given(FOLDED)
def test_kfold_is_the_slow_loops(rows: list[list[tuple[float, int]]]) -> None:
    scores, same, folds, _ = folded(rows)
    found = kfold_accuracy(scores, same, folds)
    slow = slow_folds(scores, same, folds)
    assert list(zip(found.accuracies.tolist(), found.thresholds.tolist(), strict=True)) == slow
    assert found.mean == pytest.approx(sum(accuracy for accuracy, _ in slow) / len(slow))
    spread = sum((accuracy - found.mean) ** 2 for accuracy, _ in slow) / (len(slow) - 1)
    assert found.standard_error == pytest.approx(math.sqrt(spread / len(slow)), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(FOLDED)
def test_kfold_under_weights_is_that_of_copies(rows: list[list[tuple[float, int]]]) -> None:
    scores, same, folds, weights = folded(rows)
    copies = [place for place, weight in enumerate(weights) for _ in range(weight)]
    slow = slow_folds([scores[p] for p in copies], [same[p] for p in copies], [folds[p] for p in copies])
    found = kfold_accuracy(scores, same, folds, weights)
    assert found.thresholds.tolist() == [threshold for _, threshold in slow]
    assert found.accuracies == pytest.approx([accuracy for accuracy, _ in slow], abs=1e-15)


def test_a_fold_is_judged_by_the_scores_made_without_it() -> None:
    """Each fold's own row of scores serves for its threshold and its test; the other rows do not matter to it."""
    rng = np.random.default_rng(3)
    folds, same = np.repeat([4, 7, 9], 20), np.tile([True, False], 30)  # any whole numbers name the folds
    table = rng.normal(size=(3, 60)) + same
    found = kfold_accuracy(table, same, folds)
    for row, fold in enumerate((4, 7, 9)):
        alone = kfold_accuracy(table[row], same, folds)
        assert found.accuracies[row] == alone.accuracies[row]
        assert found.thresholds[row] == alone.thresholds[row]
        assert fold == np.unique(folds)[row]


def test_the_tested_fold_has_no_say_in_its_threshold() -> None:
    scores, same, folds = [5.0, 1.0, 6.0, 2.0], [True, False, True, False], [0, 0, 1, 1]
    before = kfold_accuracy(scores, same, folds).thresholds[1]
    after = kfold_accuracy([5.0, 1.0, -60.0, 200.0], same, folds)
    assert (before, after.thresholds[1], after.accuracies[1]) == (3.0, 3.0, 0.0)


def test_presorted_folds_serve_many_weights() -> None:
    scores, same, folds = [5.0, 1.0, 6.0, 2.0], [True, False, True, False], [0, 0, 1, 1]
    presorted = PresortedFolds.of(scores, same, folds)
    for weights in ([1, 1, 1, 1], [3, 1, 0.5, 2]):
        assert presorted.accuracy(weights).mean == kfold_accuracy(scores, same, folds, weights).mean == 1.0
    with pytest.raises(InputError, match="fold 1 has no genuine pair; each fold needs both kinds"):
        presorted.accuracy([1, 1, 0, 1])


def test_ties_hold_under_weights_that_are_no_whole_numbers() -> None:
    """Ten thresholds are equally good; rounding errors of sums of tenths choose none of them."""
    scores = np.arange(20.0)
    same = np.tile([False, True], 10)
    whole = best_threshold(scores, same)
    assert best_threshold(scores, same, np.full(20, 0.1)) == pytest.approx(whole, abs=1e-12)
    assert best_threshold(scores, same, np.full(20, 1 / 3)) == pytest.approx(whole, abs=1e-12)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (([0.1, 0.2], [True, False], [0, 0]), "folds must be at least two, for one chooses the other's threshold"),
        (([0.1, 0.2], [True, False], [0.0, 1.0]), r"folds must be whole numbers \[N\]; got float64 \[2\]"),
        (([0.1, 0.2], [True, False], [0]), "folds must be at least two"),
        (
            ([0.1, 0.2, 0.3], [True, False, True], [0, 1]),
            r"scores must be \[N\] or \[F, N\] and folds \[N\]; got \[3\]",
        ),
        (([[0.1, 0.2]] * 3, [True, False], [0, 1]), r"got \[3, 2\] and \[2\] of 2 folds"),
        (([0.1] * 4, [True, False, True, True], [0, 0, 3, 3]), "fold 3 has no impostor pair; each fold needs both"),
        (([0.1] * 4, [True, False, False, False], [0, 0, 1, 1]), "fold 1 has no genuine pair"),
        (([0.1, 0.2, float("nan"), 0.3], [True, False] * 2, [0, 0, 1, 1]), "scores must be finite; got nan at pair 2"),
        (([0.1] * 4, [True, False] * 2, [0, 0, 1, 1], [1.0]), r"weights must be \[4\]"),
    ],
)
def test_kfold_refuses(arguments: tuple[list[float], ...], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        kfold_accuracy(*arguments)


def test_points_of_a_curve_built_by_hand() -> None:
    curve = ErrorCurve(np.array([0.9, 0.5, 0.1]), np.array([1.0, 3.0, 4.0]), np.array([0.0, 1.0, 4.0]))
    assert (tar_at_far(curve, 0.25).tar, tar_at_far(curve, 0.74).threshold) == (0.75, 0.5)
