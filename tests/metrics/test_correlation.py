"""Spearman's ρ: SciPy's, ties, weights, invariances, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from angulus.core.checks import InputError
from angulus.evaluation.metrics.image_quality import spearman

PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=40).filter(
    lambda rows: len({x for x, _ in rows}) > 1 and len({y for _, y in rows}) > 1
)


@settings(max_examples=80)
@given(PAIRS)
def test_it_is_scipys(rows: list[tuple[int, int]]) -> None:
    x, y = zip(*rows, strict=True)
    assert spearman(x, y) == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)


@settings(max_examples=60)
@given(PAIRS, st.data())
def test_whole_weights_are_repeats(rows: list[tuple[int, int]], data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows)))
    x, y = (np.repeat(np.array(column, dtype=float), weights) for column in zip(*rows, strict=True))
    found = spearman(*zip(*rows, strict=True), weights)
    if len(np.unique(x)) < 2 or len(np.unique(y)) < 2:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)


@settings(max_examples=40)
@given(PAIRS)
def test_only_ranks_matter(rows: list[tuple[int, int]]) -> None:
    x, y = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    assert spearman(np.exp(x), y**3 - 7) == pytest.approx(spearman(x, y), abs=1e-12)
    assert spearman(-x, y) == pytest.approx(-spearman(x, y), abs=1e-12)
    assert spearman(y, x) == pytest.approx(spearman(x, y), abs=1e-12)
    assert spearman(x, x) == pytest.approx(1, abs=1e-12)


def test_a_constant_has_no_correlation() -> None:
    assert math.isnan(spearman([1, 1, 1], [1, 2, 3]))
    assert math.isnan(spearman([1], [2]))


@pytest.mark.parametrize(
    ("first", "second", "weights", "sentence"),
    [
        ([1, 2], [1, 2, 3], None, r"must be \[N\] each with N >= 1; got shapes \[2\] and \[3\]"),
        ([], [], None, "N >= 1"),
        ([1, math.nan], [1, 2], None, "must be finite"),
        ([1, 2], [1, math.inf], None, "must be finite"),
        ([1, 2], [1, 2], [1], r"weights must be \[2\]"),
    ],
)
def test_what_is_refused(first: object, second: object, weights: object, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        spearman(first, second, weights)  # type: ignore[arg-type]
