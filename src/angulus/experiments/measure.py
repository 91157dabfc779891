"""Measure a trained model: accuracy and norms on the test split, and the benchmarks of its recipe."""

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
from angulus.evaluation.metrics import accuracy as accuracies
from angulus.evaluation.metrics import image_quality
from angulus.evaluation.protocols.result import Result
from angulus.evaluation.registry import PROTOCOLS
from angulus.evaluation.runners import Inputs
from angulus.experiments.benchmark import Benchmark, place
from angulus.experiments.recipe import Recipe
from angulus.training import formation

if TYPE_CHECKING:  # a report reads this module's files without what trains
    from angulus.training.job import Job

TEST, BENCHMARKS = "test.npz", "benchmarks"
SCRATCH = ".embeddings-"  # prefix of the folder with the benchmarks' embeddings while they are measured
FOLDS = "folds"  # column of a pooled `test.npz`: the fold whose model a row comes from
MODEL = "model"  # a folder that `angulus.load` takes
BY_DIMENSION = "by_dimension"  # key of the results of a nested objective
_AT_A_TIME = 256  # rows whose logits are computed at a time


def add_benchmarks(
    result: dict[str, Any], job: Job, images: Images, recipe: Recipe, folder: Path, last_epoch_loss: float
) -> dict[str, Any]:
    """The result of `classify`, with the recipe's benchmarks; one process calls it.

    `folder` has `test.npz` and the model's folder; earlier results of benchmarks in it are deleted.
    """
    shutil.rmtree(folder / BENCHMARKS, ignore_errors=True)
    if not recipe.evaluation.benchmarks:
        return result
    columns = {**images.columns, **load_test(folder), "last_epoch_loss": last_epoch_loss}
    return result | {"benchmarks": measure(recipe, columns, folder / MODEL, job.device, folder)}


def load_test(folder: Path) -> dict[str, np.ndarray]:
    """The test features, norms, labels and predictions of a run; with two classes also the second's probability."""
    return tensor_files.read_npz(folder / TEST, "delete the run folder and train it again")


def classify(job: Job, images: Images, recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Accuracy and norms on test images; writes `test.npz`. Every rank calls it and gets the same."""
    from angulus.training.features import extract_features

    features, predictions, probabilities, _ = extract_features(job, images, recipe.evaluation.batch_size)
    norms = np.linalg.norm(features.astype(np.float64), axis=1)
    labels = images.labels.numpy()
    arrays = {"features": features, "norms": norms, "labels": labels, "predictions": predictions}
    if images.num_classes == 2:
        arrays["probabilities"] = probabilities
    job.ranks.run_on_first(lambda: files.write_atomically(folder / TEST, lambda f: np.savez_compressed(f, **arrays)))
    result = summarize_test(arrays, recipe.evaluation.low_fraction)
    if recipe.objective.nested:
        result[BY_DIMENSION] = _by_dimension(job, features, labels, result["accuracy"])
    return result


@torch.no_grad()
def _by_dimension(job: Job, features: np.ndarray, labels: np.ndarray, whole: float) -> list[dict[str, Any]]:
    """The accuracy by the first numbers of the features, for each size of a nested objective, and by all."""
    found = []
    for size in job.head.objective.spec.nested:
        parts = torch.split(torch.from_numpy(features[:, :size]), _AT_A_TIME)
        predicted = [job.head.logits(part.to(job.device)).argmax(dim=1).cpu() for part in parts]
        accuracy = accuracies.accuracy(labels, torch.cat(predicted).numpy())
        found.append({"dimensions": size, "accuracy": accuracy})
    return [*found, {"dimensions": features.shape[1], "accuracy": whole}]


def summarize_test(test: dict[str, np.ndarray], low_fraction: float) -> dict[str, Any]:
    """Accuracy and norms of the test images, from the arrays of `test.npz`."""
    norms, labels, predictions = test["norms"], test["labels"], test["predictions"]
    correct, low = labels == predictions, low_quality(test, low_fraction)
    groups = image_quality.groups(norms, correct, low)
    return {
        "accuracy": accuracies.accuracy(labels, predictions),
        "own_split": {name: dataclasses.asdict(group) for name, group in groups.items()},
        "norm_bins": [dataclasses.asdict(part) for part in image_quality.norm_bins(norms, correct)],
        "per_class": accuracies.accuracy_per_class(labels, predictions),
    }


def low_quality(test: dict[str, np.ndarray], fraction: float) -> np.ndarray:
    """Which test images are of low quality: the share with the smallest norms, within each fold of pooled folds."""
    norms, folds = test["norms"], test.get(FOLDS, np.zeros(len(test["norms"])))
    low = np.empty(len(norms), dtype=bool)
    for fold in np.unique(folds):
        low[folds == fold] = image_quality.low_quality(norms[folds == fold], fraction)
    return low


def follow(job: Job, images: Images, recipe: Recipe, folder: Path) -> Callable[[int], dict[str, float]]:
    """A function to call after every epoch (and with 0 before the first), which records how features form.

    With `evaluation.each_epoch` it returns the loss, accuracy and mean norm of the test images, to be logged.
    """
    from angulus.training.features import extract_features

    rows = formation.sample(len(images), recipe.backbone.embedding_size)
    index = torch.from_numpy(rows)
    shown = Images(images.pixels[index], images.labels[index], images.class_names)
    each_epoch, batch_size = recipe.evaluation.each_epoch, recipe.evaluation.batch_size

    def on_epoch(epoch: int) -> dict[str, float]:
        recorded, measured = formation.is_recorded(epoch, recipe.training.epochs), each_epoch and epoch > 0
        if measured:
            embedded = extract_features(job, images, batch_size)
            features = embedded.features[rows]
        elif recorded:
            features = extract_features(job, shown, batch_size, predict=False).features
        if recorded:
            job.ranks.run_on_first(lambda: formation.record(folder, epoch, rows, features))
        job.backbone.train()
        job.head.train()
        if not measured:
            return {}
        norms = np.linalg.norm(embedded.features.astype(np.float64), axis=1)
        accuracy = accuracies.accuracy(images.labels.numpy(), embedded.predictions)
        return {"test_loss": float(embedded.losses.mean()), "test_accuracy": accuracy, "test_norm": float(norms.mean())}

    return on_epoch


def measure(recipe: Recipe, columns: dict[str, Any], model: Path, device: torch.device, folder: Path) -> dict[str, Any]:
    """The numbers of the recipe's benchmarks by name; each whole result is saved as `benchmarks/NAME.json`.

    `columns` are the facts on the test images, and the loss of the last epoch, for benchmarks that measure them.
    """
    from angulus.models.embed import run as embed_images

    measured = {}
    for leftover in folder.glob(f"{SCRATCH}*"):  # of a process that was killed; the run's lock keeps out any other
        shutil.rmtree(leftover, ignore_errors=True)
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
            measured[benchmark.name] = {"protocol": benchmark.protocol, "numbers": numbers}
    return measured


def _result(benchmark: Benchmark, vectors: dict[tuple[str, str | None], Embeddings], columns: dict[str, Any]) -> Result:
    sources = benchmark.images, benchmark.others
    images, others = (None if source is None else vectors[source, benchmark.flip] for source in sources)
    lists = {name: place(path) for name, path in benchmark.lists.items()}
    return PROTOCOLS[benchmark.protocol].run(Inputs(lists, benchmark.options, images, others, columns=columns))


def plain_numbers(result: Result) -> dict[str, Any]:
    """Each number as plain values; undefined ones are null."""

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
