"""Nested dimensions on MNIST: accuracy by dimension, next to models of each size and to a plain model cut short.

    python benchmarks/nested.py DATA [--epochs 2] [--seeds 3] [--only costs|accuracy] [--runs FOLDER] [--save]

DATA is the folder of MNIST's files. Three kinds of models with one recipe (LeNet-5, NormFace): nested in SIZES (by the
sum of the losses, or their mean); one of
each size; and the largest of these, whose features are cut to their first numbers. A test image is right if the
training image of the largest cosine is of its class. Runs that are there already are read.

The first 20,000
training images train. The costs are those of a head's forward and backward (chunked), nested to plain, in time and
memory.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from angulus import DenseHead, losses
from angulus.data import Images, Splits, load
from angulus.experiments import recipe as recipes
from angulus.experiments import run as training
from angulus.models import artifact
from harness import Row, Step, options, peak_mib, python, ratio_text, run, show, store, take_turns

SIZE, NESTED = 32, (2, 4, 8)
SIZES = (*NESTED, SIZE)
TRAINED = 20_000  # training images
COMPARED = 10_000  # of these, with which test images are compared
WAYS = ("nested", "nested, mean", "one model per size", "plain, cut short")
HEAD, HEAD_NESTED = 512, [64, 128, 256]


def accuracies(data: Path, runs: Path, epochs: int, seeds: int, ways: list[str]) -> list[Row]:
    """The accuracy by way, dimension and seed."""
    rows = []
    whole = load("mnist", root=data)
    first = Images(whole.train.pixels[:TRAINED], whole.train.labels[:TRAINED], whole.train.class_names)
    images = Splits(whole.name, first, whole.test, f"{whole.source}, the first {TRAINED:,} training images")
    for seed in range(seeds):
        if set(ways) & {"one model per size", "plain, cut short"}:
            for size in SIZES:
                features = _features(images, data, runs / f"{size}-{seed}", epochs, seed, size, ())
                rows.append(_row("one model per size", seed, size, features, images))
            rows += [_row("plain, cut short", seed, size, features, images) for size in SIZES]
        for way, factor in (("nested", 1.0), ("nested, mean", 1 / len(SIZES))):
            if way in ways:
                folder = runs / f"{way.replace(', ', '-')}-{seed}"
                features = _features(images, data, folder, epochs, seed, SIZE, NESTED, factor)
                rows += [_row(way, seed, size, features, images) for size in SIZES]
    return rows


def _features(
    images: Splits,
    data: Path,
    folder: Path,
    epochs: int,
    seed: int,
    size: int,
    nested: tuple[int, ...],
    factor: float = 1.0,
) -> list[Tensor]:
    """The features of the compared training images and of the test images, by a model that is trained if need be."""
    content = {
        "name": "nested",
        "title": "Nested dimensions",
        "data": {"name": "mnist", "root": str(data)},
        "input": {"mean": 33, "scale": 79},
        "backbone": {"name": "lenet5", "embedding_size": size},
        "objective": {"kind": "normface", "s": 16, "learn": False, "nested": list(nested), "cross_entropy": factor},
        "training": {
            "epochs": epochs,
            "batch_size": 256,
            "optimizer": {"kind": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4},
            "schedule": {"kind": "one_cycle"},
            "seed": seed,
            "threads": 1,
        },
    }
    training.run(recipes.validate(content), folder, resume=(folder / "recipe.yaml").exists(), splits=images)
    model = artifact.load(folder / "model")
    return [model.embed(part) for part in (images.train.pixels[:COMPARED], images.test.pixels[:])]


def _row(way: str, seed: int, size: int, features: list[Tensor], images: Splits) -> Row:
    """The share of test images whose nearest training image, by the cosine of the first numbers, is of their class."""
    known, asked = (torch.nn.functional.normalize(part[:, :size]) for part in features)
    nearest = torch.cat([(part @ known.T).argmax(dim=1) for part in torch.split(asked, 1000)])
    right = images.train.labels[nearest] == images.test.labels
    return {
        "measured": "accuracy",
        "way": way,
        "seed": seed,
        "dimensions": size,
        "accuracy": float(right.double().mean()),
    }


def costs(batch: int, classes: int, rounds: int) -> list[Row]:
    """Time and memory of a step, nested to plain."""
    steps = {name: _step(name, batch, classes) for name in ("plain", "nested")}
    _, timing = take_turns(steps, rounds)
    memory = {name: float(python(__file__, "--peak", name, batch, classes)) for name in steps}
    weight = classes * HEAD * 4 / 2**20
    shape = {"batch": batch, "classes": classes, "size": HEAD, "nested": HEAD_NESTED}
    mib = {f"{name}_mib": value for name, value in memory.items()} | {"weight_mib": weight}
    return [{"measured": "cost"} | shape | {"ms": 1e3 * timing.seconds} | timing.slower() | mib]


def _step(name: str, batch: int, classes: int) -> Step:
    torch.manual_seed(0)
    features = torch.randn(batch, HEAD, requires_grad=True)
    labels = torch.randint(classes, (batch,))
    objective = losses.arcface().replace(nested=HEAD_NESTED if name == "nested" else [])
    head = DenseHead(HEAD, classes, objective, impl="chunked")

    def step() -> None:
        head.zero_grad(set_to_none=True)
        features.grad = None
        head(features, labels).backward()

    return step


def main(arguments: list[str] | None = None) -> None:
    parser = options(__doc__ or "", epochs=2, seeds=3, batch=256, classes=50_000, rounds=7)
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--only", choices=("costs", "accuracy"))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="the models")
    parser.add_argument("--runs", type=Path, help="folder of the runs; by default one that is deleted")
    parser.add_argument("--peak", nargs=3, help="print the peak of one step in MiB: plain or nested, batch, classes")
    asked = parser.parse_args(arguments)
    if asked.peak:
        step = _step(asked.peak[0], *map(int, asked.peak[1:]))
        print(peak_mib(step)[0])
        return
    rows: list[Row] = []
    if asked.only != "accuracy":
        rows += costs(asked.batch, asked.classes, asked.rounds)
        row = rows[0]
        texts = {"nested to plain, time": ratio_text(row)}
        texts |= {name: f"{row[name]:,.0f} MiB" for name in ("weight_mib", "plain_mib", "nested_mib")}
        show(f"a step of a head, B = {asked.batch:,}, C = {asked.classes:,}, d = {HEAD}", [texts])
    if asked.only != "costs":
        if asked.data is None:
            parser.error("DATA is missing")
        with tempfile.TemporaryDirectory() as scratch:
            found = accuracies(asked.data, asked.runs or Path(scratch), asked.epochs, asked.seeds, asked.ways)
        rows += [row | {"epochs": asked.epochs} for row in found]
        show(f"accuracy in %, {asked.seeds} seeds: mean (least to most)", [_table(way, found) for way in asked.ways])
    if asked.save:
        store("nested", rows)


def _table(way: str, rows: list[Row]) -> dict[str, str]:
    texts = {"way": way}
    for size in SIZES:
        values = [100 * row["accuracy"] for row in rows if row["way"] == way and row["dimensions"] == size]
        texts[str(size)] = f"{statistics.mean(values):.2f} ({min(values):.2f} to {max(values):.2f})"
    return texts


if __name__ == "__main__":
    run(main)
