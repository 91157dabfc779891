"""Choose each variant's settings on people held out of the training data, with the same budget for every variant."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from angulus.core.checks import InputError
from angulus.data.sets.images import Splits
from angulus.experiments import recipe as recipes
from angulus.experiments.claims import Compare
from angulus.experiments.run_files import RECIPE
from angulus.training.log import METRICS, read_lines


@dataclass(frozen=True)
class Choice:
    """The trials of one variant."""

    settings: list[dict[str, Any]]  # overrides, one mapping per trial
    scores: list[float]  # of each trial's last validation

    @property
    def best(self) -> dict[str, Any]:
        """The settings of the highest score; of equal ones, the first."""
        return self.settings[max(range(len(self.scores)), key=lambda trial: (self.scores[trial], -trial))]


def trial_recipe(content: Mapping[str, Any], grid: Compare, name: str, settings: Mapping[str, Any]) -> recipes.Recipe:
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


def train_trials(
    content: Mapping[str, Any],
    grid: Compare,
    folders: Mapping[str, Path],
    splits: Splits,
    *,
    on_run: Callable[[str, int, int], None] | None = None,
    on_step: Callable[[int, int, float], None] | None = None,
) -> None:
    """Run or resume all trials.

    Args:
        content: the recipe's mapping.
        grid: its compare section.
        folders: of each variant, for its trials.
        splits: the data.
        on_run: called with (trial in words, trials before it, trials in total).
        on_step: called with (steps done, steps in total, loss) of the current trial.
    """
    from angulus.experiments.run import run

    trials = [
        (name, settings, folders[name] / _folder(number))
        for name, all_settings in (grid.choose.settings if grid.choose else {}).items()
        for number, settings in enumerate(all_settings)
    ]
    for done, (name, settings, where) in enumerate(trials):
        if on_run is not None:
            on_run(f"choosing for {name}: {in_words(settings)}", done, len(trials))
        recipe = trial_recipe(content, grid, name, settings)
        run(recipe, where, resume=(where / RECIPE).exists(), splits=splits, on_step=on_step)


def read_choices(grid: Compare, folders: Mapping[str, Path]) -> dict[str, Choice]:
    """The choice of each variant from its trials; none if the recipe does not choose."""
    if grid.choose is None:
        return {}
    by = grid.choose.by
    return {
        name: Choice(settings, [_last_score(folders[name] / _folder(number), by) for number in range(len(settings))])
        for name, settings in grid.choose.settings.items()
    }


def in_words(settings: Mapping[str, Any]) -> str:
    """Overrides in short.

    >>> in_words({"objective.m": 0.3, "training.optimizer": {"kind": "adamw", "lr": 0.01}}), in_words({})
    ('m=0.3, kind=adamw, lr=0.01', 'as written')
    """
    words = (
        in_words(value) if value and isinstance(value, Mapping) else f"{path.rsplit('.', 1)[-1]}={value}"
        for path, value in settings.items()
    )
    return ", ".join(words) or "as written"


def _folder(trial: int) -> str:
    return f"choose-{trial}"


def _last_score(folder: Path, by: str) -> float:
    scores = [row[by] for row in read_lines(folder / METRICS) if by in row]
    if not scores:
        raise InputError(f"{folder / METRICS} has no {by}, by which compare.choose chooses; delete {folder}")
    return float(scores[-1])
