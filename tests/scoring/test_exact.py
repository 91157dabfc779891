"""The definition of a score: right, and the same bits however it is asked for; low-precision rows near enough."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from angulus.core.checks import InputError
from angulus.evaluation.scoring import exact, pair_scores
from scoring.cases import cloud, every_score, lattice


def all_pairs(probes: torch.Tensor, gallery: torch.Tensor) -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(len(probes)), torch.arange(len(gallery)), indexing="ij")
    return pair_scores(probes, gallery, rows.flatten(), columns.flatten()).view(len(probes), len(gallery))


def test_scores_against_exact_sums() -> None:
    probes, gallery = cloud(20, 0), cloud(30, 1)
    assert np.abs(all_pairs(probes, gallery).numpy() - every_score(probes, gallery)).max() < 1e-15


def test_scores_of_the_lattice_are_exact() -> None:
    probes, gallery = lattice(20, 0), lattice(30, 1)
    assert np.array_equal(all_pairs(probes, gallery).numpy(), every_score(probes, gallery))


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(0, 1000))
def test_the_sum_halves(length: int, seed: int) -> None:
    terms = np.random.default_rng(seed).standard_normal((3, length))

    def halved(values: list[float]) -> float:
        while len(values) > 1:
            half = (len(values) + 1) // 2
            upper = values[half:]
            values = [value + (upper[i] if i < len(upper) else 0.0) for i, value in enumerate(values[:half])]
        return values[0]

    assert exact.halving_sum(torch.from_numpy(terms.copy())).tolist() == [halved(row) for row in terms.tolist()]


@pytest.mark.parametrize("size", [1, 2, 3, 31, 512, 1000])
def test_bits_do_not_depend_on_how_pairs_are_asked_for(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = cloud(40, 2, size), cloud(40, 3, size)
    rows, columns = torch.arange(40), torch.arange(40).flip(0)
    whole = pair_scores(a, b, rows, columns)
    alone = torch.cat([pair_scores(a, b, rows[i : i + 1], columns[i : i + 1]) for i in range(40)])
    spread = torch.stack([a, a + 1], dim=2)[:, :, 0]  # not contiguous
    turned = pair_scores(b, a, columns, rows)
    longer = pair_scores(4 * a, b / 2, rows, columns)  # powers of two change no digit of a cosine
    monkeypatch.setattr(exact, "CACHED", 1)
    for other in (alone, turned, longer, pair_scores(spread, b, rows, columns), pair_scores(a, b, rows, columns)):
        assert torch.equal(whole, other)


def test_equal_pairs_tie_exactly() -> None:
    a = cloud(3, 4, 512)
    copies = a[[0, 1, 2, 0, 1, 2]]
    scores = all_pairs(copies, copies)
    assert torch.equal(scores[:3], scores[3:])
    assert torch.equal(scores[:, :3], scores[:, 3:])
    many = cloud(200, 5, 33)
    assert pair_scores(many, 8 * many, torch.arange(200), torch.arange(200)).eq(1).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_arrays_and_memory_maps(dtype: str, tmp_path: Path) -> None:
    wide = np.random.default_rng(0).standard_normal((12, 5)).astype(np.float16)
    np.save(tmp_path / "a.npy", wide.astype(dtype))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    index = torch.arange(12)
    assert torch.equal(
        pair_scores(mapped, mapped, index, index.flip(0)),
        pair_scores(torch.from_numpy(wide), torch.from_numpy(wide).float(), index, index.flip(0)),
    )


def test_zeros_score_zero() -> None:
    a = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    assert all_pairs(a, a).tolist() == [[0.0, 0.0], [0.0, 1.0]]


def rows_at(length: float, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(30, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64).mul_(length).to(dtype)


WORST = torch.full((3, 64), 1 + 2.0**-8) * torch.tensor([[1.0], [-3.0], [2.0**-100]])  # halfway between two bfloat16
ROWS = [
    rows_at(1, torch.float32),
    rows_at(1, torch.float16),
    rows_at(1, torch.bfloat16),
    rows_at(1e-30, torch.float32),
    rows_at(1e-44, torch.float32),
    rows_at(1e30, torch.float32),
    rows_at(1e70, torch.float64),
    rows_at(1e-70, torch.float64),
    WORST,
    torch.eye(5),
    torch.zeros(2, 3),
    10.0 ** torch.linspace(-38, 30, 50)[:, None] * torch.tensor([[1.0, 1e-4, 1e4]]),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("values", ROWS)
def test_low_precision_rows_are_as_near_as_they_say(values: torch.Tensor, dtype: torch.dtype) -> None:
    rows, _ = exact.rows_of(values, None)
    low, distance = rows.low(0, len(values), dtype)
    peak = values.double().abs().amax(dim=1, keepdim=True)
    unit = values.double() / torch.where(peak > 0, peak, 1)
    unit /= torch.linalg.vector_norm(unit, dim=1, keepdim=True).clamp_min(1e-300)
    assert low.dtype == dtype
    assert float(torch.linalg.vector_norm(low.double() - unit, dim=1).max()) <= distance
    assert distance <= (2.0**-8 if dtype == torch.bfloat16 else 0) + 2 * (values.shape[1] + 8) * 2.0**-24


def test_the_distance_is_no_larger_than_it_must_be() -> None:
    """Rows halfway between two bfloat16 lose almost 2⁻⁸ of their length, which is the most there is."""
    scale = torch.linalg.vector_norm(WORST[0].double())
    aligned = (WORST[:1].double() / scale).float()
    low, distance = exact.rows_of(torch.full((1, 64), 1.0 + 2.0**-8), None)[0].low(0, 1, torch.bfloat16)
    off = float(torch.linalg.vector_norm(low.double() - aligned.double()))
    assert off <= distance <= off + 2e-5


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ([[1.0, 2.0]], "probes must be a torch.Tensor or a NumPy array; got list"),
        (torch.ones(3), r"probes must have shape \[rows, d\] with d >= 1; got \[3\]"),
        (torch.ones(3, 0), r"with d >= 1; got \[3, 0\]"),
        (torch.ones(3, 2, dtype=torch.int64), "probes must be floating point of 16, 32 or 64 bits; got torch.int64"),
        (np.ones((3, 2), dtype=np.longdouble), "probes must be floating point of 16, 32 or 64 bits; got float128"),
        (torch.ones(3, 4), "probes and gallery must agree on d; got 4 and 2"),
        (torch.tensor([[1.0, 1.0], [float("nan"), 1.0], [1.0, 1.0]]), "probes must be finite numbers .* at row 1"),
        (torch.tensor([[1.0, 1.0], [1.0, 1.0], [float("inf"), 1.0]]), "probes must be finite numbers .* at row 2"),
        (np.array([[1.0, 1.0], [1e200, 1.0], [1.0, 1.0]]), "lengths between 1e-75 and 1e75, or zeros.* row 1"),
        (np.array([[1.0, 1.0], [1e-200, 0.0], [1.0, 1.0]]), "lengths between 1e-75 and 1e75, or zeros.* row 1"),
    ],
)
def test_what_cannot_be_scored_is_refused(values: object, sentence: str) -> None:
    index = torch.arange(3)
    with pytest.raises(InputError, match=sentence):
        pair_scores(values, torch.ones(3, 2), index, index)  # type: ignore[arg-type]
    if "finite" in sentence or "lengths" in sentence:
        with pytest.raises(InputError, match=sentence):
            exact.rows_of(values, None)[0].low(0, 3, torch.bfloat16)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rows", "columns", "sentence"),
    [
        ([0, 3], [0, 0], r"rows must be \[M\] of int64 in \[0, 3\); got numbers from 0 to 3"),
        ([0, 0], [-1, 0], r"columns must be \[M\] of int64 in \[0, 3\); got numbers from -1 to 0"),
        ([0.0, 1.0], [0, 0], r"rows must be \[M\] of int64 in \[0, 3\); got torch.float32 of shape \[2\]"),
        ([[0]], [0], r"rows must be \[M\] of int64 in \[0, 3\); got torch.int64 of shape \[1, 1\]"),
        ([0, 1], [0], "rows and columns must be as many; got 2 and 1"),
    ],
)
def test_pairs_that_are_not_there_are_refused(rows: list[int], columns: list[int], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        pair_scores(torch.ones(3, 2), torch.ones(3, 2), torch.tensor(rows), torch.tensor(columns))


def test_another_device_is_refused() -> None:
    for device in ("meta", "quick"):
        with pytest.raises(InputError, match=f"device must be cpu or cuda, since scores are float64; got '{device}'"):
            exact.rows_of(torch.ones(1, 1), None, device)
    with pytest.raises(InputError, match=r"device must be one that this machine has; .* devices; got cuda:99"):
        exact.rows_of(torch.ones(1, 1), None, "cuda:99")
