"""The files of a run's folder, and whether a recipe can continue from what they hold."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import pydantic

from angulus.core import checks, environment, files, limits
from angulus.core.checks import InputError
from angulus.data.convert import LEFT_OUT, left_out_text
from angulus.data.sets.images import Splits, fingerprint
from angulus.experiments import plugins
from angulus.experiments import recipe as recipes
from angulus.experiments.overrides import CHANGEABLE
from angulus.experiments.recipe import Recipe
from angulus.training.job import Job
from angulus.training.schedule import is_open_ended
from angulus.training.state import CHECKPOINT

RECIPE, RESULTS, ENVIRONMENT, DATA = "recipe.yaml", "results.json", "environment.json", "data.json"
MEASURING = ".measuring"  # exists while an ended run is evaluated again
FINDINGS = "findings"  # in results.json, what the watch saw during the training
DIVERGED = "diverged"  # in results.json, the sentence on a training that diverged

_Number = Annotated[float, pydantic.Field(ge=0, lt=2**63)]


class _TrainingResults(pydantic.BaseModel, strict=True):
    steps: _Number
    seconds: _Number


class _Finding(pydantic.BaseModel, strict=True):
    step: _Number
    sign: str
    sentence: str


class _Results(pydantic.BaseModel, strict=True):
    """What the results of every run hold."""

    name: str
    data: str
    accuracy: _Number
    training: _TrainingResults
    environment: dict[str, Any]
    findings: list[_Finding] = []


class RunState(NamedTuple):
    """What a folder holds of a run: a checkpoint; results, if it ended; whether the recipe still measures the same."""

    trained: bool = False
    results: dict[str, Any] | None = None
    measured: bool = False


def own_run(recipe: Recipe, folder: Path, resume: bool) -> Recipe | None:
    """The recipe of the run in the folder, None if there is none; refuses another recipe, or a run not to resume."""
    if not holds_run(folder):  # a run that stopped before its first checkpoint has nothing to lose
        return None
    stored = refuse_other_recipe(recipe, folder, longer=True)
    if not resume:
        longer = recipe.training.epochs > stored.training.epochs
        more = f" to {recipe.training.epochs} epochs (it has {stored.training.epochs})" if longer else ""
        raise InputError(f"{folder} holds a run already; continue it{more} with --resume, or choose another --out")
    return stored


def read_run_state(recipe: Recipe, folder: Path, splits: Splits, resume: bool) -> RunState:
    """What the folder holds; refuses a run of another recipe or other data."""
    ended, trained = (folder / RESULTS).exists(), (folder / CHECKPOINT).exists()
    stored = own_run(recipe, folder, resume)
    if stored is None:
        return RunState()
    longer = recipe.training.epochs > stored.training.epochs
    _refuse_other_images(splits, folder)
    measured = stored.evaluation == recipe.evaluation and not being_measured(folder)
    if ended and not trained and (longer or not measured):
        task = "trained for more epochs" if longer else "evaluated again, as this recipe asks"
        raise InputError(f"{folder} holds an ended run without {CHECKPOINT}; it cannot be {task}; choose another --out")
    return RunState(trained, read_results(folder), measured) if ended and not longer else RunState(trained)


def being_measured(folder: Path) -> bool:
    """Whether evaluating an ended run again was interrupted, so that its files are of two evaluations."""
    return (folder / MEASURING).exists()


def write_run_files(recipe: Recipe, folder: Path, splits: Splits, trained: bool, job: Job) -> None:
    """Write what a run starts with: its recipe, its environment and, if it is new, a digest of its data."""
    (folder / RESULTS).unlink(missing_ok=True)  # of fewer epochs
    if not trained:
        parts = {"train": fingerprint(splits.train), "test": fingerprint(splits.test)}
        files.write_json(folder / DATA, {"source": splits.source, **parts})
        (folder / LEFT_OUT).unlink(missing_ok=True)  # of a run that stopped before its first checkpoint
        if splits.left_out:
            files.write_text(folder / LEFT_OUT, left_out_text(splits.left_out))
    about = {"plugins": plugins.digests(recipe.plugins)} if recipe.plugins else {}
    files.write_json(folder / ENVIRONMENT, environment.describe(job.device) | about)
    files.write_text(folder / RECIPE, recipes.to_yaml(recipe))


def read_results(folder: Path) -> dict[str, Any]:
    """What `results.json` of an ended run holds."""
    path, way_out = folder / RESULTS, "delete it to evaluate again"
    results = _read_json(path, way_out)
    try:
        _Results.model_validate(results)
    except pydantic.ValidationError as error:
        details = error.errors()[0]
        name = ".".join(map(str, details["loc"]))
        if details["type"] == "missing":
            raise InputError(f"{path} cannot be read (it lacks {name!r}); {way_out}") from error
        raise InputError(f"{path} holds {checks.shown(details['input'])} as {name!r}; {way_out}") from error
    return results


def _read_json(path: Path, way_out: str) -> dict[str, Any]:
    try:
        content = limits.parse_json(path.read_bytes(), path.name)
        if not isinstance(content, dict):
            raise ValueError("it holds no names")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); {way_out}") from error
    return content


def holds_run(folder: Path) -> bool:
    """Whether a folder holds a run with a checkpoint or results."""
    return (folder / CHECKPOINT).exists() or (folder / RESULTS).exists()


def refuse_other_recipe(recipe: Recipe, folder: Path, *, longer: bool = False) -> Recipe:
    """Refuse a recipe that would train another model than the run in the folder; returns the run's recipe.

    With `longer`, more epochs are accepted if the schedule does not depend on their number.
    """
    stored = recipes.stored(folder / RECIPE)
    old, new = _comparable(stored), _comparable(recipe)
    schedule = recipe.training.schedule
    for key in new | old:
        before, after = (f"{values[key]!r}" if key in values else "not given" for values in (old, new))
        if before == after:
            continue
        more = longer and key == "training.epochs" and recipe.training.epochs > stored.training.epochs
        if more and is_open_ended(schedule) and recipe.objective.ramp is None:
            continue
        difference = f"{folder} holds a run of another recipe ({key} is {before} there and {after} here)"
        if more:
            rates = f"the rates of its {schedule.kind} schedule depend"
            cause = rates if recipe.objective.ramp is None else "its objective.ramp depends"
            raise InputError(
                f"{difference}, and cannot be trained for more epochs, because {cause} on their number; "
                f"start from its weights by training.start_from={folder} with another --out"
            )
        raise InputError(f"{difference}; choose another --out")
    if recipe.plugins:
        about = _read_json(folder / ENVIRONMENT, "choose another --out").get("plugins")
        plugins.refuse_changed(about if isinstance(about, dict) else {}, recipe.plugins, folder)
    return stored


def choose_folder(default: Path, resume: bool) -> Path:
    """The folder of a run that names none: the first that is free of `default`, `default`-2, ...; to resume, the last.

    Numbers are not given again, so that the highest is always the newest.
    """
    taken = {1: default} if (default / RECIPE).exists() else {}
    for path in default.parent.glob(f"{glob.escape(default.name)}-*/{RECIPE}"):
        number = path.parent.name.removeprefix(f"{default.name}-")
        if number.isdecimal() and int(number) > 1:
            taken[int(number)] = path.parent
    newest = max(taken, default=0)
    if newest == 0 or resume:
        return taken.get(newest, default)
    return default.with_name(f"{default.name}-{newest + 1}")


def _refuse_other_images(splits: Splits, folder: Path) -> None:
    if not (folder / DATA).exists():
        return
    stored = _read_json(folder / DATA, "delete it to resume without checking that the data are the same")
    for key, name, images in (("train", "training", splits.train), ("test", "test", splits.test)):
        before, now = stored.get(key), fingerprint(images)
        if before != now:
            count = f"{before['images']:,} there and {now['images']:,} here" if before else "none there"
            raise InputError(
                f"{folder} holds a run on other {name} images ({count}; number, sides, classes or labels differ): it "
                f"was trained on {stored.get('source')}, and this is {splits.source}; set data.root to the former, or "
                "choose another --out"
            )


def _comparable(recipe: Recipe) -> dict[str, Any]:
    """A recipe by dotted keys, without what may change after training.

    Validation and `evaluation.each_epoch` stay although they move no weight: they are measured during training only.
    """
    changeable = (*CHANGEABLE, "compare", "data.root", "data.path", "data.download", "compatible_with.model")
    return {key: value for key, value in recipes.flat(recipe).items() if not key.startswith(changeable)}
