"""How unequal groups are: plain loops from the equations, worked examples, laws, zeros, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from angulus.core.checks import InputError
from angulus.evaluation.metrics.differentials import fdr, garbe, gini, max_over_geometric_mean, max_over_min

RATE = st.integers(0, 1000).map(lambda errors: errors / 1000)
RATES = st.lists(RATE, min_size=2, max_size=6)
SINGLE = {"max/min": max_over_min, "geometric": max_over_geometric_mean, "gini": gini}


def slow_gini(rates: list[float]) -> float:
    """Howard et al.: n/(n − 1) · ΣΣ|x_i − x_j| / (2 n² x̄), and 0 if there is no error at all."""
    n, total = len(rates), 0.0
    for first in rates:
        for second in rates:
            total += abs(first - second)
    mean = sum(rates) / n
    return n / (n - 1) * total / (2 * n**2 * mean) if mean else 0.0


def slow_gap(rates: list[float]) -> float:
    """De Freitas Pereira and Marcel: the largest |x_i − x_j| over all pairs of groups."""
    return max(abs(first - second) for first in rates for second in rates)


@settings(max_examples=60, deadline=None)
@given(RATES, st.data())
def test_gini_fdr_and_garbe_are_those_of_plain_loops(matches: list[float], data: st.DataObject) -> None:
    misses = data.draw(st.lists(RATE, min_size=len(matches), max_size=len(matches)))
    alpha = data.draw(st.floats(0, 1))
    assert gini(matches) == pytest.approx(slow_gini(matches), abs=1e-9)
    assert fdr(matches, misses, alpha) == pytest.approx(
        1 - (alpha * slow_gap(matches) + (1 - alpha) * slow_gap(misses)), abs=1e-12
    )
    assert garbe(matches, misses, alpha) == pytest.approx(
        alpha * slow_gini(matches) + (1 - alpha) * slow_gini(misses), abs=1e-9
    )


@pytest.mark.parametrize("figure", SINGLE.values(), ids=SINGLE)
def test_the_order_of_the_groups_does_not_matter_and_only_ratios_of_rates_do(figure: object) -> None:
    rates = np.array([0.04, 0.01, 0.02, 0.08])
    assert figure(rates[::-1]) == pytest.approx(figure(rates))  # type: ignore[operator]
    assert figure(rates / 8) == pytest.approx(figure(rates))  # type: ignore[operator]


def test_by_hand() -> None:
    """0.01, 0.02, 0.04: ratio 4; geometric mean 0.02; Σ|x_i − x_j| = 2 (0.01 + 0.03 + 0.02) = 0.12."""
    rates = [0.01, 0.02, 0.04]
    assert max_over_min(rates) == 4
    assert max_over_geometric_mean(rates) == pytest.approx(2)
    assert gini(rates) == pytest.approx(1.5 * 0.12 / (2 * 9 * 0.07 / 3))
    assert fdr(rates, [0.1, 0.1, 0.3], alpha=0.25) == pytest.approx(1 - (0.25 * 0.03 + 0.75 * 0.2))
    assert fdr([0.3, 0.3], [0.1, 0.1]) == 1 and garbe([0.3, 0.3], [0.1, 0.1]) == 0


def test_zeros() -> None:
    for ratio in (max_over_min, max_over_geometric_mean):
        assert ratio([0, 0.1]) == math.inf  # a ratio to a zero rate
        assert math.isnan(ratio([0, 0, 0]))  # zero to zero
    assert gini([0, 0, 0]) == 0 == garbe([0, 0], [0, 0])
    assert gini([0, 0, 1e-9]) == 1  # one group has all the errors


@pytest.mark.parametrize("rates", [[], [0.1], [0.1, 1.5], [0.1, -0.1], [0.1, math.nan], [[0.1, 0.2]]])
def test_what_is_no_rate_is_refused(rates: list[float]) -> None:
    for figure in SINGLE.values():
        with pytest.raises(InputError, match=r"rates must be of two groups or more, each in \[0, 1\]; got"):
            figure(rates)
    with pytest.raises(InputError, match=r"alpha must be a finite number in \[0, 1\]; got 2"):
        fdr([0.1, 0.2], [0.1, 0.2], alpha=2)
