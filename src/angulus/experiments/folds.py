"""Cross-validation: what the models of several folds found on their own test images, as one result."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from angulus.core import checks, files
from angulus.experiments import measure
from angulus.experiments import recipe as recipes
from angulus.experiments.recipe import Recipe
from angulus.experiments.run_files import DIVERGED, RECIPE, RESULTS, read_results


def refuse_one_model(recipe: Recipe) -> None:
    """Refuse what measures one model, for folds have a model each."""
    for benchmark in recipe.evaluation.benchmarks:
        if benchmark.images is not None:
            raise checks.InputError(
                f"compare.folds pools the test images of each fold's model; the benchmark {benchmark.name!r} embeds "
                "images of its own by one model: leave compare.folds or the benchmark out"
            )
        if benchmark.protocol == "classification":
            raise checks.InputError(
                f"compare.folds has a model a fold, whose norms have no common scale; the benchmark {benchmark.name!r} "
                "tells low quality by the norms of one model: leave it out; the table splits within each fold"
            )
    for key, value in (("validation", recipe.validation), ("training.snapshots", recipe.training.snapshots)):
        if value is not None:
            raise checks.InputError(
                f"compare.folds has a model a fold, and {key} is of one model: leave one of them out"
            )


def pool(recipe: Recipe, folder: Path, folds: Sequence[Path], columns: Sequence[Mapping[str, NDArray[Any]]]) -> None:
    """Write `test.npz`, `results.json` and `recipe.yaml` as if one model had been tested on all the folds' images.

    Features, and so norms, are of another model in each fold: `folds` says which, and good and low quality are split
    within each.

    Args:
        recipe: of one run, of any fold.
        folder: gets the files.
        folds: the finished runs.
        columns: what each fold's data set knows of its test images, such as the scan of each.
    """
    tests, results = [measure.load_test(each) for each in folds], [read_results(each) for each in folds]
    test: dict[str, Any] = {name: np.concatenate([each[name] for each in tests]) for name in tests[0]}
    test[measure.FOLDS] = np.repeat(np.arange(len(tests)), [len(each["labels"]) for each in tests])
    known = {name: np.concatenate([each[name] for each in columns]) for name in columns[0]}
    files.write_atomically(folder / measure.TEST, lambda file: np.savez_compressed(file, **test))
    training = [each["training"] for each in results]
    loss = float(np.mean([each["last_epoch_loss"] for each in training]))
    shutil.rmtree(folder / measure.BENCHMARKS, ignore_errors=True)  # of another evaluation
    found = measure.summarize_test(test, recipe.evaluation.low_fraction)
    if broken := [
        f"{each.name}: {part[DIVERGED]}" for each, part in zip(folds, results, strict=True) if DIVERGED in part
    ]:
        found[DIVERGED] = " ".join(broken)
    if recipe.evaluation.benchmarks:
        known |= {**test, "last_epoch_loss": np.asarray(loss)}
        found["benchmarks"] = measure.measure(recipe, known, folder / measure.MODEL, torch.device("cpu"), folder)
    files.write_text(folder / RECIPE, recipes.to_yaml(recipe))
    files.write_json(
        folder / RESULTS,
        {
            **{name: value for name, value in results[0].items() if name != DIVERGED},
            **found,
            "folds": len(folds),
            "data": f"{len(folds)} folds, pooled; the first: {results[0]['data']}",
            "training": {
                **training[0],
                "steps": sum(each["steps"] for each in training),
                "seconds": sum(each["seconds"] for each in training),
                "last_epoch_loss": loss,
            },
        },
    )
