"""The bound on low-precision products: random and adversarial rows keep it, adversarial ones nearly reach it."""

from __future__ import annotations

import math
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from angulus.core.checks import InputError
from angulus.evaluation.scoring import ScoringOptions, above, exact, low_precision, tiles

DTYPES = [torch.float32, torch.bfloat16]
FLOATS = st.floats(-2, 2, width=32)


def error_and_bound(a: torch.Tensor, b: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    first, second = exact.rows_of(a, b)
    (low_a, near), (low_b, far) = first.low(0, len(a), dtype), second.low(0, len(b), dtype)
    got = low_precision.product(low_a, low_b, torch.empty(len(a) * len(b), dtype=dtype)).double()
    unit_a, unit_b = (x.double() / torch.linalg.vector_norm(x.double(), dim=1, keepdim=True) for x in (a, b))
    return (got - unit_a @ unit_b.T).abs(), low_precision.slack(near, far, a.shape[1], dtype) + low_precision.rounding(
        got, dtype
    )


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 3, 64, 512, 3000])
def test_random_rows_keep_the_bound(size: int, dtype: torch.dtype) -> None:
    a, b = torch.randn(50, size, generator=generator(0)), torch.randn(60, size, generator=generator(1))
    for first, second in ((a, b), (a, a), (a, -a), (a.abs(), b.abs()), (a**9, b**9)):
        error, bound = error_and_bound(first, second, dtype)
        assert float((error / bound).max()) <= 1


def test_rows_between_two_bfloat16_nearly_reach_the_bound() -> None:
    """A row of unit length with almost all numbers just below the middle of two bfloat16: all are rounded down."""
    row = torch.full((1, 1016), (1 + 2.0**-8 - 2.0**-16) / 32, dtype=torch.float64)
    row[0, 0] = torch.sqrt(1 - (row[0, 1:] ** 2).sum())
    error, bound = error_and_bound(row.float(), row.float(), torch.bfloat16)
    assert 0.6 < float(error / bound) <= 1
    assert float(error) > 0.007


@settings(max_examples=200)
@given(st.lists(FLOATS, min_size=2, max_size=30))
def test_keys_order_as_floats_do(numbers: list[float]) -> None:
    for dtype in DTYPES:
        scores = torch.tensor(numbers).to(dtype)
        key = low_precision.keys(scores)
        for i in range(len(numbers)):
            assert torch.equal((key > key[i]) & (scores != scores[i]), scores > scores[i])
        assert torch.equal(low_precision.values(key, dtype), scores.double())


@settings(max_examples=300)
@given(FLOATS, st.floats(-2, 2))
def test_no_rounding_falls_below_its_floor_or_above_its_ceiling(product: float, bound: float) -> None:
    for dtype in DTYPES:
        key = low_precision.keys(torch.tensor([product]).to(dtype))
        limit = torch.tensor([bound], dtype=torch.float64)
        if product >= bound:
            assert bool(key >= low_precision.floor_keys(limit, dtype))
        if product <= bound:
            assert bool(key <= low_precision.ceiling_keys(limit, dtype))


def test_what_is_masked_is_below_every_floor_and_everything_else_above_the_lowest() -> None:
    for dtype in DTYPES:
        floor = low_precision.floor_keys(torch.tensor([-math.inf], dtype=torch.float64), dtype)
        assert bool(low_precision.keys(torch.tensor([-math.inf]).to(dtype)) < floor)
        assert bool(low_precision.keys(torch.tensor([-1.1]).to(dtype)) > floor)


@settings(max_examples=50)
@given(st.lists(st.lists(FLOATS | st.just(-math.inf), min_size=3, max_size=3), min_size=1, max_size=8))
def test_peaks_against_a_loop(rows: list[list[float]]) -> None:
    for dtype in DTYPES:
        scores = torch.tensor(rows).to(dtype)
        got = low_precision.values(low_precision.peaks(scores), dtype).tolist()
        assert got == [max(row) for row in scores.double().tolist()]


@settings(max_examples=50)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 10**6), st.booleans())
def test_both_ways_to_search_a_block_agree(rows: int, columns: int, seed: int, each: bool) -> None:
    """The one for other devices runs on the CPU too."""
    random = generator(seed)
    found = torch.randint(-9, 9, (rows, columns), dtype=torch.int16, generator=random)
    low = torch.randint(-9, 9, (rows, 1) if each else (), dtype=torch.int16, generator=random)
    high = low + 4
    for limits in ((low, None), (low, high)):
        assert torch.equal(low_precision._inside(found, *limits), low_precision._inside_cpu(found, *limits))
    assert torch.equal(low_precision._above(found, high), low_precision._above_cpu(found, high))
    near, where = low_precision.between(found, low, high)
    assert (found[near, where] >= low.expand(rows, 1)[near, 0]).all()
    assert len(near) + int(low_precision.count_above(found, high).sum()) == int((found >= low).sum())


def rounded_to_tf32(x: torch.Tensor) -> torch.Tensor:
    keep = [struct.unpack("<f", struct.pack("<I", (struct.unpack("<I", struct.pack("<f", v))[0] + 0xFFF) & ~0x1FFF))[0]
            for v in x[0].tolist()]  # fmt: skip
    return torch.tensor([keep]).expand_as(x)


@pytest.mark.parametrize("narrow", [rounded_to_tf32, lambda x: x.bfloat16().float()])
@pytest.mark.parametrize("size", [1, 512, 4096])
def test_float32_products_of_less_are_refused(size: int, narrow: object, monkeypatch: pytest.MonkeyPatch) -> None:
    low_precision.check_products(torch.device("cpu"), torch.float32, size)
    mm = torch.mm
    monkeypatch.setattr(torch, "mm", lambda a, b, out: mm(narrow(a), narrow(b.T).T))  # type: ignore[operator]
    with pytest.raises(InputError, match="float32 products must not be rounded to TF32 or bfloat16"):
        low_precision.check_products(torch.device("cpu"), torch.float32, size)


def test_a_product_that_breaks_the_bound_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    right = low_precision.product
    monkeypatch.setattr(low_precision, "product", lambda *arguments: right(*arguments).mul_(1.05))
    with pytest.raises(RuntimeError, match=r"product in low precision on cpu is off by .* more than IEEE allows"):
        list(above(torch.eye(3), torch.eye(3), 0.5, options=ScoringOptions(precision="bfloat16")))


def test_auto_takes_the_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "SMALL", 0)
    work = tiles.task(torch.ones(2, 2), torch.ones(2, 2), None, ScoringOptions())
    for ratio, dtype in ((0.5, torch.bfloat16), (1.5, torch.float32)):
        monkeypatch.setattr(low_precision, "bfloat16_time", lambda *_, ratio=ratio: ratio)
        assert work.dtype() == dtype
    assert (
        low_precision.PRECISIONS["float32"]
        == tiles.task(torch.ones(2, 2), None, None, ScoringOptions(precision="float32")).dtype()
    )


def test_the_trial_takes_time() -> None:
    assert 0.01 < low_precision.bfloat16_time.__wrapped__(torch.device("cpu"), 64) < 1000


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"precision": "float16"}, "precision must be one of 'auto', 'float32', 'bfloat16'; got 'float16'"),
        ({"memory_mib": 63}, "memory_mib must be a whole number >= 64; got 63"),
    ],
)
def test_options_refuse(arguments: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        ScoringOptions(**arguments)  # type: ignore[arg-type]
