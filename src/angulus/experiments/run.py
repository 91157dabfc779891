"""One run of a recipe in a folder of its own: train, evaluate, write what came out beside what it came from."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from angulus.core import checks, environment, files
from angulus.data.sets.images import Images, Splits
from angulus.distributed.runtime import Ranks
from angulus.experiments import build, measure
from angulus.experiments import recipe as recipes
from angulus.experiments.benchmark import place
from angulus.experiments.measure import MODEL
from angulus.experiments.recipe import Recipe
from angulus.experiments.run_files import DIVERGED, MEASURING, RECIPE, RESULTS, begun, write_beginning
from angulus.models import artifact
from angulus.training import checkpoint, divergence, loop, snapshots


def run(
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool = False,
    splits: Splits | None = None,
    on_step: Callable[[int, int, float], None] | None = None,
    on_start: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Train a recipe and evaluate it on its test images; returns what `results.json` holds.

    An ended run whose recipe measures in another way now is evaluated anew, not trained. Every rank calls it where
    several train; rank 0 alone writes, but for its part of a sharded head.

    Args:
        recipe: a single run (its `compare` is not looked at).
        folder: gets recipe.yaml, environment.json, data.json, metrics.jsonl, tensorboard/, formation.npz,
            checkpoint.pt, test.npz, model/, results.json.
        resume: go on where the folder's run stopped; a finished one is read, not repeated.
        splits: the data, if it is loaded already.
        on_step: told (steps done, steps in all, loss).
        on_start: called before the first step, once nothing was refused; not where an ended run is read.
    """
    ranks = Ranks.here()

    def load() -> Splits:
        if recipe.training.threads:
            torch.set_num_threads(recipe.training.threads)
        return splits or build.splits(recipe)

    # rank 0 alone looks into the folder and tells what all do: another may not see it, or hold an old one of its name
    ranks.run_on_first(lambda: _refuse_nothing(folder, resume))
    # built before the folder is: a recipe that cannot be trained or evaluated leaves nothing behind
    whole = ranks.run_on_all(load)
    kept, held_out = ranks.run_on_all(lambda: build.hold_out(recipe, whole))
    job = build.job(recipe, kept, held_out)
    start = recipe.training.start_from
    if start is not None and not ranks.broadcast(lambda: (folder / checkpoint.NAME).exists()):
        ranks.run_on_all(lambda: build.start_from(place(start), job))
    with ExitStack() as stack:
        ranks.run_on_first(lambda: stack.enter_context(files.lock(folder)))
        there = ranks.broadcast(lambda: begun(recipe, folder, whole, resume))
        if there.results is not None and there.measured_so:
            return there.results
        _refuse_unseen(folder, ranks)
        ended = there.results is not None
        if ended:
            ranks.run_on_first(lambda: files.write_text(folder / MEASURING, ""))
        else:
            ranks.run_on_first(lambda: write_beginning(recipe, folder, whole, there, job))
        if on_start is not None and not ended:
            on_start()
        on_epoch = measure.follow(job, kept.test, recipe, folder)
        if not there.trained:
            on_epoch(0)
        # of an ended run it takes no step, and gives the last weights
        progress = loop.fit(job, folder, resume=there.trained, on_step=on_step, on_epoch=on_epoch)
        config = None if ended else build.config(recipe, kept)
        found = {folder: _classified(job, kept.test, recipe, folder, config)}
        on_the_way = ranks.broadcast(lambda: snapshots.kept(folder, recipe.training.snapshots, progress.step))
        for where in on_the_way.values():
            snapshots.load(where, job)
            found[where] = _classified(job, kept.test, recipe, where, config)
        if ranks.rank > 0:
            return {}
        # from here on rank 0 works alone: benchmarks take longer than others should wait
        loss = progress.last_epoch_loss
        measured = [measure.with_benchmarks(each, job, kept.test, recipe, where, loss) for where, each in found.items()]
        results: dict[str, Any] = {
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
        if broken := _diverged(progress, recipe, folder):
            results[DIVERGED] = broken
        if on_the_way:
            results["snapshots"] = {"steps": list(on_the_way), "mean": mean(measured[1:])}
        if there.results is not None:  # where and how long it was trained stands
            results |= {name: there.results[name] for name in ("training", "environment")}
        artifact.record_accuracy(folder / MODEL, results["accuracy"], len(kept.test))
        files.write_json(folder / RESULTS, results)
        if there.results is not None:  # the former recipe stands until its results are replaced
            files.write_text(folder / RECIPE, recipes.to_yaml(recipe))
            (folder / MEASURING).unlink()
        return results


def _classified(
    job: loop.Job, images: Images, recipe: Recipe, folder: Path, config: artifact.Config | None
) -> dict[str, Any]:
    """Save the job's model in the folder, unless it lies there already (None), and classify the test images."""
    if config is not None:
        job.ranks.run_on_first(lambda: artifact.save(config, job.backbone, folder / MODEL, job.contract.mean_image))
    return measure.classify(job, images, recipe, folder)


def _diverged(progress: loop.Progress, recipe: Recipe, folder: Path) -> str | None:
    """The sentence on a run that diverged, by what it found of its test images."""
    test = measure.load_test(folder)
    norm = float(test["norms"].mean())
    return divergence.sentence(progress, norm, test["labels"], test["predictions"], recipe.training.optimizer.rate)


def _refuse_nothing(folder: Path, resume: bool) -> None:
    if resume and not (folder / RECIPE).exists():
        others = sorted(each.parent for each in folder.parent.glob(f"*/{RECIPE}")) if folder.parent.is_dir() else []
        near = f", or give as --out the run that you mean, such as {others[-1]}" if others else ""
        raise checks.InputError(f"{folder} holds no run to resume; start one without --resume{near}")


def _refuse_unseen(folder: Path, ranks: Ranks) -> None:
    """Refuse a folder that is not one for all, by a fresh file: an old folder of that name may be anywhere."""
    if ranks.count == 1:
        return
    mark = folder / ranks.broadcast(lambda: f".seen-{uuid.uuid4().hex}")

    def look() -> None:
        if not mark.exists():
            raise checks.InputError(
                f"{folder} is not seen by every process; give as --out a folder that all machines share"
            )

    try:
        ranks.run_on_first(lambda: files.write_text(mark, ""))
        ranks.run_on_all(look)
    finally:
        if ranks.rank == 0:
            mark.unlink(missing_ok=True)


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
