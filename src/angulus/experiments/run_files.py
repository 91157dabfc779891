"""The files of a run's folder, and whether a recipe can go on with what they hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any

from angulus.core import checks, environment, files, limits
from angulus.data.sets.images import Splits, fingerprint
from angulus.experiments import recipe as recipes
from angulus.experiments.claims import Evaluation
from angulus.experiments.recipe import Recipe
from angulus.training.job import Job
from angulus.training.schedule import is_open_ended
from angulus.training.state import CHECKPOINT

RECIPE, RESULTS, ENVIRONMENT, DATA = "recipe.yaml", "results.json", "environment.json", "data.json"
MEASURING = ".measuring"  # there while an ended run is measured anew
DIVERGED = "diverged"  # in results.json, the sentence on a training that diverged
NEEDED: dict[str, type | UnionType] = {  # in any run's results.json
    "name": str, "data": str, "accuracy": int | float, "training": dict, "environment": dict,
}  # fmt: skip


@dataclass(frozen=True)
class Begun:
    """What a folder holds of a run.

    Args:
        trained: whether there is a checkpoint to go on from.
        results: of an ended run.
        measured_so: whether it was measured as the recipe says.
    """

    trained: bool = False
    results: dict[str, Any] | None = None
    measured_so: bool = False


def begun(recipe: Recipe, folder: Path, whole: Splits, resume: bool) -> Begun:
    """What the folder holds; refused where that is not of this recipe and these data."""
    ended, trained = (folder / RESULTS).exists(), (folder / CHECKPOINT).exists()
    if not holds_run(folder):  # a run that stopped before its first checkpoint has nothing to lose
        return Begun()
    there = refuse_other_recipe(recipe, folder, longer=True)
    longer = recipe.training.epochs > there.training.epochs
    if not resume:
        more = f" to {recipe.training.epochs} epochs (it has {there.training.epochs})" if longer else ""
        raise checks.InputError(
            f"{folder} holds a run already; continue it{more} with --resume, or choose another --out"
        )
    _refuse_other_images(whole, folder)
    if longer and not trained:
        raise checks.InputError(
            f"{folder} holds an ended run without its {CHECKPOINT}, so it cannot go on to more epochs; choose "
            "another --out"
        )
    if not ended or longer:
        return Begun(trained)
    measured_so = there.evaluation == recipe.evaluation and not being_measured(folder)
    if not measured_so and not trained:
        raise checks.InputError(
            f"{folder} holds an ended run without its {CHECKPOINT}, so it cannot be evaluated anew, as this "
            "recipe asks; choose another --out"
        )
    return Begun(trained, read_results(folder), measured_so)


def being_measured(folder: Path) -> bool:
    """Whether an ended run was being measured anew when something broke in: its files are of two evaluations."""
    return (folder / MEASURING).exists()


def write_beginning(recipe: Recipe, folder: Path, whole: Splits, found: Begun, job: Job) -> None:
    """Write what a run is begun with: its recipe, its environment and, where it is new, what its data are."""
    (folder / RESULTS).unlink(missing_ok=True)  # of fewer epochs
    if not found.trained:
        parts = {name: fingerprint(images) for name, images in (("train", whole.train), ("test", whole.test))}
        files.write_json(folder / DATA, {"source": whole.source, **parts})
    files.write_json(folder / ENVIRONMENT, environment.describe(job.device))
    files.write_text(folder / RECIPE, recipes.to_yaml(recipe))


def read_results(folder: Path) -> dict[str, Any]:
    """What `results.json` of a finished run holds."""
    path, way_out = folder / RESULTS, "delete it to evaluate again"
    found = _read_json(path, way_out, NEEDED)
    for name, kind in NEEDED.items():
        if not isinstance(found[name], kind):
            raise checks.InputError(f"{path} holds {checks.shown(found[name])} as {name!r}; {way_out}")
    training = found["training"]
    numbers = {"accuracy": found["accuracy"], **{name: training.get(name) for name in ("steps", "seconds")}}
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**63:
            raise checks.InputError(f"{path} holds {checks.shown(value)} as {name!r}; {way_out}")
    return found


def _read_json(path: Path, way_out: str, needed: Collection[str] = ()) -> dict[str, Any]:
    try:
        content = limits.parse_json(path.read_bytes(), path.name)
        if not isinstance(content, dict):
            raise ValueError("it holds no names")
        if missing := [name for name in needed if name not in content]:
            raise ValueError(f"it lacks {missing[0]!r}")
    except (OSError, ValueError, TypeError) as error:
        raise checks.InputError(f"{path} cannot be read ({error}); {way_out}") from error
    return content


def holds_run(folder: Path) -> bool:
    """Whether a folder holds a run that has got to a checkpoint, or to its end."""
    return (folder / CHECKPOINT).exists() or (folder / RESULTS).exists()


def refuse_other_recipe(recipe: Recipe, folder: Path, *, longer: bool = False) -> Recipe:
    """Refuse a recipe that would give another model than that of the run in the folder; returns the run's own.

    With `longer`, the same training of more epochs is no other recipe where its schedule lets it go on.
    """
    written = recipes.load(folder / RECIPE)
    there, here = _comparable(written), _comparable(recipe)
    for key in here | there:
        one, other = (f"{values[key]!r}" if key in values else "not given" for values in (there, here))
        if one != other:
            if longer and key == "training.epochs" and recipe.training.epochs > written.training.epochs:
                schedule = recipe.training.schedule
                if is_open_ended(schedule):
                    continue
                raise checks.InputError(
                    f"{folder} holds a run of another recipe ({key} is {one} there and {other} here), and cannot go on "
                    f"to more epochs, for the rates of its {schedule.kind} schedule depend on how many there are; "
                    f"start from its weights by training.start_from={folder} with another --out"
                )
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
        title="",
        chosen_by_us={},
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
        data=recipes.DataSection(recipe.data.name, options=recipe.data.options),
        training=training,
    )
    return dict(_flatten(recipes.dump(recipe), ""))


def _flatten(value: Any, path: str) -> list[tuple[str, Any]]:
    if not isinstance(value, dict) or not value:
        return [(path, value)]
    return [item for key, each in value.items() for item in _flatten(each, f"{path}.{key}" if path else str(key))]
