"""Classification: top-1 and top-5 accuracy and error, by class and by quality, and the mean over repeated seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from angulus.core import formats
from angulus.core.checks import InputError
from angulus.evaluation.metrics.accuracy import label_ranks
from angulus.evaluation.metrics.intervals import Flags, Floats, Samples, Statistic, Units
from angulus.evaluation.protocols import quality
from angulus.evaluation.protocols.figures import Resampling, measure, share_warnings
from angulus.evaluation.protocols.result import Number, Result

PROTOCOL = "classification"
MEASURED = ("predictions", "correct", "in_top5", "norms", "low", "own_low")  # the samples that the model gave


@dataclass(frozen=True, eq=False)
class Predictions:
    """The predictions of a classifier for N samples.

    Attributes:
        labels: [N] int64, the true classes.
        predicted: [N] int64.
        correct: [N] of bool. From logits: the label's is higher than every other; a tie counts as wrong.
        in_top5: [N] of bool, the label's logit is among the five highest, ties counting against it; None without logits
            or with five classes or fewer.
        norms: [N] float64, the lengths of the features, or None.
        source: where they come from.
    """

    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    correct: Flags
    in_top5: Flags | None = None
    norms: Floats | None = None
    source: str = "these predictions"

    @staticmethod
    def from_arrays(
        labels: ArrayLike,
        *,
        predictions: ArrayLike | None = None,
        logits: ArrayLike | None = None,
        norms: ArrayLike | None = None,
        source: str = "these predictions",
    ) -> "Predictions":
        """Check labels [N] and either predictions [N] or logits [N, C], and norms [N] where there are any.

        Raises:
            InputError: both or neither of predictions and logits; shapes that differ; labels or predictions that
                are no whole numbers; labels outside [0, C); logits or norms that are NaN or Inf; norms below 0.
        """
        labels = _whole(source, "labels", labels)
        if (predictions is None) == (logits is None):
            raise InputError(f"{source} must hold predictions or logits, and not both")
        if norms is not None:
            norms = np.asarray(norms, dtype=np.float64)
            if norms.shape != labels.shape or not np.isfinite(norms).all() or (norms < 0).any():
                raise InputError(
                    f"{source}: norms must be finite numbers >= 0 of shape {list(labels.shape)}; "
                    f"got shape {list(norms.shape)}"
                )
        if logits is None:
            predicted = _whole(source, "predictions", predictions)
            if predicted.shape != labels.shape:
                raise InputError(f"{source}: predictions must be [{len(labels)}]; got {list(predicted.shape)}")
            return Predictions(labels, predicted, labels == predicted, None, norms, source)
        scores = np.asarray(logits, dtype=np.float64)
        if scores.ndim != 2 or len(scores) != len(labels) or scores.shape[1] < 2 or not np.isfinite(scores).all():
            raise InputError(f"{source}: logits must be finite, [{len(labels)}, C >= 2]; got {list(scores.shape)}")
        if labels.min() < 0 or labels.max() >= scores.shape[1]:
            raise InputError(
                f"{source}: labels must be in [0, {scores.shape[1]}); got {labels.min()} to {labels.max()}"
            )
        ranks = label_ranks(labels, scores)
        in_top5 = ranks <= 5 if scores.shape[1] > 5 else None
        return Predictions(labels, scores.argmax(axis=1), ranks == 1, in_top5, norms, source)

    @staticmethod
    def read(path: Path) -> "Predictions":
        """Read `.npz`: labels, and predictions or logits; norms where there are any, the rest of a run's file ignored.

        Both predictions and logits: the logits count. A run's `test.npz` is such a file.
        """
        if path.suffix != ".npz":
            raise InputError(f"predictions must be in a file that ends in .npz; got {path}")
        names = ("labels", "predictions", "logits", "norms", "features", "probabilities", "embeddings")
        found = formats.read(path, names, ())
        if "embeddings" in found:
            raise InputError(f"{path} must hold predictions or logits; got embeddings, which need --pairs")
        if "labels" not in found:
            raise InputError(f"{path} must hold 'labels'; it holds {', '.join(found) or 'nothing'}")
        logits = found.get("logits")
        return Predictions.from_arrays(
            found["labels"],
            predictions=None if logits is not None else found.get("predictions"),
            logits=logits,
            norms=found.get("norms"),
            source=str(path),
        )

    def judged(self) -> quality.Judged:
        """For the protocols of quality.

        Raises:
            InputError: without norms.
        """
        if self.norms is None:
            raise InputError(f"{self.source} must hold norms, which tell good samples from low ones; it has none")
        return quality.Judged(self.correct, self.norms, {"labels": self.labels}, self.source)


def evaluate(
    given: Predictions,
    reference: Predictions | None = None,
    *,
    low_fraction: float = 0.2,
    per_class: bool = True,
    draws: int = 1000,
    seed: int = 0,
) -> Result:
    """Accuracy and error of all samples, by class, and of those of good and of low quality.

    Args:
        given: the predictions; with norms the samples are split into good and low.
        per_class: also the accuracy of each class.
        reference, low_fraction, draws, seed: as in `quality.evaluate`.

    Raises:
        InputError: a reference without norms or of other labels, or a part of the split that is empty.

    Source: CM Secs. 3 and 5, Tables 1 and 2; FI Table 2.
    """
    lows = _lows(given, reference, low_fraction)
    samples: dict[str, NDArray[Any]] = {
        "labels": given.labels,
        "predictions": given.predicted,
        "correct": given.correct,
    }
    for name, values in (("in_top5", given.in_top5), ("norms", given.norms)):
        if values is not None:
            samples[name] = values
    samples |= {**lows, "per_class": np.array(per_class)}
    notes = _warnings(given) + (() if given.norms is not None else ("without norms there are no good and low samples",))
    split_by = f"norms of {reference.source}" if reference else "own norms" if lows else "nothing"
    choices = {"split by": split_by, "low fraction": low_fraction}
    counts = {"samples": len(given.labels), "classes": len(np.unique(given.labels))}
    resampling, about = Resampling("samples", draws, seed), {"embeddings": given.source}
    return measure(PROTOCOL, statistic(samples), samples, choices, counts, resampling, notes=notes, about=about)


def statistic(samples: Samples) -> tuple[Statistic, Units]:
    """The figures by weights of the samples, and the samples, each a unit.

    A class or part of which no sample is drawn has no figures in that resample.
    """
    correct = samples["correct"]
    classes, labels = np.unique(samples["labels"], return_inverse=True)
    by_quality = quality.part_figures(samples) if "norms" in samples else None

    def figures(weights: Floats) -> dict[str, float]:
        accuracy = float(np.average(correct, weights=weights))
        values = {"accuracy": accuracy, "error": 1 - accuracy}
        if "in_top5" in samples:
            top5 = float(np.average(samples["in_top5"], weights=weights))
            values |= {"top-5 accuracy": top5, "top-5 error": 1 - top5}
        if by_quality is not None:
            values |= by_quality(weights)
        if samples["per_class"]:
            count = np.bincount(labels, weights, len(classes))
            right = np.bincount(labels, weights * correct, len(classes))
            values |= {f"accuracy, class {classes[k]}": float(right[k] / count[k]) for k in np.flatnonzero(count)}
        return values

    return figures, Units.of(np.arange(len(correct)))


def over_seeds(results: Sequence[Result]) -> Result:
    """Mean and standard deviation (n − 1) of every figure over results of one protocol that differ in their seed.

    Raises:
        InputError: fewer than two results, or results of other protocols, samples or figures.
    """
    if len(results) < 2:
        raise InputError(f"a mean over seeds needs at least two results; got {len(results)}")
    first = results[0]
    names = [number.name for number in first.numbers]
    for other in results[1:]:
        same = other.protocol == first.protocol and dict(other.counts) == dict(first.counts)
        if not same or [number.name for number in other.numbers] != names:
            raise InputError(
                f"results over seeds must be of one protocol and the same samples; got {first.protocol} with "
                f"{dict(first.counts)} and {other.protocol} with {dict(other.counts)}"
            )
    table = np.array([[number.value for number in result.numbers] for result in results])
    means, deviations = table.mean(axis=0), table.std(axis=0, ddof=1)
    return Result(
        f"{first.protocol}, mean of {len(results)} seeds",
        tuple(
            Number(name, mean, spread=deviation)
            for name, mean, deviation in zip(names, means.tolist(), deviations.tolist(), strict=True)
        ),
        {"±": "standard deviation over the seeds (n − 1)"},
        {**first.counts, "seeds": len(results)},
        notes=tuple(dict.fromkeys(note for result in results for note in result.notes)),
    )


def _lows(given: Predictions, reference: Predictions | None, fraction: float) -> dict[str, Flags]:
    if reference is None and given.norms is None:
        return {}
    return quality.low_samples(given.judged(), None if reference is None else reference.judged(), fraction)


def _warnings(given: Predictions) -> tuple[str, ...]:
    """The warning about a model that is little better than guessing, by its mean accuracy per class.

    Guessing, or always saying the commonest class, reaches 1 / classes, however rare some classes are.
    """
    _, place, counts = np.unique(given.labels, return_inverse=True, return_counts=True)
    share = float((np.bincount(place, weights=given.correct) / counts).mean())
    name = "mean accuracy per class"
    return share_warnings(name, share, 1 / len(counts), len(given.labels), "these classes")


def _whole(source: str, name: str, values: Any) -> NDArray[np.int64]:
    values = np.asarray(values)
    if values.ndim != 1 or not len(values) or values.dtype.kind not in "iu":
        raise InputError(f"{source}: {name} must be whole numbers [N >= 1]; got {values.dtype} {list(values.shape)}")
    return np.asarray(values, dtype=np.int64)
