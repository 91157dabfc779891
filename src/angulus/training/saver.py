"""Checkpoints of a training, written at once or in a thread while training goes on."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from angulus.distributed.launch import patient
from angulus.distributed.runtime import Ranks
from angulus.training.ema import Ema
from angulus.training.job import Job
from angulus.training.optimizer import Optimizers
from angulus.training.schedule import PlateauState
from angulus.training.state import Progress, take_state, write_state


class Saver:
    """Writes checkpoints of a job; every rank has one and calls it at the same steps.

    With a pool of one thread, `save` copies the state to the CPU's memory and the thread writes the copy. One copy is
    written at a time: the next `save` waits for it, and raises its error on all ranks.
    """

    def __init__(self, folder: Path, job: Job, ranks: Ranks, pool: ThreadPoolExecutor | None = None) -> None:
        self.folder, self.job = folder, job
        self._ranks, self._pool = ranks, pool  # the thread's
        self._writing: Future[None] | None = None

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


@contextmanager
def saving(folder: Path, job: Job) -> Iterator[Saver]:
    """A saver, in a thread if `training.checkpoint_async` asks for it; the thread has ended when the context ends.

    It is not waited for after a failure that only this rank may have had: the others may be lost.
    """
    if not job.settings.checkpoint_async:
        yield Saver(folder, job, job.ranks)
        return
    pool, wait = ThreadPoolExecutor(1, "checkpoint"), True
    with patient(job.ranks) as ranks:  # a group of its own: the training's collectives must not meet the thread's
        try:
            yield Saver(folder, job, ranks, pool)
        except RuntimeError:
            wait = ranks.count == 1
            raise
        finally:
            pool.shutdown(wait)


def copied(value: Any) -> Any:
    """The value with copies of all its tensors, on the CPU, and of the containers that hold them."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):  # of any kind, with its attributes
        same = copy.copy(value)
        same.update((name, copied(each)) for name, each in value.items())
        return same
    if isinstance(value, list | tuple):
        parts = [copied(each) for each in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value
