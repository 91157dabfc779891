"""How close an exported model is to PyTorch: in features, in norms, and in decisions about pairs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angulus.core.embeddings import Embeddings
from angulus.evaluation.lists.pair_list import PairList
from angulus.evaluation.metrics.curves import Presorted
from angulus.evaluation.metrics.verification import best_of
from angulus.evaluation.protocols import pairs as pairs_protocol
from angulus.evaluation.protocols.differences import compare_results
from angulus.evaluation.protocols.result import Result, null_for_nan


@dataclass(frozen=True)
class Decisions:
    """How many genuine and impostor pairs the exported model decides differently, at one threshold (a cosine).

    `calibrated`: the threshold is the model's calibrated one; else the most accurate for PyTorch on these pairs.
    """

    threshold: float
    calibrated: bool
    genuine: int
    impostors: int


@dataclass(frozen=True)
class OnPairs:
    """PyTorch's features and the exported model's on one list of pairs."""

    own: Result  # the results of `evaluate pairs`; only `own` has intervals
    other: Result
    difference: Result | None  # other − own, with intervals over the same resamples; None without resamples
    decisions: Decisions  # how many changed
    score_error: float  # the largest |s − s'| of a pair, s its cosine

    def as_json(self) -> dict[str, Any]:
        """Everything but the samples."""
        results = {"PyTorch": self.own, "exported": self.other, "difference": self.difference}
        values = {name: _values(result) for name, result in results.items() if result is not None}
        about = {"counts": dict(self.own.counts), "choices": dict(self.own.choices), "notes": list(self.own.notes)}
        return {**values, "decisions": asdict(self.decisions), "score_error": self.score_error, **about}


def _values(result: Result) -> dict[str, Any]:
    pairs = [(number.name, number.value, number.interval) for number in result.numbers]
    return {name: {"value": value, "interval": interval and asdict(interval)} for name, value, interval in pairs}


@dataclass(frozen=True)
class Parity:
    """How far the file's output is from PyTorch's, over a number of images.

    Attributes:
        feature_error: the largest ‖x − x'‖ / ‖x‖ of an image; x is PyTorch's feature, x' the file's.
        cosine: the smallest cosine of x and x'.
        norm_error: the largest |n − ‖x‖| / ‖x‖; n is the file's second output.
        rounding: PyTorch's own ‖x − x64‖ / ‖x‖ from float64, measured if the file's error is above 1e-5: with features
            that sensitive, no file can be closer.
        pairs: the comparison on a list of pairs; None without one.
        probability_error: the largest difference of a class's probability; None if the file has no classes.
    """

    images: int
    feature_error: float
    cosine: float
    norm_error: float
    rounding: float | None = None
    pairs: OnPairs | None = None
    probability_error: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Everything, as JSON holds it."""
        own = {name: value for name, value in vars(self).items() if name != "pairs"}
        return null_for_nan(own | {"pairs": None if self.pairs is None else self.pairs.as_json()})  # type: ignore[no-any-return]


def compare_features(
    own: NDArray[np.floating[Any]], features: NDArray[np.floating[Any]], norms: NDArray[np.floating[Any]]
) -> Parity:
    """Compare features [N, d] with PyTorch's own [N, d], and norms [N] with the lengths of those."""
    x, other = own.astype(np.float64), features.astype(np.float64)
    lengths, others = (np.linalg.norm(features, axis=1) for features in (x, other))
    scale = np.where(lengths > 0, lengths, 1)
    cosines = (x * other).sum(axis=1) / (scale * np.where(others > 0, others, 1))
    return Parity(
        len(x),
        float((np.linalg.norm(x - other, axis=1) / scale).max()),
        float(min(cosines.min(), 1.0)),
        float((np.abs(norms.astype(np.float64) - lengths) / scale).max()),
    )


def compare_on_pairs(
    own: Embeddings, other: Embeddings, pairs: PairList, *, threshold: float | None, draws: int
) -> OnPairs:
    """Measure PyTorch's features (`own`) and the exported model's on the pairs, and count the decisions that changed.

    `threshold` None takes the most accurate one for PyTorch's features on these pairs; `draws` 0 gives no intervals.
    """
    before = pairs_protocol.evaluate(own, pairs, draws=draws)
    after = pairs_protocol.evaluate(other, pairs, fars=before.samples["fars"].tolist(), draws=0)
    scores, others = before.samples["scores"], after.samples["scores"]
    limit = best_of(Presorted.of(scores, pairs.same))[0] if threshold is None else threshold
    changed = (scores >= limit) != (others >= limit)
    genuine = int((changed & pairs.same).sum())
    decisions = Decisions(float(limit), threshold is not None, genuine, int(changed.sum()) - genuine)
    difference = compare_results(before, after, draws=draws) if draws else None
    return OnPairs(before, after, difference, decisions, float(np.abs(scores - others).max()))
