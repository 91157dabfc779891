"""A finished run as a report takes it: read from its folder, with its test images where they can be read."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angulus.core import checks
from angulus.data.sets.images import Images, Splits
from angulus.evaluation.metrics.curves import Presorted
from angulus.evaluation.metrics.verification import best_of
from angulus.evaluation.protocols import classification
from angulus.evaluation.protocols.classification import Predictions
from angulus.evaluation.protocols.result import Result
from angulus.experiments import build, measure
from angulus.experiments import recipe as recipes
from angulus.experiments.measure import TEST
from angulus.experiments.recipe import Recipe
from angulus.experiments.run_files import RECIPE, read_results
from angulus.training import formation, log
from angulus.training.batches import batches
from angulus.training.formation import Formation
from angulus.training.state import CHECKPOINT, class_rows, load_checkpoint

COLUMNS = ("features", "norms", "labels", "predictions")  # of a run's test images
PAIRED = 1000  # test images whose pairs are looked at: half a million pairs


@dataclass(frozen=True, eq=False)
class Model:
    """One finished run.

    Attributes:
        name: the variant's, or the folder's.
        recipe: what it was trained by.
        results: what `results.json` holds.
        test: features [N, d], norms [N], labels [N] and predictions [N] of the test images.
        figures: accuracy by quality and class, with intervals over the test images.
        log: rows of `metrics.jsonl`.
        formation: how the features formed, if the run kept that.
        weights: of the classes, [C, d], where features have two or three dimensions and the checkpoint is there.
        images: the test images, or why there are none to be shown.
    """

    name: str
    folder: Path
    recipe: Recipe
    results: dict[str, Any]
    test: dict[str, NDArray[Any]]
    figures: Result
    log: list[dict[str, Any]]
    formation: Formation | None
    weights: NDArray[np.float32] | None
    images: Images | str

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Which test images it classifies rightly."""
        return np.asarray(self.test["labels"] == self.test["predictions"])

    def class_name(self, label: int) -> str:
        """What a class is called; its number where the images are not there."""
        return self.images.class_names[label] if isinstance(self.images, Images) else str(label)


@dataclass(frozen=True, eq=False)
class ImagePairs:
    """All pairs of some test images, by cosine.

    Attributes:
        images: how many images there are.
        left, right: [P], which test images.
        scores: [P], their cosine.
        same: [P], whether they are of one class.
        accepted: [P], taken for the same at the threshold that is the most accurate for these very pairs.
    """

    images: int
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    scores: NDArray[np.float64]
    same: NDArray[np.bool_]
    accepted: NDArray[np.bool_]

    @staticmethod
    def of(model: Model) -> ImagePairs | None:
        """The pairs of `PAIRED` test images, evenly spaced; None where they are all of one kind."""
        rows = np.unique(np.linspace(0, len(model.correct) - 1, PAIRED).round().astype(np.int64))
        features, labels = model.test["features"][rows].astype(np.float64), model.test["labels"][rows]
        lengths = np.linalg.norm(features, axis=1, keepdims=True)
        unit = features / np.where(lengths > 0, lengths, 1)
        left, right = np.triu_indices(len(rows), 1)
        same = labels[left] == labels[right]
        if same.all() or not same.any():
            return None
        scores = (unit @ unit.T)[left, right]
        threshold, _ = best_of(Presorted.of(scores, same))
        return ImagePairs(len(rows), rows[left], rows[right], scores, same, scores >= threshold)


class DataSets:
    """The images of data sets, each read once; nothing is downloaded."""

    def __init__(self) -> None:
        self._read: dict[str, Splits | str] = {}

    def test(self, recipe: Recipe) -> Images | str:
        """The test images of a recipe, or why they cannot be read now: a report goes without."""
        found = self._splits(recipe)
        return found if isinstance(found, str) else found.test

    def steps(self, recipe: Recipe) -> int | None:
        """How many steps a recipe's training has; None where its images cannot be read now."""
        found, training = self._splits(recipe), recipe.training
        if isinstance(found, str):
            return None
        return training.epochs * len(batches(len(found.train), training.batch_size, 0, 0))

    def _splits(self, recipe: Recipe) -> Splits | str:
        recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, download=False))
        key = repr(recipe.data)
        try:
            if key not in self._read:
                self._read[key] = build.splits(recipe)
            found = self._read[key]
            return found if isinstance(found, str) else build.hold_out(recipe, found)[0]
        except (checks.InputError, OSError) as error:
            self._read[key] = str(error)
            return str(error)


def read(name: str, folder: Path, reference: Path | None, data: DataSets, draws: int) -> Model:
    """A finished run.

    Args:
        name: what the report calls it.
        folder: where it lies.
        reference: of another run, whose norms split good from low; None: its own do.
        data: where its images come from.
        draws: resamples behind the intervals.

    Raises:
        checks.InputError: a file that is damaged, or of another run.
    """
    recipe = recipes.load(folder / RECIPE)
    if "folds" in read_results(folder):
        raise checks.InputError(
            f"{folder} pools folds, which have a model each; give the comparison, or one of its folds"
        )
    test = read_test(folder)
    figures = classification.evaluate(
        _predictions(folder),
        None if reference is None else _predictions(reference),
        low_fraction=recipe.evaluation.low_fraction,
        draws=draws,
    )
    images = data.test(recipe)
    if isinstance(images, Images) and not np.array_equal(images.labels.numpy(), test["labels"]):
        images = f"the data set {recipe.data.name!r} is no longer the one that {name} was tested on"
    return Model(
        name,
        folder,
        recipe,
        read_results(folder),
        test,
        figures,
        log.read_lines(folder / log.METRICS),
        _formation(folder, test["features"]),
        _weights(folder) if test["features"].shape[1] in (2, 3) else None,
        images,
    )


def read_test(folder: Path) -> dict[str, NDArray[Any]]:
    """What a run found of its test images: features [N, d], norms, labels and predictions [N].

    Raises:
        checks.InputError: one of them is missing, or has another shape.
    """
    test = measure.load_test(folder)
    kept: dict[str, NDArray[Any]] = {name: test[name] for name in COLUMNS if name in test}
    lengths = {len(each) for each in kept.values()}
    if len(kept) < len(COLUMNS) or kept["features"].ndim != 2 or len(lengths) > 1:
        raise checks.InputError(
            f"{folder / TEST} must hold features [N, d], norms, labels and predictions [N]; it does not: train again"
        )
    for name in ("features", "norms"):
        if kept[name].dtype.kind != "f" or not np.isfinite(kept[name]).all():
            raise checks.InputError(f"{folder / TEST} must hold finite {name}; it does not: train again")
    for name in ("labels", "predictions"):
        if kept[name].dtype.kind not in "iu" or (kept[name] < 0).any():
            raise checks.InputError(f"{folder / TEST} must hold whole {name} >= 0; it does not: train again")
    return kept


def _predictions(folder: Path) -> Predictions:
    test = read_test(folder)
    return Predictions.from_arrays(
        test["labels"], predictions=test["predictions"], norms=test["norms"], source=str(folder / TEST)
    )


def _formation(folder: Path, features: NDArray[Any]) -> Formation | None:
    if not (folder / formation.NAME).is_file():
        return None
    found = formation.read(folder)
    if found.features.shape[2] != features.shape[1] or found.rows.max(initial=0) >= len(features):
        raise checks.InputError(
            f"{folder / formation.NAME} must be of the images and features of {TEST}; it is of others; remove it: a "
            "report does without"
        )
    return found


def _weights(folder: Path) -> NDArray[np.float32] | None:
    path = folder / CHECKPOINT
    if not path.is_file():
        return None
    weight = class_rows(load_checkpoint(path), folder).get("weight")
    return None if weight is None else np.asarray(weight.float().numpy())
