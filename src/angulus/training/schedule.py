"""The learning rate's factor at each step."""

from __future__ import annotations

import bisect
import math
from typing import Any

from angulus.training.settings import Schedule


def open_ended(settings: Schedule) -> bool:
    """Whether no factor depends on how many epochs there are in all, so that a run can go on to more of them."""
    return settings.kind in ("constant", "steps", "plateau")


def factor(settings: Schedule, step: int, steps: int, steps_per_epoch: int) -> float:
    """What multiplies the learning rate at optimiser step `step` of `steps` (from 0), but for the plateau's drops.

    >>> [factor(Schedule("constant", warmup_epochs=1.0), step, 8, 4) for step in (0, 1, 3, 4)]
    [0.25, 0.5, 1.0, 1.0]
    """
    warmup = round(settings.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)  # in [0, 1)
    match settings.kind:
        case "steps":
            return settings.factor ** bisect.bisect_right(settings.milestones, step / steps_per_epoch)
        case "cosine":
            return _cosine(1.0, settings.final, progress)
        case "polynomial":
            return float((1 - progress) ** settings.power)
        case "one_cycle":
            rise = 0.3
            if progress < rise:
                return _cosine(1 / 25, 1.0, progress / rise)
            return _cosine(1.0, settings.final, (progress - rise) / (1 - rise))
        case _:  # constant; plateau, whose drops come on top
            return 1.0


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


class Plateau:
    """The factor of a plateau schedule: times `settings.factor` when the training error stops falling."""

    def __init__(self, settings: Schedule) -> None:
        self.settings = settings
        self.best = math.inf
        self.waited = 0
        self.dropped = 0

    @property
    def factor(self) -> float:
        return self.settings.factor**self.dropped

    def epoch_ended(self, training_error: float) -> None:
        """Take the training error of the epoch, a share in [0, 1]."""
        if training_error < self.best:
            self.best, self.waited = training_error, 0
            return
        self.waited += 1
        if self.waited >= self.settings.patience and self.dropped < self.settings.drops:
            self.dropped, self.waited = self.dropped + 1, 0

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited, "dropped": self.dropped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.waited, self.dropped = state["best"], state["waited"], state["dropped"]
