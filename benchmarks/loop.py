"""Time of a training epoch: `angulus train`'s loop beside a bare PyTorch loop of the same network, loss and batches.

    python benchmarks/loop.py [--images 60000] [--repeats 3] [--threads 2] [--save]

LeNet++ with 2-D features and NormFace (s = 10) on random 28x28 images of ten classes, batch 128, SGD, float32 on the
CPU. The bare loop computes the same loss by two lines, reads it once a step, and writes nothing; ours checks its input,
takes statistics, logs every tenth step and writes a checkpoint at the end. Both train from the same weights in every
round, and the benchmark stops where they do not end in the same loss.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from angulus.core.environment import of_timing
from angulus.data import Images, Splits
from angulus.experiments import build, recipe
from angulus.experiments.recipe import Recipe
from angulus.training import loop
from angulus.training.batches import batches
from angulus.training.job import Job

RESULTS = Path(__file__).parent / "results" / "loop.jsonl"
S, LR, MOMENTUM, MEAN, SCALE, BATCH = 10.0, 0.01, 0.9, 127.5, 127.5, 128


def splits(count: int) -> Splits:
    """Images of noise: how long a step takes does not depend on what they show."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, 1, 28, 28), generator=generator, dtype=torch.uint8)
    labels = torch.randint(10, (count,), generator=generator)
    images = Images(pixels, labels, tuple("0123456789"))
    return Splits("noise", images, images, "made here")


def chosen(threads: int) -> Recipe:
    """One epoch."""
    return recipe.validate(
        {
            "name": "loop",
            "title": "An epoch of LeNet++",
            "data": {"name": "digits"},  # stands for the noise
            "input": {"mean": MEAN, "scale": SCALE},
            "backbone": {"name": "lenet++", "embedding_size": 2},
            "objective": {"kind": "normface", "s": S, "learn": False},
            "training": {
                "epochs": 1,
                "batch_size": BATCH,
                "optimizer": {"kind": "sgd", "lr": LR, "momentum": MOMENTUM, "weight_decay": 0},
                "schedule": {"kind": "constant"},
                "device": "cpu",
                "threads": threads,
            },
        }
    )


def ours(job: Job) -> tuple[float, float]:
    """(seconds, mean loss) of an epoch of the loop, all that it writes included."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        progress = loop.fit(job, Path(folder), resume=False)
        return time.perf_counter() - start, progress.last_epoch_loss


def bare(job: Job) -> tuple[float, float]:
    """(seconds, mean loss) of an epoch of the plain loop."""
    backbone, weight, images = job.backbone, job.head.weight, job.images
    optimizer = torch.optim.SGD([*backbone.parameters(), weight], lr=LR, momentum=MOMENTUM)
    start, total = time.perf_counter(), 0.0
    backbone.train()
    for rows in batches(len(images), BATCH, job.settings.seed, 0):
        features = backbone((images.pixels[rows].float() - MEAN) / SCALE)
        loss = F.cross_entropy(S * F.normalize(features) @ F.normalize(weight).T, images.labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(rows)
    return time.perf_counter() - start, total / len(images)


def main() -> None:
    """Run, print, and store where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--save", action="store_true", help="append to benchmarks/results/loop.jsonl")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    data, what = splits(arguments.images), chosen(arguments.threads)
    seconds: dict[str, list[float]] = {"bare": [], "angulus": []}
    for repeat in range(arguments.repeats):
        found = {}
        for name, train in (("bare", bare), ("angulus", ours))[:: 1 if repeat % 2 == 0 else -1]:
            spent, found[name] = train(build.job(what, data))
            seconds[name].append(spent)
        if abs(found["bare"] - found["angulus"]) > 1e-3 * found["bare"]:
            raise SystemExit(f"the two loops do not train alike: mean losses {found}")
    ratios = [mine / theirs for mine, theirs in zip(seconds["angulus"], seconds["bare"], strict=True)]
    row = {name: round(statistics.median(values), 3) for name, values in seconds.items()}
    result: dict[str, Any] = {
        "what": "epoch of LeNet++",
        "images": arguments.images,
        "batch": BATCH,
        "repeats": arguments.repeats,
        "median_s": row,
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
    }
    print(result)
    if arguments.save:
        store(result)


def store(result: dict[str, Any]) -> None:
    """Append a line, with device, versions, date, command and commit."""
    facts = of_timing(torch.device("cpu"))
    facts["command"] = ["python", "benchmarks/loop.py", *sys.argv[1:]]
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(result | {"environment": facts}) + "\n")


if __name__ == "__main__":
    main()
