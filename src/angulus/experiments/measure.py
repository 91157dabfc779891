"""What a trained model is measured by: the test split's accuracy and norms, and the benchmarks of its recipe."""

from __future__ import annotations

import dataclasses
import math
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from angulus.core import checks, files, tensor_files
from angulus.core.embeddings import Embeddings
from angulus.data.sets.images import Images
from angulus.evaluation.metrics import classification, quality
from angulus.evaluation.protocols.result import Result
from angulus.evaluation.registry import PROTOCOLS, Given
from angulus.experiments.benchmark import Benchmark, place
from angulus.experiments.recipe import Recipe
from angulus.training import formation

if TYPE_CHECKING:  # a report reads this module's files without what trains
    from angulus.training.job import Job

TEST, BENCHMARKS = "test.npz", "benchmarks"
SCRATCH = ".embeddings-"  # how the folder begins that holds benchmarks' embeddings while they are measured
FOLDS = "folds"  # the column of a pooled `test.npz` that says which fold's model a row is of
MODEL = "model"  # a folder that `angulus.load` takes


def with_benchmarks(
    found: dict[str, Any], job: Job, images: Images, recipe: Recipe, folder: Path, last_epoch_loss: float
) -> dict[str, Any]:
    """What `results.json` says of a model: what `classify` found, and its benchmarks; one process does it.

    `folder` has `test.npz` and the model's folder; results of benchmarks that were measured before go.
    """
    shutil.rmtree(folder / BENCHMARKS, ignore_errors=True)
    if not recipe.evaluation.benchmarks:
        return found
    columns = {**images.columns, **load_test(folder), "last_epoch_loss": last_epoch_loss}
    return found | {"benchmarks": measure(recipe, columns, folder / MODEL, job.device, folder)}


def load_test(folder: Path) -> dict[str, np.ndarray]:
    """The test features, norms, labels and predictions (of two classes, the second's probability) that a run wrote."""
    return tensor_files.read_npz(folder / TEST, "delete the run folder and train it again")


def classify(job: Job, images: Images, recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Accuracy and norms on test images; writes `test.npz`: features, norms, labels, predictions.

    Every rank calls it where several trained, and gets the same.
    """
    from angulus.training.features import extract_features

    features, predictions, probabilities, _ = extract_features(job, images, recipe.evaluation.batch_size)
    norms = np.linalg.norm(features.astype(np.float64), axis=1)
    labels = images.labels.numpy()
    arrays = {"features": features, "norms": norms, "labels": labels, "predictions": predictions}
    if images.num_classes == 2:
        arrays["probabilities"] = probabilities
    job.ranks.run_on_first(
        lambda: files.write_atomically(folder / TEST, lambda file: np.savez_compressed(file, **arrays))
    )
    return described(arrays, recipe.evaluation.low_fraction)


def described(test: dict[str, np.ndarray], low_fraction: float) -> dict[str, Any]:
    """Accuracy and norms of the test images, of `test.npz`."""
    norms, labels, predictions = test["norms"], test["labels"], test["predictions"]
    correct, low = labels == predictions, low_quality(test, low_fraction)
    return {
        "accuracy": classification.accuracy(labels, predictions),
        "own_split": {name: dataclasses.asdict(group) for name, group in quality.groups(norms, correct, low).items()},
        "norm_bins": [dataclasses.asdict(each) for each in quality.norm_bins(norms, correct)],
        "per_class": classification.accuracy_per_class(labels, predictions),
    }


def low_quality(test: dict[str, np.ndarray], fraction: float) -> np.ndarray:
    """Which test images are low: the share with the smallest norms, within each fold where folds were pooled."""
    norms, folds = test["norms"], test.get(FOLDS, np.zeros(len(test["norms"])))
    low = np.empty(len(norms), dtype=bool)
    for fold in np.unique(folds):
        low[folds == fold] = quality.low_quality(norms[folds == fold], fraction)
    return low


def follow(job: Job, images: Images, recipe: Recipe, folder: Path) -> Callable[[int], dict[str, float]]:
    """What is to be called after every epoch (and with 0 before the first), to keep how features form.

    It returns what is to be logged: with `evaluation.each_epoch` the loss, accuracy and mean norm of the test images.
    """
    from angulus.training.features import extract_features

    rows = formation.sample(len(images), recipe.backbone.embedding_size)
    chosen = torch.from_numpy(rows)
    shown = Images(images.pixels[chosen], images.labels[chosen], images.class_names)
    each_epoch, batch_size = recipe.evaluation.each_epoch, recipe.evaluation.batch_size

    def on_epoch(epoch: int) -> dict[str, float]:
        keep, measures = formation.kept(epoch, recipe.training.epochs), each_epoch and epoch > 0
        if measures:
            found = extract_features(job, images, batch_size)
            features = found.features[rows]
        elif keep:
            features = extract_features(job, shown, batch_size, predict=False).features
        if keep:
            job.ranks.run_on_first(lambda: formation.record(folder, epoch, rows, features))
        job.backbone.train()
        job.head.train()
        if not measures:
            return {}
        norms = np.linalg.norm(found.features.astype(np.float64), axis=1)
        accuracy = classification.accuracy(images.labels.numpy(), found.predictions)
        return {"test_loss": float(found.losses.mean()), "test_accuracy": accuracy, "test_norm": float(norms.mean())}

    return on_epoch


def measure(recipe: Recipe, columns: dict[str, Any], model: Path, device: torch.device, folder: Path) -> dict[str, Any]:
    """The numbers of the recipe's benchmarks, by their names; each result is also saved whole, as NAME.json.

    Args:
        recipe: names the benchmarks.
        columns: what is known of the test images, and the loss of the last epoch, for the benchmarks that measure them.
        model: the trained model's folder.
        device: where it runs.
        folder: gets `benchmarks/`.
    """
    from angulus.models.embed import run as embed_images

    found = {}
    for left in folder.glob(f"{SCRATCH}*"):  # by a process that was killed; the run's lock keeps out any other
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=SCRATCH) as scratch:
        embedded: dict[tuple[str, str | None], Embeddings] = {}  # benchmarks share images
        for benchmark in recipe.evaluation.benchmarks:
            for source in (benchmark.images, benchmark.others):
                if source is not None and (source, benchmark.flip) not in embedded:
                    path = Path(scratch) / f"{len(embedded)}.npz"
                    embed_images(model, place(source), path, flip=benchmark.flip, device=device)
                    embedded[source, benchmark.flip] = Embeddings.read(path)
            result = _result(benchmark, embedded, columns)
            files.make_folder(folder / BENCHMARKS)
            result.save(folder / BENCHMARKS / f"{benchmark.name}.json")
            numbers = plain_numbers(result)
            for title in benchmark.columns:
                if benchmark.number(title, numbers) is None:
                    checks.warn(
                        f"benchmark {benchmark.name!r} has no number {benchmark.columns[title]!r} for the column "
                        f"{title!r}; it has {', '.join(numbers)}"
                    )
            found[benchmark.name] = {"protocol": benchmark.protocol, "numbers": numbers}
    return found


def _result(
    benchmark: Benchmark, embedded: dict[tuple[str, str | None], Embeddings], columns: dict[str, Any]
) -> Result:
    images, others = (
        None if source is None else embedded[source, benchmark.flip] for source in (benchmark.images, benchmark.others)
    )
    lists = {name: place(path) for name, path in benchmark.lists.items()}
    return PROTOCOLS[benchmark.protocol].run(Given(lists, benchmark.options, images, others, columns))


def plain_numbers(result: Result) -> dict[str, Any]:
    """Each number as plain values; what is undefined is null."""

    def plain(value: float | None) -> float | None:
        return None if value is None or not math.isfinite(value) else value

    return {
        number.name: {
            "value": plain(number.value),
            "interval": None if number.interval is None else [plain(number.interval.low), plain(number.interval.high)],
            "spread": plain(number.spread),
            **({"no_interval": number.no_interval} if number.no_interval else {}),
        }
        for number in result.numbers
    }
