"""What a report is made of: runs, comparisons of runs and saved results, read from disk."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angulus import build, checks, compare, evaluation
from angulus import recipe as recipes
from angulus.compare import Comparison
from angulus.data.images import Images, Splits
from angulus.evaluation import BENCHMARKS, TEST
from angulus.metrics.curves import Presorted
from angulus.metrics.verification import best_of
from angulus.protocols import classification
from angulus.protocols.classification import Predictions
from angulus.protocols.result import Result
from angulus.recipe import Recipe
from angulus.run import RECIPE, RESULTS, read_results
from angulus.training import checkpoint, formation, records
from angulus.training.formation import Formation

COMPARISON = "comparison.json"
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
    """The test images of data sets, each read once; nothing is downloaded."""

    def __init__(self) -> None:
        self._read: dict[str, Splits | str] = {}

    def of(self, recipe: Recipe) -> Images | str:
        """The test images of a recipe, or why they cannot be read now: a report goes without."""
        recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, download=False))
        key = repr(recipe.data)
        try:
            if key not in self._read:
                self._read[key] = build.splits(recipe)
            found = self._read[key]
            return found if isinstance(found, str) else build.hold_out(recipe, found)[0].test
        except (checks.InputError, OSError) as error:
            self._read[key] = str(error)
            return str(error)


@dataclass(frozen=True, eq=False)
class Content:
    """All that a report shows: comparisons over seeds, models (of a comparison the first seed's), saved results."""

    comparisons: list[Comparison] = field(default_factory=list)
    models: list[Model] = field(default_factory=list)
    measured: dict[str, Result] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Of the page."""
        named = [*(each.recipe for each in self.comparisons), *(each.recipe for each in self.models)]
        if named:
            return named[0].title or named[0].name
        return ", ".join(dict.fromkeys(result.protocol for result in self.measured.values()))


def gather(paths: Sequence[Path], *, draws: int = 1000) -> Content:
    """Read folders of runs and comparisons, and results saved as .json, in any mixture.

    Args:
        paths: at least one; what is given twice is shown once.
        draws: resamples of the test images behind the intervals of runs, 0 for none.

    Raises:
        checks.InputError: nothing is given, or something that is none of these, or a file that is damaged.
    """
    if not paths:
        raise checks.InputError("a report needs at least one run, comparison or saved result; got none")
    content = Content()
    images = DataSets()

    def add(name: str, holder: str, folder: Path, reference: Path | None = None, pooled: Path | None = None) -> None:
        name = _new_name(name, holder, [each.name for each in content.models])
        content.models.append(_model(name, folder, reference, images, draws))
        for saved in sorted(((pooled or folder) / BENCHMARKS).glob("*.json")):
            content.measured[_new_name(f"{name}: {saved.stem}", holder, content.measured)] = Result.read(saved)

    for path in dict.fromkeys(each.resolve() for each in paths):
        if path.suffix == ".json" and path.is_file():
            content.measured[_new_name(path.stem, path.parent.name, content.measured)] = Result.read(path)
        elif (path / COMPARISON).is_file():
            recipe = recipes.load_written(path / RECIPE)
            comparison = compare.collect(recipe, path)
            content.comparisons.append(comparison)
            grid = compare.section(recipe)
            judge, part = grid.quality_split, next(iter(grid.parts))
            reference = None if judge is None else compare.model_folder(path, grid, judge)
            for name in grid.grid:
                shown = f"{name}, {part}" if part else name  # of folds, the first one's model beside what all found
                pooled = compare.run_folder(path, name, grid.seeds[0])
                add(shown, path.name, compare.model_folder(path, grid, name), reference, pooled)
        elif (path / RESULTS).is_file():
            seed = re.fullmatch(r"seed-\d+", path.name)  # of a comparison: the variant's folder says more
            add(f"{path.parent.name}/{path.name}" if seed else path.name, path.parent.name, path)
        else:
            raise checks.InputError(
                f"a report is of run folders ({RESULTS}), comparisons ({COMPARISON}) and results that `angulus "
                f"evaluate --json` saved; {path} is none of them{_unfinished(path)}"
            )
    return content


def _model(name: str, folder: Path, reference: Path | None, data: DataSets, draws: int) -> Model:
    recipe = recipes.load_written(folder / RECIPE)
    test = _test(folder)
    figures = classification.evaluate(
        _predictions(folder),
        None if reference is None else _predictions(reference),
        low_fraction=recipe.evaluation.low_fraction,
        draws=draws,
    )
    images = data.of(recipe)
    if isinstance(images, Images) and not np.array_equal(images.labels.numpy(), test["labels"]):
        images = f"the data set {recipe.data.name!r} is no longer the one that {name} was tested on"
    return Model(
        name,
        folder,
        recipe,
        read_results(folder),
        test,
        figures,
        records.read_lines(folder / records.METRICS),
        _formation(folder, test["features"]),
        _weights(folder) if test["features"].shape[1] in (2, 3) else None,
        images,
    )


def _test(folder: Path) -> dict[str, NDArray[Any]]:
    test = evaluation.load_test(folder)
    kept: dict[str, NDArray[Any]] = {name: test[name] for name in COLUMNS if name in test}
    lengths = {len(each) for each in kept.values()}
    if len(kept) < len(COLUMNS) or kept["features"].ndim != 2 or len(lengths) > 1:
        raise checks.InputError(
            f"{folder / TEST} must hold features [N, d], norms, labels and predictions [N]; it does not: train again"
        )
    return kept


def _predictions(folder: Path) -> Predictions:
    test = _test(folder)
    return Predictions.of(
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
    path = folder / checkpoint.NAME
    if not path.is_file():
        return None
    weight = checkpoint.class_rows(checkpoint.load(path), folder).get("weight")
    return None if weight is None else np.asarray(weight.float().numpy())


def _new_name(name: str, folder: str, taken: Collection[str]) -> str:
    """A name that is not taken: with its folder before it, or else a number after it."""
    candidates = (name, f"{folder}/{name}", *(f"{name} ({number})" for number in range(2, len(taken) + 2)))
    return next(each for each in candidates if each not in taken)


def _unfinished(path: Path) -> str:
    if not path.exists():
        return ": there is nothing there"
    if (path / RECIPE).is_file():
        return ": its training has not ended; go on with it by --resume"
    return ""
