"""One run of a recipe in a folder of its own: train, evaluate, write what came out beside what it came from."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from angulus import artifact, build, checks, environment, evaluation, files
from angulus import recipe as recipes
from angulus.data.images import Images, Splits
from angulus.distributed.runtime import Ranks
from angulus.evaluation import MODEL
from angulus.recipe import Recipe
from angulus.training import checkpoint, loop, snapshots

RECIPE, RESULTS, ENVIRONMENT = "recipe.yaml", "results.json", "environment.json"
NEEDED = ("name", "data", "accuracy", "training", "environment")  # in any run's results.json


def run(
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool = False,
    splits: Splits | None = None,
    on_step: Callable[[int, int, float], None] | None = None,
) -> dict[str, Any]:
    """Train a recipe and evaluate it on its test images; returns what `results.json` holds.

    Every rank calls it where several train; rank 0 alone writes, but for its part of a sharded head.

    Args:
        recipe: a single run (its `compare` is not looked at).
        folder: gets recipe.yaml, environment.json, metrics.jsonl, tensorboard/, formation.npz, checkpoint.pt, test.npz,
            model/, results.json.
        resume: go on where the folder's run stopped; a finished one is read, not repeated.
        splits: the data, if it is loaded already.
        on_step: told (steps done, steps in all, loss).
    """
    ranks = Ranks.here()

    def load() -> Splits:
        if resume and not (folder / RECIPE).exists():
            raise checks.InputError(f"{folder} holds no run to resume; start one without --resume")
        if recipe.training.threads:
            torch.set_num_threads(recipe.training.threads)
        return splits or build.splits(recipe)

    # built before the folder is: a recipe that cannot be trained or evaluated leaves nothing behind
    whole = ranks.together(load)
    kept, held_out = ranks.together(lambda: build.hold_out(recipe, whole))
    job = build.job(recipe, kept, held_out)
    if recipe.training.start_from is not None and not (folder / checkpoint.NAME).exists():
        ranks.together(lambda: build.start_from(Path(str(recipe.training.start_from)), job))
    with ExitStack() as stack:
        ranks.first(lambda: stack.enter_context(files.lock(folder)))
        begun = ranks.together(lambda: _begun(recipe, folder, resume))
        if isinstance(begun, dict):
            return begun
        ranks.first(lambda: _write_beginning(recipe, folder, job))
        ranks.together(lambda: _refuse_unseen(folder))
        on_epoch = evaluation.follow(job, kept.test, recipe, folder)
        if begun is None:
            on_epoch(0)
        progress = loop.fit(job, folder, resume=begun is not None, on_step=on_step, on_epoch=on_epoch)
        config = build.config(recipe, kept)
        found = {folder: _classified(job, kept.test, recipe, folder, config)}
        on_the_way = snapshots.kept(folder, recipe.training.snapshots, progress.step)
        for where in on_the_way.values():
            snapshots.load(where, job)
            found[where] = _classified(job, kept.test, recipe, where, config)
        if ranks.rank > 0:
            return {}
        # from here on rank 0 works alone: benchmarks take longer than others should wait
        loss = progress.last_epoch_loss
        measured = [
            evaluation.with_benchmarks(each, job, kept.test, recipe, where, loss) for where, each in found.items()
        ]
        results = {
            "name": recipe.name,
            "data": whole.source,
            "generated": whole.generated,
            **measured[0],
            "training": {
                "steps": progress.step,
                "seconds": round(progress.seconds, 3),
                "last_epoch_loss": loss,
                "processes": ranks.count,
            },
            "environment": environment.describe(job.device),
        }
        if on_the_way:
            results["snapshots"] = {"steps": list(on_the_way), "mean": mean(measured[1:])}
        artifact.say_measured(folder / MODEL, results["accuracy"], len(kept.test))
        files.write_json(folder / RESULTS, results)
        return results


def _classified(job: loop.Job, images: Images, recipe: Recipe, folder: Path, config: artifact.Config) -> dict[str, Any]:
    """Save the job's model in the folder, and classify the test images."""
    job.ranks.first(lambda: artifact.save(config, job.backbone, folder / MODEL, job.contract.mean_image))
    return evaluation.classify(job, images, recipe, folder)


def _begun(recipe: Recipe, folder: Path, resume: bool) -> dict[str, Any] | bool | None:
    """What the folder holds: the results of a finished run, True for a checkpoint, None for nothing that is kept."""
    # a run that stopped before its first checkpoint has nothing to lose
    if not holds_run(folder):
        return None
    refuse_other_recipe(recipe, folder)
    if not resume:
        raise checks.InputError(f"{folder} holds a run already; go on with it by --resume, or choose another --out")
    return read_results(folder) if (folder / RESULTS).exists() else True


def _write_beginning(recipe: Recipe, folder: Path, job: loop.Job) -> None:
    files.write_json(folder / ENVIRONMENT, environment.describe(job.device))
    files.write_text(folder / RECIPE, recipes.to_yaml(recipe))


def _refuse_unseen(folder: Path) -> None:
    if not (folder / RECIPE).exists():
        raise checks.InputError(
            f"{folder} is not seen by every process; give as --out a folder that all machines share"
        )


def mean(results: Sequence[Any]) -> Any:
    """Several results as one: numbers as their mean, mappings by the names that all have, lists of one length by place.

    A number that is undefined (None) in one is undefined; of anything else the last stands.

    >>> mean([{"accuracy": 0.5, "names": ["a"]}, {"accuracy": 1.0, "names": ["a"]}])
    {'accuracy': 0.75, 'names': ['a']}
    """
    first = results[0]
    if all(isinstance(each, dict) for each in results):
        shared = [name for name in first if all(name in each for each in results)]
        return {name: mean([each[name] for each in results]) for name in shared}
    if all(isinstance(each, list | tuple) and len(each) == len(first) for each in results):
        return [mean(parts) for parts in zip(*results, strict=True)]
    numbers = [each for each in results if isinstance(each, int | float) and not isinstance(each, bool)]
    if len(numbers) == len(results):
        return sum(numbers) / len(numbers)
    return None if numbers else results[-1]


def read_results(folder: Path) -> dict[str, Any]:
    """What `results.json` of a finished run holds."""
    try:
        content = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
        missing = [name for name in NEEDED if name not in content]
        if missing or not isinstance(content, dict):
            raise ValueError(f"it lacks {missing[0]!r}" if missing else "it holds no names")
    except (OSError, ValueError, TypeError) as error:
        raise checks.InputError(f"{folder / RESULTS} cannot be read ({error}); delete it to evaluate again") from error
    return content


def holds_run(folder: Path) -> bool:
    """Whether a folder holds a run that has got to a checkpoint, or to its end."""
    return (folder / checkpoint.NAME).exists() or (folder / RESULTS).exists()


def refuse_other_recipe(recipe: Recipe, folder: Path) -> None:
    """Refuse a recipe that would give other numbers than that of the run in the folder."""
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
