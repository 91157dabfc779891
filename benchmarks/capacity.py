"""The formulas of `angulus capacity` against what small sizes really take on this machine.

    python benchmarks/capacity.py [--classes 100000] [--images 800] [--gallery 30000] [--save]

Memory is the peak of a process of its own; bytes are those of files. Seconds are compared with those of a quarter of
the size, four times over: the formulas are linear, and rates are the user's.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import angulus
from angulus import losses
from angulus.core.capacity import Line, Plan, capacity
from angulus.core.embeddings import Embeddings
from angulus.heads.saving import save_head
from harness import Row, options, peak_mib, python, run, show, store

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


def seconds(classes: int) -> Row:
    """Core seconds of a head's steps, on one thread: four times those of a quarter of its classes."""

    def step_s(count: int) -> float:
        head, optimizer = head_and_optimizer(count, False)
        features, labels = torch.randn(BATCH, SIZE, requires_grad=True), torch.randint(count, (BATCH,))
        times = []
        for _ in range(6):
            started = time.process_time()
            optimizer.zero_grad()
            head(features, labels).backward()
            optimizer.step()
            times.append(time.process_time() - started)
        return float(np.median(times[1:]))

    quarter, whole = step_s(classes // 4), step_s(classes)
    plan = {"classes": classes, "images": 1, "gpus": 1, "batch_size": BATCH, "images_per_s": 1e12}
    teraflops = 8 * BATCH * (classes // 4) * SIZE / quarter / 1e12  # as measured with a quarter of the classes
    return row(plan | {"teraflops": teraflops}, "products with the class weights, per step", whole)


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
    parser.add_argument("--memory-alone", action="store_true", help="measure the two peaks of memory, and nothing else")
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.memory is not None:
        train_steps(16, bool(asked.memory))  # loads what is imported late
        print(peak_mib(lambda: train_steps(asked.classes, bool(asked.memory)))[0])
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [memory(asked.classes, False), memory(asked.classes, True)]
        rows += (
            []
            if asked.memory_alone
            else [
                checkpoint(asked.classes // 4, folder / "head"),
                records(asked.images, folder),
                gallery(asked.gallery, folder),
                seconds(asked.classes),
            ]
        )
    shown = [
        {key: f"{each[key]:,.3g}" if isinstance(each[key], float) else str(each[key]) for key in each} for each in rows
    ]
    show("formulas and measurements", shown)
    if asked.save:
        store("capacity", rows)


if __name__ == "__main__":
    run(main)
