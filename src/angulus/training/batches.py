"""Which images a step takes, and which of them each process and micro-batch; the random numbers of a step."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from angulus.core import checks
from angulus.core.seeds import mixed
from angulus.data.sampler import Balanced, ByShare
from angulus.distributed.runtime import Ranks
from angulus.losses.objective import Objective
from angulus.training.sampling import ClassesTimesImages
from angulus.training.settings import Training


def batches(count: int, batch_size: int, seed: int, epoch: int) -> list[Tensor]:
    """The rows of each step of an epoch: a permutation that depends on seed and epoch alone, cut into batches.

    A last batch of one row joins the one before it, since batch norm cannot train on one row.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return _cut(torch.randperm(count, generator=generator), batch_size)


def _cut(order: Tensor, batch_size: int) -> list[Tensor]:
    parts = list(torch.split(order, batch_size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def epoch_batches(labels: Tensor, settings: Training, epoch: int) -> list[Tensor]:
    """The rows of each step of an epoch, as `training.sampler` takes them; they depend on seed and epoch alone.

    `labels` are [N], the classes of the images to train on. Every epoch has as many steps as the first.
    """
    sampler, size = settings.sampler, settings.batch_size
    if sampler is None:
        return batches(len(labels), size, settings.seed, epoch)
    classes = labels.numpy()
    if isinstance(sampler, ClassesTimesImages):
        drawn = Balanced(classes, size // sampler.images_per_class, sampler.images_per_class, settings.seed)
        return [torch.from_numpy(rows) for rows in drawn.batches(epoch)]
    order = ByShare(classes, sampler.shares(np.bincount(classes)), settings.seed).order(epoch)
    return _cut(torch.from_numpy(order), size)


def steps_per_epoch(labels: Tensor, settings: Training) -> int:
    """The number of steps of an epoch."""
    return len(epoch_batches(labels, settings, 0))


def remaining_batches(labels: Tensor, settings: Training, step: int) -> Iterator[Tensor]:
    """The rows of every batch of a training, from optimiser step `step` (from 0) to the end."""
    first_epoch, done = divmod(step, steps_per_epoch(labels, settings))
    for epoch in range(first_epoch, settings.epochs):
        yield from epoch_batches(labels, settings, epoch)[done if epoch == first_epoch else 0 :]


def rank_share(rows: Tensor, ranks: Ranks) -> Tensor:
    """This rank's rows of a batch: an even split, the first ranks one more.

    >>> [rank_share(torch.arange(5), Ranks(rank, 2)).tolist() for rank in (0, 1)]
    [[0, 1, 2], [3, 4]]
    """
    return rows.tensor_split(ranks.count)[ranks.rank]


def rank_rows(rows: Tensor, settings: Training, ranks: Ranks) -> list[Tensor]:
    """This rank's rows of each micro-batch of a batch; micro-batches are the same for any number of ranks."""
    return [rank_share(part, ranks) for part in rows.tensor_split(settings.accumulate)]


def refuse_classes(labels: Tensor, settings: Training) -> None:
    """Refuse a sampler that the batch size or the number of classes does not fit."""
    if not isinstance(settings.sampler, ClassesTimesImages):
        return
    images, size = settings.sampler.images_per_class, settings.batch_size
    classes = len(np.unique(labels.numpy()))
    if size % images or size // images > classes:
        raise checks.InputError(
            f"training.batch_size must be a multiple of training.sampler.images_per_class, {images}, and at most "
            f"{images} times the {classes:,} classes that have images, {images * classes:,}; got {size}"
        )


def refuse_small(labels: Tensor, settings: Training, ranks: int, batch_norm: bool) -> None:
    """Refuse batches that leave a process without a row in some micro-batch, or with too few for batch norm."""
    if ranks * settings.accumulate == 1:
        return
    count, smallest = len(labels), min(len(rows) for rows in epoch_batches(labels, settings, 0))
    batch_norm = batch_norm and not settings.sync_batch_norm
    needed = 2 if batch_norm else 1
    if smallest // settings.accumulate // ranks < needed:
        raise checks.InputError(
            f"training.batch_size {settings.batch_size} leaves {smallest} of {count:,} images for the smallest batch, "
            f"too few for {ranks} process{'es' * (ranks > 1)} and training.accumulate {settings.accumulate}: each needs"
            f" {needed} per micro-batch{', since batch norm cannot train on one row' * batch_norm}; choose a "
            "batch_size that leaves more, or fewer processes"
        )


def refuse_whole_batch(objective: Objective) -> None:
    """Refuse losses that read the whole batch, because a micro-batch is only a part of it."""
    for piece in [*objective.pieces, *objective.feature_terms]:
        if piece.reads_batch:
            raise checks.InputError(
                "training.accumulate needs a loss whose rows stand alone, and this piece reads the whole batch (at "
                f"its first step at least): {piece.words()}; set training.accumulate=1, or change that piece"
            )


def refuse_late_start(objective: Objective, labels: Tensor, settings: Training) -> None:
    """Refuse a piece that would begin after the end of the training."""
    steps = settings.epochs * steps_per_epoch(labels, settings)
    for piece in [*objective.pieces, *objective.feature_terms]:
        start = getattr(piece, "start_step", 0)
        if start >= steps:
            raise checks.InputError(
                f"start_step is {start:,} and training ends after {steps:,} steps, so this would have no effect: "
                f"{piece.words()}; lower its start_step, or train longer"
            )


def refuse_no_snapshot(labels: Tensor, settings: Training) -> None:
    """Refuse snapshots whose first one would come after the end of the training."""
    snapshots, steps = settings.snapshots, settings.epochs * steps_per_epoch(labels, settings)
    if snapshots is not None and snapshots.after + snapshots.every > steps:
        raise checks.InputError(
            f"training.snapshots keeps the first model at step {snapshots.after + snapshots.every:,}, and training "
            f"ends after {steps:,}; lower training.snapshots.after or every, or train longer"
        )


def step_generator(seed: int, step: int, rank: int = 0) -> torch.Generator:
    """The generator for augmentation: depends on the step and the rank alone, so that a resumed run draws the same."""
    number = (seed + 1) * 2_000_003 + step
    return torch.Generator().manual_seed(number if rank == 0 else mixed(number, rank))


def seed_step(seed: int, step: int, ranks: Ranks) -> None:
    """Seed what else is random at a step (dropout, class sampling) by the step and the rank, if there are several.

    One process continues from its checkpoint's random state. Several store none, as a resumed run may have another
    number of ranks.
    """
    if ranks.count > 1:
        torch.manual_seed(mixed(seed, step, ranks.rank))
