"""Conclusions from a comparison in plain words: the best variant, and which differences the seeds leave open."""

import math
from collections.abc import Sequence

from angulus.evaluation.metrics.intervals import Difference
from angulus.experiments.claims import accuracy_title
from angulus.experiments.compare import Cell, Comparison, VariantRow, section

HIGHER_IS_BETTER = ("accuracy", "TAR", "TPIR", "DIR", "rank", "CPM", "AUC", "sensitivity")  # numbers begin with
LEAST_IMAGES = 30  # of low quality, for a sentence about them


def conclude(comparison: Comparison) -> list[str]:
    """Sentences on the first column in which higher is better; none for a single variant or without such a column."""
    title = _deciding_title(comparison)
    if title is None:
        return []
    measured = [row for row in comparison.rows if not math.isnan(Cell(row.columns[title].values).mean)]
    rows = [row for row in measured if not _diverged(comparison, row)]
    diverged = [row.variant for row in measured if row not in rows]
    if len(rows) < 2:
        return []
    rows = sorted(rows, key=lambda row: -row.columns[title].mean)
    best, rest = rows[0], rows[1:]
    sentences = [_best(best, title)]
    if diverged:
        sentences.append(f"Left out because a training diverged: {_enumerate(diverged)}.")
    seeds = len(section(comparison.recipe).seeds)
    if seeds < 2:
        sentences.append(
            "With one seed it is unknown whether another seed would give the same order: train several, such as "
            "compare.seeds=[0,1,2]."
        )
    else:
        sentences += _differences([(row, best.minus(row, title)) for row in rest], best, seeds)
    return sentences + _by_quality(rows, comparison)


def _diverged(comparison: Comparison, row: VariantRow) -> bool:
    return any(run.startswith(f"{row.variant}, seed ") for run in comparison.diverged)


def _deciding_title(comparison: Comparison) -> str | None:
    benchmarks = comparison.recipe.evaluation.benchmarks
    if not benchmarks:
        return accuracy_title("entire")
    columns = [column for benchmark in benchmarks for column in benchmark.columns.items()]
    return next((title for title, number in columns if number.startswith(HIGHER_IS_BETTER)), None)


def _best(row: VariantRow, title: str) -> str:
    value = f"{row.columns[title].mean:.2f}"
    if title == accuracy_title("entire"):
        return f"Best here: {row.variant}, which classifies {value} % of the test images correctly."
    return f"Best here by {title}: {row.variant}, {value}."


def _differences(differences: Sequence[tuple[VariantRow, Difference]], best: VariantRow, seeds: int) -> list[str]:
    decided = [f"{row.variant} (by {_range(by)})" for row, by in differences if by.decided]
    equal = [row.variant for row, by in differences if not by.high > by.low and by.mean == 0]
    rest = [f"{row.variant} ({_range(by)})" for row, by in differences if not by.decided and row.variant not in equal]
    sentences = []
    if decided:
        sentences.append(f"It is better than {_enumerate(decided)}.")
    if equal:
        sentences.append(f"It equals {_enumerate(equal)} with every seed.")
    if rest:
        others = _enumerate(rest) if decided or equal else f"any of the others: {_enumerate(rest)}"
        sentences.append(
            f"With {seeds} seeds it is undecided whether {best.variant} is better than {others}. "
            "Brackets hold the mean difference and its 95 % interval over the seeds; more seeds make it narrower."
        )
    return sentences


def _range(difference: Difference) -> str:
    if not difference.high > difference.low:
        return f"{difference.mean:+.2f} with every seed"
    return f"{difference.mean:+.2f}, {difference.low:+.2f} to {difference.high:+.2f}"


def _enumerate(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _by_quality(rows: Sequence[VariantRow], comparison: Comparison) -> list[str]:
    """A sentence on the norm, if every variant is more often correct on images with large norms than with small."""
    if comparison.recipe.evaluation.benchmarks or any(row.counts.get("low", 0) < LEAST_IMAGES for row in rows):
        return []
    good, low = ([row.columns[accuracy_title(group)].mean for row in rows] for group in ("good", "low"))
    if not max(low) < min(good):
        return []
    return [
        "Images with small feature norms are hard for every loss: "
        f"{min(low):.1f} to {max(low):.1f} % of them are classified correctly, but "
        f"{min(good):.1f} to {max(good):.1f} % of the others."
    ]
