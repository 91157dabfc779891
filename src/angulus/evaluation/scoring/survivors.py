"""Pairs that no product could reject, kept until there are enough to be scored exactly at once."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from angulus.evaluation.scoring import products
from angulus.evaluation.scoring.tiles import Task, Tile

BATCH = 2**10  # pairs; a step of few costs as much as one of hundreds


@dataclass
class Survivors:
    """Pairs by probe and gallery row, each with its low-precision score, the bound on that, and the caller's mark."""

    task: Task
    waiting: list[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]] = field(default_factory=list)
    count: int = 0

    def add(self, tile: Tile, rows: Tensor, columns: Tensor, marks: Tensor | None = None) -> None:
        """Keep pairs of a tile, by their places in it."""
        if len(rows):
            low = tile.scores[rows, columns].double()
            bound = tile.slack + products.rounding(low, tile.scores.dtype)
            kept = rows + tile.row, columns + tile.column, low, bound, rows if marks is None else marks
            self.waiting.append(kept)
            self.count += len(rows)

    @property
    def due(self) -> bool:
        """Whether there are enough to be scored."""
        return self.count >= BATCH

    def take(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All that wait: probe rows, gallery rows, exact scores, marks; nothing waits afterwards.

        Raises:
            RuntimeError: the device's product broke the bound, so that what it rejected cannot be trusted.
        """
        device = self.task.probes.device
        nothing = torch.empty(0, dtype=torch.int64, device=device)
        parts = [(nothing, nothing, nothing.double(), nothing.double(), nothing), *self.waiting]
        self.waiting, self.count = [], 0
        rows, columns, low, bound, marks = (torch.cat(part) for part in zip(*parts, strict=True))
        scores = self.task.score(rows, columns)
        off = (low - scores).abs() - bound
        if len(off) and float(off.max()) > 0:
            raise RuntimeError(
                f"a product in low precision on {device} is off by {float(off.max()):.2e} more than IEEE allows, "
                "so its rejections are in doubt; use precision='float32' or another device"
            )
        return rows, columns, scores, marks
