"""A small recipe on a few digits, so that a whole run takes a tenth of a second, and what its folder ends up with."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from angulus import data
from angulus.data import Images, Splits
from angulus.experiments import recipe
from angulus.experiments.recipe import Recipe
from angulus.training.state import CHECKPOINT, load_checkpoint

CONTENT: dict[str, Any] = {
    "name": "tiny",
    "title": "A few digits",
    "data": {"name": "digits"},
    "input": {"mean": 78, "scale": 96},
    "backbone": {"name": "small", "embedding_size": 4},
    "objective": {"kind": "normface", "s": 10, "learn": False},
    "training": {
        "epochs": 2,
        "batch_size": 16,
        "optimizer": {"kind": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4},
        "schedule": {"kind": "constant"},
        "log_every": 1,
        "threads": 1,
    },
}
TRAIN, TEST = 72, 60  # 72 images in batches of 16 are 5 steps an epoch, the last of them of 8


def content(*overrides: str) -> dict[str, Any]:
    return recipe.override(copy.deepcopy(CONTENT), overrides)


def validated(*overrides: str) -> Recipe:
    return recipe.validate(content(*overrides))


def write(folder: Path, *overrides: str) -> str:
    """The recipe as a file, for what takes a path."""
    path = folder / "tiny.yaml"
    path.write_text(recipe.to_yaml(validated(*overrides)), encoding="utf-8")
    return str(path)


@functools.cache
def splits(train: int = TRAIN, test: int = TEST) -> Splits:
    whole = data.load("digits")

    def cut(images: Images, count: int) -> Images:
        return Images(images.pixels[:count], images.labels[:count], images.class_names)

    return Splits(whole.name, cut(whole.train, train), cut(whole.test, test), f"the first {train} and {test} digits")


class PowerCut(Exception):
    """What a power cut would be."""


def cut_at(step: int) -> Callable[[int, int, float], None]:
    """A training's `on_step` that ends it after that step."""

    def on_step(done: int, steps: int, loss: float) -> None:
        if done == step:
            raise PowerCut

    return on_step


def outcome(folder: Path) -> dict[str, Any]:
    """All that a run's numbers are, without the time that they took."""
    state = load_checkpoint(folder / CHECKPOINT)
    state["progress"].pop("seconds")
    results = json.loads((folder / "results.json").read_text())
    results.pop("environment")
    results["training"].pop("seconds")
    with np.load(folder / "test.npz") as arrays:
        test = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    return {"checkpoint": state, "results": results, "test": test, "rows": (folder / "metrics.jsonl").read_text()}


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """Where two nests of mappings, sequences and tensors are not the same to the bit."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [] if one.keys() == other.keys() else [f"{path}: {sorted(map(str, one.keys() ^ other.keys()))}"]
        return keys + [
            each for key in one.keys() & other.keys() for each in differences(one[key], other[key], f"{path}.{key}")
        ]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        return [
            each for n, pair in enumerate(zip(one, other, strict=True)) for each in differences(*pair, f"{path}.{n}")
        ]
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return [] if one.dtype == other.dtype and torch.equal(one, other) else [path]
    return [] if one == other else [f"{path}: {one!r} and {other!r}"]
