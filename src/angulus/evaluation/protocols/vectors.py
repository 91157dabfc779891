"""Scores of pairs of vectors, and the projection of vectors by PCA."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from angulus.core import checks
from angulus.core.embeddings import Embeddings
from angulus.evaluation import scoring
from angulus.evaluation.metrics.intervals import Floats, Rows

Vectors = NDArray[np.floating[Any]]

METRICS = {  # by name, the score; higher means more similar
    "cosine": "cosine, a·b / (‖a‖ ‖b‖)",
    "inner": "inner product, a·b",
    "euclidean": "minus the distance, −‖a − b‖",
    "unit-euclidean": "minus the distance of unit vectors, −‖a/‖a‖ − b/‖b‖‖",
}
FLIPS = {None: "none", "sum": "sum with the mirrored image's", "concat": "concatenated with the mirrored image's"}

_PAIRS = 4096  # scored at a time
_NO_VARIANCE = 1e-12  # of the largest: below it, variance is rounding error


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


def require_alike(first: Embeddings, second: Embeddings) -> None:
    """Refuse two sides whose vectors no score can compare: of another size, or of another model.

    Raises:
        checks.InputError: names both sources and what differs.
    """
    rule = f"{first.source} and {second.source} must be of one model"
    sizes = first.vectors.shape[1], second.vectors.shape[1]
    if sizes[0] != sizes[1]:
        raise checks.InputError(f"{rule}; their vectors have {sizes[0]} and {sizes[1]} numbers")
    if None not in (first.model, second.model) and first.model != second.model:
        raise checks.InputError(f"{rule}; got {first.model} and {second.model}; embed both with one")


def flip_choice(embeddings: Embeddings, flip: str | None) -> str:
    """What was done with mirror images, for a result's choices: by this evaluation, or by the model before it."""
    before = " or ".join(FLIPS[rule] for rule in embeddings.model_flips)
    if not before:
        return FLIPS[flip]
    return f"{before}, by the model itself" + (f"; then {FLIPS[flip]}" if flip else "")


def projected(vectors: Vectors, fitted: Rows, size: int) -> Floats:
    """Vectors [K, d] centred and turned onto the `size` directions of largest variance of the rows `fitted` [K, size].

    Raises:
        checks.InputError: `size` is above d, or above the number of directions in which the fitted rows vary.
    """
    checks.integer("pca", size, low=1)
    if len(fitted) < 2:
        raise checks.InputError(f"pca must be fitted on two images or more; got {len(fitted)}")
    wide = vectors.astype(np.float64)
    wide -= wide[fitted].mean(axis=0)
    variances, axes = np.linalg.eigh(wide[fitted].T @ wide[fitted])  # of rising variance; their signs change no score
    vary = int((variances > _NO_VARIANCE * variances[-1]).sum())
    if size > len(axes) or (size > vary and size < len(axes)):
        raise checks.InputError(
            f"pca must be at most the size of an embedding ({len(axes)}) and the directions in which the images that "
            f"it is fitted on vary ({vary} of {len(fitted)} images); got {size}"
        )
    return np.asarray(wide @ axes[:, : -size - 1 : -1])


def _unit(vectors: Floats) -> Floats:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)
