"""Fusion, PCA and pair scores against loops, scikit-learn and the definition; and FARs, labels and notes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.decomposition import PCA

from angulus.core.checks import InputError
from angulus.evaluation.protocols import figures
from angulus.evaluation.protocols.vectors import METRICS, pair_scores, projected

RANDOM = np.random.default_rng(0)
VECTORS = RANDOM.normal(size=(30, 6)) * RANDOM.gamma(2, size=(30, 1))
LEFT, RIGHT = RANDOM.integers(0, 30, size=(2, 50))


def slow(a: list[float], b: list[float], metric: str) -> float:
    if metric in ("cosine", "unit-euclidean"):
        a, b = ([each / math.sqrt(sum(x * x for x in vector)) for each in vector] for vector in (a, b))
    if metric in ("cosine", "inner"):
        return sum(x * y for x, y in zip(a, b, strict=True))
    return -math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scores_are_the_slow_loops(metric: str, dtype: type) -> None:
    vectors = VECTORS.astype(dtype)
    expected = [slow(vectors[a].tolist(), vectors[b].tolist(), metric) for a, b in zip(LEFT, RIGHT, strict=True)]
    found = pair_scores(vectors, LEFT, RIGHT, metric)
    assert found.dtype == np.float64
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_more_pairs_than_a_block_are_scored_as_few_are(metric: str) -> None:
    left, right = np.random.default_rng(1).integers(0, 30, size=(2, 9000))
    whole = pair_scores(VECTORS, left, right, metric)
    part = pair_scores(VECTORS, left[8000:8100], right[8000:8100], metric)
    assert np.array_equal(whole[8000:8100], part)


def test_vectors_of_zeros_score_0_by_cosine() -> None:
    vectors = np.array([[0.0, 0.0], [3.0, 4.0]])
    assert pair_scores(vectors, np.array([0, 1]), np.array([1, 1])).tolist() == [0.0, 1.0]
    assert pair_scores(vectors, np.array([0]), np.array([1]), "unit-euclidean").tolist() == [-1.0]


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(InputError, match=r"metric must be one of 'cosine', .*; got 'cosin'; did you mean"):
        pair_scores(VECTORS, LEFT, RIGHT, "cosin")


@pytest.mark.parametrize("size", [1, 3, 6])
def test_pca_is_scikit_learns(size: int) -> None:
    fitted = np.arange(20)
    model = PCA(size, svd_solver="full").fit(VECTORS[fitted])
    expected, found = model.transform(VECTORS), projected(VECTORS, fitted, size)
    assert np.abs(found) == pytest.approx(np.abs(expected), abs=1e-10)  # an axis may point either way
    for metric in METRICS:
        assert pair_scores(found, LEFT, RIGHT, metric) == pytest.approx(
            pair_scores(expected, LEFT, RIGHT, metric), abs=1e-6
        )


def test_pca_sees_only_what_it_is_fitted_on() -> None:
    changed = VECTORS.copy()
    changed[20:] *= -9
    fitted = np.arange(20)
    assert np.array_equal(projected(VECTORS, fitted, 3)[:20], projected(changed, fitted, 3)[:20])


@pytest.mark.parametrize(("size", "rows", "vary"), [(7, 20, 6), (5, 4, 3), (4, 4, 3)])
def test_more_directions_than_there_are_are_refused(size: int, rows: int, vary: int) -> None:
    said = rf"at most the size of an embedding \(6\) and the directions .* \({vary} of {rows} images\); got {size}"
    with pytest.raises(InputError, match=said):
        projected(VECTORS, np.arange(rows), size)


def test_directions_in_which_nothing_varies_are_refused_but_all_together() -> None:
    flat = VECTORS * np.array([1, 1, 0, 0, 1, 0])
    with pytest.raises(InputError, match=r"\(3 of 20 images\); got 4"):
        projected(flat, np.arange(20), 4)
    whole = projected(flat, np.arange(20), 6)  # a turn, whichever way the three point
    moved = flat - flat[:20].mean(axis=0)
    assert whole @ whole.T == pytest.approx(moved @ moved.T, abs=1e-10)
    with pytest.raises(InputError, match="pca must be fitted on two images or more; got 1"):
        projected(VECTORS, np.arange(1), 1)


def test_fars_are_those_that_the_impostors_can_show() -> None:
    kept, notes = figures.supported_rates(None, 3000)
    assert kept == (1e-1, 1e-2, 1e-3)
    assert notes == (
        "TAR@FAR is left out at FARs that need more impostor pairs than the 3,000 there are: 1e-4 (10,000), "
        "1e-5 (100,000), 1e-6 (1,000,000)",
    )
    assert figures.supported_rates(None, 1_000_000) == (figures.STANDARD_FARS, ())
    assert figures.supported_rates((1e-3, 0, 1e-3), 1000) == ((1e-3, 0.0), ())
    with pytest.raises(InputError, match=r"FAR 0\.001 needs at least 1,000 probes; got 999"):
        figures.supported_rates((1e-3,), 999, impostors="probes")
