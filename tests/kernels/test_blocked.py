"""What only the blocked kernel has: the stash in dW, and the number of its products."""

from __future__ import annotations

import pytest
import torch

from angulus.kernels import blocked, tuned
from angulus.kernels.reduction import Request

pytest.importorskip("triton", reason="impl='blocked' needs the package triton")


def count_products(
    monkeypatch: pytest.MonkeyPatch, rows: int, request: Request, dtype: torch.dtype = torch.float32
) -> tuple[int, torch.Tensor, int | None]:
    """(products of one step over a single block of 24 classes of size 16, dW, the place of the stash)."""
    count, stashes = 0, []
    product, new_stash = blocked.product, blocked.BlockWalk.new_stash

    def counted(*inputs: object) -> torch.Tensor:
        nonlocal count
        count += 1
        return product(*inputs)  # type: ignore[arg-type]

    def kept(walk: blocked.BlockWalk) -> torch.Tensor | None:
        stash = new_stash(walk)
        stashes.append(None if stash is None else stash.data_ptr())  # a reference would make autograd copy it
        return stash

    monkeypatch.setattr(blocked, "product", counted)
    monkeypatch.setattr(
        blocked, "add_product", lambda total, left, right: total.add_(counted(left, right, total.dtype))
    )
    monkeypatch.setattr(blocked.BlockWalk, "new_stash", kept)
    generator = torch.Generator().manual_seed(0)
    unit = torch.nn.functional.normalize(torch.randn(rows, 16, generator=generator)).requires_grad_()
    weight = torch.randn(24, 16, generator=generator).to(dtype).requires_grad_()
    log_sum = blocked.reduce_rows(unit, weight, None, torch.arange(rows) % 24, request).log_sum
    assert log_sum is not None
    log_sum.sum().backward()
    assert weight.grad is not None
    return count, weight.grad, stashes[0] if stashes else None


@pytest.mark.parametrize(
    ("rows", "products", "dtype", "expected"),
    [
        (16, None, torch.float32, 3),
        (17, None, torch.float32, 4),
        (32, torch.bfloat16, torch.float32, 3),
        (33, torch.bfloat16, torch.float32, 4),
        (16, torch.bfloat16, torch.bfloat16, 3),
        (17, torch.bfloat16, torch.bfloat16, 4),
    ],
)
def test_three_products_while_the_stash_fits(
    monkeypatch: pytest.MonkeyPatch, rows: int, products: torch.dtype | None, dtype: torch.dtype, expected: int
) -> None:
    request = Request(torch.full((rows,), 8.0), products=products)
    count, gradient, stash = count_products(monkeypatch, rows, request, dtype)
    assert count == expected
    assert (stash is not None) == (expected == 3)
    if stash is not None:
        assert gradient.data_ptr() == stash  # dW is made once


def test_raw_weights_are_not_stashed_in_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their products may be beyond 65504."""
    request = Request(torch.full((32,), 8.0), unit_weight=False, products=torch.bfloat16)
    assert count_products(monkeypatch, 32, request)[0] == 4


def test_the_stash_is_what_forward_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a scale of 1e4 a rounding that only backward saw would make the shares of a row sum to anything but one."""
    generator = torch.Generator().manual_seed(1)
    unit = torch.nn.functional.normalize(torch.randn(4, 32, generator=generator))
    weight = torch.randn(40, 32, generator=generator).requires_grad_()
    bias = torch.zeros(40, requires_grad=True)
    labels = torch.full((4,), -1)
    request = Request(torch.full((4,), 1e4), products=torch.bfloat16)
    log_sum = blocked.reduce_rows(unit, weight, bias, labels, request).log_sum
    assert log_sum is not None
    log_sum.sum().backward()
    assert bias.grad is not None
    torch.testing.assert_close(bias.grad.sum(), torch.tensor(4.0), rtol=1e-5, atol=0.0)


def test_blocks_hold_as_many_products_as_the_table_says(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = tuned.PassShape(8, 8, 4)
    monkeypatch.setattr(tuned, "DEFAULT", tuned.Tuned(blocking=tuned.Blocking(100, shape, shape)))
    unit, weight = torch.ones(5, 4), torch.ones(40, 4)
    walk = blocked.BlockWalk(unit, weight, None, torch.zeros(5, dtype=torch.int64), Request(torch.ones(5)))
    assert walk.slices == [slice(0, 16), slice(16, 32), slice(32, 40)]


def test_a_gpu_that_was_measured_gets_its_own_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    own = tuned.Tuned(fastest=((1024, 1_000_000, "blocked"), (256, 100_000, "fused")))
    monkeypatch.setattr(tuned, "TABLE", {"a card": own})
    monkeypatch.setattr(tuned, "_name", lambda index: ("a card", "another")[index])
    assert tuned.tuned(torch.device("cuda", 0)) is own
    assert tuned.tuned(torch.device("cuda", 1)) is tuned.tuned(torch.device("cpu")) is tuned.DEFAULT
    assert tuned.fastest(torch.device("cuda", 0), 512, 2_000_000) == "blocked"
    assert tuned.fastest(torch.device("cuda", 0), 128, 100_000) == "fused"
    assert tuned.fastest(torch.device("cuda", 1), 128, 100_000) is None
