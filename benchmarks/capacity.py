"""The formulas of `angulus capacity` against what small sizes really take on this machine.

    python benchmarks/capacity.py [--classes 100000] [--images 800] [--gallery 30000] [--part seconds] [--save]

Memory is the peak of a process of its own; bytes are those of files. Seconds are those of one core. The rates, which
are the user's, come from a quarter of the classes and images, and the backbone's from 16 classes: the formulas are
linear, and a step is the sum of its parts.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import angulus
from angulus import backbones, losses
from angulus.core.capacity import Line, Plan, capacity
from angulus.core.contract import Contract
from angulus.core.embeddings import Embeddings
from angulus.data.decode import decode
from angulus.data.records import Records, write_records
from angulus.heads.saving import save_head
from angulus.models import artifact, embed
from harness import Row, clock, options, peak_mib, python, run, show, store

SIZE, BATCH = 512, 256


def head_and_optimizer(classes: int, update_in_backward: bool) -> tuple[angulus.ShardedHead, torch.optim.Optimizer]:
    head = angulus.ShardedHead(SIZE, classes, losses.arcface(), impl="chunked")
    if update_in_backward:
        return head, angulus.BackwardSGD(head, 0.1, 0.9, 5e-4)
    return head, torch.optim.SGD([head.weight], 0.1, 0.9, weight_decay=5e-4)


def train_steps(classes: int, update_in_backward: bool) -> None:
    """Build a head and do two steps, so that momentum, gradient and what an update makes exist at once."""
    head, optimizer = head_and_optimizer(classes, update_in_backward)
    for _ in range(2):
        features = torch.randn(BATCH, SIZE, requires_grad=True)
        optimizer.zero_grad()
        head(features, torch.randint(classes, (BATCH,))).backward()
        optimizer.step()


def memory(classes: int, update_in_backward: bool) -> Row:
    """The peak of a training's steps, in a process of its own."""
    mib = float(python(__file__, "--classes", classes, "--memory", int(update_in_backward)))
    plan = {"classes": classes, "images": 1, "gpus": 1, "batch_size": BATCH, "update_in_backward": update_in_backward}
    return row(plan, "memory of the head, per GPU", mib * 2**20)


def checkpoint(classes: int, folder: Path) -> Row:
    head, optimizer = head_and_optimizer(classes, False)
    optimizer.state[head.weight]["momentum_buffer"] = torch.zeros_like(head.weight)
    save_head(head, folder, optimizer)
    return row({"classes": classes, "images": 1, "gpus": 1}, "checkpoint: class weights and momentum", size_of(folder))


def records(images: int, folder: Path) -> Row:
    """Made photos of 112 x 112 pixels, as records."""
    rng = np.random.default_rng(0)
    for number in range(images):
        path = folder / "photos" / f"person-{number // 10:05d}" / f"{number:07d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 255, (14, 14, 3), dtype=np.uint8)).resize((112, 112))
        coarse.save(path, quality=90)
    photos = size_of(folder / "photos")
    python("-m", "angulus", "convert", folder / "photos", folder / "records")
    plan = {"classes": 1, "gpus": 1, "images": images, "image_bytes": photos / images}
    return row(plan, "records", size_of(folder / "records"))


def gallery(rows: int, folder: Path) -> Row:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((rows, SIZE), dtype=np.float32)
    ids = np.array([f"person-{number // 10:06d}/{number:07d}" for number in range(rows)])
    Embeddings(vectors, ids, labels=np.char.partition(ids, "/")[:, 0]).write(folder / "vectors.npz")
    python("-m", "angulus", "search", "add", folder / "gallery", folder / "vectors.npz")
    return row({"classes": 1, "gpus": 1, "images": rows}, "gallery", size_of(folder / "gallery"))


def step_s(classes: int, backbone: torch.nn.Module | None = None) -> float:
    """Core seconds of a step of the head, and of the backbone if there is one."""
    head, optimizer = head_and_optimizer(classes, False)
    images, labels = torch.randn(BATCH, 3, 32, 32), torch.randint(classes, (BATCH,))
    features = torch.randn(BATCH, SIZE, requires_grad=True)

    def step() -> None:
        optimizer.zero_grad()
        head(features if backbone is None else backbone(images), labels).backward()
        optimizer.step()

    return core_s(step)


def core_s(step: Callable[[], object], rounds: int = 5) -> float:
    """The median of some rounds, after one that does not count."""
    step()
    return float(np.median([clock(step).cpu_seconds for _ in range(rounds)]))


def seconds(classes: int, records: Records) -> list[Row]:
    """A step's parts, and their sum, from a quarter of the classes and images."""
    backbone = backbones.build("small", in_channels=3, image_size=(32, 32), embedding_size=SIZE)
    plan: dict[str, float] = {"classes": classes, "images": BATCH, "gpus": 1, "batch_size": BATCH, "epochs": 1}
    plan["images_per_s"] = BATCH / step_s(16, backbone)
    plan["teraflops"] = 8 * BATCH * (classes // 4) * SIZE / step_s(classes // 4) / 1e12
    step = step_s(classes, backbone)

    def read_s(count: int) -> float:
        """Per image."""
        return core_s(lambda: [decode(image, "an image") for image in records.images(range(count))], 15) / count

    plan["core_images_per_s"] = 1 / read_s(len(records) // 4)
    return [
        row(plan, "products with the class weights, per step", step_s(classes)),
        row(plan, "training", step),
        row(plan, "images read and decoded to keep all GPUs busy", BATCH / step),
        row(plan, "cores for that", BATCH / step * read_s(len(records))),
    ]


def embedding(records: Records, folder: Path) -> Row:
    """Core seconds of `angulus embed`, without the start of its process."""
    config = artifact.Config("slim_resnet", 3, (112, 112), 256, contract=Contract(size=(112, 112)))
    artifact.save(config, config.build(), folder / "model")

    def embed_s(count: int) -> float:
        write_records(folder / f"{count}", records.rows(range(count)))
        out = folder / f"{count}.npz"
        return clock(lambda: embed.run(folder / "model", folder / f"{count}", out)).cpu_seconds

    embed_s(1)  # loads what is imported late
    quarter = len(records) // 4
    plan = {"classes": 1, "gpus": 1, "images": len(records), "embed_images_per_s": quarter / embed_s(quarter)}
    return row(plan, "embedding all images", embed_s(len(records)))


def row(plan: Row, what: str, measured: float) -> Row:
    line = formula(plan, what)
    return {
        "what": what, "plan": plan, "measured": measured, "formula": line.value, "unit": line.unit,
        "ratio": line.value / measured,
    }  # fmt: skip


def formula(plan: Row, what: str) -> Line:
    """The line of a plan by its name."""
    return next(line for line in capacity(Plan(**plan)) if line.what == what)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    parser = options(__doc__ or "", classes=100_000, images=800, gallery=30_000)
    parser.add_argument("--part", choices=("memory", "bytes", "seconds"), help="default: all three")
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.memory is not None:
        train_steps(16, bool(asked.memory))  # loads what is imported late
        print(peak_mib(lambda: train_steps(asked.classes, bool(asked.memory)))[0])
        return
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if asked.part in (None, "memory"):
            rows += [memory(asked.classes, False), memory(asked.classes, True)]
        stored = None if asked.part == "memory" else records(asked.images, folder)
        if stored and asked.part in (None, "bytes"):
            rows += [checkpoint(asked.classes // 4, folder / "head"), stored, gallery(asked.gallery, folder)]
        if stored and asked.part in (None, "seconds"):
            made = Records(folder / "records")
            rows += [*seconds(asked.classes, made), embedding(made, folder)]
    shown = [
        {key: f"{each[key]:,.3g}" if isinstance(each[key], float) else str(each[key]) for key in each} for each in rows
    ]
    show("formulas and measurements", shown)
    if asked.save:
        store("capacity", rows)


if __name__ == "__main__":
    run(main)
