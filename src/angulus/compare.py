"""A grid of runs: variants of a recipe times seeds, resumed where it stopped, and the table that it ends in."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from angulus import build, checks, files
from angulus import recipe as recipes
from angulus.metrics import quality
from angulus.recipe import Compare, Recipe
from angulus.run import RESULTS, TEST, read_results, run
from angulus.training import checkpoint

GROUPS = ("good", "low", "entire")


@dataclass(frozen=True)
class Cell:
    """Mean and standard deviation over seeds (n − 1; NaN for one seed), and the seeds' own values."""

    values: list[float]

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def deviation(self) -> float:
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else float("nan")


@dataclass(frozen=True)
class Row:
    """One variant: accuracy (in %) and mean norm by quality group, by the shared split and by its own."""

    variant: str
    accuracy: dict[str, Cell]
    mean_norm: dict[str, Cell]
    own_accuracy: dict[str, Cell]
    own_mean_norm: dict[str, Cell]
    counts: dict[str, int]
    seconds: float


@dataclass(frozen=True)
class Comparison:
    """What a comparison found: the rows, and what they came from."""

    recipe: Recipe
    folder: Path
    rows: list[Row]
    environment: dict[str, Any]


def compare(
    path: str,
    folder: Path | None = None,
    overrides: Iterable[str] = (),
    *,
    on_run: Callable[[str, int, int], None] | None = None,
    on_step: Callable[[int, int, float], None] | None = None,
) -> Comparison:
    """Train every variant of a recipe with every seed, or go on where that stopped, and compare them.

    Args:
        path: a recipe with a `compare` section.
        folder: where the runs lie, `<variant>/seed-<n>`; None is runs/<recipe name>.
        overrides: `key.path=value`, on the recipe before its variants.
        on_run: told (variant and seed in words, runs before it, runs in all).
        on_step: told (steps done, steps in all, loss) of the running one.
    """
    content = recipes.override(recipes.read(path), overrides)
    recipe = recipes.validate(content)
    grid = section(recipe)
    folder = folder or Path("runs") / recipe.name
    _refuse_shared_folders(grid)
    planned = [
        (name, seed, _single(content, name, changes, seed))
        for seed in grid.seeds
        for name, changes in grid.variants.items()
    ]
    splits = build.splits(recipe)
    for name, _, single in planned[: len(grid.variants)]:  # each is looked at before the first one is trained
        if single.data != recipe.data:
            raise checks.InputError(f"compare.variants.{name} changes data; variants are compared on one data set")
        build.job(single, splits)
    if (folder / RESULTS).exists() or (folder / checkpoint.NAME).exists():
        raise checks.InputError(
            f"{folder} holds a single run, which a comparison would overwrite; choose another --out"
        )
    with files.lock(folder):
        for number, (name, seed, single) in enumerate(planned):
            if on_run is not None:
                on_run(f"{name}, seed {seed}", number, len(planned))
            where = run_folder(folder, name, seed)
            run(single, where, resume=(where / "recipe.yaml").exists(), splits=splits, on_step=on_step)
        comparison = collect(recipe, folder)
        files.write_text(folder / "recipe.yaml", recipes.to_yaml(recipe))
        files.write_json(folder / "comparison.json", to_json(comparison))
    return comparison


def _single(content: Mapping[str, Any], name: str, changes: Mapping[str, Any], seed: int) -> Recipe:
    try:
        return recipes.validate(recipes.variant(content, changes, seed))
    except checks.InputError as error:
        raise checks.InputError(f"compare.variants.{name}: {error}") from error


def _refuse_shared_folders(grid: Compare) -> None:
    folders: dict[Path, str] = {}
    for name in grid.variants:
        folder = run_folder(Path(), name, 0)
        if folder in folders:
            raise checks.InputError(
                f"compare.variants {folders[folder]!r} and {name!r} would share the folder {folder.parent}; rename one"
            )
        folders[folder] = name


def section(recipe: Recipe) -> Compare:
    """The `compare` section of a recipe, or an error that says what it lacks."""
    if recipe.compare is None:
        raise checks.InputError(
            f"recipe {recipe.name} has no compare section (variants and seeds); train it with `angulus train`"
        )
    return recipe.compare


def run_folder(folder: Path, variant: str, seed: int) -> Path:
    """Where a variant's run with that seed lies."""
    name = re.sub(r"[^A-Za-z0-9.+-]+", "-", variant).lstrip(".")  # no hidden folder, and none above
    return folder / (name or "-") / f"seed-{seed}"


def load_test(folder: Path) -> dict[str, np.ndarray]:
    """The test features, norms, labels and predictions that a run wrote."""
    try:
        with np.load(folder / TEST) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise checks.InputError(
            f"{folder / TEST} cannot be read ({error}); delete the run folder and train it again"
        ) from error


def collect(recipe: Recipe, folder: Path) -> Comparison:
    """The rows of a finished grid."""
    grid = section(recipe)
    rows = [_row(recipe, grid, folder, name) for name in grid.variants]
    first = run_folder(folder, next(iter(grid.variants)), grid.seeds[0])
    return Comparison(recipe, folder, rows, read_results(first)["environment"])


def _row(recipe: Recipe, grid: Compare, folder: Path, variant: str) -> Row:
    fraction = recipe.evaluation.low_fraction
    shared: list[dict[str, quality.Group]] = []
    own: list[dict[str, quality.Group]] = []
    seconds = 0.0
    for seed in grid.seeds:
        where = run_folder(folder, variant, seed)
        test = load_test(where)
        correct = test["labels"] == test["predictions"]
        splitter = test if grid.quality_split is None else load_test(run_folder(folder, grid.quality_split, seed))
        shared.append(quality.groups(test["norms"], correct, quality.low_quality(splitter["norms"], fraction)))
        own.append(quality.groups(test["norms"], correct, quality.low_quality(test["norms"], fraction)))
        seconds += read_results(where)["training"]["seconds"]
    return Row(
        variant,
        {name: Cell([100 * each[name].accuracy for each in shared]) for name in GROUPS},
        {name: Cell([each[name].mean_norm for each in shared]) for name in GROUPS},
        {name: Cell([100 * each[name].accuracy for each in own]) for name in GROUPS},
        {name: Cell([each[name].mean_norm for each in own]) for name in GROUPS},
        {name: shared[0][name].count for name in GROUPS},
        seconds,
    )


def to_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison as plain values: every seed's number, in the order of the seeds."""
    grid = section(comparison.recipe)

    def cells(by_group: dict[str, Cell]) -> dict[str, list[float]]:
        return {name: cell.values for name, cell in by_group.items()}

    return {
        "recipe": comparison.recipe.name,
        "title": comparison.recipe.title,
        "seeds": grid.seeds,
        "quality_split": grid.quality_split or "each variant's own",
        "rows": [
            {
                "variant": row.variant,
                "counts": row.counts,
                "accuracy_percent": cells(row.accuracy),
                "mean_norm": cells(row.mean_norm),
                "own_split_accuracy_percent": cells(row.own_accuracy),
                "own_split_mean_norm": cells(row.own_mean_norm),
                "training_seconds": row.seconds,
            }
            for row in comparison.rows
        ],
        "environment": comparison.environment,
    }
