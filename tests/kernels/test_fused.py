"""What only the fused kernel has: its tiles and its precision."""

from __future__ import annotations

import pytest
import torch

from angulus.kernels import fused, fused_launch, tuned
from angulus.kernels.reduction import Request

pytest.importorskip("triton", reason="impl='fused' needs the package triton")


def test_rounded_operands_are_multiplied_without_rounding_again() -> None:
    left, right = (torch.randn(5, 5, dtype=torch.float64).bfloat16() for _ in range(2))
    torch.testing.assert_close(fused.product(left, right, torch.float64), left.double() @ right.double())


def test_tf32_only_where_pytorch_has_it() -> None:
    before = torch.backends.cuda.matmul.allow_tf32
    try:
        found = []
        for allowed in (False, True):
            torch.backends.cuda.matmul.allow_tf32 = allowed
            found.append(fused_launch._precision(Request(None), torch.float32))
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    assert found == ["ieee", "tf32"]
    assert fused_launch._precision(Request(None, products=torch.bfloat16), torch.float32) == "bf16"
    assert fused_launch._precision(Request(None, products=torch.bfloat16), torch.float64) == "exact"


def test_fewer_stages_where_shared_memory_is_small() -> None:
    tile = tuned.TILES["bf16"][0]
    assert [fused_launch._staged(tile, 2, kib * 1024).stages for kib in (227, 163, 99, 64, 16)] == [3, 3, 2, 1, 1]
