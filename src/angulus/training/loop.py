"""The training loop: plain PyTorch, from top to bottom."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from angulus import checks
from angulus.contract import Preprocessing
from angulus.data.augment import Augment
from angulus.data.images import Images
from angulus.heads.dense import DenseHead
from angulus.training import checkpoint, optimizer, schedule
from angulus.training.records import MetricsLog
from angulus.training.settings import Training


class Interrupted(Exception):
    """The run was asked to stop; its checkpoint is written."""


@dataclass
class Job:
    """What is trained, on what, and how."""

    backbone: nn.Module
    head: DenseHead
    contract: Preprocessing
    images: Images
    settings: Training
    device: torch.device
    augment: Augment | None = None


@dataclass
class Progress:
    """Where a run is; goes into its checkpoints."""

    step: int = 0  # optimiser steps done
    seconds: float = 0.0  # of training, over all sittings
    epoch_loss: float = 0.0  # sums over the running epoch
    epoch_wrong: int = 0
    epoch_rows: int = 0
    last_epoch_loss: float = field(default=float("nan"))  # mean of the last whole epoch


def fit(
    job: Job,
    folder: Path,
    *,
    resume: bool,
    on_step: Callable[[int, int, float], None] | None = None,
    on_epoch: Callable[[int], None] | None = None,
) -> Progress:
    """Train to the end, or from the folder's checkpoint to the end as if it had never stopped.

    Args:
        job: what to train.
        folder: gets `checkpoint.pt`, `metrics.jsonl` and `tensorboard/`.
        resume: go on from the folder's checkpoint.
        on_step: told (steps done, steps in all, loss).
        on_epoch: told the epochs done, before the checkpoint that holds them.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; the checkpoint holds the last whole step.
        checks.InputError: a loss that is not finite, a full disk, a checkpoint of another model.
    """
    settings, device = job.settings, job.device
    backbone, head = job.backbone.to(device), job.head.to(device)
    if settings.channels_last:
        backbone = backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    groups = optimizer.parameter_groups(backbone, head, head.objective, settings.optimizer)
    optim = optimizer.build(groups, settings.optimizer)
    plateau = schedule.Plateau(settings.schedule)
    progress = Progress()
    steps_per_epoch = len(batches(len(job.images), settings.batch_size, 0, 0))
    steps = settings.epochs * steps_per_epoch
    if resume:
        progress = _restore(checkpoint.load(folder / checkpoint.NAME), job, optim, plateau)

    def save() -> None:
        _refuse_broken_parameters(backbone, head, progress.step)
        checkpoint.save(folder, _state(job, optim, plateau, progress))

    parameters = [parameter for group in optim.param_groups for parameter in group["params"]]
    backbone.train()
    head.train()
    log = MetricsLog(folder, progress.step)
    try:
        with stop_requests() as stop_requested:
            for epoch in range(progress.step // steps_per_epoch, settings.epochs):
                order = batches(len(job.images), settings.batch_size, settings.seed, epoch)
                for rows in order[progress.step - epoch * steps_per_epoch :]:
                    started = time.perf_counter()
                    lr = settings.optimizer.rate * plateau.factor
                    lr *= schedule.factor(settings.schedule, progress.step, steps, steps_per_epoch)
                    for group in optim.param_groups:
                        group["lr"] = lr
                    labels = job.images.labels[rows].to(device)
                    images = job.images.pixels[rows].to(device)
                    if job.augment is not None:
                        images = job.augment(images, _chance(settings.seed, progress.step))
                    pixels = job.contract(images)
                    if settings.channels_last:
                        pixels = pixels.contiguous(memory_format=torch.channels_last)
                    with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
                        features = backbone(pixels)
                    loss = _checked(head, features, labels, progress.step, folder)
                    stats = head.statistics(features, labels, progress.step + 1)
                    optim.zero_grad(set_to_none=True)
                    loss.backward()  # type: ignore[no-untyped-call]
                    if settings.clip_norm is not None:
                        nn.utils.clip_grad_norm_(parameters, settings.clip_norm)
                    optim.step()
                    head.observe(stats)
                    progress.step += 1

                    value = loss.item()
                    progress.epoch_loss += value * len(rows)
                    progress.epoch_rows += len(rows)
                    if settings.schedule.kind == "plateau":
                        with torch.no_grad():
                            progress.epoch_wrong += int((head.logits(features).argmax(1) != labels).sum())
                    progress.seconds += time.perf_counter() - started
                    if progress.step % settings.log_every == 0 or progress.step == steps:
                        numbers = stats.values | head.diagnose(features, labels)
                        logged = {name: float(number) for name, number in numbers.items()}
                        log.write(progress.step, {"loss": value, "lr": lr, **logged})
                    if on_step is not None:
                        on_step(progress.step, steps, value)
                    if progress.step % steps_per_epoch == 0:
                        if settings.schedule.kind == "plateau":
                            plateau.epoch_ended(progress.epoch_wrong / progress.epoch_rows)
                        _end_epoch(progress)
                        if on_epoch is not None:
                            on_epoch(epoch + 1)
                    stopping = stop_requested()
                    if stopping or _due(settings, progress.step, steps, steps_per_epoch):
                        save()
                    if stopping:
                        raise Interrupted(f"stopped at step {progress.step} of {steps}")
    finally:
        log.close()
    return progress


def batches(count: int, batch_size: int, seed: int, epoch: int) -> list[Tensor]:
    """The rows of each step of an epoch: a permutation that depends on seed and epoch alone, cut into batches.

    A last batch of one row joins the one before it, since batch norm cannot train on one row.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    parts = list(torch.split(torch.randperm(count, generator=generator), batch_size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def _chance(seed: int, step: int) -> torch.Generator:
    """What augmentation draws from at a step: of the step alone, so that a resumed run draws the same."""
    return torch.Generator().manual_seed((seed + 1) * 2_000_003 + step)


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C or SIGTERM into a request that the loop answers between two steps; a second one kills."""
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requested.is_set
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def request(number: int, frame: FrameType | None) -> None:
        requested.set()
        for each, handler in previous.items():
            signal.signal(each, handler)

    for number in previous:
        signal.signal(number, request)
    try:
        yield requested.is_set
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _checked(head: DenseHead, features: Tensor, labels: Tensor, step: int, folder: Path) -> Tensor:
    try:
        checks.finite(features, "features")
        loss: Tensor = head(features, labels)
        checks.finite(loss[None], "the loss")
    except checks.InputError as error:
        kept = folder / checkpoint.NAME
        state = f"the last good checkpoint is {kept}" if kept.exists() else "no checkpoint was written yet"
        raise checks.InputError(
            f"training stopped at step {step}: {error}; {state}; lower training.optimizer.lr, set training.clip_norm, "
            "or start with training.schedule.warmup_epochs"
        ) from error
    return loss


def _refuse_broken_parameters(backbone: nn.Module, head: nn.Module, step: int) -> None:
    for name, value in [*backbone.state_dict().items(), *head.state_dict().items()]:
        if not bool(torch.isfinite(value).all()):
            raise checks.InputError(
                f"training stopped at step {step}: {name} is no longer finite; the checkpoint before it is kept; lower "
                "training.optimizer.lr, or set training.clip_norm"
            )


def _due(settings: Training, step: int, steps: int, steps_per_epoch: int) -> bool:
    return step % (settings.checkpoint_every or steps_per_epoch) == 0 or step == steps


def _end_epoch(progress: Progress) -> None:
    progress.last_epoch_loss = progress.epoch_loss / progress.epoch_rows
    progress.epoch_loss, progress.epoch_wrong, progress.epoch_rows = 0.0, 0, 0


def _state(job: Job, optim: torch.optim.Optimizer, plateau: schedule.Plateau, progress: Progress) -> dict[str, Any]:
    random = {"cpu": torch.get_rng_state()}
    if job.device.type == "cuda":
        random["cuda"] = torch.cuda.get_rng_state(job.device)
    return {
        "backbone": job.backbone.state_dict(),
        "head": job.head.state_dict(),
        "optimizer": optim.state_dict(),
        "plateau": plateau.state_dict(),
        "progress": vars(progress),
        "random": random,
    }


def _restore(state: dict[str, Any], job: Job, optim: torch.optim.Optimizer, plateau: schedule.Plateau) -> Progress:
    checkpoint.load_module(job.backbone, state["backbone"], "backbone")
    checkpoint.load_module(job.head, state["head"], "head")
    optim.load_state_dict(state["optimizer"])
    plateau.load_state_dict(state["plateau"])
    torch.set_rng_state(state["random"]["cpu"])
    if job.device.type == "cuda" and "cuda" in state["random"]:
        torch.cuda.set_rng_state(state["random"]["cuda"], job.device)
    return Progress(**state["progress"])
