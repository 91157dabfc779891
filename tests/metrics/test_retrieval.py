"""Retrieval figures against plain loops over a ranking, and with ties against all orders of the tied items."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from angulus.core.checks import InputError
from angulus.evaluation.metrics import retrieval
from angulus.evaluation.metrics.retrieval import MatchRanks

FIGURES: dict[str, Callable[[MatchRanks], np.ndarray]] = {
    "recall@1": lambda ranks: retrieval.recall(ranks, 1),
    "recall@3": lambda ranks: retrieval.recall(ranks, 3),
    "R-precision": retrieval.r_precision,
    "MAP@R": retrieval.map_at_r,
    "mAP": retrieval.average_precision,
    "trapezoid": lambda ranks: retrieval.average_precision(ranks, rule="trapezoid"),
    "mAP@2": lambda ranks: retrieval.average_precision(ranks, 2),
    "mAP@4": lambda ranks: retrieval.average_precision(ranks, 4),
    "mINP": retrieval.inverse_negative_penalty,
}


def of_order(hits: Sequence[bool]) -> dict[str, float]:
    """The figures of one ranking, from the definitions."""
    total = sum(hits)
    share = [sum(hits[: place + 1]) / (place + 1) for place in range(len(hits))]
    at = [place for place, hit in enumerate(hits) if hit]
    return {
        "recall@1": float(any(hits[:1])),
        "recall@3": float(any(hits[:3])),
        "R-precision": sum(hits[:total]) / total,
        "MAP@R": sum(share[place] for place in at if place < total) / total,
        "mAP": sum(share[place] for place in at) / total,
        "trapezoid": sum((share[place] + (share[place - 1] if place else 1)) / 2 for place in at) / total,
        "mAP@2": sum(share[place] for place in at if place < 2) / min(total, 2),
        "mAP@4": sum(share[place] for place in at if place < 4) / min(total, 4),
        "mINP": total / (at[-1] + 1),
    }


def test_without_ties() -> None:
    random = np.random.default_rng(0)
    scores, hits = random.standard_normal((50, 30)), random.random((50, 30)) < 0.2
    ignored = random.random((50, 30)) < 0.2
    queries, ranks = MatchRanks.from_scores(scores, hits, ignored)
    got = {name: figure(ranks) for name, figure in FIGURES.items()}
    assert len(queries) == int((hits & ~ignored).any(axis=1).sum())
    for place, query in enumerate(queries.tolist()):
        order = [item for item in np.argsort(-scores[query]) if not ignored[query, item]]
        for name, value in of_order(hits[query][order].tolist()).items():
            assert got[name][place] == pytest.approx(value, abs=1e-14), name


def test_ties_are_the_mean_over_all_orders_and_within_the_bounds() -> None:
    random = np.random.default_rng(1)
    for _ in range(25):
        scores, hits = random.integers(0, 3, 6).astype(float), random.random(6) < 0.5
        if not hits.any():
            continue
        orders = [order for order in itertools.permutations(range(6)) if (np.diff(scores[list(order)]) <= 0).all()]
        wanted = [of_order(hits[list(order)].tolist()) for order in orders]
        _, ranks = MatchRanks.from_scores([scores], [hits])
        for name, figure in FIGURES.items():
            values = [each[name] for each in wanted]
            low, high = (float(figure(ranks.bound(optimistic=good))[0]) for good in (False, True))
            assert float(figure(ranks)[0]) == pytest.approx(np.mean(values), abs=1e-12), name
            assert (low, high) == pytest.approx((min(values), max(values)), abs=1e-12), name


def test_a_million_ties() -> None:
    ranks = MatchRanks(np.array([0, 1]), np.array([0]), np.array([999_999]))
    assert retrieval.recall(ranks, 100)[0] == pytest.approx(1e-4, rel=1e-12)
    harmonic = sum(1 / place for place in range(1, 10**6 + 1))
    for figure in (retrieval.average_precision, retrieval.inverse_negative_penalty):
        assert figure(ranks)[0] == pytest.approx(harmonic / 10**6, rel=1e-12)
    many = MatchRanks(np.array([0, 1000]), np.zeros(1000, dtype=np.int64), np.full(1000, 999_000))
    assert retrieval.r_precision(many)[0] == pytest.approx(1e-3)
    assert retrieval.inverse_negative_penalty(many)[0] == pytest.approx(1000 / 999_001, rel=1e-3)


def test_refusals() -> None:
    nothing = np.empty(0, dtype=np.int64)
    with pytest.raises(InputError, match="one number per match"):
        MatchRanks(np.array([0]), nothing, nothing)
    with pytest.raises(InputError, match="query 1 has none"):
        MatchRanks(np.array([0, 1, 1]), np.array([0]), np.array([0]))
    with pytest.raises(InputError, match="rule must be"):
        retrieval.average_precision(MatchRanks(np.array([0, 1]), np.array([0]), np.array([0])), rule="area")
