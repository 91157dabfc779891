"""Which images a step takes, which of them each process and micro-batch, and what chance draws from at a step."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from angulus.core import checks
from angulus.distributed.runtime import Ranks
from angulus.training.settings import Training


def batches(count: int, batch_size: int, seed: int, epoch: int) -> list[Tensor]:
    """The rows of each step of an epoch: a permutation that depends on seed and epoch alone, cut into batches.

    A last batch of one row joins the one before it, since batch norm cannot train on one row.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    parts = list(torch.split(torch.randperm(count, generator=generator), batch_size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def rank_share(rows: Tensor, ranks: Ranks) -> Tensor:
    """This rank's rows of a batch: as even as can be, the first ranks one more.

    >>> [rank_share(torch.arange(5), Ranks(rank, 2)).tolist() for rank in (0, 1)]
    [[0, 1, 2], [3, 4]]
    """
    return rows.tensor_split(ranks.count)[ranks.rank]


def refuse_small(count: int, settings: Training, ranks: int, batch_norm: bool) -> None:
    """Refuse batches of which some process would get no row in some micro-batch, or one that batch norm cannot take."""
    if ranks * settings.accumulate == 1:
        return
    smallest = min(len(rows) for rows in batches(count, settings.batch_size, 0, 0))
    batch_norm = batch_norm and not settings.sync_batch_norm
    needed = 2 if batch_norm else 1
    if smallest // settings.accumulate // ranks < needed:
        raise checks.InputError(
            f"training.batch_size {settings.batch_size} leaves {smallest} of {count:,} images for the smallest batch, "
            f"too few for {ranks} process{'es' * (ranks > 1)} and training.accumulate {settings.accumulate}: each needs"
            f" {needed} a micro-batch{', since batch norm cannot train on one row' * batch_norm}; choose a "
            "batch_size that leaves more, or fewer processes"
        )


def refuse_no_snapshot(count: int, settings: Training) -> None:
    """Refuse snapshots of which the training would end before the first."""
    kept, steps = settings.snapshots, settings.epochs * len(batches(count, settings.batch_size, 0, 0))
    if kept is not None and kept.after + kept.every > steps:
        raise checks.InputError(
            f"training.snapshots keeps the first model at step {kept.after + kept.every:,}, and training ends after "
            f"{steps:,}; lower training.snapshots.after or every, or train longer"
        )


def step_generator(seed: int, step: int, rank: int = 0) -> torch.Generator:
    """What augmentation draws from: a function of the step and the rank alone, so that a resumed run draws the same."""
    number = (seed + 1) * 2_000_003 + step
    return torch.Generator().manual_seed(number if rank == 0 else _mixed(number, rank))


def seed_step(seed: int, step: int, ranks: Ranks) -> None:
    """Let what else draws at a step (dropout, class sampling) draw by the step and the rank, where there are several.

    One process draws on from where its checkpoint left off; several have no such state, for there may be others later.
    """
    if ranks.count > 1:
        torch.manual_seed(_mixed(seed, step, ranks.rank))


def _mixed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
