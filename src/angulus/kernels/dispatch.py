"""Which kernel runs: `impl` names it, or `"auto"` picks one by size. A named kernel never falls back to another."""

from __future__ import annotations

import dataclasses
import functools
import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from angulus.core import checks
from angulus.core.checks import InputError
from angulus.kernels import blocked, chunked, fused, reduction
from angulus.kernels.reduction import Reduced, ReduceRows, Request

TABLE: dict[str, ReduceRows] = {
    "reference": reduction.reduce_rows,
    "chunked": chunked.reduce_rows,
    "fused": fused.reduce_rows,
    "blocked": blocked.reduce_rows,
}
NAMES = ("auto", *TABLE)
UPDATING = ("chunked", "fused", "blocked")  # those that can update the weights within backward
LARGE = 1 << 24  # elements of B x C, 64 MiB in float32: above it the reference's copies cost time and memory


@dataclass(frozen=True)
class Kernel:
    """A kernel by name and the dtype of its products, checked; calling it reduces."""

    # a name of `TABLE`, or "auto": "reference" up to `LARGE` elements of B x C, "chunked" above. It never picks
    # "fused", which has been tested by Triton's interpreter but not yet on a GPU
    impl: str = "auto"
    products: torch.dtype | None = None  # torch.bfloat16, or None for the dtype of the features

    def __post_init__(self) -> None:
        checks.choice("impl", self.impl, NAMES)
        if self.products not in (None, torch.bfloat16):
            raise InputError(f"products must be torch.bfloat16, or None for the features' dtype; got {self.products!r}")

    def __call__(self, unit: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, request: Request) -> Reduced:
        name = self.impl
        if name == "auto":
            name = "chunked" if unit.shape[0] * weight.shape[0] > LARGE else "reference"
            _log_choice(name)
        return TABLE[name](unit, weight, bias, labels, dataclasses.replace(request, products=self.products))


@functools.cache
def _log_choice(name: str) -> None:
    why = "B x C is above" if name == "chunked" else "B x C is within"
    logging.getLogger("angulus").debug("impl='auto' takes %r: %s %d elements", name, why, LARGE)
