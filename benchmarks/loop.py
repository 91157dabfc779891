"""Time of a training epoch: `angulus train`'s loop next to a bare PyTorch loop of the same network, loss and batches.

    python benchmarks/loop.py [--images 60000] [--rounds 3] [--threads 2] [--save]

LeNet++ with 2-D features and NormFace (s = 10) on random 28x28 images of ten classes, batch 128, SGD, float32 on the
CPU. The bare loop computes the same loss in two lines, reads it once a step, and writes nothing; ours checks its input,
takes statistics, logs every tenth step and writes a checkpoint at the end. Both train from the same weights in every
round, and the benchmark stops if they do not end in the same loss.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import torch
from torch.nn import functional as F

from angulus.data import Images, Splits
from angulus.experiments import build, recipe
from angulus.experiments.recipe import Recipe
from angulus.training import loop
from angulus.training.batches import batches
from angulus.training.job import Job
from harness import Clock, clock, options, ratio_text, run, show, store, take_turns

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


def ours(job: Job) -> float:
    """The mean loss of an epoch of the loop, all that it writes included."""
    with tempfile.TemporaryDirectory() as folder:
        return loop.fit(job, Path(folder), resume=False).last_epoch_loss


def bare(job: Job) -> float:
    """The mean loss of an epoch of the plain loop."""
    backbone, weight, images = job.backbone, job.head.weight, job.images
    optimizer = torch.optim.SGD([*backbone.parameters(), weight], lr=LR, momentum=MOMENTUM)
    total = 0.0
    backbone.train()
    for rows in batches(len(images), BATCH, job.settings.seed, 0):
        features = backbone((images.pixels[rows].float() - MEAN) / SCALE)
        loss = F.cross_entropy(S * F.normalize(features) @ F.normalize(weight).T, images.labels[rows])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += loss.item() * len(rows)
    return total / len(images)


def main(arguments: list[str] | None = None) -> None:
    asked = options(__doc__ or "", images=60_000, rounds=3, threads=2).parse_args(arguments)
    torch.set_num_threads(asked.threads)
    data, what, mean_losses = splits(asked.images), chosen(asked.threads), {}

    def one_epoch(name: str) -> Clock:
        job = build.job(what, data)  # not timed

        def train() -> None:
            mean_losses[name] = {"bare": bare, "angulus": ours}[name](job)

        return clock(train)

    timings = take_turns({name: partial(one_epoch, name) for name in ("bare", "angulus")}, asked.rounds, warm_up=False)
    if abs(mean_losses["bare"] - mean_losses["angulus"]) > 1e-3 * mean_losses["bare"]:
        raise SystemExit(f"the two loops do not end in the same mean loss: {mean_losses}")
    shape = {"images": asked.images, "batch": BATCH, "rounds": asked.rounds}
    rows = [
        shape | {"what": f"epoch of LeNet++: {epoch.what}", "median_s": epoch.seconds} | epoch.slower()
        for epoch in timings
    ]
    show(
        f"{asked.images:,} images, {asked.rounds} rounds",
        [{"epoch": row["what"], "median s": f"{row['median_s']:.3f}", "ratio": ratio_text(row)} for row in rows],
    )
    if asked.save:
        store("loop", rows)


if __name__ == "__main__":
    run(main)
