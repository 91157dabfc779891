"""Rows ahead of a mate, pairs above a threshold and pairs of one identity, against loops over all scores."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from angulus.core.checks import InputError
from angulus.evaluation.scoring import PairBatch, ScoringOptions, above, counts, genuine, pair_scores, rows_ahead
from scoring.cases import cloud, every_score, lattice

SETS = [(lattice(23, 0), lattice(61, 1)), (cloud(23, 2), cloud(61, 3))]
RANDOM = np.random.default_rng(0)


def as_set(stream: Iterable[PairBatch]) -> dict[tuple[int, int], float]:
    """All pairs of a stream, none of which may come twice."""
    found: dict[tuple[int, int], float] = {}
    for part in stream:
        assert len(part.scores) == len(part.probes) == len(part.gallery) > 0
        for pair, score in zip(zip(part.probes.tolist(), part.gallery.tolist(), strict=True), part.scores, strict=True):
            assert pair not in found
            found[pair] = score
    return found


def reached(scores: np.ndarray, threshold: float, within: bool = False) -> dict[tuple[int, int], float]:
    return {
        (i, j): pytest.approx(score, abs=1e-15)
        for i, row in enumerate(scores.tolist())
        for j, score in enumerate(row)
        if score >= threshold and (not within or i < j)
    }


@pytest.mark.parametrize("threshold", [-2.0, -1.0, -0.5, -1e-12, 0.0, 0.25, 0.6, 1.0, 1.5])
@pytest.mark.parametrize("sides", SETS)
def test_pairs_above(sides: tuple[torch.Tensor, torch.Tensor], threshold: float, options: ScoringOptions) -> None:
    probes, gallery = sides
    assert as_set(above(probes, gallery, threshold, options=options)) == reached(every_score(*sides), threshold)
    ids = (RANDOM.integers(4, size=len(probes)), RANDOM.integers(4, size=len(gallery)))
    scores = every_score(*sides)
    scores[np.equal.outer(*ids)] = -math.inf
    assert as_set(above(probes, gallery, threshold, ids=ids, options=options)) == reached(scores, threshold)


@pytest.mark.parametrize("threshold", [-2.0, 0.0, 0.5])
def test_pairs_above_within_one_set(threshold: float, options: ScoringOptions) -> None:
    for rows in (lattice(40, 4), cloud(40, 5)):
        scores = every_score(rows, rows)
        assert as_set(above(rows, None, threshold, options=options)) == reached(scores, threshold, within=True)
        ids = RANDOM.integers(4, size=40)
        scores[np.equal.outer(ids, ids)] = -math.inf
        assert as_set(above(rows, None, threshold, ids=ids, options=options)) == reached(scores, threshold, within=True)


def test_a_threshold_that_is_a_score_includes_it_and_the_next_above_does_not(options: ScoringOptions) -> None:
    probes, gallery = cloud(12, 6, 80), cloud(30, 7, 80)
    for i, j in ((0, 0), (5, 17), (11, 29)):
        score = float(pair_scores(probes, gallery, torch.tensor([i]), torch.tensor([j]))[0])
        assert (i, j) in as_set(above(probes, gallery, score, options=options))
        assert (i, j) not in as_set(above(probes, gallery, math.nextafter(score, 2), options=options))


@pytest.mark.parametrize("at_once", [1, 5, 1000])
def test_genuine_pairs(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "GENUINE", at_once)
    probes, gallery = cloud(20, 8), cloud(30, 9)
    ids = (RANDOM.integers(6, size=20), RANDOM.integers(6, size=30))
    scores = every_score(probes, gallery)
    scores[~np.equal.outer(*ids)] = -math.inf
    assert as_set(genuine(probes, gallery, ids=ids)) == reached(scores, -2)
    scores = every_score(probes, probes)
    scores[~np.equal.outer(ids[0], ids[0])] = -math.inf
    assert as_set(genuine(probes, None, ids=ids[0])) == reached(scores, -2, within=True)
    assert as_set(genuine(probes, gallery, ids=([1] * 20, [2] * 30))) == {}


def ahead(scores: np.ndarray, rows: list[int], mates: list[float], size: int) -> list[int]:
    return [sum(score >= mate for score in scores[row, :size].tolist()) for row, mate in zip(rows, mates, strict=True)]


@pytest.mark.parametrize("sides", SETS)
def test_rows_ahead_of_planted_mates(sides: tuple[torch.Tensor, torch.Tensor], options: ScoringOptions) -> None:
    probes, gallery = sides
    rows = RANDOM.integers(len(probes), size=90)  # several mates a probe, and probes without one
    columns = RANDOM.integers(len(gallery), size=90)  # each mate ties with at least one row
    mates = pair_scores(probes, gallery, torch.from_numpy(rows), torch.from_numpy(columns))
    scores = np.stack([
        pair_scores(probes, gallery, torch.full((len(gallery),), i), torch.arange(len(gallery))).numpy()
        for i in range(len(probes))
    ])  # fmt: skip
    assert np.abs(scores - every_score(*sides)).max() < 1e-15
    found = rows_ahead(probes, gallery, (rows, mates), options=options)
    assert found.dtype == torch.int64
    assert found.tolist() == ahead(scores, rows.tolist(), mates.tolist(), 61)
    sizes = [0, 1, 10, 11, 40, 61]
    several = rows_ahead(probes, gallery, (rows, mates), sizes=sizes, options=options)
    assert several.T.tolist() == [ahead(scores, rows.tolist(), mates.tolist(), size) for size in sizes]
    ids = (RANDOM.integers(4, size=len(probes)), RANDOM.integers(4, size=61))
    scores[np.equal.outer(*ids)] = -math.inf
    few = rows_ahead(probes, gallery, (rows, mates), sizes=[7, 30], ids=ids, options=options)
    assert few.T.tolist() == [ahead(scores, rows.tolist(), mates.tolist(), size) for size in (7, 30)]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(-5, 5), min_size=17, max_size=17), st.integers(0, 10**6), st.booleans())
def test_one_mate_a_probe_at_every_level(levels: list[int], seed: int, narrow: bool) -> None:
    probes, gallery = lattice(17, seed), lattice(50, seed + 1)
    mates = [level / 4 for level in levels]
    found = rows_ahead(probes, gallery, mates, options=ScoringOptions(precision="bfloat16" if narrow else "float32"))
    assert found.tolist() == ahead(every_score(probes, gallery), list(range(17)), mates, 50)


def test_rows_beyond_the_last_size_are_not_looked_at(options: ScoringOptions) -> None:
    gallery = lattice(40, 0)
    gallery[30:] = math.nan
    probes = lattice(5, 1)
    expected = rows_ahead(probes, gallery[:25], [0.25] * 5, options=options)
    assert rows_ahead(probes, gallery, [0.25] * 5, sizes=[25], options=options)[:, 0].tolist() == expected.tolist()


def test_nothing_to_look_at(options: ScoringOptions) -> None:
    none, some = torch.ones(0, 3), torch.ones(4, 3)
    assert rows_ahead(some, none, [0.5] * 4, options=options).tolist() == [0] * 4
    assert rows_ahead(none, some, [], options=options).tolist() == []
    assert rows_ahead(some, some, (torch.tensor([], dtype=torch.int64), []), sizes=[2], options=options).shape == (0, 1)
    assert rows_ahead(some, some, [0.5] * 4, sizes=[0], options=options).tolist() == [[0]] * 4
    assert as_set(above(some, none, 0.0, options=options)) == as_set(above(none, some, 0.0, options=options)) == {}
    assert as_set(above(some[:1], None, 0.0, options=options)) == {}


ONES = torch.ones(3, 2)


@pytest.mark.parametrize(
    ("mates", "options", "sentence"),
    [
        ([0.5, 0.5], {}, r"scores of mates must be \[3\], one per row; got \[2\]"),
        ([0.5, math.nan, 0.5], {}, "scores of mates must be finite; got NaN or Inf at row 1"),
        (([0, 3], [0.5, 0.5]), {}, r"rows of mates must be \[Q\] of whole numbers in \[0, 3\)"),
        (([0.0], [0.5]), {}, r"rows of mates must be \[Q\] of whole numbers in \[0, 3\); got float64"),
        ([0.5] * 3, {"sizes": []}, r"sizes must rise and hold at least one; got \[\]"),
        ([0.5] * 3, {"sizes": [2, 2]}, r"sizes must rise and hold at least one; got \[2, 2\]"),
        ([0.5] * 3, {"sizes": [4]}, r"sizes must be a whole number in \[0, 3\]; got 4"),
    ],
)
def test_mates_that_are_refused(mates: object, options: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        rows_ahead(ONES, ONES, mates, **options)  # type: ignore[arg-type]


def test_thresholds_and_ids_that_are_refused() -> None:
    with pytest.raises(InputError, match="threshold must be a finite number; got nan"):
        above(ONES, ONES, math.nan)
    with pytest.raises(InputError, match="ids must say which rows are of one identity; got None"):
        genuine(ONES, ONES, ids=None)  # type: ignore[arg-type]
    with pytest.raises(
        InputError, match=r"ids must be \[3\] of whole numbers, one per row; got int64 of shape \[2, 3\]"
    ):
        genuine(ONES, None, ids=([1, 2, 3], [1, 2, 3]))
