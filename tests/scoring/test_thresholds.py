"""Exact thresholds against a full sort at every rate, with samples that mislead and memory that overflows."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from angulus.core.checks import InputError
from angulus.evaluation.scoring import (
    ScoringOptions,
    brackets,
    genuine,
    low_precision,
    thresholds,
    thresholds_at,
    tiles,
)
from angulus.evaluation.scoring.brackets import Between, Bracket, RankedScore, merge_overlaps
from scoring.cases import cloud, every_score, lattice

RANDOM = np.random.default_rng(0)


def impostors(probes: torch.Tensor, gallery: torch.Tensor | None, ids: object) -> list[float]:
    """All impostor scores, falling."""
    scores = every_score(probes, probes if gallery is None else gallery)
    wanted = np.triu(np.ones_like(scores, dtype=bool), 1) if gallery is None else np.ones_like(scores, dtype=bool)
    if ids is not None:
        wanted &= ~np.equal.outer(*((ids, ids) if gallery is None else ids))  # type: ignore[misc]
    return sorted(scores[wanted].tolist(), reverse=True)


def accepted_by_rule(scores: list[float], fmr: float) -> int:
    """The most scores that any threshold accepts within the rate, found by trying every distinct score."""
    best = 0
    for threshold in sorted(set(scores), reverse=True):
        accepted = sum(score >= threshold for score in scores)
        if accepted / len(scores) <= fmr:
            best = max(best, accepted)
    return best


def check(
    probes: torch.Tensor, gallery: torch.Tensor | None, fmrs: list[float], options: ScoringOptions, ids: object = None
) -> int:
    """Compare all points with the rule; the most passes that any took."""
    scores = impostors(probes, gallery, ids)
    points = thresholds_at(probes, gallery, fmrs, ids=ids, zero_ok=True, options=options)  # type: ignore[arg-type]
    assert [point.fmr for point in points] == fmrs
    for point in points:
        expected = accepted_by_rule(scores, point.fmr)
        assert (point.accepted, point.impostors) == (expected, len(scores))
        if expected == len(scores):
            assert (point.threshold, point.refused) == (-math.inf, -math.inf)
        else:
            assert point.refused == pytest.approx(scores[expected], abs=1e-15)
            assert point.threshold == math.nextafter(point.refused, math.inf)
    return max(point.passes for point in points)


@pytest.fixture
def sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small sets take the same way as large ones."""
    monkeypatch.setattr(thresholds, "SAMPLE", (1, 200))
    monkeypatch.setattr(thresholds, "SPREAD", 2.0)


@pytest.mark.parametrize("sampled", [True, False])
def test_every_rate_of_a_small_set(sampled: bool, options: ScoringOptions, request: pytest.FixtureRequest) -> None:
    if sampled:
        request.getfixturevalue("sampling")
    for probes, gallery in ((lattice(9, 0), lattice(14, 1)), (cloud(9, 2), cloud(14, 3))):
        every = [count / 126 for count in range(127)]
        check(probes, gallery, every, options)
        for fmr in every[::17]:
            check(probes, gallery, [fmr, fmr - 1e-9 if fmr else 0.0, math.nextafter(fmr, 0)], options)


@pytest.mark.parametrize("rates", [[0.0], [0.01], [0.3, 0.01, 0.9, 0.0, 1.0, 0.01]])
def test_identities_and_pairs_within_one_set(rates: list[float], options: ScoringOptions, sampling: None) -> None:
    for rows in (lattice(40, 4), cloud(40, 5)):
        check(rows, None, rates, options)
        ids = RANDOM.integers(9, size=40)
        check(rows, None, rates, options, ids)
        check(rows, rows[:25], rates, options, (ids, RANDOM.integers(9, size=25)))


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 25), st.integers(0, 10**6), st.lists(st.floats(0, 1), min_size=1, max_size=4), st.booleans())
def test_any_set_and_rate(rows: int, seed: int, rates: list[float], ties: bool) -> None:
    made = lattice(rows, seed) if ties else cloud(rows, seed)
    check(made, None, rates, ScoringOptions(precision="bfloat16"))


@pytest.mark.parametrize("value", [-5.0, -1.0, 0.0, 0.3, 1.0, 5.0])
@pytest.mark.parametrize("size", [10, 3000])
def test_a_sample_that_misleads_costs_passes_and_nothing_else(
    value: float, size: int, options: ScoringOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thresholds, "SAMPLE", (1, 200))
    monkeypatch.setattr(thresholds, "sample_scores", lambda *_: np.full(size, value))
    for rows in (lattice(40, 6), cloud(40, 7)):
        passes = check(rows, None, [0.001, 0.02, 0.5, 0.97], options)
        if value > 1 and size == 3000:  # no rank lies there
            assert passes > 1


def test_an_honest_sample_takes_one_pass(options: ScoringOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thresholds, "SAMPLE", (300, 300))
    assert check(cloud(60, 8), None, [0.001, 0.01, 0.1, 0.5], options) == 1


@pytest.mark.parametrize("bins", [10, 1000])
def test_more_scores_inside_than_memory_holds(
    bins: int, options: ScoringOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(brackets, "BINS", bins)
    monkeypatch.setattr(brackets, "SETTLE", 10)
    monkeypatch.setattr(thresholds, "merge_overlaps", lambda wanted, _: merge_overlaps(wanted, 20))
    for rows in (lattice(40, 9), cloud(40, 10)):
        passes = check(rows, None, [0.0, 0.001, 0.1, 0.5, 0.9, 1.0], options)
        assert passes > 1 or rows.shape[1] == 6  # the lattice has fewer distinct scores than fit


def test_ties_of_any_number_fit_and_move_together(options: ScoringOptions) -> None:
    rows = torch.ones(60, 3)
    (point,) = thresholds_at(rows, None, [0.5], zero_ok=True, options=options)
    assert (point.accepted, point.impostors, point.passes) == (0, 1770, 1)
    assert point.refused == 1.0


@settings(max_examples=60)
@given(
    st.lists(st.integers(-8, 8), min_size=1, max_size=60),
    st.integers(-9, 9),
    st.integers(0, 18),
    st.integers(1, 4),
    st.integers(1, 60),
)
def test_a_bracket_finds_a_rank_or_where_it_is(scores: list[int], low: int, width: int, parts: int, rank: int) -> None:
    """Whatever the bracket and however the scores come, what it says of a rank is true."""
    rank = min(rank, len(scores))
    values = np.array(scores) / 8
    shares = [Bracket(low / 8, (low + width) / 8, [rank], 3) for _ in range(parts)]
    for number, score in enumerate(values):
        share = shares[number % parts]
        share.add(np.array([score]))
        if number % 7 == 0:
            share.settle()
    for share in shares:
        share.settle()
    for other in shares[1:]:
        shares[0].merge(other)
    expected = sorted(values.tolist(), reverse=True)[rank - 1]
    place = shares[0].find(rank)
    if isinstance(place, RankedScore):
        assert place.value == expected
        assert place.higher == int((values > expected).sum())
    else:
        assert place.low <= expected <= place.high
        assert place.inside == (low / 8 <= expected <= (low + width) / 8)


def test_overlapping_brackets_are_one() -> None:
    joined = merge_overlaps([(0.1, 0.2, 5), (0.15, 0.4, 3), (0.5, math.inf, 1), (0.4, 0.45, 2)], 10)
    assert [(each.low, each.high, each.ranks) for each in joined] == [(0.5, math.inf, [1]), (0.1, 0.45, [2, 3, 5])]
    assert Between(0, 1, True) != Between(0, 1, False)


def test_auto_weighs_cheap_products_against_scores_to_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where many scores lie within bfloat16's error of a bracket, float32 is taken."""
    monkeypatch.setattr(tiles, "SMALL", 0)
    monkeypatch.setattr(low_precision, "bfloat16_time", lambda *_: 0.4)
    monkeypatch.setattr(thresholds, "bfloat16_time", lambda *_: 0.4)
    work = tiles.task(cloud(10, 0), None, None, ScoringOptions())
    sample = np.linspace(1, 0, 1000)
    assert thresholds._dtype(work, [Bracket(1.2, math.inf, [1], 9)], sample) == torch.bfloat16
    assert thresholds._dtype(work, [Bracket(0.499, 0.5, [1], 9)], sample) == torch.float32


def test_the_sample_has_impostor_pairs_only() -> None:
    rows, ids = torch.eye(6).repeat_interleave(5, dim=0), np.arange(6).repeat(5)
    work = tiles.task(rows, None, ids, ScoringOptions())
    assert thresholds.sample_scores(work, 500).tolist() == [0.0] * 500  # pairs of one identity score 1
    alone = tiles.task(rows, None, np.zeros(30, dtype=int), ScoringOptions())
    assert len(thresholds.sample_scores(alone, 500)) == 0


def test_true_accepts_follow(options: ScoringOptions) -> None:
    """TAR@FAR=f as the protocols use it: genuine scores at or above the threshold."""
    rows, ids = cloud(40, 11), RANDOM.integers(6, size=40)
    (point,) = thresholds_at(rows, None, [0.05], ids=ids, options=options)
    scores = np.concatenate([part.scores for part in genuine(rows, None, ids=ids)])
    refused = impostors(rows, None, ids)[point.accepted]
    every = every_score(rows, rows)
    higher = sum(every[i, j] > refused + 1e-14 for i, j in itertools.combinations(range(40), 2) if ids[i] == ids[j])
    assert int((scores >= point.threshold).sum()) == higher


@pytest.mark.parametrize(
    ("fmrs", "options", "sentence"),
    [
        ([0.4], {}, "fmr=0.4 needs at least 3 impostor pairs; got 1; raise it, or pass zero_ok=True"),
        ([0.0], {}, "fmr=0 accepts none; raise it, or pass zero_ok=True"),
        ([1.5], {}, r"fmr must be a finite number in \[0, 1\]; got 1.5"),
        (["1e-3"], {}, "fmr must be a number"),
        ([0.5], {"ids": [1, 1]}, "a threshold needs at least one impostor pair; got none; check the ids"),
        (
            [0.5],
            {"ids": ([1, 1], [1, 1])},
            r"ids must be \[2\] of whole numbers, one per row; got int64 of shape \[2, 2\]",
        ),
    ],
)
def test_refused(fmrs: list[float], options: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        thresholds_at(torch.ones(2, 2), None, fmrs, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fmr", "total", "most"),
    [
        (0.29, 100, 29),  # 0.29 · 100 is 28.999999999999996
        (0.5046802259762205, 362_162, 182_776),  # the nearest float64 to 182776 / 362162
        (0.11232111000532737, 77_843_230, 8_743_437),  # below 8743438 / 77843230, by which the product is rounded up
        (1.0, 10**12, 10**12),
        (1e-9, 10**10 - 1, 9),
        (1e-9, 10**10, 10),
    ],
)
def test_how_many_may_pass_is_exact(fmr: float, total: int, most: int) -> None:
    assert thresholds._allowed(fmr, total, False) == most
    assert most / total <= fmr
    assert most == total or (most + 1) / total > fmr


def test_no_rates_no_points() -> None:
    assert thresholds_at(torch.ones(2, 2), None, []) == []


def test_memory_stays_within_its_bound() -> None:
    """Probes, products and collected scores that would take far more than the budget."""
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("reads the peak resident set, which is in /proc on Linux only")

    def resident(field: str) -> float:
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(field)) / 1024

    rows = torch.randn(14_000, 4, generator=torch.Generator().manual_seed(0))
    thresholds_at(rows[:300], None, [0.1])  # libraries load before the baseline
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    (point,) = thresholds_at(rows, None, [0.01], options=ScoringOptions(memory_mib=64))  # 98 million scores: 747 MiB
    assert point.accepted == 979_930
    assert resident("VmHWM") - before < 64
