"""A grid of runs: variants of a recipe times seeds, resumed where it stopped, and the table that it ends in."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from angulus.core import checks, files
from angulus.data.sets.images import Splits
from angulus.evaluation.metrics import quality
from angulus.evaluation.metrics.seeds import Difference, paired_difference
from angulus.evaluation.protocols.quality import by_norms_of
from angulus.evaluation.protocols.result import Result, null_for_nan
from angulus.experiments import recipe as recipes
from angulus.experiments.benchmark import Benchmark
from angulus.experiments.claims import GROUPS, Compare, accuracy_title, norm_title
from angulus.experiments.measure import BENCHMARKS, load_test, low_quality, plain_numbers
from angulus.experiments.recipe import Recipe
from angulus.experiments.run_files import DIVERGED, RECIPE, holds_run, read_results, refuse_other_recipe
from angulus.training import checkpoint


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
    """One variant: its columns by title.

    Args:
        variant: its name.
        columns: the quality groups' accuracy (in %) and mean norm by the shared split, then those of the benchmarks.
        own: the quality groups' by the variant's own split.
        counts: test images by quality group.
        seconds: of training, over all seeds.
    """

    variant: str
    columns: dict[str, Cell]
    own: dict[str, Cell]
    counts: dict[str, int]
    seconds: float

    def minus(self, other: Row, title: str) -> Difference:
        """How far this variant is above another in a column, over the seeds that both were trained with."""
        pairs = zip(self.columns[title].values, other.columns[title].values, strict=True)
        return paired_difference([mine - theirs for mine, theirs in pairs])


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Args:
        recipe, folder: of the comparison.
        rows: of its table, a variant each.
        environment: of the first run.
        generated: whether the data are generated, so that this is no result.
        diverged: the sentence on each run that diverged, by variant and seed.
    """

    recipe: Recipe
    folder: Path
    rows: list[Row]
    environment: dict[str, Any]
    generated: bool = False
    diverged: Mapping[str, str] = field(default_factory=dict)

    @property
    def published(self) -> dict[str, Mapping[str, float]]:
        """The paper's numbers by variant and column."""
        paper = self.recipe.published
        return {} if paper is None else {row.variant: paper.of(row.variant) for row in self.rows}

    def difference(self, row: Row, title: str) -> Difference:
        """How far a variant is above the baseline in a column, over the seeds that both were trained with."""
        base = next(each for each in self.rows if each.variant == section(self.recipe).against)
        return row.minus(base, title)


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
        folder: where the runs lie, `<variant>/seed-<n>`; None is `recipe.default_folder`.
        overrides: `key.path=value`, on the recipe before its variants.
        on_run: told (variant and seed in words, runs before it, runs in all).
        on_step: told (steps done, steps in all, loss) of the running one.
    """
    from angulus.experiments import build  # with the two below, only what trains needs it

    overrides = list(overrides)
    content = recipes.override(recipes.read(path), overrides)
    recipe = recipes.validate(content)
    grid = section(recipe)
    folder = folder or recipes.default_folder(recipe, overrides)
    _refuse_shared_folders(grid)
    splits = build.splits(recipe)
    _refuse_untrained(content, recipe, splits)
    with files.lock(folder):
        _refuse_other_runs(content, grid, folder)
        files.write_text(folder / RECIPE, recipes.to_yaml(recipe))  # by which a report knows what is still to come
        _train(content, grid, folder, splits, on_run, on_step)
        comparison = collect(recipe, folder)
        files.write_json(folder / "comparison.json", null_for_nan(to_json(comparison)))
    return comparison


def _refuse_untrained(content: Mapping[str, Any], recipe: Recipe, splits: Splits) -> None:
    """Refuse variants that cannot be trained, or not be compared, before the first one is."""
    from angulus.experiments import build, folds

    grid = section(recipe)
    for name, changes in grid.grid.items():
        single = _single(content, name, changes, grid.seeds[0])
        if single.data != recipe.data:
            raise checks.InputError(f"compare.variants.{name} changes data; variants are compared on one data set")
        if (single.evaluation, single.validation) != (recipe.evaluation, recipe.validation):
            raise checks.InputError(
                f"compare.variants.{name} changes evaluation or validation; variants are measured alike: set it for all"
            )
        build.job(single, *build.hold_out(single, splits))
    if grid.folds:
        folds.refuse_one_model(recipe)
    split = [each.name for each in recipe.evaluation.benchmarks if each.by_quality]
    if split and grid.quality_split is not None and recipe.training.snapshots is not None:
        raise checks.InputError(
            f"compare.quality_split splits the benchmark {split[0]!r} by one model's norms, and training.snapshots "
            "measures several models: leave one of them out"
        )


def _refuse_other_runs(content: Mapping[str, Any], grid: Compare, folder: Path) -> None:
    """Refuse a folder of a single run, of other recipes, or of folds where there are none here, or the other way."""
    if holds_run(folder):
        raise checks.InputError(
            f"{folder} holds a single run, which a comparison would overwrite; choose another --out"
        )
    for name, seed in itertools.product(grid.grid, grid.seeds):
        where = run_folder(folder, name, seed)
        whole, folded = (where / checkpoint.NAME).exists(), any(where.glob(f"*/{checkpoint.NAME}"))
        if (grid.folds and whole) or (not grid.folds and folded):
            there = "without folds" if whole else "with folds"
            raise checks.InputError(f"{where} holds a run of a comparison {there}; choose another --out")
        for part, fold in grid.parts.items():
            if holds_run(where / part):
                refuse_other_recipe(_single(content, name, {**grid.grid[name], **fold}, seed), where / part)


def _train(
    content: Mapping[str, Any],
    grid: Compare,
    folder: Path,
    splits: Splits,
    on_run: Callable[[str, int, int], None] | None,
    on_step: Callable[[int, int, float], None] | None,
) -> None:
    """Train what is missing, fold by fold, and pool what the folds found."""
    from angulus.experiments import build, folds
    from angulus.experiments.run import run

    cells = list(itertools.product(grid.seeds, grid.grid.items()))
    columns = []
    for number, (part, fold) in enumerate(grid.parts.items()):
        if fold:
            splits = build.splits(recipes.validate(recipes.variant(content, fold, grid.seeds[0])))
        columns.append(splits.test.columns)
        for place, (seed, (name, changes)) in enumerate(cells):
            single = _single(content, name, {**changes, **fold}, seed)
            if on_run is not None:
                words = f"{name}, seed {seed}" + (f", {part}" if part else "")
                on_run(words, number * len(cells) + place, len(grid.parts) * len(cells))
            where = run_folder(folder, name, seed) / part
            run(single, where, resume=(where / RECIPE).exists(), splits=splits, on_step=on_step)
    if grid.folds:
        for seed, (name, changes) in cells:
            where = run_folder(folder, name, seed)
            folds.pool(_single(content, name, changes, seed), where, [where / part for part in grid.parts], columns)


def _single(content: Mapping[str, Any], name: str, changes: Mapping[str, Any], seed: int) -> Recipe:
    try:
        return recipes.validate(recipes.variant(content, changes, seed))
    except checks.InputError as error:
        raise checks.InputError(f"compare.variants.{name}: {error}") from error


def _refuse_shared_folders(grid: Compare) -> None:
    folders: dict[Path, str] = {}
    for name in grid.grid:
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


def model_folder(folder: Path, grid: Compare, variant: str) -> Path:
    """Where the variant's model of the first seed lies, and of the first fold: the one that pictures show."""
    return run_folder(folder, variant, grid.seeds[0]) / next(iter(grid.parts))


def collect(recipe: Recipe, folder: Path) -> Comparison:
    """The rows of a finished grid."""
    grid = section(recipe)
    rows = [_row(recipe, grid, folder, name) for name in grid.grid]
    results = {
        f"{name}, seed {seed}": read_results(run_folder(folder, name, seed))
        for name in grid.grid
        for seed in grid.seeds
    }
    first = next(iter(results.values()))
    diverged = {place: each[DIVERGED] for place, each in results.items() if DIVERGED in each}
    return Comparison(recipe, folder, rows, first["environment"], first.get("generated", False), diverged)


def _row(recipe: Recipe, grid: Compare, folder: Path, variant: str) -> Row:
    fraction = recipe.evaluation.low_fraction
    columns: dict[str, list[float]] = defaultdict(list)
    own: dict[str, list[float]] = defaultdict(list)
    seconds = 0.0
    for seed in grid.seeds:
        where = run_folder(folder, variant, seed)
        results, test = read_results(where), load_test(where)
        correct = test["labels"] == test["predictions"]
        splitter = test if grid.quality_split is None else load_test(run_folder(folder, grid.quality_split, seed))
        groups = quality.groups(test["norms"], correct, low_quality(splitter, fraction))
        _add(columns, _group_columns(groups))
        own_groups = quality.groups(test["norms"], correct, low_quality(test, fraction))
        _add(own, _group_columns(own_groups))
        whole = results.get("snapshots", {}).get("mean", results)  # NF averages over models on the way
        for each in recipe.evaluation.benchmarks:
            numbers = whole["benchmarks"][each.name]["numbers"]
            if each.by_quality and grid.quality_split is not None:
                numbers = _by_norms_of(each, where, run_folder(folder, grid.quality_split, seed))
            _add(columns, {title: each.value(title, numbers) for title in each.columns})
        seconds += results["training"]["seconds"]
    counts = {name: group.count for name, group in groups.items()}
    return Row(variant, _cells(columns), _cells(own), counts, seconds)


def _by_norms_of(benchmark: Benchmark, own: Path, splitter: Path) -> dict[str, Any]:
    """The numbers of a benchmark that tells good from low, by the norms of the splitter's model."""
    results = (Result.read(folder / BENCHMARKS / f"{benchmark.name}.json") for folder in (own, splitter))
    return plain_numbers(by_norms_of(*results))


def _group_columns(groups: Mapping[str, quality.Group]) -> dict[str, float]:
    return {accuracy_title(name): 100 * groups[name].accuracy for name in GROUPS} | {
        norm_title(name): groups[name].mean_norm for name in GROUPS
    }


def _add(columns: dict[str, list[float]], values: Mapping[str, float]) -> None:
    for title, value in values.items():
        columns[title].append(value)


def _cells(columns: Mapping[str, list[float]]) -> dict[str, Cell]:
    return {title: Cell(values) for title, values in columns.items()}


def to_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison as plain values: every seed's number, in the order of the seeds, and the paper's."""
    recipe, grid = comparison.recipe, section(comparison.recipe)
    titles = recipe.evaluation.titles

    def values(cells: dict[str, Cell], title: Callable[[str], str]) -> dict[str, list[float]]:
        return {name: cells[title(name)].values for name in GROUPS}

    return {
        "recipe": recipe.name,
        "title": recipe.title,
        "table_rows": list(recipe.rows),
        "generated": comparison.generated,
        "diverged": comparison.diverged,
        "seeds": grid.seeds,
        "quality_split": grid.quality_split or "each variant's own",
        "columns": titles,
        "baseline": grid.against,
        "published": {"source": recipe.published.source, "rows": comparison.published} if recipe.published else None,
        "rows": [
            {
                "variant": row.variant,
                "counts": row.counts,
                "accuracy_percent": values(row.columns, accuracy_title),
                "mean_norm": values(row.columns, norm_title),
                "own_split_accuracy_percent": values(row.own, accuracy_title),
                "own_split_mean_norm": values(row.own, norm_title),
                "columns": {title: row.columns[title].values for title in titles},
                "differences": {
                    title: dataclasses.asdict(comparison.difference(row, title))
                    for title in titles
                    if row.variant != grid.against and len(grid.seeds) > 1
                },
                "training_seconds": row.seconds,
            }
            for row in comparison.rows
        ],
        "training": {"epochs": recipe.training.epochs, "batch_size": recipe.training.batch_size},
        "environment": comparison.environment,
    }
