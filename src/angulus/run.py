"""One run of a recipe in a folder of its own: train, evaluate, write what came out beside what it came from."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from angulus import artifact, build, checks, environment, evaluation, files
from angulus import recipe as recipes
from angulus.data.images import Splits
from angulus.recipe import Recipe
from angulus.training import checkpoint, loop

RECIPE, RESULTS, ENVIRONMENT = "recipe.yaml", "results.json", "environment.json"
MODEL = "model"  # a folder that `angulus.load` takes


def run(
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool = False,
    splits: Splits | None = None,
    on_step: Callable[[int, int, float], None] | None = None,
) -> dict[str, Any]:
    """Train a recipe and evaluate it on its test images; returns what `results.json` holds.

    Args:
        recipe: a single run (its `compare` is not looked at).
        folder: gets recipe.yaml, environment.json, metrics.jsonl, tensorboard/, formation.npz, checkpoint.pt, test.npz,
            model/, results.json.
        resume: go on where the folder's run stopped; a finished one is read, not repeated.
        splits: the data, if it is loaded already.
        on_step: told (steps done, steps in all, loss).
    """
    if resume and not (folder / RECIPE).exists():
        raise checks.InputError(f"{folder} holds no run to resume; start one without --resume")
    if recipe.training.threads:
        torch.set_num_threads(recipe.training.threads)
    # built before the folder is: a recipe that cannot be trained or evaluated leaves nothing behind
    splits = splits or build.splits(recipe)
    job = build.job(recipe, splits)
    with files.lock(folder):
        # a run that stopped before its first checkpoint has nothing to lose
        if (folder / checkpoint.NAME).exists() or (folder / RESULTS).exists():
            _refuse_other_recipe(recipe, folder)
            if not resume:
                raise checks.InputError(
                    f"{folder} holds a run already; go on with it by --resume, or choose another --out"
                )
            if (folder / RESULTS).exists():
                return read_results(folder)
        files.write_json(folder / ENVIRONMENT, environment.describe(job.device))
        files.write_text(folder / RECIPE, recipes.to_yaml(recipe))
        has_checkpoint = (folder / checkpoint.NAME).exists()
        on_epoch = evaluation.follow(job, splits.test, recipe, folder)
        if not has_checkpoint:
            on_epoch(0)
        progress = loop.fit(job, folder, resume=has_checkpoint, on_step=on_step, on_epoch=on_epoch)
        artifact.save(build.config(recipe, splits), job.backbone, folder / MODEL, job.contract.mean_image)
        results = {
            "name": recipe.name,
            "data": splits.source,
            "generated": splits.generated,
            **evaluation.evaluate(job, splits.test, recipe, folder / MODEL, folder, progress.last_epoch_loss),
            "training": {
                "steps": progress.step,
                "seconds": round(progress.seconds, 3),
                "last_epoch_loss": progress.last_epoch_loss,
            },
            "environment": environment.describe(job.device),
        }
        artifact.say_measured(folder / MODEL, results["accuracy"], len(splits.test))
        files.write_json(folder / RESULTS, results)
        return results


def read_results(folder: Path) -> dict[str, Any]:
    """What `results.json` of a finished run holds."""
    try:
        content: dict[str, Any] = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise checks.InputError(f"{folder / RESULTS} cannot be read ({error}); delete it to evaluate again") from error
    return content


def _refuse_other_recipe(recipe: Recipe, folder: Path) -> None:
    there, here = _comparable(recipes.load(str(folder / RECIPE))), _comparable(recipe)
    for key in here | there:
        one, other = (f"{values[key]!r}" if key in values else "not given" for values in (there, here))
        if one != other:
            raise checks.InputError(
                f"{folder} holds a run of another recipe ({key} is {one} there and {other} here); choose another --out"
            )


def _comparable(recipe: Recipe) -> dict[str, Any]:
    """A recipe by dotted keys, without what does not decide its numbers."""
    training = dataclasses.replace(recipe.training, log_every=1, checkpoint_every=0)
    recipe = dataclasses.replace(
        recipe,
        title="",
        chosen_by_us={},
        compare=None,
        published=None,
        rows={},
        needs={},
        data=recipes.Data(recipe.data.name, options=recipe.data.options),
        training=training,
    )
    return dict(_flatten(dataclasses.asdict(recipe), ""))


def _flatten(value: Any, path: str) -> list[tuple[str, Any]]:
    if not isinstance(value, dict) or not value:
        return [(path, value)]
    return [item for key, each in value.items() for item in _flatten(each, f"{path}.{key}" if path else str(key))]
