"""What a report cannot show yet: runs that have not ended, how far they are, and the command that goes on."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterable
from pathlib import Path

from angulus.core import checks, limits, redact
from angulus.experiments import compare
from angulus.experiments import recipe as recipes
from angulus.experiments.claims import Compare
from angulus.experiments.recipe import Recipe
from angulus.experiments.run_files import ENVIRONMENT, RECIPE, RESULTS, being_measured, read_results
from angulus.report.model import DataSets, read_test
from angulus.training.state import CHECKPOINT, load_checkpoint

COMMANDS = ("train", "compare", "demo", "reproduce")  # that train, and go on where they stopped
NOT_BEGUN = "not begun"


def progress(folder: Path, data: DataSets) -> str:
    """How far a run has got that has not ended, in words."""
    if not folder.exists():
        return NOT_BEGUN
    if not (folder / CHECKPOINT).exists():
        return "no step of it is kept yet"
    done = load_checkpoint(folder / CHECKPOINT)["progress"]["step"]
    recipe = recipes.load(folder / RECIPE)
    steps = data.steps(recipe)
    if done == steps:
        return f"all its {steps:,} steps are done, its evaluation is not"
    whole = f"{recipe.training.epochs:,} epochs" if steps is None else f"{steps:,}"
    return f"{done:,} steps of {whole} are done"


def way_on(folders: Iterable[Path]) -> str:
    """How to go on, by the command that began the first of the folders that says so."""
    for folder in folders:
        try:
            content = limits.parse_json((folder / ENVIRONMENT).read_bytes(), ENVIRONMENT)
            words = redact.command(list(map(str, content["command"])))
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if words[1:2] and words[1] in COMMANDS:
            resume = ["--resume"] if words[1] == "train" and "--resume" not in words else []
            return f"unless it still runs, go on by `{shlex.join([*words, *resume])}`"
    return "unless it still runs, go on by the command that began it (train: with --resume)"


def run(folder: Path, data: DataSets) -> str:
    """The sentence on a run that has not ended."""
    return f"{_here(folder)}: its training has not ended ({progress(folder, data)}); {way_on([folder])}"


def finished_part(recipe: Recipe, folder: Path, data: DataSets) -> tuple[Recipe | None, list[str]]:
    """(the recipe with those variants and seeds alone that can be compared, what is left out of it).

    The part is that of most variants, and then of most seeds, of which every run has ended; None where none has. Where
    it lacks the variant whose norms tell good from low, each model's own do.
    """
    grid = compare.section(recipe)
    places = [(name, seed) for seed in grid.seeds for name in grid.grid]
    missing = {place: said for place in places if (said := _missing(compare.run_folder(folder, *place), recipe, data))}
    if not missing:
        return recipe, []
    lines = [
        f"{_here(folder)}: {len(places) - len(missing)} of the comparison's {len(places)} runs can be shown; "
        + way_on(compare.run_folder(folder, *place) for place in [*missing, *places])
    ]
    lines += [f"{folder.name}: {_said(place)}: {said}" for place, said in missing.items() if said != NOT_BEGUN]
    if later := [_said(place) for place, said in missing.items() if said == NOT_BEGUN]:
        lines.append(f"{folder.name}: {NOT_BEGUN}: {'; '.join(later)}")
    if len(missing) == len(places):
        return None, lines
    names, seeds = _largest(grid, {place for place in places if place not in missing})
    ended = [place for place in places if place not in missing]
    if apart := [_said(place) for place in ended if place[0] not in names or place[1] not in seeds]:
        why = "ended, but in no table, for every variant of a table has the same seeds"
        lines.append(f"{folder.name}: {why}: {'; '.join(apart)}")
    part = Compare(
        seeds,
        {name: grid.grid[name] for name in names},
        folds=grid.folds,
        quality_split=grid.quality_split if grid.quality_split in names else None,
        baseline=grid.against if grid.against in names else None,
    )
    return dataclasses.replace(recipe, compare=part, published=recipe.published and recipe.published.only(names)), lines


def _missing(folder: Path, recipe: Recipe, data: DataSets) -> str:
    """Why a run of a comparison cannot be shown; "" where it can."""
    grid = compare.section(recipe)
    try:
        if not (folder / RESULTS).exists():
            if grid.folds and folder.exists():
                ended = sum((folder / part / RESULTS).exists() for part in grid.parts)
                return f"{ended} of its {len(grid.parts)} folds have ended"
            return progress(folder, data)
        read_results(folder)
        read_test(folder)
        parts = [folder, *(folder / part for part in grid.parts if part)]
        if any(being_measured(each) or recipes.load(each / RECIPE).evaluation != recipe.evaluation for each in parts):
            return "measured as another recipe says, and not anew so far"
    except (checks.InputError, OSError) as error:
        return str(error)
    return ""


def _here(path: Path) -> Path:
    """The path as one would type it here."""
    here = Path.cwd().resolve()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _said(place: tuple[str, int]) -> str:
    return f"{place[0]}, seed {place[1]}"


def _largest(grid: Compare, ended: set[tuple[str, int]]) -> tuple[list[str], list[int]]:
    """Variants and seeds of which every run has ended: of most variants, and then of most seeds."""
    parts = []
    for seed in grid.seeds:
        if names := [name for name in grid.grid if (name, seed) in ended]:
            parts.append((names, [each for each in grid.seeds if all((name, each) in ended for name in names)]))
    return max(parts, key=lambda part: (len(part[0]), len(part[1])))
