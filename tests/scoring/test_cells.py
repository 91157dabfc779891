"""Pairs in k-means cells: nothing but pairs above the threshold, with exact scores; and what is missed."""

from __future__ import annotations

import numpy as np
import pytest

from angulus.core.checks import InputError
from angulus.evaluation.scoring.cells import Cells

Pairs = dict[tuple[int, int], float]


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """[600, 16] float16: people with several images, of which some are nearly the same, and zeros."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((150, 16)).repeat(4, axis=0) + 0.4 * rng.standard_normal((600, 16))
    rows[1::8] = rows[::8] + 0.05 * rng.standard_normal((75, 16))
    rows[17] = 0
    return rows.astype(np.float16)


def loop(probes: np.ndarray, gallery: np.ndarray, threshold: float) -> Pairs:
    """By all scores of float64."""
    first, second = (rows.astype(np.float64) for rows in (probes, gallery))
    lengths = np.linalg.norm(first, axis=1)[:, None] * np.linalg.norm(second, axis=1)
    scores = first @ second.T / np.where(lengths > 0, lengths, 1)
    return {(int(one), int(other)): scores[one, other] for one, other in np.argwhere(scores >= threshold)}


def found(cells: Cells, *arguments: object, **options: object) -> Pairs:
    pairs: Pairs = {}
    for batch in cells.above(*arguments, **options):  # type: ignore[arg-type]
        pairs |= dict(zip(zip(batch.probes.tolist(), batch.gallery.tolist(), strict=True), batch.scores, strict=True))
    return pairs


def test_within_one_set(vectors: np.ndarray) -> None:
    exact = {pair: score for pair, score in loop(vectors, vectors, 0.95).items() if pair[0] < pair[1]}
    pairs = {(min(pair), max(pair)): score for pair, score in found(Cells(vectors, count=16), 0.95).items()}
    assert pairs.keys() <= exact.keys() and len(pairs) > 0.97 * len(exact) > 70
    for pair, score in pairs.items():
        assert score == pytest.approx(exact[pair], abs=1e-12)


def test_probes_in_blocks_find_the_same(vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = Cells(vectors, count=40)
    within, across = found(cells, 0.9), found(cells, 0.9, vectors.copy())
    monkeypatch.setattr("angulus.evaluation.scoring.cells._PROBES", 70)
    assert found(cells, 0.9) == within and found(cells, 0.9, vectors.copy()) == across


def test_one_cell_and_chosen_rows_find_all(vectors: np.ndarray) -> None:
    rows, others = np.arange(3, 600, 2), np.arange(0, 600, 3)
    exact = loop(vectors, vectors, 0.9)
    pairs = found(Cells(vectors, rows, count=1), 0.9)
    assert {tuple(sorted(pair)) for pair in pairs} == {
        pair for pair in exact if pair[0] < pair[1] and {*pair} <= {*rows.tolist()}
    }
    across = found(Cells(vectors, rows, count=1), 0.9, vectors, others)
    assert across.keys() == {(one, other) for one, other in exact if one in others and other in rows}


def test_a_view_of_the_probes(vectors: np.ndarray) -> None:
    turned = vectors[:, ::-1].copy()
    cells = Cells(turned, count=16)  # as many as are visited
    assert found(cells, 0.95, vectors, view=lambda rows: rows[:, ::-1]).keys() == loop(turned, turned, 0.95).keys()


def test_as_many_cells_as_rows_and_none_asked_for(vectors: np.ndarray) -> None:
    assert Cells(vectors[:3], count=9).count == 3
    assert found(Cells(vectors[:3], count=9), -0.99).keys() <= {(one, other) for one in range(3) for other in range(3)}
    with pytest.raises(InputError, match="count must be a whole number >= 1; got 0"):
        Cells(vectors, count=0)
