"""The nearest gallery rows of each probe, and the highest score of each."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from angulus.core import checks
from angulus.evaluation.scoring import low_precision
from angulus.evaluation.scoring.exact import Matrix
from angulus.evaluation.scoring.mates import SideIds
from angulus.evaluation.scoring.tiles import DEFAULT, ScoreTile, ScoringOptions, Survivors, Task, task, tiles


def top_k(
    probes: Matrix, gallery: Matrix, k: int, *, ids: SideIds | None = None, options: ScoringOptions = DEFAULT
) -> tuple[Tensor, Tensor]:
    """The k highest exact scores of each probe and their gallery rows; ties go to the lower row.

    Args:
        probes: [P, d] of floats: a tensor, a NumPy array or a memory map. Scores are cosines: lengths do not matter.
        gallery: [N, d].
        k: in [1, N].
        ids: (identities of the probes [P], of the gallery [N]) as whole numbers, to leave out pairs of one identity.
        options: precision, memory, device, processes; they never change a result.

    Returns:
        Scores [P, k] of float64, descending, and rows [P, k] of int64; -inf and -1 if `ids` left fewer than k.

    >>> scores, rows = top_k(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0], [2.0, 0.0], [1.0, 0.0]]), 2)
    >>> scores.tolist(), rows.tolist()
    ([[1.0, 1.0]], [[1, 2]])
    """
    work = task(probes, gallery, ids, options)
    checks.integer("k", k, low=1, high=len(work.gallery))
    parts = options.ranks.gather_from_all(lambda: _mine(work, k))
    scores, rows = np.full((len(work.probes), k), -np.inf), np.full((len(work.probes), k), -1, dtype=np.int64)
    for place, values, columns in parts:
        scores[place], rows[place] = values, columns
    return torch.from_numpy(scores), torch.from_numpy(rows)


def best_per_probe(
    probes: Matrix, gallery: Matrix, *, ids: SideIds | None = None, options: ScoringOptions = DEFAULT
) -> Tensor:
    """The highest exact score of each probe, [P] of float64; -inf if `ids` left nothing. See `top_k`."""
    return top_k(probes, gallery, 1, ids=ids, options=options)[0][:, 0]


def _mine(work: Task, k: int) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """This rank's probes, and their scores and rows."""
    best = _Best.empty(len(work.probes), k)
    seen: list[range] = []
    survivors = Survivors(work)
    for tile in tiles(work, work.dtype()):
        best.see(tile, survivors)
        if tile.column == 0:
            seen.append(range(tile.row, tile.row + len(tile.scores)))
    best.merge(survivors)
    place = np.concatenate([np.arange(rows.start, rows.stop) for rows in seen]) if seen else np.empty(0, dtype=np.int64)
    return place, best.scores[place], best.rows[place]


@dataclass(frozen=True)
class _Best:
    """The k best so far of each probe, by falling score, then rising row."""

    scores: NDArray[np.float64]  # [P, k]
    rows: NDArray[np.int64]  # [P, k]

    @staticmethod
    def empty(probes: int, k: int) -> "_Best":
        return _Best(np.full((probes, k), -np.inf), np.full((probes, k), -1, dtype=np.int64))

    def see(self, tile: ScoreTile, survivors: Survivors) -> None:
        """Collect what a tile may have above the k-th best so far; merge it once there is enough."""
        k = self.scores.shape[1]
        lowest = torch.from_numpy(self.scores[tile.row : tile.row + len(tile.scores), -1]).to(tile.scores.device)
        for rows, keys in tile.strips(tile.floors(lowest)):
            bounds = lowest[rows]
            if keys.shape[1] >= k:  # k rows of this tile may already raise the bound
                kth = keys.amax(dim=1) if k == 1 else keys.topk(k, dim=1).values[:, -1]
                bounds = torch.maximum(bounds, tile.least(kth))
            near, columns = low_precision.between(keys, tile.floors(bounds)[:, None])
            survivors.add(tile, rows[near], columns)
            if survivors.due:
                self.merge(survivors)

    def merge(self, survivors: Survivors) -> None:
        """Score the waiting pairs, and keep the k best of each probe."""
        k = self.scores.shape[1]
        probes, columns, scores = (part.cpu().numpy() for part in survivors.take()[:3])
        better = scores > self.scores[probes, -1]  # an equal score at a later row loses
        probes, columns, scores = probes[better], columns[better], scores[better]
        met = np.unique(probes)
        every = np.concatenate([probes, np.repeat(met, k)])
        values = np.concatenate([scores, self.scores[met].ravel()])
        rows = np.concatenate([columns, self.rows[met].ravel()])
        order = np.lexsort((rows, -values, every))
        every, values, rows = every[order], values[order], rows[order]
        starts = np.searchsorted(every, met)
        chosen = starts[:, None] + np.arange(k)
        self.scores[met], self.rows[met] = values[chosen], rows[chosen]
