"""Error versus discard: slow loops, ties, weights, the area, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from angulus.core.checks import InputError
from angulus.evaluation.metrics.image_quality import Discard, area, error_versus_discard

ROWS = st.lists(st.tuples(st.sampled_from([0.5, 1.0, 2.0, 7.0]), st.booleans()), min_size=1, max_size=30)


@settings(max_examples=60)
@given(ROWS)
def test_the_curve_is_the_one_of_a_slow_loop(rows: list[tuple[float, bool]]) -> None:
    curve = error_versus_discard([quality for quality, _ in rows], np.array([wrong for _, wrong in rows]))
    expected = []
    for bound in sorted({quality for quality, _ in rows}):
        kept = [wrong for quality, wrong in rows if quality >= bound]
        expected.append((1 - len(kept) / len(rows), sum(kept) / len(kept)))
    assert curve.discarded == pytest.approx([x for x, _ in expected], abs=1e-15)
    assert curve.fnmr == pytest.approx([y for _, y in expected], abs=1e-15)


@settings(max_examples=60)
@given(ROWS, st.floats(0.01, 1))
def test_the_area_is_a_fine_sum_of_steps(rows: list[tuple[float, bool]], up_to: float) -> None:
    curve = error_versus_discard([quality for quality, _ in rows], np.array([wrong for _, wrong in rows]))
    steps = 4000
    total = 0.0
    for step in range(steps):
        share = (step + 0.5) / steps * up_to
        total += max((x, y) for x, y in zip(curve.discarded, curve.fnmr, strict=True) if x <= share)[1] * up_to / steps
    assert area(curve, up_to) == pytest.approx(total, abs=31 * up_to / steps)


def test_quality_that_tells_all_errors_brings_the_curve_to_zero() -> None:
    curve = error_versus_discard(np.arange(10.0), np.arange(10) < 3)
    assert curve.fnmr[3:].tolist() == [0.0] * 7
    assert curve.fnmr[0] == 0.3
    assert area(curve) < area(error_versus_discard(np.arange(10.0), np.arange(10) >= 7))


def test_equal_qualities_go_together() -> None:
    curve = error_versus_discard([1.0] * 4, np.array([True, False, False, False]))
    assert (curve.discarded.tolist(), curve.fnmr.tolist()) == ([0.0], [0.25])
    assert area(curve) == 0.25


@settings(max_examples=40)
@given(ROWS, st.data())
def test_whole_weights_are_repeats(rows: list[tuple[float, bool]], data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows)))
    quality, rejected = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    if not any(weights):
        with pytest.raises(InputError, match="needs a genuine pair of weight > 0"):
            error_versus_discard(quality, rejected, weights)
        return
    weighted = error_versus_discard(quality, rejected, weights)
    repeated = error_versus_discard(np.repeat(quality, weights), np.repeat(rejected, weights))
    assert area(weighted) == pytest.approx(area(repeated), abs=1e-12)
    assert weighted.fnmr[-1] == pytest.approx(repeated.fnmr[-1], abs=1e-12)
    places = np.unique(weighted.discarded, return_index=True)[1]  # a quality of weight 0 repeats the point before it
    assert weighted.discarded[places] == pytest.approx(repeated.discarded, abs=1e-12)


@settings(max_examples=40)
@given(ROWS, st.randoms(use_true_random=False))
def test_only_the_order_of_qualities_matters(rows: list[tuple[float, bool]], random: object) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    first = error_versus_discard([q for q, _ in rows], np.array([w for _, w in rows]))
    for changed in (shuffled, [(q**3 - 5, w) for q, w in rows]):
        other = error_versus_discard([q for q, _ in changed], np.array([w for _, w in changed]))
        assert np.array_equal(first.discarded, other.discarded)
        assert np.array_equal(first.fnmr, other.fnmr)


@pytest.mark.parametrize(
    ("quality", "rejected", "weights", "sentence"),
    [
        ([1.0], np.array([True, False]), None, r"must be \[N\] each with N >= 1; got shapes \[1\] and \[2\]"),
        ([], np.array([], dtype=bool), None, "N >= 1"),
        ([math.nan], np.array([True]), None, "quality must be finite and rejected bool"),
        ([1.0], np.array([1]), None, "rejected bool; got float64 and int64"),
        ([1.0], np.array([True]), [-1.0], "weights must be"),
    ],
)
def test_what_is_refused(quality: object, rejected: object, weights: object, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        error_versus_discard(quality, rejected, weights)  # type: ignore[arg-type]


@pytest.mark.parametrize("up_to", [0.0, 1.1, math.nan])
def test_an_area_to_nowhere_is_refused(up_to: float) -> None:
    with pytest.raises(InputError, match=r"up_to must be a finite number in \(0, 1\]"):
        area(Discard(np.zeros(1), np.zeros(1)), up_to)
