"""The training loop: plain PyTorch, from top to bottom, the same on one process and on many."""

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from angulus.core import checks
from angulus.distributed.collectives import total
from angulus.heads.clipping import clip_grad_norm_
from angulus.heads.dense import DenseHead
from angulus.heads.saving import Head
from angulus.training import batches, ema, optimizer, reading, schedule, sharding
from angulus.training.callbacks import Callback, Calls, Record
from angulus.training.finetune import train_mode
from angulus.training.job import Job, place_on_device
from angulus.training.log import MetricsLog
from angulus.training.saver import saving
from angulus.training.schedule import PlateauState
from angulus.training.settings import Plateau
from angulus.training.signals import Interrupted, stop_requests
from angulus.training.state import CHECKPOINT, Progress, restore_state, save_snapshot
from angulus.training.validation import validate
from angulus.training.watch import Watch


class TrainingStopped(checks.InputError):
    """A training whose loss is not finite."""


class StepResult(NamedTuple):
    """What a step gives: the loss of the whole batch; this rank's features and labels; how many it got wrong."""

    loss: float
    features: Tensor
    labels: Tensor
    errors: Tensor


def fit(
    job: Job,
    folder: Path,
    *,
    resume: bool,
    on_step: Callable[[int, int, float], None] | None = None,
    on_epoch: Callable[[int], dict[str, float]] | None = None,
    callbacks: Sequence[Callback] = (),
) -> Progress:
    """Train to the end; with `resume`, from the folder's checkpoint, to the same weights as without a stop.

    Every rank calls it, and trains on its share of each batch.

    Args:
        job: what to train.
        folder: gets `checkpoint.pt`, `metrics.jsonl`, what loggers write, and `snapshots/`; seen by all ranks.
        resume: continue from the folder's checkpoint.
        on_step: called with (steps done, steps in total, loss).
        on_epoch: called with the number of epochs done, before their checkpoint is written; returns what to log.
        callbacks: the user's own, called on each rank that is given some; an exception of theirs is raised once the
            checkpoint is written.

    Raises:
        Interrupted: Ctrl-C or SIGTERM, on any rank; the checkpoint holds the last whole step.
        checks.InputError: a loss that is not finite, a full disk, a checkpoint of another model; on all ranks.
    """
    settings, head, ranks = job.settings, job.head, job.ranks

    # Build what a step needs
    network = place_on_device(job)
    optim = optimizer.optimizers(
        *(job.backbone, head, settings.optimizer),
        update_in_backward=job.update_in_backward,
        rounding=job.rounding or "nearest",
        seed=settings.seed,
    )
    plateau = PlateauState(settings.schedule)
    mean = ema.of(job)
    steps_per_epoch = batches.steps_per_epoch(job.images.labels, settings)
    steps = settings.epochs * steps_per_epoch

    # Resume
    progress = restore_state(folder, job, optim, plateau, mean) if resume else Progress()
    progress.steps = steps

    train_mode(network)
    head.train()
    watch = Watch(head, steps, settings.log_every, job.images.class_names, progress.watch)
    calls = Calls(callbacks)

    def record(loss: float, batch: int, values: Mapping[str, float]) -> Record:
        epoch, epochs, images = progress.step // steps_per_epoch, settings.epochs, settings.epochs * len(job.images)
        return Record(progress.step, steps, epoch, epochs, loss, batch, images, folder, values)

    ahead = reading.read_ahead(job, batches.remaining_batches(job.images.labels, settings, progress.step))
    unreadable = reading.Unreadable(folder, job.images)
    log = MetricsLog(folder, progress.step, job)
    with closing(log), stop_requests() as stop_requested, calls, closing(ahead), saving(folder, job) as saver:
        if progress.step < steps:
            calls("on_start", record(math.nan, 0, {}))
            ranks.run_on_all(calls.raise_failure)
        started = time.perf_counter()
        for rows, pixels, bad in ahead:
            # Train one step
            lr = settings.optimizer.lr * plateau.factor
            lr *= schedule.factor(settings.schedule, progress.step, steps, steps_per_epoch)
            optim.set_rate(lr)
            batches.seed_step(settings.seed, progress.step, ranks)
            result = train_step(job, network, optim, rows, progress.step, folder, pixels)
            if progress.step == 0:  # the figures that a diverged training is measured against
                progress.first_loss, progress.first_norm = result.loss, float(head.seen["norm"])
            progress.step += 1
            if mean is not None:
                mean.update(progress.step)
            progress.epoch_loss += result.loss * len(rows)
            progress.epoch_rows += len(rows)
            progress.seconds += time.perf_counter() - started

            # Log
            values: dict[str, float] = {}
            if progress.step % settings.log_every == 0 or progress.step == steps:
                diagnosed = head.diagnose(result.features, result.labels) if isinstance(head, DenseHead) else {}
                means = {name: float(value) for name, value in {**head.seen, **diagnosed}.items()}
                if job.compatible is not None:
                    means["compatible_target_cos"] = float(job.compatible.head.seen["target_cos"])
                values = {"loss": result.loss, "lr": lr, **means}
                log.write(progress.step, values)
                for finding in watch.look(
                    progress.step, {"loss": result.loss, **means}, result.features, result.labels
                ):
                    progress.findings.append(finding._asdict())
                    log.note(*finding)
                    warnings.warn(finding.sentence, stacklevel=2)
                progress.watch = watch.state()
            if on_step is not None:
                on_step(progress.step, steps, result.loss)
            calls("on_step", record(result.loss, len(rows), values))
            if bad:
                calls.failure = calls.failure or unreadable.add(bad)

            # Share among ranks the errors, and whether any was asked to stop: then all stop at this step
            stop = stop_requested() or calls.failure is not None or saver.failed
            sums = total(torch.stack([result.errors, result.errors.new_tensor(stop)]), ranks)
            progress.epoch_wrong += int(sums[0])
            stopping = int(sums[1]) > 0

            # End the epoch, and save what is due
            epoch_ended = progress.step % steps_per_epoch == 0
            if epoch_ended:
                with ema.applied(mean), sharding.whole_backbone(job):
                    values = _end_epoch(
                        job, network, plateau, progress, progress.step // steps_per_epoch, log, on_epoch
                    )
                    calls("on_epoch", record(result.loss, len(rows), values))
                stopping = int(total(result.errors.new_tensor(stopping or calls.failure is not None), ranks)) > 0
            if settings.snapshots is not None and settings.snapshots.due(progress.step):
                with ema.applied(mean):
                    save_snapshot(folder, job, progress.step)
            due = progress.step % settings.checkpoint_every == 0 if settings.checkpoint_every else epoch_ended
            last = stopping or progress.step == steps
            if due or last:
                saver.save(optim, plateau, progress, mean, last=last)
            calls.raise_failure()
            if stopping:
                raise Interrupted(f"stopped at step {progress.step} of {steps}")
            started = time.perf_counter()
    if mean is not None:
        mean.swap()  # what comes next evaluates and saves the mean
    sharding.end(job)
    return progress


def train_step(
    job: Job,
    network: nn.Module,
    optim: optimizer.Optimizers,
    rows: Tensor,
    step: int,
    folder: Path,
    pixels: Tensor,
) -> StepResult:
    """One optimiser step on a batch: forward and backward by micro-batches, clipping, update.

    `pixels` are the images of this rank's share of each micro-batch, one after the other.
    """
    settings, head, ranks, device = job.settings, job.head, job.ranks, job.device

    # Place this rank's share of each micro-batch; micro-batches are the same for any number of ranks
    micro_batches = rows.tensor_split(settings.accumulate)
    own_rows = batches.rank_rows(rows, settings, ranks)
    sizes = [len(part) for part in own_rows]
    labels = job.images.labels[torch.cat(own_rows)].to(device)
    images = pixels.to(device, non_blocking=True)
    if job.augment is not None:
        images = job.augment(images, batches.step_generator(settings.seed, step, ranks.rank))

    # Sum the gradients of the micro-batches, weighted by their rows, to that of the whole batch
    optim.zero_grad()
    batch_loss, batch_features = 0.0, []
    errors = torch.zeros((), dtype=torch.int64, device=device)
    parts = zip(torch.split(images, sizes), torch.split(labels, sizes), strict=True)
    for number, (part, targets) in enumerate(parts):
        share = len(micro_batches[number]) / len(rows)
        inputs = job.contract(part)
        if settings.channels_last:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        with defer_sync(job, network, last=number == settings.accumulate - 1):
            with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
                features = network(inputs)
            loss = checked_loss(job, features, targets, step, folder)
            if isinstance(settings.schedule, Plateau):
                errors += count_errors(head, features, targets)
            (loss * share).backward()  # type: ignore[no-untyped-call]
        batch_loss += share * loss.item()
        batch_features.append(features.detach())

    # Update
    if settings.clip_norm is not None:
        clip_grad_norm_(optim.parameters, settings.clip_norm, head)
    optim.step()
    return StepResult(batch_loss, torch.cat(batch_features), labels, errors)


def _end_epoch(
    job: Job,
    network: nn.Module,
    plateau: PlateauState,
    progress: Progress,
    epoch: int,
    log: MetricsLog,
    on_epoch: Callable[[int], dict[str, float]] | None,
) -> dict[str, float]:
    """Move the schedule, log what is measured between epochs, and return it; `epoch` counts from 1."""
    plateau.end_epoch(progress.epoch_wrong / progress.epoch_rows)
    progress.end_epoch()
    values: dict[str, float] = {}
    if on_epoch is not None and (measured := on_epoch(epoch)):
        log.write(progress.step, measured)
        values |= measured
    if job.validation is not None and epoch % job.validation.every == 0:
        validated = validate(job)
        log.write(progress.step, validated)
        values |= validated
    train_mode(network)
    job.head.train()
    return values


def checked_loss(job: Job, features: Tensor, labels: Tensor, step: int, folder: Path) -> Tensor:
    """The loss, with that over an old model's classes if there are some; an error on all ranks if not finite on any."""
    head = job.head
    with job.ranks.raise_on_all():
        try:
            loss: Tensor = head(features, labels)
            if job.compatible is not None:
                loss = loss + job.compatible.loss(features, labels)
            head.check()  # on a GPU; the next line waits for it anyway
            checks.finite(loss[None], "the loss")
        except checks.InputError as error:
            path = folder / CHECKPOINT
            state = f"the last good checkpoint is {path}" if path.exists() else "no checkpoint was written yet"
            kind = TrainingStopped if type(error) is checks.InputError else type(error)  # of several ranks: who failed
            raise kind(f"training stopped at step {step}: {error}; {state}; {job.steadier}") from error
    return loss


@torch.no_grad()
def count_errors(head: Head, features: Tensor, labels: Tensor) -> Tensor:
    """How many of this rank's rows are classified wrong, by the class weights of the step's own loss.

    Call it before backward, which may already move them. It is a second pass over the classes, because the loss's
    kernels keep no logits.
    """
    return (head.logits(features).argmax(1) != labels).sum()


@contextmanager
def defer_sync(job: Job, network: nn.Module, last: bool) -> Iterator[None]:
    """Until the last micro-batch, leave gradients unsummed over the processes, and the heads' running figures still."""
    with ExitStack() as stack:
        for head in (job.head, *([] if job.compatible is None else [job.compatible.head])):
            stack.enter_context(head.accumulate(not last))
        if not last and isinstance(network, DistributedDataParallel):
            stack.enter_context(network.no_sync())
        yield
