"""Upgrade a face model without embedding the gallery again: how well a new model's queries work on old vectors.

    angulus convert aligned.zip DATA/train --list images.csv.gz --where split=train     # 32x32 pixels
    angulus convert aligned.zip DATA/test --list images.csv.gz --where split=test
    python benchmarks/upgrade.py DATA [--runs runs/upgrade] [--epochs 8] [--trial-epochs 3] [--seeds 3] [--save]

DATA holds these records and pairs.txt. The old model is trained on 96 of the 191 training people, the new one on all:
freely, and compatibly with the old one. Nobody of the test is trained on. What is fixed before a number is seen:

* λ and the kind of class vectors are chosen on 25 training people that neither the old model nor the trial sees, by
  the AUC of all their pairs: of the trials whose new-on-new loses at most 0.5 points against the free trial, the one
  with the best new-on-old; if none does, the one that loses least.
* The figure is the accuracy over the ten folds of pairs.txt, as the mean over the seeds; AUC and Recall@1 (every test
  image searched among all others) are shown next to it. Intervals resample people, the same in every result.
* Goals: new on old − old on old has an interval above zero; new on new, compatible − free, is at least −0.5 points.
* Maps are fitted on the training images under the old and the free new model.

A run that was stopped resumes: start the same command again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import angulus
from angulus import data, losses
from angulus.core.embeddings import Embeddings
from angulus.core.formats.columns import text_array
from angulus.data.sets.images import Images, Splits
from angulus.evaluation.lists.pair_list import PairList, read_pairs
from angulus.evaluation.metrics.intervals import Interval, Statistic, Units, bootstrap, paired_bootstrap
from angulus.evaluation.protocols import pairs as protocol
from angulus.evaluation.protocols import retrieval
from angulus.evaluation.protocols.calibrate import pairs_of_images
from angulus.evaluation.protocols.differences import PROTOCOLS
from angulus.evaluation.protocols.result import Result
from angulus.evaluation.protocols.two_models import across
from angulus.experiments.recipe import parse_yaml
from angulus.models import artifact
from angulus.models.artifact import Model
from angulus.models.vector_map import KINDS, fit
from angulus.training.validation import select_classes
from harness import Row, options, run, show, store

OLD_PEOPLE, HELD_OUT = 96, 25
TRIALS: dict[str, Any] = {  # of compatible_with; None trains freely
    "free": None,
    "λ = 0.5, auto": {"weight": 0.5, "classes": "auto"},
    "λ = 1, auto": {"weight": 1.0, "classes": "auto"},
    "λ = 2, auto": {"weight": 2.0, "classes": "auto"},
    "λ = 1, means": {"weight": 1.0, "classes": "means"},
}
FIGURES = [(0, "accuracy"), (0, "AUC"), (1, "Recall@1")]  # which result, and a figure's name there
NAMES = [name for *_, name in FIGURES]
MOST_LOST = 0.005  # of new on new, as a share
SECTIONS = parse_yaml("""
input: {mean: 127.5, scale: 127.5, size: [32, 32], colour: rgb, template: five_points, flip: sum}
augment: {flip: 0.5, shift_px: 1}
training:
  batch_size: 64
  optimizer: {kind: sgd, lr: 0.1, momentum: 0.9, weight_decay: 5e-4}
  schedule: {kind: one_cycle}
  precision: bfloat16
  channels_last: true
  clip_norm: 5.0
  save_classes: true
""")


def train(images: Splits, folder: Path, epochs: int, seed: int, compatible_with: Any = None) -> Model:
    """The model of a run, trained or resumed if it is not there yet; other settings need other --runs."""
    if (folder / "results.json").exists():
        return artifact.load(folder / "model")
    args = angulus.TrainingArguments(**SECTIONS["training"], epochs=epochs, seed=seed)
    sections = {"input": SECTIONS["input"], "augment": SECTIONS["augment"], "compatible_with": compatible_with}
    loss = losses.normface(s=16, learn=False)
    trainer = angulus.Trainer(
        "slim_resnet", loss, images, args, embedding_size=256, out=folder, name=folder.name, progress=False, **sections
    )
    model = trainer.train(resume=(folder / "recipe.yaml").exists()).model.model
    assert isinstance(model, Model)
    print(f"{folder.name}: {model.name}", flush=True)
    return model


def people(images: Splits, chosen: np.ndarray) -> Splits:
    """The images of some of the people."""
    return replace(images, train=select_classes(images.train, chosen), test=select_classes(images.test, chosen))


def embed(model: Model, images: Images, runs: Path, what: str) -> Embeddings:
    """The vectors of images, with their ids and people, from a file once they are known."""
    path = runs / f"{what}-{model.name}.npz"
    if not path.exists():
        features = [model.embed(images.pixels[rows]) for rows in torch.split(torch.arange(len(images)), 256)]
        names = np.array(images.class_names)[images.labels.numpy()]
        ids = text_array(list(images.ids) or list(map(str, range(len(images)))))
        models = np.full(len(images), model.name)
        Embeddings(torch.cat(features).numpy(), ids, labels=text_array(names.tolist()), models=models).write(path)
    return Embeddings.read(path)


def auc(queries: Embeddings, gallery: Embeddings, listed: PairList) -> float:
    return protocol.evaluate(*across(queries, gallery, listed), draws=0)["AUC"]


def choose(
    images: Splits, old: Model, runs: Path, folder: Path, epochs: int, order: np.ndarray
) -> tuple[str, list[Row]]:
    """The name of the best trial, and the AUCs of all on people held out of them."""
    held = np.zeros(len(order), dtype=bool)
    held[order[-HELD_OUT:]] = True
    inside, outside = people(images, ~held), select_classes(images.train, held)
    before = embed(old, outside, runs, "held-out")
    listed = pairs_of_images(before)
    rows: list[Row] = []
    for name, setting in TRIALS.items():
        asked = None if setting is None else {"model": str(folder), **setting}
        new = embed(train(inside, runs / f"trial-{len(rows)}", epochs, 0, asked), outside, runs, "held-out")
        rows.append({"trial": name, "new on old": auc(new, before, listed), "new on new": auc(new, new, listed)})
    free, *others = rows
    kept = [row for row in others if row["new on new"] >= free["new on new"] - MOST_LOST]
    best = max(kept, key=lambda row: row["new on old"]) if kept else max(others, key=lambda row: row["new on new"])
    rows.append({"trial": "old model", "old on old": auc(before, before, listed)})
    return best["trial"], [{"step": "choice", "epochs": epochs, "chosen": best["trial"], **row} for row in rows]


@dataclass(frozen=True)
class Compared:
    """Queries of one model on stored vectors of another: a result of each seed, of pairs and of identification."""

    results: list[tuple[Result, Result]]

    def figures(self) -> dict[str, float]:
        """The mean over the seeds."""
        return {name: float(np.mean([each[place][name] for each in self.results])) for place, name in FIGURES}

    def statistics(self) -> Iterator[tuple[str, Statistic, Units]]:
        """Of each figure: its name, and its mean over the seeds by weights of the people."""
        for place, name in FIGURES:
            parts = [PROTOCOLS[each[place].protocol][0](each[place].samples) for each in self.results]
            yield name, partial(_mean, [part for part, _ in parts]), parts[0][1]


def _mean(parts: list[Statistic], weights: Any) -> dict[str, float]:
    values = [part(weights) for part in parts]
    return {name: float(np.mean([value[name] for value in values])) for name in values[0]}


def compare(queries: list[Embeddings], stored: list[Embeddings], listed: PairList) -> Compared:
    return Compared(
        [
            (
                protocol.evaluate(*across(query, gallery, listed), draws=0),
                retrieval.evaluate(
                    *(replace(each, models=None) for each in (query, gallery)),  # which are two models, on purpose
                    reported=retrieval.Figures(ks=(1,), at=None),
                    draws=0,
                ),
            )
            for query, gallery in zip(queries, stored, strict=True)
        ]
    )


def own_row(what: str, compared: Compared, draws: int) -> Row:
    """A comparison's figures with their intervals."""
    intervals = {name: bootstrap(mean, units, draws=draws)[name] for name, mean, units in compared.statistics()}
    by_seed = [float(pair["accuracy"]) for pair, _ in compared.results]
    return {"step": "figures", "what": what, "accuracy by seed": by_seed, **_with(compared.figures(), intervals)}


def difference_row(what: str, first: Compared, second: Compared, draws: int) -> Row:
    """Second − first, on the same resampled people."""
    intervals = {
        name: paired_bootstrap(before, after, units, draws=draws)[name]
        for (name, before, units), (_, after, _) in zip(first.statistics(), second.statistics(), strict=True)
    }
    before, after = first.figures(), second.figures()
    return {
        "step": "difference",
        "what": what,
        **_with({name: after[name] - before[name] for name in before}, intervals),
    }


def _with(figures: dict[str, float], intervals: dict[str, Interval]) -> Row:
    return {
        name: {"value": value, "low": intervals[name].low, "high": intervals[name].high}
        for name, value in figures.items()
    }


def measure(
    data_folder: Path, runs: Path, images: Splits, olds: list[Model], news: dict[str, list[Model]], draws: int
) -> list[Row]:
    """Every comparison on people that no model was trained on, and the differences that the goals are about."""
    test = data.load("faces", root=data_folder / "test", test="trained_on").test
    listed = read_pairs(data_folder / "pairs.txt")
    models = {"old": olds, **news}
    vectors = {name: [embed(model, test, runs, "test") for model in each] for name, each in models.items()}
    for kind in KINDS:
        vectors[f"old, mapped ({kind})"] = []
        for seed, (old, new) in enumerate(zip(olds, news["free"], strict=True)):
            seen = [embed(model, images.train, runs, "train") for model in (old, new)]
            mapped = fit(*seen, kind=kind, seed=seed).of(vectors["old"][seed])
            vectors[f"old, mapped ({kind})"].append(mapped)
    asked = [("old", "old"), ("free", "old"), ("free", "free"), ("compatible", "old"), ("compatible", "compatible")]
    asked += [("free", f"old, mapped ({kind})") for kind in KINDS]
    found = {f"{query} on {stored}": compare(vectors[query], vectors[stored], listed) for query, stored in asked}
    rows = [own_row(name, compared, draws) for name, compared in found.items()]
    differences = [("old on old", name) for name in found if name.endswith(")") or name == "compatible on old"]
    differences.append(("free on free", "compatible on compatible"))
    rows += [difference_row(f"{after} − {before}", found[before], found[after], draws) for before, after in differences]
    return rows


def main(arguments: list[str] | None = None) -> None:
    parser = options(__doc__ or "", epochs=8, trial_epochs=3, seeds=3, draws=1000)
    parser.add_argument("data", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs/upgrade"))
    asked = parser.parse_args(arguments)
    images = data.load("faces", root=asked.data / "train")
    order = np.random.default_rng(0).permutation(images.train.num_classes)
    known = np.isin(np.arange(len(order)), order[:OLD_PEOPLE])

    # Choose λ, and train
    folders = [asked.runs / f"old-{seed}" for seed in range(asked.seeds)]
    some = people(images, known)
    olds = [train(some, folders[0], asked.epochs, 0)]
    chosen, rows = choose(images, olds[0], asked.runs, folders[0] / "model", asked.trial_epochs, order)
    print(f"chosen: {chosen}", flush=True)
    news: dict[str, list[Model]] = {"free": [], "compatible": []}
    for seed, folder in enumerate(folders):
        olds += [] if seed == 0 else [train(some, folder, asked.epochs, seed)]
        setting = {"model": str(folder / "model"), **TRIALS[chosen]}
        for name, given in (("free", None), ("compatible", setting)):
            news[name].append(train(images, asked.runs / f"{name}-{seed}", asked.epochs, seed, given))

    # Measure
    rows += measure(asked.data, asked.runs, images, olds, news, asked.draws)
    shown = [row for row in rows if "what" in row]
    show(
        f"{asked.seeds} seeds, {asked.epochs} epochs, {chosen}; intervals over people",
        [{"query on stored": row["what"], **{name: _text(row[name]) for name in NAMES}} for row in shown],
    )
    if asked.save:
        how = {"seeds": asked.seeds, "epochs": asked.epochs, "chosen": chosen}
        store("upgrade", [how | row for row in rows])


def _text(figure: dict[str, float]) -> str:
    return f"{100 * figure['value']:.2f} [{100 * figure['low']:.2f}, {100 * figure['high']:.2f}]"


if __name__ == "__main__":
    run(main)
