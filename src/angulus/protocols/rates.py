"""The FARs that a protocol reports: which ones the data can show, and how they are written."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from angulus.metrics.verification import least_count, require_support

STANDARD = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


def label(rate: float) -> str:
    """A rate as figures name it.

    >>> label(1e-3), label(0.00025), label(0)
    ('1e-3', '2.5e-4', '0')
    """
    return "0" if rate == 0 else np.format_float_scientific(rate, trim="-", exp_digits=1)


def supported(
    asked: Sequence[float] | None,
    count: int,
    *,
    standard: Sequence[float] = STANDARD,
    of: str = "impostor pairs",
    name: str = "TAR@FAR",
) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """The FARs (or FPIRs) to report, and a note on those that `count` impostors cannot show.

    Args:
        asked: by the caller, each of which the data have to support (0 asks for the point without false accepts); None:
            those of `standard` that they do.
        count: impostors.
        standard: what is reported where the caller asks for nothing.
        of: what is counted.
        name: of the figure and its rate, for the note.

    Raises:
        checks.InputError: a FAR that was asked for and is below 1 / `count`.
    """
    if asked is not None:
        for far in asked:
            hint = ", or for 0, the point without a false accept"
            require_support(far, count, zero_ok=far == 0, of=of, hint=hint)
        return tuple(float(far) for far in dict.fromkeys(asked)), ()
    kept = tuple(far for far in standard if count and 1 / count <= far)
    left = [far for far in standard if far not in kept]
    if not left:
        return kept, ()
    needs = ", ".join(f"{label(far)} ({least_count(far):,})" for far in left)
    rate = name.rpartition("@")[2]
    return kept, (f"{name} is left out at {rate}s that need more {of} than the {count:,} there are: {needs}",)
