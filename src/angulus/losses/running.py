"""The statistics of an optimiser step, and the running figures that they update."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from angulus.core import checks


@dataclass(frozen=True)
class Batch:
    """The rows of one loss, those of all ranks, as pieces see them before it is computed; detached, [rows] each.

    Args:
        norms, cos, theta: ‖x‖, and the cosine and angle to the own class.
        log_sums: log Σ_{j≠y} e^{s cos_j} at the radius's current s, if the radius asks for it (`asks_log_sums`).
        own: which rows are this rank's.
        earlier: the number of rows in earlier micro-batches of the same optimiser step.
        kept: bool, rows that count, or None: all do. On a GPU, dropping the others would wait for it; so only pieces
            with `masks` get it, which leave them out themselves.
    """

    norms: Tensor
    cos: Tensor
    theta: Tensor
    log_sums: Tensor | None = None
    own: slice = field(default_factory=lambda: slice(None))
    earlier: int | Tensor = 0
    kept: Tensor | None = None

    @staticmethod
    def merge(parts: "Sequence[Batch]") -> "Batch":
        """The rows of an optimiser step from those of its micro-batches."""
        norms, cos, theta = (torch.cat([getattr(part, name) for part in parts]) for name in ("norms", "cos", "theta"))
        sums = [part.log_sums for part in parts if part.log_sums is not None]
        kept = None
        if any(part.kept is not None for part in parts):
            kept = torch.cat([torch.ones_like(p.norms, dtype=torch.bool) if p.kept is None else p.kept for p in parts])
        return Batch(norms, cos, theta, torch.cat(sums) if sums else None, kept=kept)

    @property
    def count(self) -> int | Tensor:
        """The number of rows that count, at least 1."""
        return len(self.norms) if self.kept is None else self.kept.sum().clamp_min(1)

    @property
    def numbers(self) -> Tensor:
        """The number of each row among those that count in the optimiser step, [rows]; any for the others."""
        if self.kept is None:
            return self.earlier + torch.arange(len(self.norms), device=self.norms.device)
        return self.earlier + (self.kept.cumsum(0) - 1).clamp_min(0)

    def where_kept(self, values: Tensor, otherwise: float) -> Tensor:
        """The values [rows] of the rows that count, and `otherwise` for the others."""
        return values if self.kept is None else torch.where(self.kept, values, otherwise)

    def mean(self, values: Tensor) -> Tensor:
        """The mean of values [rows] over the rows that count."""
        return values.mean() if self.kept is None else self.where_kept(values, 0.0).sum() / self.count

    def deviation(self, values: Tensor) -> Tensor:
        """Their standard deviation, by N − 1; 0 for one row."""
        if self.kept is None:
            return values.std() if len(values) > 1 else values.new_zeros(())
        squares = self.where_kept((values - self.mean(values)).square(), 0.0).sum()
        return torch.sqrt(squares / (self.kept.sum() - 1).clamp_min(1))

    def median(self, values: Tensor) -> Tensor:
        """Their median; of an even number of rows the mean of the middle two."""
        if self.kept is None:
            return torch.quantile(values, 0.5)
        ascending, last = self.where_kept(values, torch.inf).sort().values, self.kept.sum().clamp_min(1)[None] - 1
        middle = ascending[torch.cat([last // 2, (last + 1) // 2])]
        return torch.lerp(middle[0], middle[1], 0.5)


@dataclass(frozen=True)
class Statistics:
    """The statistics of one optimiser step; pieces with running figures update them in `observe(stats)`.

    Args:
        values: means over the rows by name (0-d tensors, detached): see `DenseHead.statistics`.
        rows: their number, on all ranks; 0-d if it is known on a GPU only.
        features: of these rows, detached, [rows, d]; empty if the objective has no `feature_terms`.
        labels: [rows], likewise.
        batch: these rows, if a piece has `prepare`, which sees them before the loss; else None.
        good: 0-d bool, or None: true. Figures do not move by a batch that is not good, as is known on a GPU only.
    """

    values: dict[str, Tensor]
    rows: int | Tensor
    features: Tensor
    labels: Tensor
    batch: Batch | None = None
    good: Tensor | None = None

    @property
    def rows_seen(self) -> Batch:
        """`batch`, for the pieces that prepared for it."""
        if self.batch is None:
            raise checks.InputError("these statistics have no rows for a piece with prepare(); give Statistics(batch=)")
        return self.batch


def merge_statistics(parts: Sequence[Statistics]) -> Statistics:
    """The statistics of an optimiser step from those of its micro-batches."""
    rows = sum((part.rows for part in parts), start=0)  # type: int | Tensor
    values = {name: torch.stack([p.rows * p.values[name] for p in parts]).sum() / rows for name in parts[0].values}
    features, labels = (torch.cat([getattr(part, name) for part in parts]) for name in ("features", "labels"))
    batches = [part.batch for part in parts if part.batch is not None]
    flags = [part.good for part in parts if part.good is not None]
    good = torch.stack(flags).all() if flags else None
    return Statistics(values, rows, features, labels, Batch.merge(batches) if batches else None, good)


_mean_of_all_ranks: ContextVar[Tensor | None] = ContextVar("_mean_of_all_ranks", default=None)


def batch_mean(norms: Tensor) -> Tensor:
    """The mean norm of the batch, detached: it replaces a running mean before its first update."""
    whole = _mean_of_all_ranks.get()
    return norms.detach().mean() if whole is None else whole.to(norms.dtype)


@contextmanager
def whole_batch(mean_norm: Tensor) -> Iterator[None]:
    """A context in which `batch_mean` is `mean_norm`, that of all ranks, of whose batch a process sees only a part."""
    token = _mean_of_all_ranks.set(mean_norm)
    try:
        yield
    finally:
        _mean_of_all_ranks.reset(token)


class Wide(nn.Module):
    """A module whose buffers stay float32 or wider when a module that contains it is cast.

    In bfloat16 a mean that changes by a hundredth of a difference would not change at all.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Wide":
        def cast_wide(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            narrow = moved.is_floating_point() and moved.dtype.itemsize < 4
            return tensor.to(moved.device) if narrow else moved

        super()._apply(cast_wide, recurse)  # type: ignore[no-untyped-call]
        return self


def wide_dtype() -> torch.dtype:
    """The dtype of running figures: float32, or the default dtype if that is wider."""
    return torch.promote_types(torch.get_default_dtype(), torch.float32)


def exact_dtype(device: torch.device) -> torch.dtype:
    """The widest dtype of real numbers on a device: float64, but float32 on a Mac's GPU."""
    return torch.float32 if device.type == "mps" else torch.float64


class RunningMean(Wide):
    """Exponential moving average of a scalar, set by the first value; in `state_dict`, in float32 or wider."""

    value: Tensor
    count: Tensor

    def __init__(self, momentum: float = 0.99) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("value", torch.tensor(0.0, dtype=wide_dtype()))
        self.register_buffer("count", torch.tensor(0, dtype=torch.int64))

    def value_or(self, otherwise: Tensor) -> Tensor:
        """The running value, or `otherwise` before the first update."""
        return torch.where(self.count > 0, self.value.to(otherwise.dtype), otherwise)

    @torch.no_grad()
    def update(self, new: Tensor) -> None:
        new = new.to(self.value)
        # a short history weights its few values evenly instead of sticking to the first
        momentum = torch.clamp(self.count / (self.count + 1.0), max=self.momentum)
        self.value.copy_(torch.where(self.count > 0, momentum * self.value + (1 - momentum) * new, new))
        self.count += 1


class StepCount(nn.Module):
    """The number of optimiser steps so far, for a schedule; in `state_dict`."""

    step: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("step", torch.tensor(0, dtype=torch.int64))

    @torch.no_grad()
    def observe(self, stats: Statistics) -> None:
        self.step += 1
