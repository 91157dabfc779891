"""One run of a recipe in a folder of its own: train, evaluate, write the results next to what led to them."""

import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import nn

from angulus.core import environment, files
from angulus.core.checks import InputError
from angulus.data.convert import LEFT_OUT
from angulus.data.sets.images import Images, Splits
from angulus.distributed.runtime import Ranks
from angulus.experiments import build, measure
from angulus.experiments import recipe as recipes
from angulus.experiments.benchmark import place
from angulus.experiments.divergence import diagnose
from angulus.experiments.measure import MODEL, load_test
from angulus.experiments.recipe import Recipe
from angulus.experiments.run_files import (
    DIVERGED,
    FINDINGS,
    MEASURING,
    RECIPE,
    RESULTS,
    own_run,
    read_run_state,
    write_run_files,
)
from angulus.models import artifact
from angulus.training import loop, reading
from angulus.training.callbacks import Callback
from angulus.training.job import Job
from angulus.training.state import CHECKPOINT, find_snapshots, load_snapshot


def run(
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool = False,
    splits: Splits | None = None,
    on_step: Callable[[int, int, float], None] | None = None,
    on_start: Callable[[], None] | None = None,
    backbone: nn.Module | None = None,
    callbacks: Sequence[Callback] = (),
) -> dict[str, Any]:
    """Train a recipe and evaluate it on its test images; returns the content of `results.json`.

    An ended run whose evaluation changed is evaluated again, not trained. Every rank calls it; only rank 0 writes,
    except for the parts of a sharded head.

    Args:
        recipe: of a single run; its `compare` is ignored.
        folder: gets recipe.yaml, environment.json, data.json, metrics.jsonl, tensorboard/, formation.npz,
            checkpoint.pt, test.npz, model/, results.json.
        resume: continue the folder's run; an ended one is read, not repeated.
        splits: the data, if already loaded.
        on_step: called with (steps done, steps in total, loss).
        on_start: called before the first step, after all checks; not for a run that has ended.
        backbone: the network to train, in place of the one that the recipe names.
        callbacks: of the user, for the training.
    """
    ranks = Ranks.here()

    def load() -> Splits:
        if recipe.training.threads:
            torch.set_num_threads(recipe.training.threads)
        return splits or build.splits(recipe)

    # Load and build. Only rank 0 looks into the folder, because others may not see it, or see an old one of its name.
    # All this comes before the folder is made, so that a recipe that cannot be trained leaves nothing behind.
    ranks.run_on_first(lambda: _refuse_nothing_to_resume(folder, resume))
    ranks.run_on_first(lambda: own_run(recipe, folder, resume))  # reading the data may take long
    whole = ranks.run_on_all(load)
    used, held_out = ranks.run_on_all(lambda: build.hold_out(recipe, whole))
    ended = ranks.broadcast(lambda: (folder / RESULTS).exists())  # it needs no old model, unless it trains for longer
    job = build.job(recipe, used, held_out, backbone, old_model=not ended)
    start = recipe.training.start_from
    if start is not None and not ranks.broadcast(lambda: (folder / CHECKPOINT).exists()):
        ranks.run_on_all(lambda: build.start_from(place(start), job))

    with ExitStack() as stack:
        # Claim the folder
        ranks.run_on_first(lambda: stack.enter_context(files.lock(folder)))
        state = ranks.broadcast(lambda: read_run_state(recipe, folder, whole, resume))
        if state.results is not None and state.measured:
            return state.results
        _refuse_unshared(folder, ranks)
        if ended and state.results is None:
            job.compatible = build.old_classes(recipe, used, ranks, job.device)
        if state.results is not None:
            ranks.run_on_first(lambda: files.write_text(folder / MEASURING, ""))
        else:
            ranks.run_on_first(lambda: write_run_files(recipe, folder, whole, state.trained, job))
            if on_start is not None:
                on_start()

        # Train; an ended run takes no step, and loads the last weights
        on_epoch = measure.follow(job, used.test, recipe, folder)
        if not state.trained:
            on_epoch(0)
        progress = loop.fit(job, folder, resume=state.trained, on_step=on_step, on_epoch=on_epoch, callbacks=callbacks)

        # Classify the test images by the last model and by the snapshots
        config = None if state.results is not None else build.config(recipe, used, job.backbone, job.compatible)
        saved = build.saves_classes(recipe, used)
        classified = {folder: _classify(job, used.test, recipe, folder, config, saved)}
        snapshots = ranks.broadcast(lambda: find_snapshots(folder, recipe.training.snapshots, progress.step))
        for path in snapshots.values():
            load_snapshot(path, job)
            classified[path] = _classify(job, used.test, recipe, path, config, saved)
        for images in (used.test, *([] if held_out is None else [held_out])):
            reading.note_test(folder, images, ranks)

        # Measure benchmarks, on rank 0 alone: they take longer than the others should wait
        if ranks.rank > 0:
            return {}
        loss = progress.last_epoch_loss
        last, *others = [
            measure.add_benchmarks(result, job, used.test, recipe, path, loss) for path, result in classified.items()
        ]

        # Write the results
        results: dict[str, Any] = {
            "name": recipe.name,
            "data": whole.source,
            "generated": whole.generated,
            **last,
            "training": {
                "steps": progress.step,
                "seconds": round(progress.seconds, 3),
                "last_epoch_loss": loss,
                "processes": ranks.count,
            },
            "environment": environment.describe(job.device),
        }
        if left_out := reading.listed_names(folder):
            results["left_out"] = {"images": len(left_out), "list": LEFT_OUT}
        if progress.findings:
            results[FINDINGS] = progress.findings
        if sentence := diagnose(progress, load_test(folder), recipe.training.optimizer.lr, job.steadier):
            results[DIVERGED] = sentence
        if snapshots:
            results["snapshots"] = {"steps": list(snapshots), "mean": mean(others)}
        if state.results is not None:  # it was trained elsewhere or earlier
            results |= {name: state.results[name] for name in ("training", "environment")}
        artifact.record_accuracy(folder / MODEL, results["accuracy"], len(used.test))
        files.write_json(folder / RESULTS, results)
        if state.results is not None:  # the former recipe stays until its results are replaced
            files.write_text(folder / RECIPE, recipes.to_yaml(recipe))
            (folder / MEASURING).unlink()
        return results


def _classify(
    job: Job, images: Images, recipe: Recipe, folder: Path, config: artifact.Config | None, saves_classes: bool
) -> dict[str, Any]:
    """Save the job's model in the folder, unless it is there already (None), and classify the test images."""
    if config is not None:
        classes = build.classifier(job) if saves_classes else None
        mean_image = job.contract.mean_image
        job.ranks.run_on_first(
            lambda: artifact.save(config, job.backbone, folder / MODEL, mean_image, classifier=classes)
        )
    return measure.classify(job, images, recipe, folder)


def _refuse_nothing_to_resume(folder: Path, resume: bool) -> None:
    if resume and not (folder / RECIPE).exists():
        runs = sorted(path.parent for path in folder.parent.glob(f"*/{RECIPE}")) if folder.parent.is_dir() else []
        near = f", or give as --out the run that you mean, such as {runs[-1]}" if runs else ""
        raise InputError(f"{folder} holds no run to resume; start one without --resume{near}")


def _refuse_unshared(folder: Path, ranks: Ranks) -> None:
    """Refuse a folder that not all ranks see, by a new file: every machine may have an old folder of that name."""
    if ranks.count == 1:
        return
    mark = folder / ranks.broadcast(lambda: f".seen-{uuid.uuid4().hex}")

    def look() -> None:
        if not mark.exists():
            raise InputError(f"{folder} is not seen by every process; give as --out a folder that all machines share")

    try:
        ranks.run_on_first(lambda: files.write_text(mark, ""))
        ranks.run_on_all(look)
    finally:
        if ranks.rank == 0:
            mark.unlink(missing_ok=True)


def mean(results: Sequence[Any]) -> Any:
    """The mean of several results: numbers averaged; mappings by the names that all have; equally long lists by place.

    A number that is undefined (None) in one result is undefined in the mean; other values are the last result's.

    >>> mean([{"accuracy": 0.5, "names": ["a"]}, {"accuracy": 1.0, "names": ["a"]}])
    {'accuracy': 0.75, 'names': ['a']}
    """
    first = results[0]
    if all(isinstance(result, dict) for result in results):
        shared = [name for name in first if all(name in result for result in results)]
        return {name: mean([result[name] for result in results]) for name in shared}
    if all(isinstance(result, list | tuple) and len(result) == len(first) for result in results):
        return [mean(values) for values in zip(*results, strict=True)]
    numbers = [value for value in results if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) == len(results):
        return sum(numbers) / len(numbers)
    return None if numbers else results[-1]
