"""Nested dimensions on faces: verification by dimension, next to models of each size and to a plain model cut short.

    python benchmarks/nested.py DATA [--epochs 12] [--seeds 3] [--only costs|accuracy] [--runs FOLDER] [--save]

DATA is a folder with the records train/ and test/ of different people, and pairs.txt of the latter's, as the recipe
losses-on-faces describes. Three kinds of models with one recipe (ArcFace): nested in SIZES; one of each size; and the
largest of these, whose features are cut to their first numbers. Runs that are there already are read.

The costs are those of a head's forward and backward (chunked), nested to plain, in time and memory.
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
from pathlib import Path

import torch

from angulus import DenseHead, losses
from angulus.core.embeddings import Embeddings
from angulus.evaluation.lists.pair_list import read_pairs
from angulus.evaluation.protocols import pairs
from angulus.experiments import recipe as recipes
from angulus.experiments import run as training
from angulus.models import embed
from harness import Row, Step, options, peak_mib, python, ratio_text, run, show, store, take_turns

SIZE, NESTED = 64, (8, 16, 32)
SIZES = (*NESTED, SIZE)
WAYS = ("nested", "one model per size", "plain, cut short")
HEAD, HEAD_NESTED = 512, [64, 128, 256]


def accuracies(data: Path, runs: Path, epochs: int, seeds: int) -> list[Row]:
    """The accuracy on the pairs by way, dimension and seed."""
    rows = []
    for seed in range(seeds):
        for size in SIZES:
            vectors = _embedded(data, runs / f"{size}-{seed}", epochs, seed, size, ())
            rows.append(_row("one model per size", seed, size, vectors, data))
        rows += [_row("plain, cut short", seed, size, _cut(vectors, size), data) for size in SIZES]
        vectors = _embedded(data, runs / f"nested-{seed}", epochs, seed, SIZE, NESTED)
        rows += [_row("nested", seed, size, _cut(vectors, size), data) for size in SIZES]
    return rows


def _embedded(data: Path, folder: Path, epochs: int, seed: int, size: int, nested: tuple[int, ...]) -> Embeddings:
    changes = [f"data.root={data / 'train'}", "input.size=[32,32]", "augment.shift_px=1", "compare=null"]
    changes += [f"backbone.embedding_size={size}", f"training.epochs={epochs}", f"training.seed={seed}"]
    changes += ["objective.kind=arcface", "objective.s=32", "objective.m=0.3", "evaluation.benchmarks=[]"]
    changes += ["backbone.name=small", "training.save_classes=false", "training.threads=1", f"objective.nested={list(nested)}"]
    if not (folder / "test-images.npz").exists():
        training.run(recipes.load("losses-on-faces", changes), folder)
        embed.run(folder / "model", data / "test", folder / "test-images.npz")
    return Embeddings.read(folder / "test-images.npz")


def _cut(vectors: Embeddings, size: int) -> Embeddings:
    """The first numbers of each half: the mirrored images' features are added, not concatenated."""
    return dataclasses.replace(vectors, vectors=vectors.vectors[:, :size], norms=None)


def _row(way: str, seed: int, size: int, vectors: Embeddings, data: Path) -> Row:
    result = pairs.evaluate(vectors, read_pairs(data / "pairs.txt"), draws=0)
    return {"measured": "accuracy", "way": way, "seed": seed, "dimensions": size, "accuracy": result["accuracy"]}


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
    parser = options(__doc__ or "", epochs=12, seeds=3, batch=256, classes=50_000, rounds=7)
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--only", choices=("costs", "accuracy"))
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
            found = accuracies(asked.data, asked.runs or Path(scratch), asked.epochs, asked.seeds)
        rows += [row | {"epochs": asked.epochs} for row in found]
        show(f"accuracy in % on pairs, {asked.seeds} seeds: mean (least to most)", [_table(way, found) for way in WAYS])
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
