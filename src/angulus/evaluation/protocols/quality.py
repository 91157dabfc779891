"""The feature norm as quality of judged samples: good and low, bins of norm, and changes between models."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angulus.core import checks
from angulus.core.embeddings import Embeddings
from angulus.evaluation.lists.pair_list import PairList
from angulus.evaluation.metrics import image_quality
from angulus.evaluation.metrics.curves import Presorted
from angulus.evaluation.metrics.intervals import Flags, Floats, Samples, Statistic, Units
from angulus.evaluation.metrics.verification import best_of
from angulus.evaluation.protocols import pairs as pairs_protocol
from angulus.evaluation.protocols import scored, videos
from angulus.evaluation.protocols.figures import Resampling, measure
from angulus.evaluation.protocols.result import Result
from angulus.evaluation.protocols.scored import units_of

PROTOCOL, BINS, CHANGED = "quality", "norm-bins", "changed"
MEASURED = ("correct", "norms", "low", "own_low")  # the samples that the model gave
BINS_MEASURED = ("correct", "norms", "edges")
CHANGED_MEASURED = ("correct", "norms", "correct_after", "norms_after")


@dataclass(frozen=True, eq=False)
class Judged:
    """Samples, images or pairs, that a model judged right or wrong, and their quality."""

    correct: Flags  # [N] of bool
    norms: Floats  # [N] float64: of an image its feature's, of a pair the smaller of its two
    # [N] each, by name, what identifies the samples: `labels` of images; of pairs `left`, `right`, `same`, and where
    # known `left_identity` and `right_identity`, who are then resampled
    columns: Samples = field(default_factory=dict)
    source: str = "these samples"  # where the samples came from
    model: str | None = None  # which model and flip rule made the features, if known

    def __post_init__(self) -> None:
        shapes = [values.shape for values in (self.correct, self.norms, *self.columns.values())]
        if self.correct.ndim != 1 or not len(self.correct) or len(set(shapes)) > 1:
            raise checks.InputError(
                f"{self.source}: correct, norms and what names the samples must be [N] each with N >= 1; got shapes "
                + ", ".join(str(list(shape)) for shape in shapes)
            )
        if self.correct.dtype != np.bool_ or not np.isfinite(self.norms).all() or (self.norms < 0).any():
            raise checks.InputError(f"{self.source}: correct must be bool and norms finite numbers >= 0; got others")

    @property
    def samples(self) -> dict[str, NDArray[Any]]:
        """For a result."""
        return {**self.columns, "correct": self.correct, "norms": self.norms}

    @property
    def unit(self) -> str:
        """What is resampled."""
        return "people" if "left_identity" in self.columns else "samples"

    @property
    def about(self) -> dict[str, Any]:
        """For a result: where the samples came from."""
        return {"embeddings": self.source, **({} if self.model is None else {"model": self.model})}


def judge_pairs(embeddings: Embeddings, pairs: PairList, *, flip: str | None = None) -> Judged:
    """Pairs judged by their cosine, at the most accurate threshold of the other folds (without folds, of all pairs).

    Raises:
        checks.InputError: an image without embedding, or pairs of one kind only in a fold or the list.
    """
    scored.require_norms(embeddings, flip)
    return _judged(scored.score(embeddings, pairs, flip=flip).samples, embeddings.origin)


def judge_result(result: Result) -> Judged:
    """The pairs of a saved result of `pairs` or `ytf`, judged as there; of videos the norms are the mean embeddings'.

    Raises:
        checks.InputError: another result, or one that was saved without samples.
    """
    protocols = (pairs_protocol.PROTOCOL, videos.PROTOCOL)
    if result.protocol not in protocols or "norms" not in result.samples:
        lacking = "norms" if result.samples and result.protocol in protocols else "samples"
        got = result.protocol if result.samples and lacking == "samples" else f"{result.protocol} without {lacking}"
        raise checks.InputError(f"a result to judge pairs by must be one of {' or '.join(protocols)}; got {got}")
    return _judged(result.samples, result.about)


def correct_pairs(samples: Samples) -> Flags:
    """Which pairs of a result of `pairs` or `ytf` are decided rightly, at the thresholds of `judge_pairs`, [P]."""
    scores, same, folds = samples["scores"], samples["same"], scored.folds_of(samples)
    if "histograms" in samples:
        thresholds = np.zeros(len(same))  # of the support vector machines
    elif folds is None:
        thresholds = np.full(len(same), best_of(Presorted.of(scores, same))[0])
    else:
        thresholds = folds.accuracy().thresholds[samples["folds"]]
    return np.asarray((scores >= thresholds) == same)


def _judged(samples: Samples, origin: Mapping[str, Any]) -> Judged:
    columns = {name: samples[name] for name in (*scored.COLUMNS, scored.DISTINCT) if name in samples}
    source, model = str(origin.get("embeddings", "unknown embeddings")), origin.get("model")
    return Judged(correct_pairs(samples), samples["norms"], columns, source, model)


def _read_split(result: Result) -> Judged:
    """The samples of a saved result of `evaluate`."""
    samples = dict(result.samples)
    if result.protocol != PROTOCOL or "correct" not in samples:
        raise checks.InputError(f"a result of {PROTOCOL} with its samples is needed; got {result.protocol}")
    correct, norms = samples.pop("correct"), samples.pop("norms")
    columns = {name: values for name, values in samples.items() if name not in MEASURED}
    return Judged(correct, norms, columns, str(result.about["embeddings"]), result.about.get("model"))


def _require_same_samples(first: Judged, second: Judged) -> None:
    """Refuse two models' samples that are not the same ones in the same order."""
    rule = f"{first.source} and {second.source} must be of the same samples in the same order"
    for name in dict.fromkeys([*first.columns, *second.columns, "correct"]):
        one, other = first.samples.get(name), second.samples.get(name)
        if one is None or other is None:
            raise checks.InputError(f"{rule}; got {name} in one of them only")
        if len(one) != len(other):
            raise checks.InputError(f"{rule}; got {len(first.correct)} and {len(second.correct)}")
        if name != "correct" and not np.array_equal(one, other):
            row = int(np.flatnonzero(one != other)[0])
            raise checks.InputError(f"{rule}; {name} differs first at {row}: {one[row]!s} and {other[row]!s}")


def evaluate(
    samples: Judged, reference: Judged | None = None, *, low_fraction: float = 0.2, draws: int = 1000, seed: int = 0
) -> Result:
    """Accuracy and mean norm of the samples of good and of low quality, and of all.

    Args:
        samples: one model's.
        reference: the same samples by the model whose norms decide which are low; the split by the own norms is then
            reported second. CM compares all losses by the norms of the softmax model.
        low_fraction: share of the samples that is low.
        draws, seed: resamples of the people (or samples) for the intervals (0 for none), and their seed.

    Source: CM Secs. 3 and 5, Tables 1, 2 and 4.
    """
    lows = low_samples(samples, reference, low_fraction)
    columns = {**samples.samples, **lows}
    split_by = "own norms" if reference is None else f"norms of {reference.source}"
    choices = {"split by": split_by, "low fraction": low_fraction}
    counts = {"good": int((~lows["low"]).sum()), "low": int(lows["low"].sum()), "entire": len(samples.correct)}
    resampling = Resampling(samples.unit, draws, seed)
    return measure(PROTOCOL, statistic(columns), columns, choices, counts, resampling, about=samples.about)


def by_norms_of(own: Result, reference: Result) -> Result:
    """A saved result split again, by the norms of another model's result of the same samples; without intervals.

    Raises:
        checks.InputError: results of another protocol, without samples, or of other samples.
    """
    fraction = float(own.choices["low fraction"])
    return evaluate(_read_split(own), _read_split(reference), low_fraction=fraction, draws=0)


def low_samples(samples: Judged, reference: Judged | None, fraction: float) -> dict[str, Flags]:
    """Which samples are low: `low`, and if another model's norms decide that, `own_low` by the own norms."""
    own = image_quality.low_quality(samples.norms, fraction)
    if reference is None:
        return {"low": own}
    _require_same_samples(samples, reference)
    return {"low": image_quality.low_quality(reference.norms, fraction), "own_low": own}


def statistic(samples: Samples) -> tuple[Statistic, Units]:
    """The figures of `evaluate` by weights of the samples, and the units; a part without weight has none."""
    return part_figures(samples), units_of(samples)


def part_figures(samples: Samples) -> Callable[[Floats], dict[str, float]]:
    """Accuracy and mean norm of good, low and all samples, by weights of the samples."""
    parts = {"entire": np.ones(len(samples["correct"]), dtype=bool)}
    for name, suffix in (("low", ""), ("own_low", " (own norms)")):
        if name in samples:
            parts |= {f"good{suffix}": ~samples[name], f"low{suffix}": samples[name]}

    def figures(weights: Floats) -> dict[str, float]:
        values = {}
        for part, member in parts.items():
            amount = weights * member
            if amount.any():
                values[f"accuracy, {part}"] = float(np.average(samples["correct"], weights=amount))
                values[f"mean norm, {part}"] = float(np.average(samples["norms"], weights=amount))
        return values

    return figures


def evaluate_bins(
    samples: Judged, bins: int = 10, *, edges: str = "quantile", draws: int = 1000, seed: int = 0
) -> Result:
    """Accuracy by norm, in bins of equal count (`edges="quantile"`) or width. FI Fig. 1."""
    table = image_quality.norm_bins(samples.norms, samples.correct, bins, edges=edges)
    columns = {**samples.samples, "edges": np.array([table[0].low, *(row.high for row in table)])}
    empty = sum(not row.count for row in table)
    counts = {"samples": len(samples.correct), "bins": len(table)}
    counts |= {f"in bin {k}": row.count for k, row in enumerate(table)}
    notes = (f"{empty} bins hold no sample and have no accuracy",) if empty else ()
    choices, resampling = {"edges": edges}, Resampling(samples.unit, draws, seed)
    about = samples.about
    return measure(BINS, bin_statistic(columns), columns, choices, counts, resampling, notes=notes, about=about)


def bin_statistic(samples: Samples) -> tuple[Statistic, Units]:
    """The figures of `evaluate_bins` by weights of the samples, and the units; the edges stay."""
    edges, correct = samples["edges"], samples["correct"]
    count = len(edges) - 1
    index = image_quality.bin_of(samples["norms"], edges)
    ends = [*")" * (count - 1), "]"]
    names = [f"accuracy, bin {k} [{edges[k]:.6g}, {edges[k + 1]:.6g}{ends[k]}" for k in range(count)]

    def figures(weights: Floats) -> dict[str, float]:
        total, right = (np.bincount(index, values, count) for values in (weights, weights * correct))
        return {names[k]: float(right[k] / total[k]) for k in np.flatnonzero(total)}

    return figures, units_of(samples)


def evaluate_changes(before: Judged, after: Judged, *, draws: int = 1000, seed: int = 0) -> Result:
    """Which samples a second model fixes and breaks, and their mean norm in both. FI Table 5.

    `right` and `wrong` are a model's own; `fixed` was wrong and is right, `broken` the reverse, `right in both` and
    `wrong in both` did not change.
    """
    _require_same_samples(after, before)
    columns = {**before.samples, "correct_after": after.correct, "norms_after": after.norms}
    counts = {name: int(member.sum()) for name, member in _changes(columns).items()}
    absent = [name for name, count in counts.items() if not count]
    notes = (f"no sample is {', '.join(absent)}: such have no mean norm",) if absent else ()
    about = {**after.about, "embeddings before": before.source}
    counts, resampling = {"samples": len(before.correct), **counts}, Resampling(before.unit, draws, seed)
    return measure(CHANGED, change_statistic(columns), columns, {}, counts, resampling, notes=notes, about=about)


def change_statistic(samples: Samples) -> tuple[Statistic, Units]:
    """The figures of `evaluate_changes` by weights of the samples, and the units."""
    changes = _changes(samples)
    norms = {"before": samples["norms"], "after": samples["norms_after"]}

    def figures(weights: Floats) -> dict[str, float]:
        values = {f"share {name}": float(np.average(member, weights=weights)) for name, member in changes.items()}
        for name, member in changes.items():
            amount = weights * member
            for when in [when for when in norms if when in name.split()] or list(norms):
                if amount.any():
                    values[f"mean norm {when}, {name}"] = float(np.average(norms[when], weights=amount))
        return values

    return figures, units_of(samples)


def _changes(samples: Samples) -> dict[str, Flags]:
    before, after = samples["correct"], samples["correct_after"]
    return {
        "right before": before,
        "wrong before": ~before,
        "right after": after,
        "wrong after": ~after,
        "fixed": ~before & after,
        "broken": before & ~after,
        "right in both": before & after,
        "wrong in both": ~before & ~after,
    }
