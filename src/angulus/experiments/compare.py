"""A grid of runs, variants of a recipe times seeds, and the table of their results."""

import dataclasses
import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from angulus.core import files
from angulus.core.checks import InputError
from angulus.data.sets.images import Splits
from angulus.evaluation.metrics import image_quality
from angulus.evaluation.metrics.intervals import Difference, paired_difference
from angulus.evaluation.protocols.quality import by_norms_of
from angulus.evaluation.protocols.result import Result, null_for_nan
from angulus.experiments import recipe as recipes
from angulus.experiments.choose import Choice, read_choices, refuse_other_trials, train_trials, trial_recipe
from angulus.experiments.claims import GROUPS, Compare, accuracy_title, norm_title
from angulus.experiments.measure import BENCHMARKS, load_test, low_quality, plain_numbers
from angulus.experiments.recipe import Recipe
from angulus.experiments.run_files import DIVERGED, FINDINGS, RECIPE, holds_run, read_results, refuse_other_recipe
from angulus.training.state import CHECKPOINT

Variants = Mapping[str, Mapping[str, Any]]  # name -> overrides


@dataclass(frozen=True)
class Cell:
    """The values of several seeds, with their mean and standard deviation (n − 1; NaN for one seed)."""

    values: list[float]

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def deviation(self) -> float:
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else float("nan")


@dataclass(frozen=True)
class VariantRow:
    """The results of one variant."""

    variant: str  # its name
    # by title the quality groups' accuracy (in %) and mean norm under the shared split, then the benchmarks
    columns: dict[str, Cell]
    own: dict[str, Cell]  # the quality groups' columns under the variant's own split
    counts: dict[str, int]  # test images per quality group
    seconds: float  # of training, over all seeds

    def minus(self, other: "VariantRow", title: str) -> Difference:
        """How far this variant is above another in a column, paired by seed."""
        pairs = zip(self.columns[title].values, other.columns[title].values, strict=True)
        return paired_difference([value - base for value, base in pairs])


@dataclass(frozen=True)
class Comparison:
    """The results of a comparison."""

    recipe: Recipe  # of the comparison
    folder: Path
    rows: list[VariantRow]  # one per variant
    environment: dict[str, Any]  # of the first run
    generated: bool = False  # whether the data are generated stand-ins, whose numbers are no result
    # the sentence on each run that diverged, by variant and seed
    diverged: Mapping[str, str] = field(default_factory=dict)
    # the trials of each variant, if its settings were chosen
    chosen: Mapping[str, Choice] = field(default_factory=dict)
    # what the watch said of each run, by variant and seed
    findings: Mapping[str, list[str]] = field(default_factory=dict)

    @property
    def published(self) -> dict[str, Mapping[str, float]]:
        """The paper's numbers by variant and column."""
        paper = self.recipe.published
        return {} if paper is None else {row.variant: paper.of(row.variant) for row in self.rows}

    def difference(self, row: VariantRow, title: str) -> Difference:
        """How far a variant is above the baseline in a column, paired by seed."""
        base = next(other for other in self.rows if other.variant == section(self.recipe).against)
        return row.minus(base, title)


def compare(
    path: str,
    folder: Path | None = None,
    overrides: Iterable[str] = (),
    *,
    plugins: Iterable[str] = (),
    on_run: Callable[[str, int, int], None] | None = None,
    on_step: Callable[[int, int, float], None] | None = None,
) -> Comparison:
    """Train every variant of a recipe with every seed, or resume that, and compare them.

    Args:
        path: a recipe with a `compare` section.
        folder: of the runs, `<variant>/seed-<n>`; None is `recipe.default_folder`.
        overrides: `key.path=value`, applied before the variants' changes.
        plugins: the names of loaded plugins that the recipe needs.
        on_run: called with (variant and seed in words, runs before it, runs in total).
        on_step: called with (steps done, steps in total, loss) of the current run.
    """
    from angulus.experiments import build  # with the two below, only what trains needs it

    overrides = list(overrides)
    content = recipes.compose(path, overrides, plugins)
    recipe = recipes.validate(content)
    grid = section(recipe)
    folder = folder or recipes.default_folder(recipe, overrides)
    _refuse_shared_folders(grid)
    splits = build.splits(recipe)
    _refuse_untrained(content, recipe, splits)
    with files.lock(folder):
        _refuse_single_run(folder)
        refuse_other_trials(content, grid, variant_folders(grid, folder))
        _refuse_other_runs(content, grid, _variants(grid, folder), folder)
        files.write_text(folder / RECIPE, recipes.to_yaml(recipe))  # so that a report knows which runs are missing
        train_trials(content, grid, variant_folders(grid, folder), splits, on_run=on_run, on_step=on_step)
        _train(content, grid, _variants(grid, folder), folder, splits, on_run, on_step)
        comparison = collect(recipe, folder)
        files.write_json(folder / "comparison.json", null_for_nan(to_json(comparison)))
    return comparison


def _refuse_untrained(content: Mapping[str, Any], recipe: Recipe, splits: Splits) -> None:
    """Refuse variants that cannot be trained or compared, before the first is trained."""
    from angulus.experiments import build, folds

    grid = section(recipe)
    for name, changes in grid.grid.items():
        single = _single(content, name, changes, grid.seeds[0])
        if single.data != recipe.data:
            raise InputError(f"compare.variants.{name} changes data; variants are compared on one data set")
        if (single.evaluation, single.validation) != (recipe.evaluation, recipe.validation):
            raise InputError(
                f"compare.variants.{name} changes evaluation or validation, which must be the same for all variants; "
                "change it in the recipe"
            )
        build.job(single, *build.hold_out(single, splits))
        for settings in grid.choose.settings[name] if grid.choose else ():
            trial = trial_recipe(content, grid, name, settings)
            build.job(trial, *build.hold_out(trial, splits))
    if grid.folds:
        folds.refuse_one_model(recipe)
    split = [benchmark.name for benchmark in recipe.evaluation.benchmarks if benchmark.by_quality]
    if split and grid.quality_split is not None and recipe.training.snapshots is not None:
        raise InputError(
            f"compare.quality_split splits the benchmark {split[0]!r} by one model's norms, and training.snapshots "
            "measures several models: leave one of them out"
        )


def _refuse_single_run(folder: Path) -> None:
    if holds_run(folder):
        raise InputError(f"{folder} holds a single run, which a comparison would overwrite; choose another --out")


def _refuse_other_runs(content: Mapping[str, Any], grid: Compare, variants: Variants, folder: Path) -> None:
    """Refuse a folder of other recipes, and runs with folds for a grid without, or vice versa."""
    for name, seed in itertools.product(grid.grid, grid.seeds):
        where = run_folder(folder, name, seed)
        whole, folded = (where / CHECKPOINT).exists(), any(where.glob(f"*/{CHECKPOINT}"))
        if (grid.folds and whole) or (not grid.folds and folded):
            there = "without folds" if whole else "with folds"
            raise InputError(f"{where} holds a run of a comparison {there}; choose another --out")
        for part, fold in grid.parts.items():
            if holds_run(where / part):
                refuse_other_recipe(_single(content, name, {**variants[name], **fold}, seed), where / part)


def _train(
    content: Mapping[str, Any],
    grid: Compare,
    variants: Variants,
    folder: Path,
    splits: Splits,
    on_run: Callable[[str, int, int], None] | None,
    on_step: Callable[[int, int, float], None] | None,
) -> None:
    """Train the missing runs, fold by fold, and pool the folds' results."""
    from angulus.experiments import build, folds
    from angulus.experiments.run import run

    runs = list(itertools.product(grid.seeds, variants.items()))
    columns = []
    for part_number, (part, fold) in enumerate(grid.parts.items()):
        if fold:
            splits = build.splits(recipes.validate(recipes.variant(content, fold, grid.seeds[0])))
        columns.append(splits.test.columns)
        for run_number, (seed, (name, changes)) in enumerate(runs):
            single = _single(content, name, {**changes, **fold}, seed)
            if on_run is not None:
                words = f"{name}, seed {seed}" + (f", {part}" if part else "")
                on_run(words, part_number * len(runs) + run_number, len(grid.parts) * len(runs))
            where = run_folder(folder, name, seed) / part
            run(single, where, resume=(where / RECIPE).exists(), splits=splits, on_step=on_step)
    if grid.folds:
        for seed, (name, changes) in runs:
            where = run_folder(folder, name, seed)
            folds.pool(_single(content, name, changes, seed), where, [where / part for part in grid.parts], columns)


def _single(content: Mapping[str, Any], name: str, changes: Mapping[str, Any], seed: int) -> Recipe:
    try:
        return recipes.validate(recipes.variant(content, changes, seed))
    except InputError as error:
        raise InputError(f"compare.variants.{name}: {error}") from error


def _refuse_shared_folders(grid: Compare) -> None:
    folders: dict[Path, str] = {}
    for name in grid.grid:
        folder = run_folder(Path(), name, 0)
        if folder in folders:
            raise InputError(f"compare.variants {folders[folder]!r} and {name!r} share {folder.parent}; rename one")
        folders[folder] = name


def section(recipe: Recipe) -> Compare:
    """The `compare` section of a recipe; raises an error if it has none."""
    if recipe.compare is None:
        raise InputError(f"recipe {recipe.name} has no compare section (variants, seeds); train it by `angulus train`")
    return recipe.compare


def run_folder(folder: Path, variant: str, seed: int) -> Path:
    """The folder of a variant's run with that seed."""
    name = re.sub(r"[^A-Za-z0-9.+-]+", "-", variant).lstrip(".")  # no hidden folder, and none above
    return folder / (name or "-") / f"seed-{seed}"


def variant_folders(grid: Compare, folder: Path) -> dict[str, Path]:
    """The folder of each variant."""
    return {name: run_folder(folder, name, 0).parent for name in grid.grid}


def _variants(grid: Compare, folder: Path) -> Variants:
    """The overrides of each variant, with what was chosen; without `choose` or before it, those of the recipe."""
    chosen = read_choices(grid, variant_folders(grid, folder))
    return {name: changes | chosen[name].best if name in chosen else changes for name, changes in grid.grid.items()}


def model_folder(folder: Path, grid: Compare, variant: str) -> Path:
    """The folder of the variant's first seed and first fold, whose model pictures show."""
    return run_folder(folder, variant, grid.seeds[0]) / next(iter(grid.parts))


def collect(recipe: Recipe, folder: Path) -> Comparison:
    """The results of a finished grid."""
    grid = section(recipe)
    rows = [_row(recipe, grid, folder, name) for name in grid.grid]
    results = {
        f"{name}, seed {seed}": read_results(run_folder(folder, name, seed))
        for name in grid.grid
        for seed in grid.seeds
    }
    first = next(iter(results.values()))
    diverged = {run: result[DIVERGED] for run, result in results.items() if DIVERGED in result}
    findings = {run: [each["sentence"] for each in result.get(FINDINGS, ())] for run, result in results.items()}
    chosen = read_choices(grid, variant_folders(grid, folder))
    about = first["environment"], first.get("generated", False)
    return Comparison(recipe, folder, rows, *about, diverged, chosen, findings)


def _row(recipe: Recipe, grid: Compare, folder: Path, variant: str) -> VariantRow:
    fraction = recipe.evaluation.low_fraction
    columns: dict[str, list[float]] = defaultdict(list)
    own: dict[str, list[float]] = defaultdict(list)
    seconds = 0.0
    for seed in grid.seeds:
        run = run_folder(folder, variant, seed)
        splitter = run if grid.quality_split is None else run_folder(folder, grid.quality_split, seed)
        results, test = read_results(run), load_test(run)
        correct = test["labels"] == test["predictions"]
        groups = image_quality.groups(test["norms"], correct, low_quality(load_test(splitter), fraction))
        own_groups = image_quality.groups(test["norms"], correct, low_quality(test, fraction))
        values = _group_columns(groups)
        measured = results.get("snapshots", {}).get("mean", results)  # NF averages over snapshots
        for benchmark in recipe.evaluation.benchmarks:
            numbers = measured["benchmarks"][benchmark.name]["numbers"]
            if benchmark.by_quality and grid.quality_split is not None:
                paths = (path / BENCHMARKS / f"{benchmark.name}.json" for path in (run, splitter))
                numbers = plain_numbers(by_norms_of(*map(Result.read, paths)))
            values |= {title: benchmark.value(title, numbers) for title in benchmark.columns}
        for cells, new in ((columns, values), (own, _group_columns(own_groups))):
            for title, value in new.items():
                cells[title].append(value)
        seconds += results["training"]["seconds"]
    counts = {name: group.count for name, group in groups.items()}
    return VariantRow(variant, _cells(columns), _cells(own), counts, seconds)


def _group_columns(groups: Mapping[str, image_quality.Group]) -> dict[str, float]:
    return {accuracy_title(name): 100 * groups[name].accuracy for name in GROUPS} | {
        norm_title(name): groups[name].mean_norm for name in GROUPS
    }


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
        "chosen": {
            name: {"settings": choice.settings, "scores": choice.scores, "best": choice.best}
            for name, choice in comparison.chosen.items()
        },
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
