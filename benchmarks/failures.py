"""Two trainings that fail, what the watch says while they do, and the same trainings with the remedy.

    python benchmarks/failures.py --faces aligned.zip --people images.csv.gz [--seeds 3] [--only TEXT] [--save]

MV-ArcFace with adaptive negatives on faces gathers all features in one direction; the network has one hidden layer on
principal components of the pixels. CM-M-Softmax with two-dimensional features (LeNet-5 on 15,000 images of MNIST) locks
pairs of classes. Every fifth image is held back for the accuracy. The settings are fixed here and are the same for all
rows of a set.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from angulus import DenseHead, backbones, data, losses
from angulus.core.checks import InputError
from angulus.training.watch import Finding, Watch, closest
from harness import Row, options, run, show, store

Make = Callable[[int], losses.Objective]  # from the number of steps


class Variant(NamedTuple):
    """A loss, and how its class weights start."""

    make: Make
    init: str = "normal"


class Set(NamedTuple):
    """Images, and the settings of their trainings."""

    inputs: Tensor
    labels: Tensor
    network: Callable[[], nn.Module]
    size: int  # of the embedding
    epochs: int
    lr: float
    variants: dict[str, Variant]


def with_ramp(loss: losses.Objective, **spans: object) -> Make:
    return lambda steps: loss.replace(ramp=losses.Ramp(steps=steps, **spans))  # type: ignore[arg-type]


def components(pixels: Tensor, count: int) -> Tensor:
    """The first principal components, of unit variance on average."""
    torch.manual_seed(0)  # the decomposition draws numbers
    centred = pixels.flatten(1).float() - pixels.flatten(1).float().mean(0)
    _, _, directions = torch.pca_lowrank(centred, count, center=False)
    projected = centred @ directions
    return projected / projected.std()


def mnist() -> Set:
    images = data.load("mnist").train
    chosen = slice(0, 15_000)
    loss = losses.cm_m_softmax()
    return Set(
        (images.pixels[chosen].float() - 33.3) / 78.6,
        images.labels[chosen].long(),
        lambda: backbones.build("lenet5", in_channels=1, image_size=(28, 28), embedding_size=2),
        size=2,
        epochs=8,
        lr=0.05,
        variants={
            "CM-M-Softmax": Variant(lambda _: loss),
            "CM-M-Softmax, margin over 30 to 70 %": Variant(with_ramp(loss, margin=(0.3, 0.7))),
            "CM-M-Softmax, class weights spread": Variant(lambda _: loss, init="spread"),
            "NormFace, s = 10": Variant(lambda _: losses.normface(10, learn=False)),
        },
    )


def faces(archive: Path, people: Path) -> Set:
    with gzip.open(people, "rt", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "train"]
    path = "path" if "path" in rows[0] else "image"
    with zipfile.ZipFile(archive) as photos:
        pixels = [
            np.asarray(Image.open(io.BytesIO(photos.read(row[path]))).convert("L").resize((56, 56))) for row in rows
        ]
    names = sorted({row["identity"] for row in rows})
    loss = losses.mv_softmax(32, losses.margins.AdditiveAngle(0.3), 0.2)
    return Set(
        components(torch.from_numpy(np.stack(pixels)), 200),
        torch.tensor([names.index(row["identity"]) for row in rows]),
        lambda: nn.Sequential(nn.Linear(200, 256), nn.ReLU(), nn.Linear(256, 128)),
        size=128,
        epochs=30,
        lr=0.1,
        variants={
            "MV-ArcFace": Variant(lambda _: loss),
            "MV-ArcFace, t over 0 to 30 %": Variant(with_ramp(loss, negatives=(0.0, 0.3))),
            "MV-ArcFace, t by the target cosine": Variant(with_ramp(loss, negatives="auto")),
            "ArcFace": Variant(lambda _: losses.arcface(32, 0.3)),
        },
    )


def train(chosen: Set, variant: Variant, seed: int) -> tuple[float, float, list[Finding], int]:
    """(accuracy on images that were held back, smallest angle of two class weights in degrees, findings, steps)."""
    torch.manual_seed(seed)
    held = torch.arange(len(chosen.labels)) % 5 == 0
    inputs, labels = chosen.inputs[~held], chosen.labels[~held]
    classes, batch = int(chosen.labels.max()) + 1, 128
    network = chosen.network()
    per_epoch = len(inputs) // batch
    steps = chosen.epochs * per_epoch
    head = DenseHead(chosen.size, classes, variant.make(steps), init=variant.init)
    parameters = [*network.parameters(), *head.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=chosen.lr, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, chosen.lr, total_steps=steps)
    watch, found = Watch(head, steps, 10, tuple(map(str, range(classes)))), []
    for step in range(1, steps + 1):
        if step % per_epoch == 1:
            order = torch.randperm(len(inputs))
        rows = order[(step - 1) % per_epoch * batch :][:batch]
        features = network(inputs[rows])
        loss = head(features, labels[rows])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if step % 10 == 0:
            values = {"loss": loss.item(), **{name: float(value) for name, value in head.seen.items()}}
            found += watch.look(step, values, features, labels[rows])
    network.eval()
    with torch.no_grad():
        right = head.logits(network(chosen.inputs[held])).argmax(1) == chosen.labels[held]
    return float(right.float().mean()), math.degrees(closest(head.weight.detach())[0]), found, steps


def main(arguments: list[str] | None = None) -> None:
    parser = options(__doc__ or "", seeds=3)
    parser.add_argument("--faces", type=Path, help="a zip of aligned crops; without it, MNIST alone")
    parser.add_argument("--people", type=Path, help="its list, with columns path, identity and split")
    parser.add_argument("--only", default="", help="train only the variants with this in their names")
    asked = parser.parse_args(arguments)
    if (asked.faces is None) != (asked.people is None):
        raise InputError("--faces and --people go together: the archive and its list")
    warnings.simplefilter("ignore")
    rows: list[Row] = []
    sets = [mnist(), *([faces(asked.faces, asked.people)] if asked.faces else [])]
    if not any(asked.only in name for chosen in sets for name in chosen.variants):
        known = ", ".join(name for chosen in sets for name in chosen.variants)
        raise InputError(f"--only must be a part of a variant's name; got {asked.only!r}; known: {known}")
    for chosen in sets:
        for name, variant in chosen.variants.items():
            if asked.only not in name:
                continue
            for seed in range(asked.seeds):
                accuracy, angle, found, steps = train(chosen, variant, seed)
                findings = [finding._asdict() for finding in found]
                rows.append(
                    {
                        "variant": name,
                        "seed": seed,
                        "accuracy": accuracy,
                        "closest_deg": angle,
                        "steps": steps,
                        "findings": findings,
                    }
                )
                print(name, seed, f"{accuracy:.3f}", f"{angle:.1f}°", [(f.step, f.sign) for f in found], flush=True)
    table = [{key: str(value) for key, value in row.items() if key != "findings"} for row in rows]
    show("accuracy on images held back, and the watch", table)
    for row in rows:
        for finding in row["findings"]:
            print(f"{row['variant']}, seed {row['seed']}: {finding['sentence']}")
    if asked.save:
        store("failures", rows)


if __name__ == "__main__":
    run(main)
