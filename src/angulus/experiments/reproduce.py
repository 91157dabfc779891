"""The rows of the papers' tables: their recipes, what those need, and what was measured."""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from angulus.core import checks, environment, limits
from angulus.evaluation.protocols.result import nan_for_null
from angulus.experiments import build
from angulus.experiments import recipe as recipes
from angulus.experiments.benchmark import place
from angulus.experiments.claims import RowContent
from angulus.experiments.compare import Comparison, compare
from angulus.experiments.recipe import Recipe

RUNS = Path("runs")


@dataclass(frozen=True)
class TableRow:
    """A row of a paper's table, and a recipe that reproduces it or a part of it."""

    id: str
    content: RowContent
    recipe: Recipe


@dataclass(frozen=True)
class MeasuredRecipe:
    """The results in a recipe's `comparison.json`."""

    recipe: str  # its name
    columns: dict[str, dict[str, list[float]]]  # variant -> title -> one number per seed
    seeds: int  # how many
    epochs: int
    device: str  # in words
    seconds: float  # of training, over all variants and seeds
    generated: bool = False  # whether the data were generated stand-ins, whose numbers are no result


@functools.cache
def table_rows() -> tuple[TableRow, ...]:
    """All rows of the shipped recipes, by id; a row of several recipes comes once for each."""
    rows = [
        TableRow(row, content, loaded)
        for loaded in map(recipes.load, recipes.shipped())
        for row, content in loaded.rows.items()
    ]
    return tuple(sorted(rows, key=lambda row: (row.id, row.recipe.name)))


def recipes_of_row(row: str) -> list[TableRow]:
    """The recipes of one row; raises an error that names the nearest ids and recipes."""
    rows = table_rows()
    matching = [table_row for table_row in rows if table_row.id.lower() == row.lower()]
    if not matching:
        ids = list(dict.fromkeys(table_row.id for table_row in rows))
        near = checks.nearest(row.upper(), ids) or checks.nearest(row, recipes.shipped())
        raise checks.InputError(f"there is no row, recipe or file {row[:60]!r}{near}; rows: {', '.join(ids)}")
    return matching


def why_not_run(recipe: Recipe) -> str:
    """Why there is no result of a recipe: its `not_run`, or the data that nobody may redistribute; "" if unknown."""
    if recipe.not_run is not None:
        return recipe.not_run
    data = [path for path in recipe.needs if not path.startswith("runs/")]
    if not data:
        return ""
    more = f" and {len(data) - 1} more" if len(data) > 1 else ""
    return f"needs {data[0]}{more}, which nobody may redistribute"


def missing_inputs(recipe: Recipe) -> list[str]:
    """One sentence for each input that a recipe lacks here; empty if it can be run."""
    missing = [f"{path} ({how})" for path, how in recipe.needs.items() if not place(path).exists()]
    if missing:
        return [f"it needs {path}" for path in missing]
    try:
        build.splits(recipe)
    except checks.InputError as error:
        return [str(error)]
    return []


def reproduce(
    row: str,
    folder: Path = RUNS,
    overrides: Iterable[str] = (),
    *,
    plugins: Iterable[str] = (),
    on_run: Callable[[str, int, int], None] | None = None,
    on_step: Callable[[int, int, float], None] | None = None,
) -> list[Comparison]:
    """Run the recipes of a row, or resume them.

    Args:
        row: its id, such as CM-T2.
        folder: gets one folder per recipe, named by the recipe and a digest of the overrides.
        overrides: `key.path=value`, on every recipe of the row.
        plugins: the names of loaded plugins that the recipes need.
        on_run: called with (variant and seed in words, runs before it, runs in total).
        on_step: called with (steps done, steps in total, loss) of the current run.

    Raises:
        checks.InputError: no such row, or missing data; nothing is trained then.
    """
    overrides, plugins = list(overrides), list(plugins)
    rows = recipes_of_row(row)
    names = [table_row.recipe.name for table_row in rows]
    changed = {name: recipes.load(name, overrides, plugins) for name in names}
    for name, recipe in changed.items():
        if sentences := missing_inputs(recipe):
            others = [other for other in names if other != name]
            part = f"; its other parts alone: angulus compare {' or '.join(others)}" if others else ""
            raise checks.InputError(
                f"{rows[0].id} cannot be run here ({name}): {'; '.join(sentences)}. Paths are relative to this folder "
                f"or to the folder ANGULUS_DATA{part}"
            )
    folders = {name: folder / recipes.default_folder(recipe, overrides).name for name, recipe in changed.items()}
    return [
        compare(name, path, overrides, plugins=plugins, on_run=on_run, on_step=on_step)
        for name, path in folders.items()
    ]


def read_measured(path: Path, *, stand_ins: bool = False) -> MeasuredRecipe:
    """Read a `comparison.json`; numbers of generated data are refused unless `stand_ins`."""
    try:
        content: dict[str, Any] = limits.parse_json(path.read_bytes(), path.name)
        measured = MeasuredRecipe(
            content["recipe"],
            {row["variant"]: _columns(row["columns"]) for row in content["rows"]},
            len(content["seeds"]),
            content["training"]["epochs"],
            environment.where(content["environment"]),
            sum(row["training_seconds"] for row in content["rows"]),
            content["generated"],
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise checks.InputError(f"{path} is not a comparison.json ({reason}); run `angulus compare` again") from error
    if measured.generated and not stand_ins:
        raise checks.InputError(f"{path} was made on generated stand-in data: it is no result; delete it")
    return measured


def _columns(saved: dict[str, list[float | None]]) -> dict[str, list[float]]:
    return {title: [nan_for_null(value) for value in values] for title, values in saved.items()}


def read_results_folder(folder: Path, *, stand_ins: bool = False) -> dict[str, MeasuredRecipe]:
    """The results in a folder of `*.json`, or of runs (`*/comparison.json`), by recipe.

    Numbers of generated data are refused; with `stand_ins` they are used for recipes without others.
    """
    results = [
        read_measured(path, stand_ins=stand_ins)
        for pattern in ("*.json", "*/comparison.json")
        for path in sorted(folder.glob(pattern))
    ]
    return {result.recipe: result for result in sorted(results, key=lambda result: not result.generated)}
