"""What a protocol compares: vectors, fused with the mirrored image's or projected by PCA, and the scores of pairs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from angulus import checks, scoring
from angulus.embeddings import Embeddings

Vectors = NDArray[np.floating[Any]]
Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

METRICS = {  # each with what its score is; higher means more alike
    "cosine": "cosine, a·b / (‖a‖ ‖b‖)",
    "inner": "inner product, a·b",
    "euclidean": "minus the distance, −‖a − b‖",
    "unit-euclidean": "minus the distance of unit vectors, −‖a/‖a‖ − b/‖b‖‖",
}
FLIPS = {None: "none", "sum": "sum with the mirrored image's", "concat": "concatenated with the mirrored image's"}

_PAIRS = 4096  # scored at a time


def fused(embeddings: Embeddings, rows: Rows, flip: str | None = None) -> Vectors:
    """Vectors of chosen rows [K] as they are stored, or fused in float64 with the mirrored images' vectors.

    Raises:
        checks.InputError: no mirrored embeddings, or a sum of zeros where the embeddings refuse zeros.
    """
    if flip is None:
        return embeddings.vectors[rows]
    checks.choice("flip", flip, ("sum", "concat"), hint="or None")
    if embeddings.flipped is None:
        raise checks.InputError(
            f"flip={flip!r} needs the embeddings of mirrored images, 'flipped'; {embeddings.source} has none"
        )
    own, mirrored = (part[rows].astype(np.float64) for part in (embeddings.vectors, embeddings.flipped))
    if flip == "concat":
        return np.concatenate([own, mirrored], axis=1)
    total = np.asarray(own + mirrored)
    zero = ~total.any(axis=1)
    if zero.any() and embeddings.zero_vectors == "refuse":
        name = str(embeddings.ids[rows[np.flatnonzero(zero)[0]]])
        raise checks.InputError(
            f"{embeddings.source}: the sum of a vector and its mirrored one must not be zero; got zero for {name!r}"
        )
    return total


def pair_scores(vectors: Vectors, left: Rows, right: Rows, metric: str = "cosine") -> Floats:
    """Score of each pair of rows [P], in float64: one of `METRICS`. Vectors of zeros have cosine 0 with all."""
    checks.choice("metric", metric, METRICS)
    if metric == "cosine":
        rows, columns = (torch.from_numpy(np.ascontiguousarray(index)) for index in (left, right))
        return np.asarray(scoring.pair_scores(vectors, vectors, rows, columns).numpy())
    scores = np.empty(len(left))
    for start in range(0, len(left), _PAIRS):
        block = slice(start, start + _PAIRS)
        a, b = (vectors[index[block]].astype(np.float64) for index in (left, right))
        if metric == "unit-euclidean":
            a, b = _unit(a), _unit(b)
        scores[block] = (a * b).sum(axis=1) if metric == "inner" else -np.sqrt(((a - b) ** 2).sum(axis=1))
    return scores


def projected(vectors: Vectors, fitted: Rows, size: int) -> Floats:
    """Vectors [K, d] centred and turned onto the `size` directions of largest variance of the rows `fitted` [K, size].

    Raises:
        checks.InputError: `size` is above d or the number of rows fitted.
    """
    checks.integer("pca", size, low=1)
    if size > min(len(fitted), vectors.shape[1]):
        raise checks.InputError(
            f"pca must be at most the size of an embedding and the number of images it is fitted on; got {size} with "
            f"{vectors.shape[1]} and {len(fitted)}"
        )
    wide = vectors.astype(np.float64)
    wide -= wide[fitted].mean(axis=0)
    _, axes = np.linalg.eigh(wide[fitted].T @ wide[fitted])  # of rising variance; their signs change no score
    return np.asarray(wide @ axes[:, : -size - 1 : -1])


def _unit(vectors: Floats) -> Floats:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)
