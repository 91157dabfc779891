"""What a comparison found, in plain words: which variant is best, and which differences its seeds do not decide."""

from __future__ import annotations

import math
from collections.abc import Sequence

from angulus.evaluation.metrics.intervals import Difference
from angulus.experiments.claims import accuracy_title
from angulus.experiments.compare import Cell, Comparison, VariantRow, section

HIGHER = ("accuracy", "TAR", "TPIR", "DIR", "rank", "CPM", "AUC", "sensitivity")  # numbers of which more is better

LEAST_IMAGES = 30  # of low quality, for a sentence about them


def sentences(comparison: Comparison) -> list[str]:
    """The verdict on the first column of which more is better; nothing of one variant, or of no such column."""
    title = _title(comparison)
    if title is None:
        return []
    measured = [row for row in comparison.rows if not math.isnan(Cell(row.columns[title].values).mean)]
    rows = [row for row in measured if not _diverged(comparison, row)]
    left_out = [row.variant for row in measured if row not in rows]
    if len(rows) < 2:
        return []
    rows = sorted(rows, key=lambda row: -row.columns[title].mean)
    best, rest = rows[0], rows[1:]
    said = [_best(best, title)]
    if left_out:
        said.append(f"Left out, since a training of it diverged: {_listed(left_out)}.")
    seeds = len(section(comparison.recipe).seeds)
    if seeds < 2:
        said.append(
            "With one seed nothing tells whether another one would give the same order: train several, such as "
            "compare.seeds=[0,1,2]."
        )
    else:
        said += _differences([(row, best.minus(row, title)) for row in rest], best, seeds)
    return said + _by_quality(rows, comparison)


def _diverged(comparison: Comparison, row: VariantRow) -> bool:
    return any(place.startswith(f"{row.variant}, seed ") for place in comparison.diverged)


def _title(comparison: Comparison) -> str | None:
    benchmarks = comparison.recipe.evaluation.benchmarks
    if not benchmarks:
        return accuracy_title("entire")
    return next(
        (title for each in benchmarks for title, number in each.columns.items() if number.startswith(HIGHER)), None
    )


def _best(row: VariantRow, title: str) -> str:
    value = f"{row.columns[title].mean:.2f}"
    if title == accuracy_title("entire"):
        return f"Best here: {row.variant}, which classifies {value} % of the test images rightly."
    return f"Best here by {title}: {row.variant}, {value}."


def _differences(found: Sequence[tuple[VariantRow, Difference]], best: VariantRow, seeds: int) -> list[str]:
    decided = [f"{row.variant} (by {_span(each)})" for row, each in found if each.decided]
    alike = [row.variant for row, each in found if not each.high > each.low and each.mean == 0]
    open_ = [f"{row.variant} ({_span(each)})" for row, each in found if not each.decided and row.variant not in alike]
    said = []
    if decided:
        said.append(f"It is better than {_listed(decided)}.")
    if alike:
        said.append(f"It is the same as {_listed(alike)} with every seed.")
    if open_:
        every = " any of the others" if not decided and not alike else ""
        said.append(
            f"With {seeds} seeds it is undecided whether {best.variant} is better than{every or ' ' + _listed(open_)}"
            + (f": {_listed(open_)}" if every else "")
            + ". Brackets hold the mean difference and its 95 % interval over the seeds; more seeds make it narrower."
        )
    return said


def _span(difference: Difference) -> str:
    if not difference.high > difference.low:
        return f"{difference.mean:+.2f} with every seed"
    return f"{difference.mean:+.2f}, {difference.low:+.2f} to {difference.high:+.2f}"


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _by_quality(rows: Sequence[VariantRow], comparison: Comparison) -> list[str]:
    """What the norm tells, where every variant is right more often on images of large norms than on those of small."""
    if comparison.recipe.evaluation.benchmarks or any(row.counts.get("low", 0) < LEAST_IMAGES for row in rows):
        return []
    good, low = ([row.columns[accuracy_title(group)].mean for row in rows] for group in ("good", "low"))
    if not max(low) < min(good):
        return []
    return [
        f"Images of small feature norms are the hard ones for every loss: {_range(low)} % of them are classified "
        f"rightly, and {_range(good)} % of the others."
    ]


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.1f} to {max(values):.1f}"
