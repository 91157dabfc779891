"""Cross-validation: the results of several folds' models on their test images, pooled into one."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from angulus.core import files
from angulus.core.checks import InputError
from angulus.experiments import measure
from angulus.experiments import recipe as recipes
from angulus.experiments.recipe import Recipe
from angulus.experiments.run_files import DIVERGED, FINDINGS, RECIPE, RESULTS, read_results


def refuse_one_model(recipe: Recipe) -> None:
    """Refuse evaluations of a single model, because each fold has its own."""
    for benchmark in recipe.evaluation.benchmarks:
        if benchmark.images is not None:
            raise InputError(
                f"compare.folds pools the test images of each fold's model; the benchmark {benchmark.name!r} embeds "
                "images of its own by one model: leave compare.folds or the benchmark out"
            )
        if benchmark.protocol == "classification":
            raise InputError(
                "compare.folds has one model per fold, whose norms have no common scale; the benchmark "
                f"{benchmark.name!r} tells low quality by the norms of one model: leave it out; the table splits "
                "within each fold"
            )
    for key, value in (("validation", recipe.validation), ("training.snapshots", recipe.training.snapshots)):
        if value is not None:
            raise InputError(f"compare.folds has one model per fold, and {key} is of one model: leave one of them out")


def pool(recipe: Recipe, folder: Path, folds: Sequence[Path], columns: Sequence[Mapping[str, NDArray[Any]]]) -> None:
    """Write `test.npz`, `results.json` and `recipe.yaml` as if one model had been tested on all folds' images.

    Features and norms come from a different model in each fold, named by the column `folds`; good and low quality are
    split within each fold.

    Args:
        recipe: of one run, of any fold.
        folder: gets the files.
        folds: the folders of the ended runs.
        columns: the facts that each fold's data set has on its test images, such as their scans.
    """
    tests, results = [measure.load_test(fold) for fold in folds], [read_results(fold) for fold in folds]
    test, facts = _concatenate(tests), _concatenate(columns)
    test[measure.FOLDS] = np.repeat(np.arange(len(tests)), [len(part["labels"]) for part in tests])
    files.write_atomically(folder / measure.TEST, lambda file: np.savez_compressed(file, **test))
    training = [result["training"] for result in results]
    loss = float(np.mean([part["last_epoch_loss"] for part in training]))
    shutil.rmtree(folder / measure.BENCHMARKS, ignore_errors=True)  # of another evaluation
    pooled = measure.summarize_test(test, recipe.evaluation.low_fraction)
    diverged = [f"{fold.name}: {part[DIVERGED]}" for fold, part in zip(folds, results, strict=True) if DIVERGED in part]
    if diverged:
        pooled[DIVERGED] = " ".join(diverged)
    if findings := _findings(folds, results):
        pooled[FINDINGS] = findings
    if recipe.evaluation.benchmarks:
        facts |= {**test, "last_epoch_loss": np.asarray(loss)}
        pooled["benchmarks"] = measure.measure(recipe, facts, folder / measure.MODEL, torch.device("cpu"), folder)
    files.write_text(folder / RECIPE, recipes.to_yaml(recipe))
    files.write_json(
        folder / RESULTS,
        {
            **{name: value for name, value in results[0].items() if name not in (DIVERGED, FINDINGS)},
            **pooled,
            "folds": len(folds),
            "data": f"{len(folds)} folds, pooled; the first: {results[0]['data']}",
            "training": {
                **training[0],
                "steps": sum(part["steps"] for part in training),
                "seconds": sum(part["seconds"] for part in training),
                "last_epoch_loss": loss,
            },
        },
    )


def _findings(folds: Sequence[Path], results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the watch said of each fold, with the fold's name."""
    return [
        {**each, "sentence": f"{fold.name}, {each['sentence']}"}
        for fold, part in zip(folds, results, strict=True)
        for each in part.get(FINDINGS, ())
    ]


def _concatenate(parts: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, Any]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
