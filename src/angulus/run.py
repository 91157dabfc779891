"""One run of a recipe in a folder of its own: train, evaluate, write what came out beside what it came from."""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from angulus import artifact, build, checks, environment, evaluation, files
from angulus import recipe as recipes
from angulus.benchmarks.settings import place
from angulus.claims import Evaluation
from angulus.data.images import Images, Splits, fingerprint
from angulus.distributed.runtime import Ranks
from angulus.evaluation import MODEL
from angulus.recipe import Recipe
from angulus.training import checkpoint, loop, snapshots

RECIPE, RESULTS, ENVIRONMENT, DATA = "recipe.yaml", "results.json", "environment.json", "data.json"
NEEDED = ("name", "data", "accuracy", "training", "environment")  # in any run's results.json


@dataclass(frozen=True)
class Begun:
    """What a folder holds of a run.

    Args:
        trained: whether there is a checkpoint to go on from.
        results: of an ended run.
        measured_so: whether the recipe still measures as it did then.
        saved_so: whether the model's folder still is what the recipe makes of the weights.
    """

    trained: bool = False
    results: dict[str, Any] | None = None
    measured_so: bool = False
    saved_so: bool = False


def run(
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool = False,
    splits: Splits | None = None,
    on_step: Callable[[int, int, float], None] | None = None,
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
    """
    ranks = Ranks.here()

    def load() -> Splits:
        if recipe.training.threads:
            torch.set_num_threads(recipe.training.threads)
        return splits or build.splits(recipe)

    # rank 0 alone looks into the folder and tells what all do: another may not see it, or hold an old one of its name
    ranks.first(lambda: _refuse_nothing(folder, resume))
    # built before the folder is: a recipe that cannot be trained or evaluated leaves nothing behind
    whole = ranks.together(load)
    kept, held_out = ranks.together(lambda: build.hold_out(recipe, whole))
    job = build.job(recipe, kept, held_out)
    start = recipe.training.start_from
    if start is not None and not ranks.told(lambda: (folder / checkpoint.NAME).exists()):
        ranks.together(lambda: build.start_from(place(start), job))
    with ExitStack() as stack:
        ranks.first(lambda: stack.enter_context(files.lock(folder)))
        begun = ranks.told(lambda: _begun(recipe, folder, whole, resume))
        if begun.results is not None and begun.measured_so:
            return begun.results
        _refuse_unseen(folder, ranks)
        if begun.results is None:
            ranks.first(lambda: _write_beginning(recipe, folder, whole, begun, job))
        on_epoch = evaluation.follow(job, kept.test, recipe, folder)
        if not begun.trained:
            on_epoch(0)
        # of an ended run it takes no step, and gives the last weights
        progress = loop.fit(job, folder, resume=begun.trained, on_step=on_step, on_epoch=on_epoch)
        config = None if begun.saved_so else build.config(recipe, kept)
        found = {folder: _classified(job, kept.test, recipe, folder, config)}
        on_the_way = ranks.told(lambda: snapshots.kept(folder, recipe.training.snapshots, progress.step))
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
        if on_the_way:
            results["snapshots"] = {"steps": list(on_the_way), "mean": mean(measured[1:])}
        if begun.results is not None:  # where and how long it was trained stands
            results |= {name: begun.results[name] for name in ("training", "environment")}
        artifact.say_measured(folder / MODEL, results["accuracy"], len(kept.test))
        files.write_json(folder / RESULTS, results)
        if begun.results is not None:  # the former recipe stands until its results are replaced
            files.write_text(folder / RECIPE, recipes.to_yaml(recipe))
        return results


def _classified(
    job: loop.Job, images: Images, recipe: Recipe, folder: Path, config: artifact.Config | None
) -> dict[str, Any]:
    """Save the job's model in the folder, unless it lies there already (None), and classify the test images."""
    if config is not None:
        job.ranks.first(lambda: artifact.save(config, job.backbone, folder / MODEL, job.contract.mean_image))
    return evaluation.classify(job, images, recipe, folder)


def _refuse_nothing(folder: Path, resume: bool) -> None:
    if resume and not (folder / RECIPE).exists():
        raise checks.InputError(f"{folder} holds no run to resume; start one without --resume")


def _begun(recipe: Recipe, folder: Path, whole: Splits, resume: bool) -> Begun:
    """What the folder holds; refused where that is not of this recipe and these data."""
    ended, trained = (folder / RESULTS).exists(), (folder / checkpoint.NAME).exists()
    if not holds_run(folder):  # a run that stopped before its first checkpoint has nothing to lose
        return Begun()
    there = refuse_other_recipe(recipe, folder)
    if not resume:
        raise checks.InputError(f"{folder} holds a run already; go on with it by --resume, or choose another --out")
    _refuse_other_images(whole, folder)
    if not ended:
        return Begun(trained)
    measured_so = _measures(there) == _measures(recipe)
    if not measured_so and not trained:
        raise checks.InputError(
            f"{folder} holds an ended run without its {checkpoint.NAME}, so it cannot be evaluated anew, as this "
            "recipe asks; choose another --out"
        )
    saved_so = (there.name, there.input) == (recipe.name, recipe.input) and (folder / MODEL / artifact.CONFIG).exists()
    return Begun(trained, read_results(folder), measured_so, saved_so)


def _measures(recipe: Recipe) -> tuple[Any, ...]:
    """What a recipe says of measuring, and of what the results are called; none of it moves a weight."""
    return recipe.name, recipe.evaluation, recipe.input.flip


def _write_beginning(recipe: Recipe, folder: Path, whole: Splits, begun: Begun, job: loop.Job) -> None:
    if not begun.trained:
        parts = {name: fingerprint(images) for name, images in (("train", whole.train), ("test", whole.test))}
        files.write_json(folder / DATA, {"source": whole.source, **parts})
    files.write_json(folder / ENVIRONMENT, environment.describe(job.device))
    files.write_text(folder / RECIPE, recipes.to_yaml(recipe))


def _refuse_unseen(folder: Path, ranks: Ranks) -> None:
    """Refuse a folder that is not one for all, by a fresh file: an old folder of that name may be anywhere."""
    if ranks.count == 1:
        return
    mark = folder / ranks.told(lambda: f".seen-{uuid.uuid4().hex}")

    def look() -> None:
        if not mark.exists():
            raise checks.InputError(
                f"{folder} is not seen by every process; give as --out a folder that all machines share"
            )

    try:
        ranks.first(lambda: files.write_text(mark, ""))
        ranks.together(look)
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


def read_results(folder: Path) -> dict[str, Any]:
    """What `results.json` of a finished run holds."""
    return _read_json(folder / RESULTS, "delete it to evaluate again", NEEDED)


def _read_json(path: Path, way_out: str, needed: Sequence[str] = ()) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        missing = [name for name in needed if name not in content]
        if missing or not isinstance(content, dict):
            raise ValueError(f"it lacks {missing[0]!r}" if missing else "it holds no names")
    except (OSError, ValueError, TypeError) as error:
        raise checks.InputError(f"{path} cannot be read ({error}); {way_out}") from error
    return content


def holds_run(folder: Path) -> bool:
    """Whether a folder holds a run that has got to a checkpoint, or to its end."""
    return (folder / checkpoint.NAME).exists() or (folder / RESULTS).exists()


def refuse_other_recipe(recipe: Recipe, folder: Path) -> Recipe:
    """Refuse a recipe that would give another model than that of the run in the folder; returns the run's own."""
    written = recipes.load_written(folder / RECIPE)
    there, here = _comparable(written), _comparable(recipe)
    for key in here | there:
        one, other = (f"{values[key]!r}" if key in values else "not given" for values in (there, here))
        if one != other:
            raise checks.InputError(
                f"{folder} holds a run of another recipe ({key} is {one} there and {other} here); choose another --out"
            )
    return written


def _refuse_other_images(whole: Splits, folder: Path) -> None:
    if not (folder / DATA).exists():  # a run that did not keep what its data were
        return
    there = _read_json(folder / DATA, "delete it to go on without knowing whether the data are the same")
    for key, name, images in (("train", "training", whole.train), ("test", "test", whole.test)):
        one, other = there.get(key), fingerprint(images)
        if one != other:
            count = f"{one['images']:,} there and {other['images']:,} here" if one else "none there"
            raise checks.InputError(
                f"{folder} holds a run on other {name} images ({count}; number, sides, classes or labels differ): it "
                f"was begun on {there.get('source')}, and this is {whole.source}; set data.root to the former, or "
                "choose another --out"
            )


def _comparable(recipe: Recipe) -> dict[str, Any]:
    """A recipe by dotted keys, without what can change once a model is trained.

    Validation and `evaluation.each_epoch` stay, though they move no weight: they are measured while the training goes
    on, and never again.
    """
    training = dataclasses.replace(recipe.training, log_every=1, checkpoint_every=0)
    recipe = dataclasses.replace(
        recipe,
        name="-",
        title="",
        chosen_by_us={},
        input=dataclasses.replace(recipe.input, flip="none"),
        evaluation=dataclasses.replace(
            recipe.evaluation,
            low_fraction=Evaluation.low_fraction,
            batch_size=Evaluation.batch_size,
            benchmarks=[],
        ),
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
