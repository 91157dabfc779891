"""Choose each variant's settings on classes held out of the training data, with the same budget for every variant."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from angulus.core import files
from angulus.core.checks import InputError
from angulus.data.sets.images import Splits
from angulus.experiments import recipe as recipes
from angulus.experiments.claims import Choose, Compare
from angulus.experiments.run_files import RECIPE, holds_run, refuse_other_recipe
from angulus.training.log import METRICS, read_lines

CHOICE = "choice.json"  # in a variant's folder, once all its trials have ended
Settings = dict[str, Any]  # overrides of the recipe


@dataclass(frozen=True)
class Choice:
    """The trials of one variant."""

    settings: list[Settings]
    scores: list[float]  # of each trial's last validation; −inf for a trial that stopped, since its loss was not finite

    @property
    def best(self) -> Settings:
        """The settings of the highest score; of equal ones, the first."""
        return self.settings[self.scores.index(max(self.scores))]

    @property
    def stopped(self) -> int:
        """How many trials stopped."""
        return sum(score == -math.inf for score in self.scores)


def trial_recipe(content: Mapping[str, Any], grid: Compare, name: str, settings: Settings) -> recipes.Recipe:
    """The recipe of a trial: shorter, on fewer classes, and without the benchmarks, which are measured once."""
    assert grid.choose is not None
    single = recipes.variant(content, {**grid.grid[name], **settings}, grid.choose.seed)
    training, evaluation = dict(single.get("training") or {}), dict(single.get("evaluation") or {})
    training["epochs"] = grid.choose.epochs
    evaluation.pop("benchmarks", None)
    changes = {"training": training, "evaluation": evaluation, "needs": {}}
    try:
        return recipes.validate(single | changes | {"validation": dataclasses.asdict(grid.choose.validation)})
    except InputError as error:
        raise InputError(f"compare.choose.settings.{name}: {error}") from error


def refuse_other_trials(content: Mapping[str, Any], grid: Compare, folders: Mapping[str, Path]) -> None:
    """Refuse folders that hold trials of other settings, or runs whose settings were not chosen."""
    if grid.choose is None:
        return
    read_choices(grid, folders)
    for name, all_settings in grid.choose.settings.items():
        for number, settings in enumerate(all_settings):
            where = folders[name] / _folder(number)
            if holds_run(where):
                refuse_other_recipe(trial_recipe(content, grid, name, settings), where)
        if not (folders[name] / CHOICE).exists() and any(map(holds_run, folders[name].glob("seed-*"))):
            raise InputError(f"{folders[name]} holds runs whose settings were not chosen; choose another --out")


def train_trials(
    content: Mapping[str, Any],
    grid: Compare,
    folders: Mapping[str, Path],
    splits: Splits,
    *,
    on_run: Callable[[str, int, int], None] | None = None,
    on_step: Callable[[int, int, float], None] | None = None,
) -> None:
    """Run or resume all trials, and store each variant's scores in its `CHOICE`.

    Args:
        content: the recipe's mapping.
        grid: its compare section.
        folders: of each variant.
        splits: the data.
        on_run: called with (trial in words, trials before it, trials in total).
        on_step: called with (steps done, steps in total, loss) of the current trial.
    """
    choose = grid.choose
    if choose is None:
        return
    count, done = sum(map(len, choose.settings.values())), 0
    for name, all_settings in choose.settings.items():
        scores: list[float] = []
        for number, settings in enumerate(all_settings):
            if on_run is not None and not (folders[name] / CHOICE).exists():
                on_run(f"choosing for {name}: {in_words(settings)}", done, count)
            done += 1
            if not (folders[name] / CHOICE).exists():
                recipe = trial_recipe(content, grid, name, settings)
                scores.append(_score(recipe, folders[name] / _folder(number), choose, splits, on_step))
        if scores:
            if max(scores) == -math.inf:
                raise InputError(
                    f"every trial of {name} stopped, since its loss was not finite; give it other settings"
                )
            plain = [None if score == -math.inf else score for score in scores]
            files.write_json(folders[name] / CHOICE, {"settings": all_settings, "scores": plain})


def _score(
    recipe: recipes.Recipe, folder: Path, choose: Choose, splits: Splits, on_step: Callable[..., None] | None
) -> float:
    """The score of a trial, which is trained or resumed."""
    from angulus.experiments.run import run
    from angulus.training.loop import TrainingStopped

    try:
        run(recipe, folder, resume=(folder / RECIPE).exists(), splits=splits, on_step=on_step)
    except TrainingStopped:
        return -math.inf
    scores = [float(row[choose.by]) for row in read_lines(folder / METRICS) if choose.by in row]
    return scores[-1] if scores else -math.inf  # a score that is not finite is not logged


def read_choices(grid: Compare, folders: Mapping[str, Path]) -> dict[str, Choice]:
    """The choices of the variants whose trials have ended; none if the recipe does not choose."""
    found = {}
    for name, settings in (grid.choose.settings if grid.choose else {}).items():
        path = folders[name] / CHOICE
        if not path.exists():
            continue
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            scores = [-math.inf if score is None else float(score) for score in content["scores"]]
            same = content["settings"] == settings and len(scores) == len(settings)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} cannot be read ({error}); delete it, and its trials are read again") from error
        if not same:
            raise InputError(f"{path} holds the choice from other settings; choose another --out")
        found[name] = Choice(settings, scores)
    return found


def in_words(settings: Mapping[str, Any]) -> str:
    """Overrides in short.

    >>> in_words({"objective.m": 0.3, "training.optimizer": {"kind": "adamw", "lr": 0.01}}), in_words({})
    ('m=0.3, kind=adamw, lr=0.01', 'as written')
    """
    words = (
        in_words(value) if value and isinstance(value, dict) else f"{path.rsplit('.', 1)[-1]}={value}"
        for path, value in settings.items()
    )
    return ", ".join(words) or "as written"


def _folder(trial: int) -> str:
    return f"choose-{trial}"
