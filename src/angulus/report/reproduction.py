"""All rows of the papers' tables: published and measured numbers, device, time, seeds and differences."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.table import Table

from angulus.experiments.compare import Cell, section
from angulus.experiments.recipe import Recipe
from angulus.experiments.reproduce import MeasuredRecipe, TableRow, missing_inputs, why_not_run
from angulus.report.tables import NONE, cell, markdown_table

FEW = 5  # variants that a summary names one by one

HEAD = """# The papers' tables

Written by `angulus reproduce --table docs/reproduction.md` from the recipes and docs/results. A row without measured
numbers says why: `angulus reproduce ROW` runs it where its data are present. The numbers are those of the named column;
the complete tables follow below. Under `chosen_by_us`, a recipe lists what its paper leaves open.
"""


def to_markdown(rows: Iterable[TableRow], measured: Mapping[str, MeasuredRecipe]) -> str:
    """The page in Markdown; `measured` is by recipe."""
    rows = list(rows)
    body = [_summary(row, measured.get(row.recipe.name)) for row in rows]
    heads = ["row", "content", "recipe", "column", "published", "measured", "device", "time", "seeds", "differences"]
    parts = [HEAD.strip(), markdown_table(heads, body, numbers=False)]
    shown = dict.fromkeys(row.recipe.name for row in rows if row.recipe.name in measured)
    by_name = {row.recipe.name: row.recipe for row in rows}
    parts += [_details(by_name[name], measured[name]) for name in shown]
    return "\n\n".join(parts) + "\n"


def to_terminal(rows: Iterable[TableRow], measured: Mapping[str, MeasuredRecipe]) -> Table:
    """The rows for the terminal: recipe, whether its data are present, whether it was measured."""
    table = Table(title="angulus reproduce ROW")
    for head in ("row", "content", "recipe", "data", "measured"):
        table.add_column(head, no_wrap=True)
    present: dict[str, bool] = {}
    for row in rows:
        name = row.recipe.name
        if name not in present:
            present[name] = not missing_inputs(row.recipe)
        data = "present" if present[name] else "missing"
        table.add_row(row.id, row.content.what, name, data, _was_measured(measured.get(name)))
    return table


def _was_measured(measured: MeasuredRecipe | None) -> str:
    """Whether a recipe was run; numbers on generated stand-in images do not count."""
    if measured is None:
        return "no"
    return "no: a stand-in" if measured.generated else "yes"


def _summary(row: TableRow, measured: MeasuredRecipe | None) -> list[str]:
    recipe, title = row.recipe, row.content.column
    line = [row.id, row.content.what, f"[{recipe.name}](../recipes/{recipe.name}.yaml)", title or ""]
    published, here = {}, {}
    if title is not None and recipe.published is not None:
        paper = {name: recipe.published.of(name) for name in section(recipe).grid}
        published = {name: f"{numbers[title]:g}" for name, numbers in paper.items() if title in numbers}
    if measured is None:
        return [*line, _few(published), f"not run: {why_not_run(recipe)}".rstrip(": "), "", "", "", ""]
    if title is not None:
        here = {name: cell(Cell(columns[title]), 2) for name, columns in measured.columns.items() if title in columns}
    time = f"{measured.seconds:,.0f} s"
    shown = _few(here) if title is not None else "see [results](results.md)"
    return [*line, _few(published), shown, measured.device, time, str(measured.seeds), _differs(recipe, measured)]


def _few(numbers: Mapping[str, str]) -> str:
    """Variants with their numbers; of many, the count and the extremes."""
    if len(numbers) <= FEW:
        return "; ".join(f"{name} {number}" for name, number in numbers.items())
    defined = [item for item in numbers.items() if item[1] != NONE]
    ordered = sorted(defined or numbers.items(), key=lambda item: float(item[1].split(" ")[0]) if defined else 0)
    low, high = (f"{name} {number}" for name, number in (ordered[0], ordered[-1]))
    return f"{len(numbers)} variants, from {low} to {high}"


def _differs(recipe: Recipe, measured: MeasuredRecipe) -> str:
    """How the run falls short of its recipe, and what was chosen where the paper leaves it open."""
    grid, differences = section(recipe), []
    if measured.epochs != recipe.training.epochs:
        differences.append(f"{measured.epochs} of the recipe's {recipe.training.epochs} epochs")
    if measured.seeds != len(grid.seeds):
        differences.append(f"{measured.seeds} of {len(grid.seeds)} seeds")
    if missing := [name for name in grid.grid if name not in measured.columns]:
        differences.append(f"without {', '.join(missing)}")
    return "; ".join([*differences, f"chosen by us: {', '.join(recipe.chosen_by_us)}"])


def _details(recipe: Recipe, measured: MeasuredRecipe) -> str:
    """Every column of a recipe that was run, with the paper's numbers in brackets."""
    paper = recipe.published
    titles = recipe.evaluation.titles
    body = []
    for name, columns in measured.columns.items():
        numbers = paper.of(name) if paper else {}
        cells = [cell(Cell(columns[title]), 2) if title in columns else "" for title in titles]
        published = [f" ({numbers[title]:g})" if title in numbers else "" for title in titles]
        body.append([name, *(here + there for here, there in zip(cells, published, strict=True))])
    source = f"Measured; in brackets {paper.source}" if paper else "Measured"
    return f"## {recipe.title}\n\n{source}.\n\n" + markdown_table(["loss", *titles], body)


def results_folder(folder: Path | None) -> Path:
    """The folder of measured comparisons: the given one, or docs/results of a checkout, or runs."""
    if folder is not None:
        return folder
    return Path("docs/results") if Path("docs/results").is_dir() else Path("runs")
