"""Runs that have not finished: how far they are, how to resume them, and what of their comparison can be shown."""

import dataclasses
import shlex
from collections.abc import Iterable
from pathlib import Path

from angulus.core import checks, limits, redact
from angulus.experiments import compare
from angulus.experiments import recipe as recipes
from angulus.experiments.choose import CHOICE
from angulus.experiments.claims import Compare
from angulus.experiments.recipe import Recipe
from angulus.experiments.run_files import ENVIRONMENT, RECIPE, RESULTS, being_measured, read_results
from angulus.report.finished_run import DataSets, read_test
from angulus.training.state import CHECKPOINT, load_checkpoint

TRAINING_COMMANDS = ("train", "compare", "demo", "reproduce")  # resume where they stopped
NOT_STARTED = "not started"


def describe_progress(folder: Path, data: DataSets) -> str:
    """How far an unfinished run is, in words."""
    if not folder.exists():
        return NOT_STARTED
    if not (folder / CHECKPOINT).exists():
        return "no step is saved yet"
    done = load_checkpoint(folder / CHECKPOINT)["progress"]["step"]
    recipe = recipes.stored(folder / RECIPE)
    steps = data.steps(recipe)
    if done == steps:
        return f"all {steps:,} steps are done, the evaluation is not"
    whole = f"{recipe.training.epochs:,} epochs" if steps is None else f"{steps:,}"
    return f"{done:,} steps of {whole} are done"


def how_to_resume(folders: Iterable[Path]) -> str:
    """How to resume, by the command that the first readable environment file of the folders names."""
    for folder in folders:
        try:
            content = limits.parse_json((folder / ENVIRONMENT).read_bytes(), ENVIRONMENT)
            words = redact.command(list(map(str, content["command"])))
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if words[1:2] and words[1] in TRAINING_COMMANDS:
            resume = ["--resume"] if words[1] == "train" and "--resume" not in words else []
            return f"unless it is still running, resume it by `{shlex.join([*words, *resume])}`"
    return "unless it is still running, resume it by the command that started it (train: with --resume)"


def describe_unfinished(folder: Path, data: DataSets) -> str:
    """One sentence: how far an unfinished run is and how to resume it."""
    progress = describe_progress(folder, data)
    return f"{_relative(folder)}: its training has not finished ({progress}); {how_to_resume([folder])}"


def keep_finished(recipe: Recipe, folder: Path, data: DataSets) -> tuple[Recipe | None, list[str]]:
    """(the recipe with only those variants and seeds that can be compared, a sentence for each part left out).

    Keeps the most variants, then the most seeds, of which every run has finished; the recipe is None if none has. If
    the variant whose norms split good from low quality is missing, each model's own norms do.
    """
    grid = compare.section(recipe)
    runs = [(name, seed) for seed in grid.seeds for name in grid.grid]
    missing = {run: why for run in runs if (why := _why_missing(compare.run_folder(folder, *run), recipe, data))}
    if not missing:
        return recipe, []
    lines = [
        f"{_relative(folder)}: {len(runs) - len(missing)} of the comparison's {len(runs)} runs can be shown; "
        + how_to_resume(compare.run_folder(folder, *run) for run in [*missing, *runs])
    ]
    if grid.choose is not None:
        count = sum((path / CHOICE).exists() for path in compare.variant_folders(grid, folder).values())
        if count < len(grid.grid):
            lines.append(f"{folder.name}: the settings of {count} of {len(grid.grid)} variants are chosen so far")
    lines += [f"{folder.name}: {_label(run)}: {why}" for run, why in missing.items() if why != NOT_STARTED]
    if later := [_label(run) for run, why in missing.items() if why == NOT_STARTED]:
        lines.append(f"{folder.name}: {NOT_STARTED}: {'; '.join(later)}")
    finished = [run for run in runs if run not in missing]
    if not finished:
        return None, lines
    names, seeds = _largest_grid(grid, set(finished))
    if unused := [_label(run) for run in finished if run[0] not in names or run[1] not in seeds]:
        why = "finished, but in no table, because all variants of a table need the same seeds"
        lines.append(f"{folder.name}: {why}: {'; '.join(unused)}")
    choose = grid.choose
    if choose is not None:
        choose = dataclasses.replace(choose, settings={name: choose.settings[name] for name in names})
    part = Compare(
        seeds,
        {name: grid.grid[name] for name in names},
        choose=choose,
        folds=grid.folds,
        quality_split=grid.quality_split if grid.quality_split in names else None,
        baseline=grid.against if grid.against in names else None,
    )
    return dataclasses.replace(recipe, compare=part, published=recipe.published and recipe.published.only(names)), lines


def _why_missing(folder: Path, recipe: Recipe, data: DataSets) -> str:
    """Why a run of a comparison cannot be shown; "" if it can."""
    grid = compare.section(recipe)
    try:
        if not (folder / RESULTS).exists():
            if grid.folds and folder.exists():
                finished = sum((folder / part / RESULTS).exists() for part in grid.parts)
                return f"{finished} of its {len(grid.parts)} folds have finished"
            return describe_progress(folder, data)
        read_results(folder)
        read_test(folder)
        for part in (folder, *(folder / name for name in grid.parts if name)):
            if being_measured(part) or recipes.stored(part / RECIPE).evaluation != recipe.evaluation:
                return "measured by another recipe, and not yet again by this one"
    except (checks.InputError, OSError) as error:
        return str(error)
    return ""


def _relative(path: Path) -> Path:
    """The path as one would type it in the current folder."""
    here = Path.cwd().resolve()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _label(run: tuple[str, int]) -> str:
    return f"{run[0]}, seed {run[1]}"


def _largest_grid(grid: Compare, finished: set[tuple[str, int]]) -> tuple[list[str], list[int]]:
    """The variants and seeds of which every run has finished: the most variants, then the most seeds."""
    candidates = []
    for first in grid.seeds:
        if names := [name for name in grid.grid if (name, first) in finished]:
            seeds = [seed for seed in grid.seeds if all((name, seed) in finished for name in names)]
            candidates.append((names, seeds))
    return max(candidates, key=lambda candidate: (len(candidate[0]), len(candidate[1])))
