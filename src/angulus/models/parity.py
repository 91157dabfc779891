"""How far another form of a model is from PyTorch's: its features, its norms, and what it decides about pairs."""

from __future__ import annotations

from collections.abc import Mapping
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
from angulus.evaluation.protocols.result import Number, Result, null_for_nan


@dataclass(frozen=True)
class Decisions:
    """Which pairs are decided otherwise than by PyTorch's features, at one threshold.

    Attributes:
        threshold: cosine, at or above which a pair is accepted.
        calibrated: whether it is the model's calibrated one; else the most accurate for PyTorch's features on these.
        genuine, impostors: how many pairs of each kind changed.
    """

    threshold: float
    calibrated: bool
    genuine: int
    impostors: int


@dataclass(frozen=True)
class OnPairs:
    """PyTorch's features and the other form's on one list of pairs.

    Attributes:
        own, other: what `evaluate pairs` gives for each; intervals stand in `own`.
        difference: other − own, with intervals over the same resamples; None without resamples.
        decisions: what changed.
    """

    own: Result
    other: Result
    difference: Result | None
    decisions: Decisions

    def as_json(self) -> dict[str, Any]:
        """All but the samples."""
        results: Mapping[str, Result | None] = {
            "PyTorch": self.own,
            "exported": self.other,
            "difference": self.difference,
        }
        numbers = {name: _values(result.numbers) for name, result in results.items() if result is not None}
        return {
            **numbers,
            "decisions": asdict(self.decisions),
            "counts": dict(self.own.counts),
            "choices": dict(self.own.choices),
            "notes": list(self.own.notes),
        }


@dataclass(frozen=True)
class Parity:
    """How far the file's output is from PyTorch's, over some images.

    Attributes:
        images: how many.
        feature_error: the largest ‖x − x'‖ / ‖x‖ of an image, x being PyTorch's feature.
        cosine: the smallest one of an image's two features.
        norm_error: the largest |n − ‖x‖| / ‖x‖, n being the file's second output.
        rounding: PyTorch's own ‖x − x64‖ / ‖x‖ from float64, measured where the file's error is above 1e-5: where a
            network's features are that sensitive, no file can be nearer.
        pairs: what both give on a list of pairs; None without one.
    """

    images: int
    feature_error: float
    cosine: float
    norm_error: float
    rounding: float | None = None
    pairs: OnPairs | None = None

    def as_json(self) -> dict[str, Any]:
        """All of it, as JSON holds it."""
        own = {name: value for name, value in vars(self).items() if name != "pairs"}
        return null_for_nan(own | {"pairs": None if self.pairs is None else self.pairs.as_json()})  # type: ignore[no-any-return]


def of_features(
    own: NDArray[np.floating[Any]], features: NDArray[np.floating[Any]], norms: NDArray[np.floating[Any]]
) -> Parity:
    """Compare features [N, d] with PyTorch's own [N, d], and norms [N] with the lengths of those."""
    x, other = own.astype(np.float64), features.astype(np.float64)
    lengths, others = (np.linalg.norm(each, axis=1) for each in (x, other))
    scale = np.where(lengths > 0, lengths, 1)
    cosines = (x * other).sum(axis=1) / (scale * np.where(others > 0, others, 1))
    return Parity(
        len(x),
        float((np.linalg.norm(x - other, axis=1) / scale).max()),
        float(min(cosines.min(), 1.0)),
        float((np.abs(norms.astype(np.float64) - lengths) / scale).max()),
    )


def on_pairs(own: Embeddings, other: Embeddings, pairs: PairList, *, threshold: float | None, draws: int) -> OnPairs:
    """Measure both on the pairs, and count the decisions that changed.

    Args:
        own: PyTorch's features.
        other: of the same images.
        pairs: of these.
        threshold: the calibrated one; None: the most accurate for PyTorch's features on these pairs.
        draws: resamples for the intervals; 0 for none.

    Raises:
        checks.InputError: a pair's image that is not among them, pairs of one kind only.
    """
    before = pairs_protocol.evaluate(own, pairs, draws=draws)
    after = pairs_protocol.evaluate(other, pairs, fars=before.samples["fars"].tolist(), draws=0)
    scores, others = before.samples["scores"], after.samples["scores"]
    limit = best_of(Presorted.of(scores, pairs.same))[0] if threshold is None else threshold
    changed = (scores >= limit) != (others >= limit)
    genuine = int((changed & pairs.same).sum())
    decisions = Decisions(float(limit), threshold is not None, genuine, int(changed.sum()) - genuine)
    difference = compare_results(before, after, draws=draws) if draws else None
    return OnPairs(before, after, difference, decisions)


def _values(numbers: tuple[Number, ...]) -> dict[str, Any]:
    return {
        each.name: {"value": each.value, "interval": None if each.interval is None else asdict(each.interval)}
        for each in numbers
    }
