"""The learning rate's factor at each step."""

import bisect
import math
from typing import Any

from angulus.training.settings import Constant, Cosine, OneCycle, Plateau, Polynomial, Schedule, Steps

RISE = 0.3  # the share of a one_cycle schedule before its peak


def is_open_ended(settings: Schedule) -> bool:
    """Whether no factor depends on the number of epochs, so that a run can be extended."""
    return isinstance(settings, Constant | Steps | Plateau)


def factor(settings: Schedule, step: int, steps: int, steps_per_epoch: int) -> float:
    """The learning rate's factor at optimiser step `step` of `steps` (from 0), without the plateau's drops.

    >>> [factor(Constant(warmup_epochs=1.0), step, 8, 4) for step in (0, 1, 3, 4)]
    [0.25, 0.5, 1.0, 1.0]
    """
    warmup = 0 if isinstance(settings, OneCycle) else round(settings.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)  # in [0, 1)
    match settings:
        case Steps():
            return settings.factor ** bisect.bisect_right(settings.milestones, step / steps_per_epoch)
        case Cosine():
            return _cosine(1.0, settings.final, progress)
        case Polynomial():
            return float((1 - progress) ** settings.power)
        case OneCycle() if progress < RISE:
            return _cosine(1 / 25, 1.0, progress / RISE)
        case OneCycle():
            return _cosine(1.0, settings.final, (progress - RISE) / (1 - RISE))
        case Constant() | Plateau():
            return 1.0


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


class PlateauState:
    """How often a plateau schedule has dropped the learning rate; stays at factor 1 for other schedules."""

    def __init__(self, settings: Schedule) -> None:
        self.settings = settings if isinstance(settings, Plateau) else None
        self.best = math.inf
        self.waited = 0
        self.dropped = 0

    @property
    def factor(self) -> float:
        return 1.0 if self.settings is None else self.settings.factor**self.dropped

    def end_epoch(self, training_error: float) -> None:
        """Drop the rate if the epoch's training error, a share in [0, 1], ends the patience."""
        if self.settings is None:
            return
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
