"""Checkpoints of a training, written at once or in a thread while training goes on."""

from __future__ import annotations

import copy
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import torch.distributed as dist
from torch import Tensor

from angulus.distributed.runtime import Ranks
from angulus.heads.saving import HeadParts
from angulus.training.ema import Ema
from angulus.training.job import Job
from angulus.training.optimizer import Optimizers
from angulus.training.schedule import PlateauState
from angulus.training.state import Progress, State, take_state, write_state


class Saver:
    """Writes checkpoints of a job; every rank has one and calls it at the same steps.

    With `training.checkpoint_async`, `save` copies the state to the CPU's memory and a thread writes the copy. One copy
    is written at a time: the next `save` waits for it, and raises its error on all ranks. As a context, it ends when
    the thread has.
    """

    def __init__(self, folder: Path, job: Job) -> None:
        self.folder, self.job = folder, job
        self._writing: Future[None] | None = None
        self._ranks = job.ranks
        self._pool = ThreadPoolExecutor(1, "checkpoint") if job.settings.checkpoint_async else None
        if self._pool is not None and job.ranks.count > 1:  # the training's collectives must not meet the thread's
            ranks = dist.get_process_group_ranks(job.ranks.group or dist.group.WORLD)
            self._ranks = Ranks.here(dist.new_group(ranks, backend="gloo"))

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Let the thread end, but not after a failure that only this rank may have had: the others may be lost."""
        if self._pool is not None:
            self._pool.shutdown(wait=self._ranks.count == 1 or kind is None or not issubclass(kind, RuntimeError))
            if kind is None and self._ranks.count > 1:
                dist.destroy_process_group(self._ranks.group)

    @property
    def failed(self) -> bool:
        """Whether a checkpoint could not be written. Ranks see it at different steps; `save` raises the error."""
        writing = self._writing
        return writing is not None and writing.done() and writing.exception() is not None

    def save(
        self, optim: Optimizers, plateau: PlateauState, progress: Progress, ema: Ema | None, *, last: bool
    ) -> None:
        """Save the state as it is now; the last one is written when this returns."""
        if self._writing is not None:
            self._writing.result()
        state = take_state(self.job, optim, plateau, progress, ema)
        if self._pool is None or last:
            write_state(self.folder, state, self.job.ranks)
        else:
            self._writing = self._pool.submit(write_state, self.folder, copied(state), self._ranks)


def copied(value: Any) -> Any:
    """The value with copies of all its tensors, on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):  # of any kind, with its attributes
        same = copy.copy(value)
        same.update((name, copied(each)) for name, each in value.items())
        return same
    if isinstance(value, State | HeadParts):
        return type(value)(*map(copied, value))
    return list(map(copied, value)) if isinstance(value, list) else value
