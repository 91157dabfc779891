"""All rows of the papers' tables on one page: published, measured, device, time, seeds, what differs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.table import Table

from angulus.experiments.compare import Cell, section
from angulus.experiments.recipe import Recipe
from angulus.experiments.reproduce import MeasuredRecipe, TableRow, missing_inputs
from angulus.report.tables import NONE, cell, markdown_table

FEW = 5  # variants that a summary names one by one

HEAD = """# The papers' tables

Made by `angulus reproduce --table docs/reproduction.md` from the recipes and from docs/results; a row without a number
has not been run. `angulus reproduce ROW` runs it, or says what it needs. Numbers are those of the column named; the
whole tables of what was run stand below. What a paper leaves open is in the recipe, under `chosen_by_us`.
"""


def page(rows: Iterable[TableRow], found: Mapping[str, MeasuredRecipe]) -> str:
    """The page in Markdown; `found` is what was measured, by recipe."""
    rows = list(rows)
    body = [_summary(row, found.get(row.recipe.name)) for row in rows]
    heads = ["row", "what", "recipe", "column", "published", "measured", "device", "time", "seeds", "what differs"]
    parts = [HEAD.strip(), markdown_table(heads, body, numbers=False)]
    shown = dict.fromkeys(row.recipe.name for row in rows if row.recipe.name in found)
    by_name = {row.recipe.name: row.recipe for row in rows}
    parts += [_details(by_name[name], found[name]) for name in shown]
    return "\n\n".join(parts) + "\n"


def listing(rows: Iterable[TableRow], found: Mapping[str, MeasuredRecipe]) -> Table:
    """The rows for the terminal: recipe, whether its data are at hand, whether it was measured."""
    table = Table(title="angulus reproduce ROW")
    for head in ("row", "what", "recipe", "data", "measured"):
        table.add_column(head, no_wrap=True)
    at_hand: dict[str, bool] = {}
    for row in rows:
        name = row.recipe.name
        if name not in at_hand:
            at_hand[name] = not missing_inputs(row.recipe)
        table.add_row(row.id, row.claim.what, name, "at hand" if at_hand[name] else "no", _measured(found.get(name)))
    return table


def _measured(found: MeasuredRecipe | None) -> str:
    """Whether a recipe was run; on a stand-in's images it was not, whatever its numbers are."""
    if found is None:
        return "no"
    return "no: a stand-in" if found.generated else "yes"


def _summary(row: TableRow, measured: MeasuredRecipe | None) -> list[str]:
    recipe, title = row.recipe, row.claim.column
    line = [row.id, row.claim.what, f"[{recipe.name}](../recipes/{recipe.name}.yaml)", title or ""]
    theirs, ours = {}, {}
    if title is not None and recipe.published is not None:
        published = {name: recipe.published.of(name) for name in section(recipe).grid}
        theirs = {name: f"{numbers[title]:g}" for name, numbers in published.items() if title in numbers}
    if measured is None:
        return [*line, _few(theirs), "", "", "", "", ""]
    if title is not None:
        ours = {name: cell(Cell(columns[title]), 2) for name, columns in measured.columns.items() if title in columns}
    time = f"{measured.seconds:,.0f} s"
    return [*line, _few(theirs), _few(ours), measured.device, time, str(measured.seeds), _differs(recipe, measured)]


def _few(numbers: Mapping[str, str]) -> str:
    """Variants with their numbers, or how many there are and the extremes."""
    if len(numbers) <= FEW:
        return "; ".join(f"{name} {number}" for name, number in numbers.items())
    known = [item for item in numbers.items() if item[1] != NONE]
    ordered = sorted(known or numbers.items(), key=lambda item: float(item[1].split(" ")[0]) if known else 0)
    low, high = (f"{name} {number}" for name, number in (ordered[0], ordered[-1]))
    return f"{len(numbers)} variants, from {low} to {high}"


def _differs(recipe: Recipe, measured: MeasuredRecipe) -> str:
    """What the run has less of than its recipe, and what the paper leaves open."""
    grid, found = section(recipe), []
    if measured.epochs != recipe.training.epochs:
        found.append(f"{measured.epochs} of the recipe's {recipe.training.epochs} epochs")
    if measured.seeds != len(grid.seeds):
        found.append(f"{measured.seeds} of {len(grid.seeds)} seeds")
    if missing := [name for name in grid.grid if name not in measured.columns]:
        found.append(f"without {', '.join(missing)}")
    return "; ".join([*found, f"ours: {', '.join(recipe.chosen_by_us)}"])


def _details(recipe: Recipe, measured: MeasuredRecipe) -> str:
    """Every column of a recipe that was run, the paper's numbers beside."""
    paper = recipe.published
    titles = recipe.evaluation.titles
    body = []
    for name, columns in measured.columns.items():
        numbers = paper.of(name) if paper else {}
        cells = [cell(Cell(columns[title]), 2) if title in columns else "" for title in titles]
        beside = [f" ({numbers[title]:g})" if title in numbers else "" for title in titles]
        body.append([name, *(here + there for here, there in zip(cells, beside, strict=True))])
    source = f"measured, and in brackets {paper.source}" if paper else "measured"
    return f"## {recipe.title}\n\n{source}.\n\n" + markdown_table(["loss", *titles], body)


def results_folder(given: Path | None) -> Path:
    """Where measured comparisons lie: as given, else docs/results of a checkout, else the runs."""
    if given is not None:
        return given
    return next((folder for folder in (Path("docs/results"), Path("runs")) if folder.is_dir()), Path("runs"))
