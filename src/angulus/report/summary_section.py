"""The first section of a report: what follows from its numbers, in sentences and as dots with intervals."""

import math
from collections.abc import Sequence
from typing import Any

from angulus.core.wording import counted
from angulus.evaluation.protocols.result import Number, Result, shown
from angulus.experiments.claims import accuracy_title
from angulus.experiments.compare import Comparison
from angulus.experiments.recipe import Recipe
from angulus.report import charts, saved_results, tables
from angulus.report.chart import Chart
from angulus.report.charts import Dot
from angulus.report.conclusions import HIGHER_IS_BETTER, Standing, conclude, rank_variants
from angulus.report.content import Content
from angulus.report.error_curves import Runs
from angulus.report.finished_run import FinishedRun
from angulus.report.page import Charts, Section, Table, Words

MARKS = {  # of a variant in the picture, by its verdict
    "best": "best",
    "highest": "highest, not decided",
    "equal": "as good as the best",
    "worse": "worse",
    "undecided": "undecided",
    "one seed": "one seed: undecided",
    "diverged": "diverged",
    "": "",
}
SINGLE_RUN = (
    "One run shows how well this one model does on images like these. It does not show whether another seed or another "
    "loss does better: for that, train several seeds with angulus compare."
)
SEVERAL_RUNS = (
    "These are single runs. The intervals are over the test images and leave out chance in training, so they do not "
    "decide which one is better: for that, train several seeds with angulus compare."
)
RUN_NOTE = "Dot: share of the test images that are classified correctly. Line: 95 % interval over the test images."
RESULT_NOTE = "Dot: the measured number. Line: its 95 % interval, over what the table names."


def summarize(content: Content, warnings: str) -> Section:
    """The section of conclusions: comparisons, single runs, and saved results."""
    blocks: list[Any] = []
    for comparison in content.comparisons:
        blocks += _comparison(comparison, several=len(content.comparisons) > 1)
    if single := single_runs(content):
        notes = [SINGLE_RUN if len(single) == 1 else SEVERAL_RUNS]
        blocks.append(Words([*map(_run_sentence, single), *notes]))
        dots = [_dot(number, run.name, run.accuracies.number("accuracy"), 100) for number, run in enumerate(single)]
        blocks.append(Charts([charts.interval_dots("Test accuracy", "accuracy in %", dots, RUN_NOTE)]))
    blocks += _results(_own_results(content), content.runs_of_results)
    return Section("conclusion", "Conclusion", warnings, blocks)


def single_runs(content: Content) -> list[FinishedRun]:
    """The runs that belong to no comparison."""
    folders = [comparison.folder for comparison in content.comparisons]
    return [run for run in content.runs if not any(run.folder.is_relative_to(folder) for folder in folders)]


def comparison_dots(comparison: Comparison) -> Chart | None:
    """The variants' means with Student's intervals over seeds, the best first; None without a column to rank by."""
    ranking = rank_variants(comparison)
    if ranking is None:
        return None
    names = [row.variant for row in comparison.rows]
    dots = [_standing(standing, names.index(standing.name)) for standing in ranking.standings]
    note = "One seed each: no interval."
    if ranking.seeds > 1:
        note = f"Large dot: mean over {ranking.seeds} seeds, line: its 95 % interval (Student's t), ticks: each seed."
        if len(dots) > 1:
            note += (
                " The marks compare each variant with the best seed by seed, so intervals may overlap although the "
                "difference is decided. Rings are undecided."
            )
    if ranking.seeds == 2:
        note += " Two seeds say little, so their intervals are wide."
    if ranking.title == accuracy_title("entire"):
        return charts.interval_dots("Test accuracy", "accuracy in %", dots, note)
    return charts.interval_dots(ranking.title, ranking.title, dots, note)


def _standing(standing: Standing, number: int) -> Dot:
    low, high = standing.interval
    hollow = standing.verdict in ("highest", "undecided", "one seed", "diverged")
    seeds = standing.values if len(standing.values) > 1 else ()
    return Dot(standing.name, standing.mean, low, high, number, MARKS[standing.verdict], hollow, seeds)


def _comparison(comparison: Comparison, *, several: bool) -> list[Any]:
    recipe = comparison.recipe
    blocks: list[Any] = []
    if sentences := conclude(comparison):
        blocks.append(Words(sentences, recipe.title if several else ""))
    if (chart := comparison_dots(comparison)) is not None:
        blocks.append(Charts([chart]))
    caption = tables.caption(comparison)
    notes = (f"{caption[:1].upper()}{caption[1:]}.", *_features_compared(recipe))
    blocks.append(Table(recipe.title, *tables.head_and_rows(comparison), notes=notes))
    if recipe.published is not None:
        paper = f"Next to the paper: {recipe.published.source}"
        blocks.append(Table(paper, *tables.with_published(comparison)))
    return blocks


def _features_compared(recipe: Recipe) -> list[str]:
    """Which features the numbers of a comparison were computed from."""
    benchmarks = recipe.evaluation.benchmarks
    if not benchmarks:
        return [f"Features: {saved_results.FEATURES['none']}."]
    flips = {benchmark.name: benchmark.flip or recipe.input.flip for benchmark in benchmarks if benchmark.images}
    return [f"Features of {name}: {saved_results.FEATURES[flip]}." for name, flip in flips.items()]


def _run_sentence(run: FinishedRun) -> str:
    number, count = run.accuracies.number("accuracy"), len(run.correct)
    sentence = f"{run.name} classifies {100 * number.value:.2f} % of the {count:,} test images correctly"
    if number.interval is None:
        return f"{sentence}; there is no interval{': ' if number.no_interval else ''}{number.no_interval}."
    low, high = 100 * number.interval.low, 100 * number.interval.high
    return f"{sentence}, with a 95 % interval from {low:.2f} to {high:.2f} % over the test images."


def _own_results(content: Content) -> dict[str, Result]:
    """The saved results that are not the benchmarks of a comparison's variants, which its table has."""
    return {name: result for name, result in content.results.items() if name not in content.in_comparisons}


def _results(results: dict[str, Result], runs: Runs) -> list[Any]:
    """For each protocol a sentence on each result, and the dots of its leading number."""
    by_protocol: dict[str, list[tuple[str, Result, Number]]] = {}
    for name, result in results.items():
        if (number := leading_number(result)) is not None:
            by_protocol.setdefault(f"{result.protocol}, {number.name}", []).append((name, result, number))
    blocks: list[Any] = []
    dotted = []
    for title, group in by_protocol.items():
        lines = [_result_sentence(name, result, number) for name, result, number in group]
        warned = [(name, note) for name, result, _ in group for note in result.notes if note.startswith("warning")]
        lines += [f"{name}: {note}." for name, note in warned]
        if len(group) > 1:
            lines.append(
                "Overlapping intervals do not decide which one is better: for results of the same samples, "
                "angulus compare-results gives the interval of the difference."
            )
        blocks.append(Words(lines))
        dots = [_dot(place, name, number, 1, runs.get(name, "")) for place, (name, _, number) in enumerate(group)]
        dotted.append(charts.interval_dots(title, group[0][2].name, dots, RESULT_NOTE))
    return blocks + ([Charts(dotted)] if dotted else [])


def leading_number(result: Result) -> Number | None:
    """The number that a sentence is about: the first in which higher is better, if possible one with an interval."""
    defined = [number for number in result.numbers if not math.isnan(number.value)]
    better = [number for number in defined if number.name.startswith(HIGHER_IS_BETTER)]
    return next(iter([number for number in better if number.interval] or better or defined), None)


def _result_sentence(name: str, result: Result, number: Number) -> str:
    subject = name if name == result.protocol else f"{name} ({result.protocol})"
    sentence = f"{subject}: {number.name} {shown(number.value)}"
    if number.interval is not None:
        low, high = shown(number.interval.low), shown(number.interval.high)
        sentence += f", with a {number.interval.level:.0%} interval from {low} to {high}".replace("%", " %")
    elif number.no_interval:
        sentence += f", without an interval ({number.no_interval})"
    counts: Sequence[str] = [counted(count, kind) for kind, count in result.counts.items()]
    return f"{sentence}, over {counts[0]}." if counts else f"{sentence}."


def _dot(place: int, name: str, number: Number, scale: float, run: str = "") -> Dot:
    low, high = (number.interval.low, number.interval.high) if number.interval else (math.nan, math.nan)
    return Dot(name, scale * number.value, scale * low, scale * high, place, run=run)
