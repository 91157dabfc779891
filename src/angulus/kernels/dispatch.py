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
from angulus.kernels import blocked, chunked, fused, reduction, tuned
from angulus.kernels.memory import explained
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

    # a name of `TABLE`, or "auto": "reference" up to `LARGE` elements of B x C; above it what `kernels.tuned` measured
    # as fastest on this GPU, else "chunked": Triton's interpreter has tested "fused" and "blocked", but no GPU yet
    impl: str = "auto"
    products: torch.dtype | None = None  # torch.bfloat16, or None for the dtype of the features

    def __post_init__(self) -> None:
        checks.choice("impl", self.impl, NAMES)
        if self.products not in (None, torch.bfloat16):
            raise InputError(f"products must be torch.bfloat16, or None for the features' dtype; got {self.products!r}")

    def __call__(self, unit: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, request: Request) -> Reduced:
        name = self.impl
        if name == "auto":
            name, why = choose(unit.device, len(unit), weight, request)
            _log_choice(name, why)
        with explained(name, unit, weight, request.update is not None):
            return TABLE[name](unit, weight, bias, labels, dataclasses.replace(request, products=self.products))


def choose(device: torch.device, batch: int, weight: Tensor, request: Request) -> tuple[str, str]:
    """The kernel that "auto" takes, and why."""
    classes = weight.shape[:-1].numel()
    if batch * classes <= LARGE:
        return "reference", f"B x C is within {LARGE} elements"
    above = f"B x C is above {LARGE} elements"
    if device.type != "cuda":
        return "chunked", above
    measured = tuned.fastest(device, batch, classes)
    if measured is None:
        return "chunked", f"{above}, and no kernel was timed on this GPU yet; impl='fused' and 'blocked' may be faster"
    problem = None
    if measured in ("fused", "blocked"):
        problem = fused.unsupported(measured, weight, request) or fused.unavailable(device, measured)
    if problem is not None:
        return "chunked", problem
    return measured, "it was the fastest on this GPU at the nearest shape that was timed"


@functools.cache
def _log_choice(name: str, why: str) -> None:
    logging.getLogger("angulus").info("impl='auto' takes %r: %s", name, why)
