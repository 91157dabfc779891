"""The FARs that a protocol reports: which ones the data can show, and how they are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from angulus.evaluation.metrics.verification import least_count, require_support

STANDARD = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
RULE_OF_30 = 30  # errors, that a rate be known to ± 30 % with 90 % confidence


def label(rate: float) -> str:
    """A rate as figures name it.

    >>> label(1e-3), label(0.00025), label(0)
    ('1e-3', '2.5e-4', '0')
    """
    return "0" if rate == 0 else np.format_float_scientific(rate, trim="-", exp_digits=1)


def too_few(counts: Mapping[str, int]) -> tuple[str, ...]:
    """Notes on kinds of pairs, by name with how many there are, that are too few for any rate over them to be known.

    Fewer than 30 pairs cannot give 30 errors. Without an error, the true rate may still be as high as 3 / n.

    Source: ISO/IEC 19795-1 (the rule of 3); G. Doddington et al., Speech Communication 31, 2000 (the rule of 30).
    """
    return tuple(
        f"{count} {kind} {'pair is' if count == 1 else 'pairs are'} too few: all figures that count them are rough, "
        f"for even without an error among them the true rate of errors may be as high as {min(1.0, 3 / count):.0%} "
        f"(rule of 3); give {RULE_OF_30} or more"
        for kind, count in counts.items()
        if 0 < count < RULE_OF_30
    )


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
