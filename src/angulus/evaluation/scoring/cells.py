"""Pairs above a threshold without all products: an inverted file of k-means cells, with exact scores.

Each gallery row is in the cell of its nearest centre, and a probe is compared with the rows of its nearest few cells.
What is found has its exact score; what lies in other cells is missed, so that the recall depends on the data and should
be measured on a sample. With c cells and v visits, N rows take N c products with centres, and about v N² / c with rows:
c = sqrt(v N) balances them.

Source: J. Sivic, A. Zisserman, "Video Google", ICCV 2003 (inverted files of k-means cells); H. Jégou, M. Douze,
C. Schmid, "Product Quantization for Nearest Neighbor Search", IEEE TPAMI 33(1), 2011 (several visits).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from angulus.core import checks
from angulus.evaluation.scoring.counts import PairBatch, above

Vectors = NDArray[np.floating[Any]]
View = Callable[[Vectors], Vectors]

VISITS = 8  # of a probe; docs/cluster.md has what other numbers find and cost
_PROBES = 2**22  # probes at a time: their places take 16 bytes per visit
_PER_CELL = 32  # rows that a centre is computed from
_ROUNDS = 5  # of k-means
_BLOCK = 2**25  # scores of rows and centres at a time


class Rows(Protocol):
    """A matrix [N, d], or what gives its rows where they are asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: NDArray[np.int64], /) -> Any: ...  # Vectors


class Cells:
    """Rows of a matrix in k-means cells."""

    def __init__(
        self, vectors: Rows, rows: NDArray[np.int64] | None = None, *, count: int | None = None, seed: int = 0
    ) -> None:
        """Find the centres and put each row into its cell. Keeps 16 bytes per row; reads rows in blocks.

        Args:
            vectors: [N, d], in memory, on disk or computed; rows need not have unit length.
            rows: [M] those to take; None: all.
            count: of cells, >= 1; None: sqrt(8 M).
            seed: of the rows that the centres are computed from.
        """
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning

        self.vectors = vectors
        rows = np.arange(len(vectors)) if rows is None else rows
        usual = math.isqrt(VISITS * len(rows))
        self.count = max(1, min(len(rows), usual if count is None else checks.integer("count", count, low=1)))
        sampled = min(len(rows), _PER_CELL * self.count)
        sample = rows[np.sort(np.random.default_rng(seed).permutation(len(rows))[:sampled])]
        means = KMeans(self.count, init="random", n_init=1, max_iter=_ROUNDS, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different rows than cells
            means.fit(_unit(vectors[sample]))
        self._centres = torch.from_numpy(_unit(means.cluster_centers_))
        self._members = _Groups(self._nearest(vectors, rows, 1, None), rows, self.count)

    def above(
        self,
        threshold: float,
        probes: Rows | None = None,
        rows: NDArray[np.int64] | None = None,
        view: View | None = None,
    ) -> Iterator[PairBatch]:
        """Pairs of a probe and a row in one of its nearest cells whose exact score is >= threshold.

        Probes that are the rows themselves visit 8 cells, and a pair is found if one of both visits the other's; other
        probes visit 16.

        Args:
            threshold: a number.
            probes: [P, d]; None: the rows themselves. Without a view, none of these is then paired with itself, and a
                pair may come in both orders.
            rows: [K] of the probes, those to compare; None: all.
            view: what to make of probes before they are compared, such as mirroring, with as many rows; None: nothing.
        """
        within = probes is None and view is None
        visits = min(self.count, VISITS if probes is None or probes is self.vectors else 2 * VISITS)
        probes = self.vectors if probes is None else probes
        rows = np.arange(len(probes)) if rows is None else rows
        if within:
            rows = self._members.rows
        for start in range(0, len(rows), _PROBES):
            part = rows[start : start + _PROBES]
            visitors = _Groups(self._nearest(probes, part, visits, view), part, self.count)
            for cell in range(self.count):
                members, visiting = self._members.of(cell), visitors.of(cell)
                if within:
                    visiting = np.setdiff1d(visiting, members, assume_unique=True)
                own = self.vectors[members]
                if within and not start and len(members):
                    yield from _renamed(above(own, None, threshold), members, members)
                if len(visiting) and len(members):
                    theirs = probes[visiting] if view is None else view(probes[visiting])
                    yield from _renamed(above(theirs, own, threshold), visiting, members)

    def _nearest(self, vectors: Rows, rows: NDArray[np.int64], visits: int, view: View | None) -> NDArray[np.int32]:
        """[K, visits]: the nearest cells of rows."""
        nearest = np.empty((len(rows), visits), dtype=np.int32)
        step = max(1, _BLOCK // self.count)
        for start in range(0, len(rows), step):
            block = vectors[rows[start : start + step]]
            scores = torch.from_numpy(_unit(block if view is None else view(block))) @ self._centres.T
            nearest[start : start + step] = scores.topk(visits, dim=1).indices.numpy()
        return nearest


class _Groups:
    """Rows by cell."""

    def __init__(self, cells: NDArray[np.int32], rows: NDArray[np.int64], count: int) -> None:
        """Sort rows [K] by their cells [K, visits]."""
        flat = cells.ravel()
        order = np.argsort(flat, kind="stable")
        self.rows = rows
        self._starts = np.searchsorted(flat[order], np.arange(count + 1))
        order //= cells.shape[1]
        self._places = order

    def of(self, cell: int) -> NDArray[np.int64]:
        return self.rows[self._places[self._starts[cell] : self._starts[cell + 1]]]


def _renamed(
    batches: Iterator[PairBatch], probes: NDArray[np.int64], gallery: NDArray[np.int64]
) -> Iterator[PairBatch]:
    for batch in batches:
        yield PairBatch(probes[batch.probes], gallery[batch.gallery], batch.scores)


def _unit(vectors: Vectors) -> NDArray[np.float32]:
    """float32 rows of length 1; zeros stay."""
    wide = vectors.astype(np.float32)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    return np.asarray(wide / np.where(lengths > 0, lengths, 1), dtype=np.float32)
