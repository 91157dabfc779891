"""The rows of the papers' tables: which recipes they are, what those need, and what was measured."""

from __future__ import annotations

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
from angulus.experiments.claims import Claim
from angulus.experiments.compare import Comparison, compare
from angulus.experiments.recipe import Recipe

RUNS = Path("runs")


@dataclass(frozen=True)
class TableRow:
    """A row of a paper's table: its id, what it is about, and the recipe that is for it or for a part of it."""

    id: str
    claim: Claim
    recipe: Recipe


@dataclass(frozen=True)
class MeasuredRecipe:
    """What a comparison of a recipe found, as `comparison.json` keeps it.

    Args:
        recipe: its name.
        columns: variant -> title -> the seeds' numbers.
        seeds: how many.
        epochs: that were trained.
        device: on which, in words.
        seconds: of training, over all variants and seeds.
        generated: whether the data were a stand-in's, so that the numbers are no result.
    """

    recipe: str
    columns: dict[str, dict[str, list[float]]]
    seeds: int
    epochs: int
    device: str
    seconds: float
    generated: bool = False


@functools.cache
def table_rows() -> tuple[TableRow, ...]:
    """All rows that the shipped recipes are for, by id; a row of several recipes comes once for each."""
    found = [
        TableRow(row, claim, loaded)
        for loaded in map(recipes.load, recipes.shipped())
        for row, claim in loaded.rows.items()
    ]
    return tuple(sorted(found, key=lambda each: (each.id, each.recipe.name)))


def recipes_of_row(row: str) -> list[TableRow]:
    """The recipes of one row, or an error that names the nearest id."""
    rows = table_rows()
    found = [each for each in rows if each.id.lower() == row.lower()]
    if not found:
        ids = list(dict.fromkeys(each.id for each in rows))
        raise checks.InputError(f"there is no row {row!r}{checks.nearest(row.upper(), ids)}; rows: {', '.join(ids)}")
    return found


def missing_inputs(recipe: Recipe) -> list[str]:
    """What a recipe needs and does not find, a sentence each; an empty list where it can be run."""
    missing = [f"{path} ({how})" for path, how in recipe.needs.items() if not place(path).exists()]
    if missing:
        return [f"it needs {each}" for each in missing]
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
    on_run: Callable[[str, int, int], None] | None = None,
    on_step: Callable[[int, int, float], None] | None = None,
) -> list[Comparison]:
    """Run the recipes of a row, or go on where they stopped.

    Args:
        row: its id, such as CM-T2.
        folder: each recipe's runs lie below, in a folder of its name and of what the overrides change.
        overrides: `key.path=value`, on every recipe of the row.
        on_run: told (variant and seed in words, runs before it, runs in all).
        on_step: told (steps done, steps in all, loss) of the running one.

    Raises:
        checks.InputError: no such row, or data that are not at hand: nothing is trained then.
    """
    overrides = list(overrides)
    found = recipes_of_row(row)
    for each in found:
        changed = recipes.load(each.recipe.name, overrides)
        if sentences := missing_inputs(changed):
            others = [other.recipe.name for other in found if other is not each]
            part = f"; its other parts alone: angulus compare {' or '.join(others)}" if others else ""
            raise checks.InputError(
                f"{each.id} cannot be run here ({each.recipe.name}): {'; '.join(sentences)}. Paths lie where they are "
                f"given, or below the folder ANGULUS_DATA{part}"
            )
    return [
        compare(
            each.recipe.name,
            folder / recipes.default_folder(each.recipe, overrides).name,
            overrides,
            on_run=on_run,
            on_step=on_step,
        )
        for each in found
    ]


def read_measured(path: Path, *, stand_ins: bool = False) -> MeasuredRecipe:
    """A `comparison.json`.

    Raises:
        checks.InputError: another file, or, unless asked for, numbers of generated data, which are no result.
    """
    try:
        content: dict[str, Any] = limits.parse_json(path.read_bytes(), path.name)
        found = MeasuredRecipe(
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
    if found.generated and not stand_ins:
        raise checks.InputError(f"{path} was made on generated stand-in data: it is no result; delete it")
    return found


def _columns(saved: dict[str, list[float | None]]) -> dict[str, list[float]]:
    return {title: [nan_for_null(value) for value in values] for title, values in saved.items()}


def read_results_folder(folder: Path, *, stand_ins: bool = False) -> dict[str, MeasuredRecipe]:
    """What lies in a folder of `*.json`, or of runs (`*/comparison.json`), by the recipe's name.

    Stand-ins are refused, or, where they are asked for, kept for recipes that have nothing else.
    """
    found = [
        read_measured(path, stand_ins=stand_ins)
        for pattern in ("*.json", "*/comparison.json")
        for path in sorted(folder.glob(pattern))
    ]
    return {each.recipe: each for each in sorted(found, key=lambda each: not each.generated)}
