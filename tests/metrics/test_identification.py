"""CMC and open-set identification: slow loops over probes and thresholds, ties, weights against copies, refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from angulus.core.checks import InputError
from angulus.evaluation.metrics.identification import cmc, dir_at_far, open_set_curve, rank_k

VALUES = st.sampled_from([-0.5, 0.0, 0.2, 0.4, 0.4000000000000001, 0.9])
GENUINE = st.lists(st.tuples(VALUES, st.integers(1, 4), st.integers(0, 2)), min_size=1, max_size=20)
IMPOSTORS = st.lists(st.tuples(VALUES, st.integers(1, 3)), min_size=1, max_size=20)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 12), st.integers(0, 3)), min_size=1, max_size=30), st.integers(1, 10))
def test_cmc_is_a_count(rows: list[tuple[int, int]], max_rank: int) -> None:
    ranks, weights = [rank for rank, _ in rows], [weight for _, weight in rows]
    expected = [sum(rank <= k for rank in ranks) / len(ranks) for k in range(1, max_rank + 1)]
    assert cmc(ranks, max_rank).tolist() == pytest.approx(expected, abs=1e-15)
    assert rank_k(ranks, max_rank) == pytest.approx(expected[-1], abs=1e-15)
    copies = [rank for rank, weight in rows for _ in range(weight)]
    if copies:
        assert cmc(ranks, max_rank, weights) == pytest.approx(cmc(copies, max_rank), abs=1e-15)


def slow_dir(genuine: list[tuple[float, int]], impostors: list[float], far: float, rank: int) -> float:
    """The largest share of genuine probes found, over all thresholds that keep to the FAR."""
    scores = sorted({score for score, _ in genuine} | set(impostors))
    best = 0.0
    for threshold in [*scores, math.nextafter(scores[-1], math.inf)]:
        if sum(score >= threshold for score in impostors) / len(impostors) <= far:
            found = sum(score >= threshold and place <= rank for score, place in genuine)
            best = max(best, found / len(genuine))
    return best


@settings(max_examples=120, deadline=None)
@given(GENUINE, IMPOSTORS, st.sampled_from([0.0, 0.1, 0.25, 1 / 3, 0.5, 1.0]), st.integers(1, 4))
def test_dir_is_the_largest_over_all_thresholds(
    genuine: list[tuple[float, int, int]], impostors: list[tuple[float, int]], far: float, rank: int
) -> None:
    pairs, others = [(score, place) for score, place, _ in genuine], [score for score, _ in impostors]
    mates, ranks = zip(*pairs, strict=True)
    point = dir_at_far(open_set_curve(mates, ranks, others, rank=rank), far, zero_ok=True)
    best = slow_dir(pairs, others, far, rank)
    assert point.dir == pytest.approx(best, abs=1e-15)
    assert point.false_alarms == sum(score >= point.threshold for score in others)
    assert point.false_alarms / len(others) <= far
    found = sum(score >= point.threshold and place <= rank for score, place in pairs)
    assert found / len(pairs) == pytest.approx(best)
    lower = [s for s in [*others, *(s for s, place in pairs if place <= rank)] if s < point.threshold]
    if lower:
        assert sum(score >= max(lower) for score in others) / len(others) > far


@settings(max_examples=60, deadline=None)
@given(GENUINE.filter(lambda rows: any(row[2] for row in rows)), IMPOSTORS)
def test_weights_are_copies_of_probes(
    genuine: list[tuple[float, int, int]], impostors: list[tuple[float, int]]
) -> None:
    mates, ranks, weights = zip(*genuine, strict=True)
    others, other_weights = zip(*impostors, strict=True)
    weighted = open_set_curve(mates, ranks, others, rank=2, genuine_weights=weights, impostor_weights=other_weights)
    copies = [row for row in genuine for _ in range(row[2])]
    copied = open_set_curve(
        [row[0] for row in copies],
        [row[1] for row in copies],
        [score for score, weight in impostors for _ in range(weight)],
        rank=2,
    )
    for name in ("thresholds", "identified", "alarms", "genuine", "impostors"):
        assert np.array_equal(getattr(weighted, name), getattr(copied, name)), name


def test_rates_by_hand() -> None:
    curve = open_set_curve([0.9, 0.7, 0.8, 0.6], [1, 1, 2, 1], [0.75, 0.65, 0.2, 0.1])
    assert curve.thresholds.tolist() == [0.9, 0.75, 0.7, 0.65, 0.6, 0.2, 0.1]  # 0.8 is only of a rank-2 probe
    assert curve.tpir.tolist() == [0.25, 0.25, 0.5, 0.5, 0.75, 0.75, 0.75]
    assert curve.fpir.tolist() == [0, 0.25, 0.25, 0.5, 0.5, 0.75, 1]
    assert curve.fnir.tolist() == [0.75, 0.75, 0.5, 0.5, 0.25, 0.25, 0.25]
    assert dir_at_far(curve, 0.25).dir == 0.5
    assert open_set_curve([0.9, 0.7, 0.8, 0.6], [1, 1, 2, 1], [0.75] * 4, rank=2).tpir.tolist()[-1] == 1.0


def test_a_probe_that_ties_with_the_best_impostor_is_not_detected_before_it() -> None:
    curve = open_set_curve([0.5], [1], [0.5, 0.1])
    assert dir_at_far(curve, 0, zero_ok=True).dir == 0.0
    assert dir_at_far(curve, 0.5).dir == 1.0


def test_where_nobody_ranks_high_enough_the_rate_is_0() -> None:
    point = dir_at_far(open_set_curve([0.9, 0.8], [2, 3], [0.1, 0.2]), 1.0)
    assert (point.dir, point.false_alarms) == (0.0, 2.0)


def test_a_far_that_the_probes_cannot_show_is_refused() -> None:
    curve = open_set_curve([0.9], [1], [0.5, 0.1])
    with pytest.raises(InputError, match=r"FAR 0\.01 needs at least 100 impostor probes; got 2"):
        dir_at_far(curve, 0.01)


@pytest.mark.parametrize(
    ("arguments", "options", "sentence"),
    [
        (([0.9], [0], [0.5]), {}, r"ranks must be whole numbers >= 1 of shape \[P\]; got int64 \[1\], least 0"),
        (([0.9], [1.0], [0.5]), {}, "ranks must be whole numbers >= 1"),
        (([0.9, 0.8], [1], [0.5]), {}, r"ranks must be one per genuine probe, \[2\]; got \[1\]"),
        (([float("nan")], [1], [0.5]), {}, "mate_scores must be finite numbers"),
        (([0.9], [1], [float("inf")]), {}, "impostor_scores must be finite numbers"),
        (([0.9], [1], []), {}, "open-set identification needs at least one impostor probe; got none"),
        (([0.9], [1], [0.5]), {"rank": 0}, "rank must be a whole number >= 1; got 0"),
        (([0.9], [1], [0.5]), {"genuine_weights": [0]}, "needs at least one genuine probe"),
        (([0.9], [1], [0.5]), {"impostor_weights": [1, 1]}, r"weights must be \[1\]"),
    ],
)
def test_open_set_refuses(arguments: tuple[list[float], ...], options: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        open_set_curve(*arguments, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (([], 3), "ranks must be whole numbers >= 1"),
        (([1, 2], 0), "max_rank must be a whole number >= 1; got 0"),
        (([1, 2], 2, [0, 0]), "a CMC needs a probe of weight > 0; got none among 2"),
        (([1, 2], 2, [1]), r"weights must be \[2\]"),
    ],
)
def test_cmc_refuses(arguments: tuple[list[int], ...], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        cmc(*arguments)
