"""Classification accuracy from predictions or logits."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from angulus.core import checks
from angulus.evaluation.metrics.curves import check_columns


def accuracy(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Share of predictions that equal the label, in [0, 1].

    >>> accuracy([0, 1, 2, 2], [0, 1, 2, 0])
    0.75
    """
    labels, predictions = _pair(labels, predictions)
    return float((labels == predictions).mean())


def accuracy_per_class(labels: ArrayLike, predictions: ArrayLike) -> dict[int, float]:
    """Accuracy over the samples of each class that occurs; classes are whole numbers."""
    labels, predictions = _pair(labels, predictions)
    if labels.dtype.kind not in "biu":
        raise checks.InputError(f"labels must be whole numbers; got {labels.dtype}")
    return {int(label): float((predictions[labels == label] == label).mean()) for label in np.unique(labels)}


def label_ranks(labels: ArrayLike, logits: ArrayLike) -> NDArray[np.int64]:
    """Rank of each label among its sample's logits, from 1, [N]; ties count against the label.

    Args:
        labels: [N], in [0, C).
        logits: [N, C], no NaN.

    >>> label_ranks([0, 1], [[3.0, 1.0, 2.0], [5.0, 5.0, 0.0]]).tolist()
    [1, 2]
    """
    labels, logits = np.asarray(labels), np.asarray(logits, dtype=np.float64)
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(labels):
        raise checks.InputError(
            f"labels must be [N] and logits [N, C] with N >= 1; got {list(labels.shape)} and {list(logits.shape)}"
        )
    if (labels < 0).any() or (labels >= logits.shape[1]).any() or np.isnan(logits).any():
        raise checks.InputError(f"labels must be in [0, {logits.shape[1]}), and logits numbers; got others")
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    return np.asarray((logits >= own).sum(axis=1), dtype=np.int64)


def top_k_accuracy(labels: ArrayLike, logits: ArrayLike, k: int) -> float:
    """Share of samples whose label's logit is among the k highest, k in [1, C]; arguments as for `label_ranks`."""
    ranks = label_ranks(labels, logits)
    checks.integer("k", k, low=1, high=np.asarray(logits).shape[1])
    return float((ranks <= k).mean())


def _pair(labels: ArrayLike, predictions: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    check_columns(labels=labels, predictions=predictions)
    if _kind(labels) != _kind(predictions) or not _kind(labels):
        raise checks.InputError(
            "labels and predictions must both be numbers or both text, or no one equals another; "
            f"got {labels.dtype} and {predictions.dtype}"
        )
    return labels, predictions


def _kind(values: np.ndarray) -> str:
    if values.dtype == object:
        return "text" if all(isinstance(value, str) for value in values.tolist()) else ""
    return {"U": "text"}.get(values.dtype.kind, "numbers" if values.dtype.kind in "biuf" else "")
