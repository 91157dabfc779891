"""A finished run for a report: read from its folder, with its test images if they can still be read."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angulus.core.checks import InputError
from angulus.data.sets.images import Images, Splits
from angulus.evaluation.metrics.curves import Presorted
from angulus.evaluation.metrics.verification import best_of
from angulus.evaluation.protocols import classification
from angulus.evaluation.protocols.classification import Predictions
from angulus.evaluation.protocols.result import Result
from angulus.experiments import recipe as recipes
from angulus.experiments.measure import TEST, load_test
from angulus.experiments.recipe import Recipe
from angulus.experiments.run_files import RECIPE, read_results
from angulus.training import formation, log
from angulus.training.formation import Formation
from angulus.training.state import CHECKPOINT, class_rows, load_checkpoint

COLUMNS = ("features", "norms", "labels", "predictions")  # of a run's test images
MOST_PAIRED = 1000  # test images, which give half a million pairs


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """One finished run."""

    name: str  # of the variant or the folder
    folder: Path
    recipe: Recipe
    results: dict[str, Any]  # the content of `results.json`
    test: dict[str, NDArray[Any]]  # features [N, d], norms, labels and predictions [N] of the test images
    accuracies: Result  # accuracy and mean norm by quality and class, with intervals over the test images
    log: list[dict[str, Any]]  # rows of `metrics.jsonl`
    formation: Formation | None  # features by epoch, if the run recorded them
    # of the classes, [C, d] or [C, K, d]; needs 2-D or 3-D features and the checkpoint
    weights: NDArray[np.float32] | None
    images: Images | str  # the test images, or the reason why they cannot be shown

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Which test images are classified correctly."""
        return np.asarray(self.test["labels"] == self.test["predictions"])

    def class_name(self, label: int) -> str:
        """The name of a class; its number if the images cannot be read."""
        return self.images.class_names[label] if isinstance(self.images, Images) else str(label)

    def image_id(self, row: int) -> str:
        """The id of a test image in its records; its number if it has none."""
        ids = self.images.ids if isinstance(self.images, Images) else ()
        return ids[row] if len(ids) else f"test image {row}"


@dataclass(frozen=True, eq=False)
class ImagePairs:
    """All pairs of some test images, by cosine."""

    left: NDArray[np.int64]  # [P], rows of the test images
    right: NDArray[np.int64]
    scores: NDArray[np.float64]  # [P], their cosine
    same: NDArray[np.bool_]  # [P], of one class
    accepted: NDArray[np.bool_]  # [P], taken for the same at the threshold with the highest accuracy on these pairs

    @staticmethod
    def of(run: FinishedRun) -> ImagePairs | None:
        """The pairs of `MOST_PAIRED` evenly spaced test images; None if all are of one class, or of different ones."""
        rows = np.unique(np.linspace(0, len(run.correct) - 1, MOST_PAIRED).round().astype(np.int64))
        features, labels = run.test["features"][rows].astype(np.float64), run.test["labels"][rows]
        lengths = np.linalg.norm(features, axis=1, keepdims=True)
        unit = features / np.where(lengths > 0, lengths, 1)
        left, right = np.triu_indices(len(rows), 1)
        same = labels[left] == labels[right]
        if same.all() or not same.any():
            return None
        scores = (unit @ unit.T)[left, right]
        threshold, _ = best_of(Presorted.of(scores, same))
        return ImagePairs(rows[left], rows[right], scores, same, scores >= threshold)


@dataclass(frozen=True)
class DataSets:
    """Reads the images of each data set once, and downloads nothing."""

    _read: dict[str, Splits | str] = field(default_factory=dict)

    def test(self, recipe: Recipe) -> Images | str:
        """The test images of a recipe, or the reason why they cannot be read."""
        splits = self._splits(recipe)
        return splits if isinstance(splits, str) else splits.test

    def steps(self, recipe: Recipe) -> int | None:
        """The number of steps in a recipe's training; None if its images cannot be read."""
        from angulus.training.batches import steps_per_epoch  # only unfinished runs need it

        splits, training = self._splits(recipe), recipe.training
        if isinstance(splits, str):
            return None
        return training.epochs * steps_per_epoch(splits.train.labels, training)

    def _splits(self, recipe: Recipe) -> Splits | str:
        from angulus.experiments import build

        recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, download=False))
        key = repr(recipe.data)
        try:
            if key not in self._read:
                self._read[key] = build.splits(recipe)
            splits = self._read[key]
            return splits if isinstance(splits, str) else build.hold_out(recipe, splits)[0]
        except (InputError, OSError) as error:
            self._read[key] = str(error)
            return str(error)


def read_run(name: str, folder: Path, reference: Path | None, data: DataSets, draws: int) -> FinishedRun:
    """Read a finished run; the norms of the `reference` run, or else its own, split good from low quality."""
    recipe = recipes.stored(folder / RECIPE)
    results = read_results(folder)
    if "folds" in results:
        raise InputError(f"{folder} pools folds, each with its own model; give the comparison, or one of its folds")
    test = read_test(folder)
    other = None if reference is None else _predictions(read_test(reference), reference)
    low = recipe.evaluation.low_fraction
    accuracies = classification.evaluate(_predictions(test, folder), other, low_fraction=low, draws=draws)
    images = data.test(recipe)
    if isinstance(images, Images) and not np.array_equal(images.labels.numpy(), test["labels"]):
        images = f"the data set {recipe.data.name!r} is no longer the one that {name} was tested on"
    rows, recorded = log.read_lines(folder / log.METRICS), _formation(folder, test["features"])
    weights = _weights(folder) if test["features"].shape[1] in (2, 3) else None
    return FinishedRun(name, folder, recipe, results, test, accuracies, rows, recorded, weights, images)


def read_test(folder: Path) -> dict[str, NDArray[Any]]:
    """A run's features [N, d], norms, labels and predictions [N] of its test images.

    Raises:
        InputError: one of them is missing, or has another shape.
    """
    saved = load_test(folder)
    test: dict[str, NDArray[Any]] = {name: saved[name] for name in COLUMNS if name in saved}
    lengths = {len(values) for values in test.values()}
    if len(test) < len(COLUMNS) or test["features"].ndim != 2 or len(lengths) > 1:
        raise InputError(f"{folder / TEST} must hold features [N, d], norms, labels and predictions [N]; train again")
    for name in ("features", "norms"):
        if test[name].dtype.kind != "f" or not np.isfinite(test[name]).all():
            raise InputError(f"{folder / TEST} must hold finite {name}; it does not: train again")
    for name in ("labels", "predictions"):
        if test[name].dtype.kind not in "iu" or (test[name] < 0).any():
            raise InputError(f"{folder / TEST} must hold whole {name} >= 0; it does not: train again")
    return test


def _predictions(test: dict[str, NDArray[Any]], folder: Path) -> Predictions:
    source = str(folder / TEST)
    return Predictions.from_arrays(test["labels"], predictions=test["predictions"], norms=test["norms"], source=source)


def _formation(folder: Path, features: NDArray[Any]) -> Formation | None:
    if not (folder / formation.NAME).is_file():
        return None
    recorded = formation.read(folder)
    if recorded.features.shape[2] != features.shape[1] or recorded.rows.max(initial=0) >= len(features):
        raise InputError(
            f"{folder / formation.NAME} must hold the images and features of {TEST}, but it holds others; remove it: "
            "the report works without it"
        )
    return recorded


def _weights(folder: Path) -> NDArray[np.float32] | None:
    path = folder / CHECKPOINT
    if not path.is_file():
        return None
    weight = class_rows(load_checkpoint(path), folder).get("weight")
    return None if weight is None else np.asarray(weight.float().numpy())
