"""Which kernel runs: `impl` names one, or `"auto"` takes the best that can run. A named one never falls back."""

from __future__ import annotations

from angulus import checks
from angulus.kernels import chunked, reference
from angulus.kernels.reduction import ReduceRows

TABLE: dict[str, ReduceRows] = {"reference": reference.reduce_rows, "chunked": chunked.reduce_rows}


def kernel(impl: str) -> ReduceRows:
    """The kernel of that name."""
    name = checks.choice("impl", impl, ("auto", *TABLE))
    return TABLE["reference" if name == "auto" else name]
