"""Conclusions from a comparison in plain words: the best variant, and which differences the seeds leave open."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from angulus.evaluation.metrics.intervals import Difference, paired_difference
from angulus.experiments.claims import accuracy_title
from angulus.experiments.compare import Cell, Comparison, VariantRow, section
from angulus.experiments.judgements import ONE_SEED, judge

HIGHER_IS_BETTER = ("accuracy", "TAR", "TPIR", "DIR", "rank", "CPM", "AUC", "sensitivity")  # numbers begin with
LEAST_IMAGES = 30  # of low quality, for a sentence about them
MANY = 10  # intervals, of which one may well miss

Verdict = Literal["best", "highest", "equal", "worse", "undecided", "one seed", "diverged", ""]


@dataclass(frozen=True)
class Standing:
    """How a variant stands in the column that decides."""

    row: VariantRow
    values: list[float]  # by seed
    # "highest": the highest mean, but undecided against another, or of one seed; "": there is no other variant
    verdict: Verdict
    behind: Difference | None = None  # how far the best is above it; None for the best itself and for one seed

    @property
    def name(self) -> str:
        return self.row.variant

    @property
    def mean(self) -> float:
        return Cell(self.values).mean

    @property
    def interval(self) -> tuple[float, float]:
        """Student's 95 % interval of the mean over seeds; NaN for one seed, and for seeds that are all equal."""
        if len(self.values) < 2:
            return math.nan, math.nan
        spread = paired_difference(self.values)
        return spread.low, spread.high


@dataclass(frozen=True)
class Ranking:
    """The variants in the first column in which higher is better: the best first, those that diverged last."""

    title: str  # of the column
    seeds: int
    standings: list[Standing]

    def having(self, *verdicts: Verdict) -> list[Standing]:
        """The variants with one of these verdicts."""
        return [standing for standing in self.standings if standing.verdict in verdicts]


def rank_variants(comparison: Comparison) -> Ranking | None:
    """Rank the variants; None without a column in which higher is better, or without a number in it."""
    title = _deciding_title(comparison)
    if title is None:
        return None
    measured = [row for row in comparison.rows if not math.isnan(row.columns[title].mean)]
    diverged = [row for row in measured if any(run.startswith(f"{row.variant}, seed ") for run in comparison.diverged)]
    rows = sorted((row for row in measured if row not in diverged), key=lambda row: -row.columns[title].mean)
    if not rows:
        return None
    seeds, best = len(section(comparison.recipe).seeds), rows[0]
    if seeds < 2:
        others = [Standing(row, row.columns[title].values, "one seed") for row in rows[1:]]
    else:
        others = [_compare(best, row, title) for row in rows[1:]]
    sure = seeds > 1 and all(standing.verdict != "undecided" for standing in others)
    first: Verdict = "" if not others else "best" if sure else "highest"
    standings = [Standing(best, best.columns[title].values, first), *others]
    return Ranking(title, seeds, standings + [Standing(row, row.columns[title].values, "diverged") for row in diverged])


def _compare(best: VariantRow, row: VariantRow, title: str) -> Standing:
    by = best.minus(row, title)
    equal = by.mean == 0 and not by.high > by.low
    # the same difference with every seed has no interval, so it decides nothing about other seeds
    return Standing(row, row.columns[title].values, "equal" if equal else "worse" if by.decided else "undecided", by)


def conclude(comparison: Comparison) -> list[str]:
    """Sentences on the first column in which higher is better; none without such a column."""
    ranking = rank_variants(comparison)
    if ranking is None:
        return ["No variant can be ranked: of each, a training diverged."] if comparison.diverged else []
    sentences = [_best(ranking)]
    if diverged := ranking.having("diverged"):
        sentences.append(f"Left out because a training diverged: {_enumerate([each.name for each in diverged])}.")
    if ranking.having("one seed"):
        sentences.append(
            "With one seed it is unknown whether another seed would give the same order: train several, such as "
            "compare.seeds=[0,1,2]."
        )
    sentences += _differences(ranking)
    rows = [standing.row for standing in ranking.standings if standing.verdict != "diverged"]
    return sentences + _by_quality(rows, comparison) + _claims(comparison)


def _deciding_title(comparison: Comparison) -> str | None:
    benchmarks = comparison.recipe.evaluation.benchmarks
    if not benchmarks:
        return accuracy_title("entire")
    columns = [column for benchmark in benchmarks for column in benchmark.columns.items()]
    return next((title for title, number in columns if number.startswith(HIGHER_IS_BETTER)), None)


def _best(ranking: Ranking) -> str:
    best, value = ranking.standings[0], f"{ranking.standings[0].mean:.2f}"
    classified = ranking.title == accuracy_title("entire")
    if best.verdict == "":
        over = f", the mean of {ranking.seeds} seeds" if ranking.seeds > 1 else ""
        if classified:
            return f"{best.name} classifies {value} % of the test images correctly{over}."
        return f"{best.name}: {ranking.title} {value}{over}."
    if classified:
        return f"Best here: {best.name}, which classifies {value} % of the test images correctly."
    return f"Best here by {ranking.title}: {best.name}, {value}."


def _differences(ranking: Ranking) -> list[str]:
    best = ranking.standings[0].name
    worse, equal, open_ = (ranking.having(verdict) for verdict in ("worse", "equal", "undecided"))
    sentences = []
    if worse:
        parts = [f"{each.name} (by {_range(each.behind)})" for each in worse if each.behind]
        sentences.append(f"It is better than {_enumerate(parts)}.")
    if equal:
        sentences.append(f"It equals {_enumerate([each.name for each in equal])} with every seed.")
    if open_:
        parts = [f"{each.name} ({_range(each.behind)})" for each in open_ if each.behind]
        others = _enumerate(parts) if worse or equal or len(parts) == 1 else f"any of the others: {_enumerate(parts)}"
        sentences.append(
            f"With {ranking.seeds} seeds it is undecided whether {best} is better than {others}. "
            "Brackets hold the mean difference and its 95 % interval over the seeds; more seeds make it narrower."
        )
    if len(worse) + len(open_) >= MANY:
        sentences.append(
            f"Each of these {len(worse) + len(open_)} intervals misses by chance once in 20 times, and the best of "
            "many looks better than it is."
        )
    return sentences


def _range(difference: Difference) -> str:
    if not difference.high > difference.low:
        return f"{difference.mean:+.2f} with {ONE_SEED if difference.no_interval == ONE_SEED else 'every seed'}"
    return f"{difference.mean:+.2f}, {difference.low:+.2f} to {difference.high:+.2f}"


def _enumerate(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _by_quality(rows: Sequence[VariantRow], comparison: Comparison) -> list[str]:
    """A sentence on the norm, if every variant is more often correct on images with large norms than with small."""
    few = any(row.counts.get("low", 0) < LEAST_IMAGES for row in rows)
    if comparison.recipe.evaluation.benchmarks or len(rows) < 2 or few:
        return []
    good, low = ([row.columns[accuracy_title(group)].mean for row in rows] for group in ("good", "low"))
    if not max(low) < min(good):
        return []
    return [
        "Images with small feature norms are hard for every loss: "
        f"{_percent(low)} of them are classified correctly, but {_percent(good)} of the others."
    ]


def _claims(comparison: Comparison) -> list[str]:
    """A sentence on each claim of the recipe."""
    columns = {row.variant: {title: cell.values for title, cell in row.columns.items()} for row in comparison.rows}
    sentences = []
    for claim in comparison.recipe.claims:
        judgement = judge(claim, columns, comparison.recipe.published)
        shown = f" ({_range(judgement.here)})" if judgement.here is not None else ""
        sentences.append(f"Claim: {claim.says}: {judgement.word}{shown}.")
    return sentences


def _percent(values: Sequence[float]) -> str:
    """The range of percentages; one number if its ends read the same.

    >>> _percent([7.12, 9.0]), _percent([7.12, 7.1])
    ('7.1 to 9.0 %', '7.1 %')
    """
    ends = dict.fromkeys(f"{end:.1f}" for end in (min(values), max(values)))
    return f"{' to '.join(ends)} %"
