"""The training loop: plain PyTorch, from top to bottom, the same on one process and on many."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch

from angulus.distributed.collectives import total
from angulus.heads.dense import DenseHead
from angulus.training import optimizer, schedule, snapshots, state
from angulus.training.batches import batches, rank_share, seed_step, step_generator
from angulus.training.job import Job, place_on_device
from angulus.training.log import MetricsLog
from angulus.training.settings import Training
from angulus.training.signals import Interrupted, stop_requests
from angulus.training.state import Progress
from angulus.training.step import checked_loss, clip, count_errors, defer_sync
from angulus.training.validation import validate

__all__ = ["Interrupted", "Job", "Progress", "batches", "fit", "stop_requests"]


def fit(
    job: Job,
    folder: Path,
    *,
    resume: bool,
    on_step: Callable[[int, int, float], None] | None = None,
    on_epoch: Callable[[int], dict[str, float]] | None = None,
) -> Progress:
    """Train to the end, or from the folder's checkpoint to the end as if it had never stopped.

    Where several ranks train, each calls it, and trains on its share of every batch.

    Args:
        job: what to train.
        folder: gets `checkpoint.pt`, `metrics.jsonl`, `tensorboard/` and `snapshots/`; seen by all ranks.
        resume: go on from the folder's checkpoint.
        on_step: told (steps done, steps in all, loss).
        on_epoch: told the epochs done, before the checkpoint that holds them; returns what is to be logged.

    Raises:
        Interrupted: Ctrl-C or SIGTERM, on any rank; the checkpoint holds the last whole step.
        checks.InputError: a loss that is not finite, a full disk, a checkpoint of another model; on all ranks alike.
    """
    settings, device, head, ranks = job.settings, job.device, job.head, job.ranks
    network = place_on_device(job)
    optim = optimizer.optimizers(job.backbone, head, settings.optimizer, update_in_backward=job.update_in_backward)
    plateau = schedule.Plateau(settings.schedule)
    progress = Progress()
    steps_per_epoch = len(batches(len(job.images), settings.batch_size, 0, 0))
    steps = settings.epochs * steps_per_epoch
    if resume:
        progress = state.restore(folder, job, optim, plateau)
    progress.steps = steps

    log = MetricsLog(folder, progress.step, ranks)
    network.train()
    head.train()
    try:
        with stop_requests() as stop_requested:
            for epoch in range(progress.step // steps_per_epoch, settings.epochs):
                order = batches(len(job.images), settings.batch_size, settings.seed, epoch)
                for rows in order[progress.step - epoch * steps_per_epoch :]:
                    started = time.perf_counter()
                    lr = settings.optimizer.rate * plateau.factor
                    lr *= schedule.factor(settings.schedule, progress.step, steps, steps_per_epoch)
                    optim.set_rate(lr)
                    seed_step(settings.seed, progress.step, ranks)
                    micro = rows.tensor_split(settings.accumulate)  # the same micro-batches for any number of ranks
                    own = [rank_share(part, ranks) for part in micro]
                    labels = job.images.labels[torch.cat(own)].to(device)
                    images = job.images.pixels[torch.cat(own)].to(device)
                    if job.augment is not None:
                        images = job.augment(images, step_generator(settings.seed, progress.step, ranks.rank))

                    optim.zero_grad()
                    value, seen = 0.0, []
                    wrong = torch.zeros((), dtype=torch.int64, device=device)
                    shares = [len(part) / len(rows) for part in micro]
                    cut = (torch.split(each, [len(part) for part in own]) for each in (images, labels))
                    for number, (some, theirs) in enumerate(zip(*cut, strict=True)):
                        pixels = job.contract(some)
                        if settings.channels_last:
                            pixels = pixels.contiguous(memory_format=torch.channels_last)
                        with defer_sync(network, head, last=number == settings.accumulate - 1):
                            with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
                                features = network(pixels)
                            loss = checked_loss(head, features, theirs, progress.step, folder, ranks)
                            if settings.schedule.kind == "plateau":
                                wrong += count_errors(head, features, theirs)
                            (loss * shares[number]).backward()  # type: ignore[no-untyped-call]
                        value += shares[number] * loss.item()
                        seen.append(features.detach())
                    if settings.clip_norm is not None:
                        clip(optim.parameters, settings.clip_norm, head, ranks)
                    optim.step()
                    features = torch.cat(seen)
                    if progress.step == 0:
                        progress.first_loss, progress.first_norm = value, float(head.seen["norm"])
                    progress.step += 1

                    progress.epoch_loss += value * len(rows)
                    progress.epoch_rows += len(rows)
                    progress.seconds += time.perf_counter() - started
                    if progress.step % settings.log_every == 0 or progress.step == steps:
                        further = head.diagnose(features, labels) if isinstance(head, DenseHead) else {}
                        logged = {name: float(number) for name, number in {**head.seen, **further}.items()}
                        log.write(progress.step, {"loss": value, "lr": lr, **logged})
                    if on_step is not None:
                        on_step(progress.step, steps, value)
                    told = total(torch.stack([wrong, wrong.new_tensor(stop_requested())]), ranks)
                    progress.epoch_wrong += int(told[0])
                    stopping = int(told[1]) > 0  # whichever rank was asked: all stop at this step
                    if progress.step % steps_per_epoch == 0:
                        if settings.schedule.kind == "plateau":
                            plateau.epoch_ended(progress.epoch_wrong / progress.epoch_rows)
                        progress.end_epoch()
                        if on_epoch is not None and (measured := on_epoch(epoch + 1)):
                            log.write(progress.step, measured)
                        if job.validation is not None and (epoch + 1) % job.validation.every == 0:
                            log.write(progress.step, validate(job))
                            network.train()
                            head.train()
                    if settings.snapshots is not None and settings.snapshots.due(progress.step):
                        snapshots.save_snapshot(folder, job, progress.step)
                    if stopping or _due(settings, progress.step, steps, steps_per_epoch):
                        state.save(folder, job, optim, plateau, progress)
                    if stopping:
                        raise Interrupted(f"stopped at step {progress.step} of {steps}")
    finally:
        log.close()
    return progress


def _due(settings: Training, step: int, steps: int, steps_per_epoch: int) -> bool:
    return step % (settings.checkpoint_every or steps_per_epoch) == 0 or step == steps
