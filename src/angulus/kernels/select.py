"""Which kernel runs: `impl` names one, or `"auto"` takes one by size. A named one never falls back."""

from __future__ import annotations

import functools
import logging

from angulus import checks
from angulus.kernels import chunked, reference
from angulus.kernels.reduction import ReduceRows

TABLE: dict[str, ReduceRows] = {"reference": reference.reduce_rows, "chunked": chunked.reduce_rows}
LARGE = 1 << 24  # elements of B x C, 64 MiB in float32: beyond it the reference's several copies cost time and memory


def check(impl: str) -> str:
    """The name, if it is one."""
    return checks.choice("impl", impl, ("auto", *TABLE))


def kernel(impl: str, batch: int, num_classes: int) -> ReduceRows:
    """The kernel of that name; "auto" is "reference" up to `LARGE` elements of B x C, and "chunked" beyond."""
    name = check(impl)
    if name == "auto":
        name = "chunked" if batch * num_classes > LARGE else "reference"
        _tell(name)
    return TABLE[name]


@functools.cache
def _tell(name: str) -> None:
    why = "B x C is beyond" if name == "chunked" else "B x C is within"
    logging.getLogger("angulus").debug("impl='auto' takes %r: %s %d elements", name, why, LARGE)
