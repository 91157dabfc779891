"""Callbacks of a training: functions of the user's own, called at the start, after steps and epochs, and at the end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol


@dataclass(frozen=True)
class Record:
    """How far a training is.

    Args:
        step, steps: optimiser steps done, and in total.
        epoch, epochs: whole epochs done, and in total.
        loss: of the last step's batch, NaN before the first.
        batch: images of the last step, over all processes.
        images: that the whole training takes, repeats counted.
        values: what was logged: at a step every `training.log_every` (loss, lr, norms, ...), after an epoch what is
            measured then (validation, `evaluation.each_epoch`); otherwise empty.
        folder: the run's.
    """

    step: int
    steps: int
    epoch: int
    epochs: int
    loss: float
    batch: int
    images: int
    folder: Path
    values: Mapping[str, float] = field(default_factory=dict)


class Callback(Protocol):
    """What a training calls. Inherit from it and write the methods that you want.

    An exception ends the training after its checkpoint is written, and is raised then: `resume=True` goes on. Do not
    change weights in a callback, and draw no random numbers from PyTorch's own generator, or a resumed run differs.
    """

    def on_start(self, record: Record) -> None:
        """Before the first step; of a resumed training, before its next."""
        return

    def on_step(self, record: Record) -> None:
        """After every optimiser step."""
        return

    def on_epoch(self, record: Record) -> None:
        """After every epoch, when all that belongs to it is measured, before its checkpoint."""
        return

    def on_end(self, record: Record) -> None:
        """When the training ends, also if it stopped early: then `record.step` is below `record.steps`."""
        return


class Calls:
    """Calls the callbacks in their order, and keeps the first exception until the loop can raise it."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self.callbacks = callbacks
        self.failure: Exception | None = None
        self.last: Record | None = None

    def __call__(self, event: str, record: Record) -> None:
        """Call `event` ("on_start", ...) of all, unless one has failed."""
        self.last = record
        if self.failure is not None:
            return
        for callback in self.callbacks:
            try:
                getattr(callback, event)(record)
            except Exception as error:
                self.failure = self.failure or error

    def raise_failure(self) -> None:
        """Raise what a callback raised."""
        if self.failure is not None:
            raise self.failure

    def __enter__(self) -> "Calls":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Call `on_end`; an exception of it is raised only if nothing else is."""
        if self.last is None:
            return
        earlier, self.failure = self.failure, None
        self("on_end", self.last)
        if error is None and earlier is None:
            self.raise_failure()
