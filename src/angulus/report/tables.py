"""Tables: their cells, tables in Markdown, and the tables of a comparison for the terminal and as Markdown."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from angulus.core.environment import where
from angulus.core.wording import plural
from angulus.evaluation.metrics.intervals import Difference
from angulus.experiments.choose import in_words
from angulus.experiments.claims import GROUPS, accuracy_title, norm_title
from angulus.experiments.compare import Cell, Comparison, VariantRow, section
from angulus.report.conclusions import conclude

GENERATED = "NOT A RESULT: made on generated stand-in data"
NONE = "—"  # no number
NO_SPREAD = "same for all seeds"  # instead of ±: equal differences say nothing about other seeds
MOST_COLUMNS = 4  # of benchmarks in a table of the terminal

Rows = list[tuple[str, list[str]]]  # the name and the cells of each row


def cell(value: Cell, digits: int) -> str:
    """Mean ± standard deviation over seeds; the mean alone for one seed.

    >>> cell(Cell([99.0, 99.2]), 2), cell(Cell([99.0]), 2)
    ('99.10 ± 0.14', '99.00')
    """
    if math.isnan(value.mean):
        return NONE
    deviation = "" if math.isnan(value.deviation) else f" ± {value.deviation:.{digits}f}"
    return f"{value.mean:.{digits}f}{deviation}"


def difference_cell(difference: Difference) -> str:
    """A difference ± half of its interval."""
    if math.isnan(difference.mean):
        return NONE
    if difference.no_interval:
        return f"{difference.mean:+.2f}, {NO_SPREAD}"
    return f"{difference.mean:+.2f} ± {difference.high - difference.mean:.2f}"


def markdown_table(head: list[str], rows: list[list[str]], *, numbers: bool = True) -> str:
    """A table in Markdown; with `numbers`, all but the first column are aligned to the right."""
    lines = [head, ["---", *["---:" if numbers else "---"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


@dataclass(frozen=True)
class ColumnGroup:
    """Columns that share a table."""

    name: str
    titles: dict[str, str]  # by their short heads
    compared: bool = True  # the differences between variants are shown


def column_groups(comparison: Comparison) -> list[ColumnGroup]:
    """The columns in groups that fit a terminal: by quality, or by benchmark."""
    evaluation = comparison.recipe.evaluation
    if not evaluation.benchmarks:
        accuracy = {name: accuracy_title(name) for name in GROUPS}
        norms = {name: norm_title(name) for name in GROUPS}
        return [ColumnGroup("test accuracy in %", accuracy), ColumnGroup("mean feature norm", norms, compared=False)]
    titles = evaluation.titles
    parts = [titles[start : start + MOST_COLUMNS] for start in range(0, len(titles), MOST_COLUMNS)]
    return [ColumnGroup("benchmarks", {title: title for title in part}) for part in parts]


def head_and_rows(comparison: Comparison, *, own: bool = False) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the whole table; quality is split by the shared model's norms, or by each model's `own`."""
    titles = comparison.recipe.evaluation.titles
    rows = [
        [row.variant, *(cell((row.own if own else row.columns)[title], 2) for title in titles)]
        for row in comparison.rows
    ]
    return ["loss", *titles], rows


def with_published(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the paper's numbers next to these, for a recipe that has them."""
    head, rows = ["loss"], [[row.variant] for row in comparison.rows]
    for group in column_groups(comparison):
        titles = list(group.titles.values())
        published = _published(comparison, titles)
        if published is not None:
            head += [f"{title}: {source}" for source in ("paper", "here") for title in titles]
            for cells, row, (_, numbers) in zip(rows, comparison.rows, published, strict=True):
                cells += [*numbers, *(cell(row.columns[title], 2) for title in titles)]
    return head, rows


def _published(comparison: Comparison, titles: list[str]) -> Rows | None:
    """The paper's numbers in some columns, or None if it has none."""
    published = comparison.published
    if not any(title in numbers for numbers in published.values() for title in titles):
        return None
    return [
        (variant, [f"{numbers[title]:.2f}" if title in numbers else NONE for title in titles])
        for variant, numbers in published.items()
    ]


def _differences(comparison: Comparison, group: ColumnGroup) -> Rows | None:
    """Each variant's paired difference from the baseline; None for one seed or one variant."""
    grid = section(comparison.recipe)
    others = [row for row in comparison.rows if row.variant != grid.against]
    if len(grid.seeds) < 2 or not others or not group.compared:
        return None
    differences = [(row, [comparison.difference(row, title) for title in group.titles.values()]) for row in others]
    return [(row.variant, [difference_cell(difference) for difference in cells]) for row, cells in differences]


def _errors(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """How many of a variant's errors are on images of low quality, and how many fewer it makes than the baseline."""
    counts, against = comparison.rows[0].counts, section(comparison.recipe).against
    share = counts["low"] / counts["entire"]
    base = next(row for row in comparison.rows if row.variant == against)

    def wrong(columns: Mapping[str, Cell], name: str) -> np.ndarray:
        return 100 - np.array(columns[accuracy_title(name)].values)

    def in_low(columns: Mapping[str, Cell]) -> str:
        with np.errstate(invalid="ignore"):
            return cell(Cell(list(100 * share * wrong(columns, "low") / wrong(columns, "entire"))), 0)

    def fewer(row: VariantRow, name: str) -> str:
        with np.errstate(invalid="ignore", divide="ignore"):
            part = 100 * (1 - wrong(row.columns, name) / wrong(base.columns, name))
        return cell(Cell(list(np.where(np.isfinite(part), part, np.nan))), 0)

    head = ["loss", "errors on low images %"]
    rows = [[row.variant, in_low(row.columns)] for row in comparison.rows]
    titles = {accuracy_title(name) for name in ("low", "entire")}
    if any(titles <= numbers.keys() for numbers in comparison.published.values()):
        head.append("the same: paper")
        for cells, row in zip(rows, comparison.rows, strict=True):
            numbers = comparison.published.get(row.variant, {})
            paper = {title: Cell([numbers[title]]) for title in titles & numbers.keys()}
            cells.append(in_low(paper) if paper.keys() == titles else NONE)
    if len(comparison.rows) > 1:
        head += [f"fewer errors than {against} %: {name}" for name in ("low", "entire")]
        for cells, row in zip(rows, comparison.rows, strict=True):
            cells += [NONE, NONE] if row is base else [fewer(row, name) for name in ("low", "entire")]
    return head, rows


def to_terminal(comparison: Comparison) -> Group:
    """The comparison for the terminal, each table within 80 columns, with the paper's numbers and the differences."""
    recipe, baseline = comparison.recipe, section(comparison.recipe).against
    tables = []
    for group in column_groups(comparison):
        titles = list(group.titles.values())
        rows = [(row.variant, [cell(row.columns[title], 2) for title in titles]) for row in comparison.rows]
        tables.append(_terminal_table(group.name, group, rows))
        published = _published(comparison, titles)
        if published is not None and recipe.published is not None:
            tables.append(_terminal_table(f"{group.name}: {recipe.published.source}", group, published))
        if (differences := _differences(comparison, group)) is not None:
            tables.append(_terminal_table(f"{group.name}: minus {baseline}, ± 95 %", group, differences))
    conclusions = conclude(comparison)
    words = map(Text, [caption(comparison) + ".", *([""] if conclusions else []), *conclusions])
    return Group(*map(Text, [*warning_lines(comparison), recipe.title, ""]), *tables, *words)


def _terminal_table(title: str, group: ColumnGroup, rows: Rows) -> Table:
    table = Table(title=title)
    table.add_column("loss", no_wrap=True)
    for head in group.titles:
        table.add_column(head, justify="right", no_wrap=True)
    for variant, cells in rows:
        table.add_row(variant, *cells)
    return table


def warning_lines(comparison: Comparison) -> list[str]:
    """Lines for above the numbers: that the data are generated, and which trainings diverged."""
    lines = [GENERATED] if comparison.generated else []
    lines += [f"{run}: {sentence}" for run, sentence in comparison.diverged.items()]
    return [*lines, ""] if lines else []


def caption(comparison: Comparison) -> str:
    """What the numbers are: over how many seeds, how good and low quality are split, and which settings were chosen."""
    choose = section(comparison.recipe).choose
    if choose is None:
        return _numbers(comparison)
    best = "; ".join(f"{name} {in_words(choice.best)}" for name, choice in comparison.chosen.items())
    trials = len(next(iter(choose.settings.values())))
    failed = {name: choice.stopped for name, choice in comparison.chosen.items() if choice.stopped}
    stopped = "".join(f"; {count} of the trials of {name} stopped" for name, count in failed.items())
    return (
        f"{_numbers(comparison)}; settings chosen by {choose.by.replace('_', ' ')} on held-out training classes, "
        f"{trials} {plural('trial', trials)} of {choose.epochs} {plural('epoch', choose.epochs)} each: {best}{stopped}"
    )


def _numbers(comparison: Comparison) -> str:
    grid = section(comparison.recipe)
    seeds = f"mean ± standard deviation of {len(grid.seeds)} seeds" if len(grid.seeds) > 1 else "one seed"
    if grid.folds:
        seeds += f", {len(grid.parts)} folds pooled"
    splitter = f"the {grid.quality_split} model" if grid.quality_split else "each model itself"
    if benchmarks := comparison.recipe.evaluation.benchmarks:
        split = any(benchmark.by_quality for benchmark in benchmarks)
        return f"{seeds}; good and low are split by the norms of {splitter}" if split else seeds
    counts = comparison.rows[0].counts
    return (
        f"{seeds}; low = the {counts['low']:,} of {counts['entire']:,} test images with the smallest feature norms of "
        f"{splitter}"
    )


def to_markdown(comparison: Comparison) -> str:
    """The comparison as a page: its table, the paper's numbers, differences, each model's own split, and the method."""
    recipe = comparison.recipe
    training, environment = recipe.training, comparison.environment
    epochs = f"{training.epochs} {plural('epoch', training.epochs)}"
    parts = [
        f"# {recipe.title}",
        *(f"**{line}**" for line in warning_lines(comparison) if line),
        markdown_table(*head_and_rows(comparison)),
        f"{caption(comparison)}.",
        *([" ".join(conclusions)] if (conclusions := conclude(comparison)) else []),
    ]
    if recipe.published is not None:
        parts += [f"## Next to the paper ({recipe.published.source})", markdown_table(*with_published(comparison))]
    for group in column_groups(comparison):
        if (differences := _differences(comparison, group)) is not None:
            parts += [
                f"## {group.name}: minus {section(recipe).against}, seed by seed",
                markdown_table(["loss", *group.titles], [[name, *cells] for name, cells in differences]),
                "Mean of the paired differences ± half of its 95 % interval, by Student's t over the seeds; no "
                "interval if the difference is the same for all seeds.",
            ]
    if not recipe.evaluation.benchmarks:
        parts += ["## Where the errors are", markdown_table(*_errors(comparison))]
        parts += ["## Each model's own split", markdown_table(*head_and_rows(comparison, own=True))]
    parts += [
        "## Method",
        f"Backbone {recipe.backbone.name}, {recipe.backbone.embedding_size}-D features; {epochs} over "
        f"all training images, batch {training.batch_size}, {training.optimizer.kind}, lr {training.optimizer.lr:g}, "
        f"{training.schedule.kind} schedule, {training.precision}; seeds {', '.join(map(str, section(recipe).seeds))}. "
        f"{where(environment)}; training took {sum(row.seconds for row in comparison.rows):,.0f} s in all. "
        f"angulus {environment['angulus']}, torch {environment['torch']}, Python {environment['python']}.",
    ]
    return "\n\n".join(parts) + "\n"
