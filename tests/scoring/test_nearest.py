"""The k nearest against a full sort: ties, identities left out, sources of rows, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from angulus.core.checks import InputError
from angulus.evaluation.scoring import ScoringOptions, best_per_probe, pair_scores, top_k
from scoring.cases import cloud, every_score, lattice

SETS = [(lattice(23, 0), lattice(61, 1)), (cloud(23, 2), cloud(61, 3)), (cloud(5, 4), lattice(40, 5).repeat(1, 4))]


def sorted_rows(scores: list[float], k: int) -> list[tuple[float, int]]:
    """The k best of one probe, the lower row first among equals; -inf is nothing."""
    order = sorted((-score, row) for row, score in enumerate(scores) if score > -math.inf)[:k]
    return [(-score, row) for score, row in order] + [(-math.inf, -1)] * (k - len(order))


def check(probes: torch.Tensor, gallery: torch.Tensor, k: int, options: ScoringOptions, ids: object = None) -> None:
    every = every_score(probes, gallery)
    if ids is not None:
        every[np.equal.outer(*ids)] = -math.inf  # type: ignore[misc]
    scores, rows = top_k(probes, gallery, k, ids=ids, options=options)  # type: ignore[arg-type]
    assert (scores.dtype, rows.dtype) == (torch.float64, torch.int64)
    assert scores.shape == rows.shape == (len(probes), k)
    for probe, expected in enumerate(every.tolist()):
        best = sorted_rows(expected, k)
        assert rows[probe].tolist() == [row for _, row in best]
        assert scores[probe].tolist() == pytest.approx([score for score, _ in best], abs=1e-15)


@pytest.mark.parametrize("k", [1, 2, 7, 11, 12, 40])
@pytest.mark.parametrize("sides", SETS)
def test_against_a_full_sort(sides: tuple[torch.Tensor, torch.Tensor], k: int, options: ScoringOptions) -> None:
    check(*sides, k, options)


@pytest.mark.parametrize("k", [1, 3, 40])
def test_one_identity_is_left_out(k: int, options: ScoringOptions) -> None:
    random = np.random.default_rng(0)
    for probes, gallery in SETS:
        check(
            probes, gallery, k, options, (random.integers(4, size=len(probes)), random.integers(4, size=len(gallery)))
        )


def test_what_is_left_is_fewer_than_k(options: ScoringOptions) -> None:
    probes, gallery = cloud(3, 0), cloud(20, 1)
    ids = (np.array([1, 1, 2]), np.array([1] * 18 + [2, 3]))
    check(probes, gallery, 4, options, ids)
    assert best_per_probe(probes, gallery, ids=([7] * 3, [7] * 20), options=options).tolist() == [-math.inf] * 3


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 20), st.integers(1, 60), st.integers(0, 10**6), st.data())
def test_any_lattice(probes: int, rows: int, seed: int, data: st.DataObject) -> None:
    precision = data.draw(st.sampled_from(["float32", "bfloat16"]))
    check(
        lattice(probes, seed),
        lattice(rows, seed + 1),
        data.draw(st.integers(1, rows)),
        ScoringOptions(precision=precision),
    )


def test_scores_are_those_of_the_definition_bit_for_bit(options: ScoringOptions) -> None:
    probes, gallery = cloud(20, 5, 100), cloud(50, 6, 100)
    scores, rows = top_k(probes, gallery, 5, options=options)
    every = torch.arange(20).repeat_interleave(5)
    assert torch.equal(pair_scores(probes, gallery, every, rows.flatten()), scores.flatten())
    assert torch.equal(best_per_probe(probes, gallery, options=options), scores[:, 0])


def test_a_gallery_in_rising_order_changes_nothing(options: ScoringOptions) -> None:
    """Every row beats all before it, so that no block can be rejected."""
    angles = torch.linspace(3.0, 0.0, 60)
    gallery = torch.stack([angles.cos(), angles.sin()], dim=1)
    check(torch.tensor([[1.0, 0.0]]), gallery, 3, options)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_memory_maps(dtype: type, tmp_path: Path, options: ScoringOptions) -> None:
    probes, gallery = lattice(9, 1).numpy().astype(dtype), lattice(50, 2).numpy().astype(dtype)
    np.save(tmp_path / "gallery.npy", gallery)
    mapped = np.load(tmp_path / "gallery.npy", mmap_mode="r")
    scores, rows = top_k(torch.from_numpy(probes), mapped, 4, options=options)
    expected = top_k(lattice(9, 1), lattice(50, 2), 4)
    assert torch.equal(scores, expected[0])
    assert torch.equal(rows, expected[1])


def test_no_probes(options: ScoringOptions) -> None:
    scores, rows = top_k(torch.ones(0, 3), torch.ones(5, 3), 2, options=options)
    assert scores.shape == rows.shape == (0, 2)


def test_progress_is_told(options: ScoringOptions) -> None:
    seen: list[tuple[int, int]] = []
    told = ScoringOptions(precision=options.precision, on_block=lambda done, total: seen.append((done, total)))
    top_k(cloud(20, 0), cloud(30, 1), 1, options=told)
    assert seen == [(done, 9) for done in range(1, 10)]  # 3 tiles of probes by 3 of the gallery


@pytest.mark.parametrize(
    ("arguments", "options", "sentence"),
    [
        ((torch.ones(1, 2), torch.ones(3, 2), 0), {}, r"k must be a whole number in \[1, 3\]; got 0"),
        ((torch.ones(1, 2), torch.ones(3, 2), 4), {}, r"k must be a whole number in \[1, 3\]; got 4"),
        ((torch.ones(1, 2), torch.ones(0, 2), 1), {}, "k must be a whole number"),
        ((torch.ones(1, 2), torch.ones(3, 2), 1), {"ids": [1]}, "ids must be two arrays"),
        ((torch.ones(1, 2), torch.ones(3, 2), 1), {"ids": ([1], [1, 2])}, r"ids of the gallery must be \[3\]"),
        ((torch.ones(1, 2), torch.ones(3, 2), 1), {"ids": ([0.5], [1, 2, 3])}, "ids of the probes .* got float64"),
        ((torch.ones(1, 2), torch.full((3, 2), math.nan), 1), {}, "gallery must be finite .* at row 0"),
    ],
)
def test_refused(arguments: tuple[object, ...], options: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        top_k(*arguments, **options)  # type: ignore[arg-type]
