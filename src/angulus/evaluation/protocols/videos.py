"""Verification of videos, as in YouTube Faces: four scores of the frames' similarity, over folds."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angulus.core import checks
from angulus.core.embeddings import MISSING, Embeddings
from angulus.core.formats import text_array
from angulus.evaluation.lists.pair_list import PairList
from angulus.evaluation.metrics.curves import Presorted
from angulus.evaluation.metrics.intervals import Flags, Floats, Rows, Samples, Statistic, Units, keeping_sizes
from angulus.evaluation.metrics.verification import FoldAccuracy
from angulus.evaluation.protocols import failures, scored
from angulus.evaluation.protocols import pairs as pairs_protocol
from angulus.evaluation.protocols.by_group import of_pairs
from angulus.evaluation.protocols.distinct import distinct
from angulus.evaluation.protocols.figures import Resampling, measure, rate_label, supported_rates
from angulus.evaluation.protocols.group_trials import shared_group
from angulus.evaluation.protocols.result import Result
from angulus.evaluation.protocols.scored import COLUMNS, DISTINCT, strata_of
from angulus.evaluation.protocols.vectors import flip_choice

PROTOCOL = "ytf"
MEASURED = ("scores", "norms", "histograms")  # the samples that the embeddings gave

HISTOGRAM_BINS = 100  # over [−1, 1]; NF
_KERNEL_ROWS = 256  # computed at a time
MOST_C = 1e6  # with more, the machine may never finish on what it cannot separate

SCORES = {
    "mean": "mean of all frame similarities",
    "cosine": "cosine of the mean embeddings (of frames at their length)",
    "max": "highest frame similarity",
    "histogram": f"SVM with histogram-intersection kernel on {HISTOGRAM_BINS} bins of the frame similarities",
}


def evaluate(
    embeddings: Embeddings,
    pairs: PairList,
    *,
    score: str = "mean",
    flip: str | None = None,
    c: float = 1.0,
    fars: Sequence[float] | None = None,
    missing: str = "refuse",
    draws: int = 1000,
    seed: int = 0,
) -> Result:
    """Accuracy over folds, AUC, EER and TAR at FARs of pairs of videos, with intervals by a bootstrap over people.

    A frame similarity is the cosine of one frame of each video. A frame belongs to the video that the embeddings'
    `templates` name, or else to the folder of its id: `Name/1/0023.jpg` to `Name/1`.

    Args:
        embeddings: of the frames.
        pairs: of videos, with folds.
        score: "mean" of the similarities, "cosine" of the mean embeddings, "max" of the similarities, or "histogram" of
            them with a support vector machine trained on the other folds, which accepts from 0 on.
        c: the machine's regularisation, in (0, 1e6]; the paper does not give its value.
        flip, fars, missing, draws, seed: as in `pairs.evaluate`; each frame is fused with its mirrored one, and a video
            fails that has no frame.

    Raises:
        checks.InputError: a video without frames, a pair that contradicts another, a list without folds, or a fold
            with pairs of one kind only.

    Source: L. Wolf, T. Hassner, I. Maoz, CVPR 2011; NF Sec. 5.3, Table 5 (mean and histogram); CM Sec. 5.3 (cosine).
    """
    checks.choice("score", score, SCORES)
    checks.number("c", c, low=0, high=MOST_C, open_low=True)
    if pairs.folds is None:
        raise checks.InputError(f"{pairs.source} has no folds, over which the accuracy is taken; add them")
    frames = _frames(embeddings, pairs, checks.choice("missing", missing, MISSING))
    failed = ~np.isin(pairs.left, list(frames)) | ~np.isin(pairs.right, list(frames))
    enrolled = pairs.select(~failed)
    _refuse_one_kind(enrolled)
    named, place = np.unique(np.concatenate([pairs.left, pairs.right]), return_inverse=True)
    once = distinct(place[: len(pairs)], place[len(pairs) :], pairs.same, named, pairs.source)
    samples = _scored(embeddings, enrolled, frames, score, flip, c)
    if failed.any():
        samples = scored.spread(samples, pairs, failed)
    if once.notes:
        samples[DISTINCT] = once.number
    impostors = scored.distinct_impostors(scored.without_failures(samples))
    kept, notes = supported_rates(fars, impostors, impostors=once.supporting)
    notes += once.notes
    samples["fars"] = np.array(kept, dtype=np.float64)
    used = sum(map(len, frames.values()))
    if used < len(embeddings):
        notes += (f"{len(embeddings) - used:,} frames of videos that the list does not name are not used",)
    if score == "histogram":
        notes += ("AUC, EER and TAR pool the decision values of the folds' machines",)
    thresholds, spreads = _operating(samples)
    at_fars = {far: thresholds[f"TAR@FAR={rate_label(far)}"] for far in kept}
    resampling = Resampling("people" if "left_identity" in samples else "pairs", draws, seed, keeps_sizes=True)
    sides = _groups(embeddings, frames, pairs)
    return measure(
        PROTOCOL,
        statistic(samples),
        samples,
        {
            "score": SCORES[score],
            "flip": flip_choice(embeddings, flip),
            "norms": embeddings.norm_source(flip),
            **pairs_protocol.figure_choices(folds=True),
            **({"threshold": f"0 of the machine (C = {c:g})"} if score == "histogram" else {}),
            **(failures.CHOICE if missing == "fail" else {}),
        },
        {
            "pairs": len(pairs),
            "genuine": int(pairs.same.sum()),
            "impostors": int((~pairs.same).sum()),
            **once.counts,
            "videos": len(pairs.ids),
            **_count_failed(pairs, frames, failed),
            "frames": used,
            "folds": pairs.fold_count,
        },
        resampling,
        thresholds=thresholds,
        spreads=spreads,
        curves=pairs_protocol.curves(
            Presorted.of(samples["scores"], pairs.same).curve(), PROTOCOL, failures=bool(failed.any())
        ),
        notes=(*notes, f"± of the accuracy: standard error over {pairs.fold_count} folds"),
        by_group=of_pairs(sides, samples, at_fars, resampling, once.first),
        about={**embeddings.origin, "pairs": pairs.source},
    )


def statistic(samples: Samples) -> tuple[Statistic, Units]:
    """The figures of `evaluate` by weights of the pairs, and the people (or pairs) that are resampled.

    The machines behind decision values are those of all pairs; they are not trained again.
    """
    if "histograms" not in samples:
        return pairs_protocol.statistic(samples)
    return failures.both_ways(_machine_figures, samples, scored.without_failures), scored.units_of(samples)


def _machine_figures(samples: Samples) -> Statistic:
    figures = pairs_protocol.figures_of({name: values for name, values in samples.items() if name != "folds"})
    strata, right = strata_of(samples), _right(samples)

    def with_accuracy(weights: Floats) -> dict[str, float]:
        values = {name: value for name, value in figures(weights).items() if name != pairs_protocol.BEST}
        kept = keeping_sizes(weights, strata)
        if kept is None:
            return values
        return {"accuracy": float(_shares(samples["folds"], right, kept).mean()), **values}

    return with_accuracy


def _operating(samples: Samples) -> tuple[dict[str, float], dict[str, float]]:
    """Thresholds of the figures at FARs, and the spread of the accuracy, as `pairs.operating` has them."""
    thresholds, spreads, _ = pairs_protocol.operating(samples)
    if "histograms" not in samples:
        return thresholds, spreads
    spreads = {"accuracy": _machine_accuracy(samples).standard_error}
    if failures.FAILED in samples:
        without = _machine_accuracy(scored.without_failures(samples)).standard_error
        spreads |= failures.renamed({"accuracy": without})
    return thresholds, spreads


def _count_failed(pairs: PairList, frames: Mapping[str, Rows], failed: Flags) -> dict[str, int]:
    """For a result's counts: videos without a frame, if any."""
    absent = len(pairs.ids) - len(frames)
    return {"videos without a frame": absent, "pairs of them": int(failed.sum())} if absent else {}


@dataclass(frozen=True, eq=False)
class _Video:
    """One video: the mean of its frames' unit vectors [d], and of the vectors at their length."""

    unit: Floats
    whole: Floats

    @staticmethod
    def from_frames(embeddings: Embeddings, rows: Rows, flip: str | None) -> "_Video":
        units = embeddings.unit(rows, flip=flip, dtype=np.float64)
        return _Video(units.mean(axis=0), (units * embeddings.lengths(rows, flip)[:, None]).mean(axis=0))


def _scored(
    embeddings: Embeddings, pairs: PairList, frames: Mapping[str, Rows], score: str, flip: str | None, c: float
) -> dict[str, NDArray[Any]]:
    """The list's columns, and scores and norms of the pairs; for the machine also the histograms."""
    videos = {name: _Video.from_frames(embeddings, rows, flip) for name, rows in frames.items()}
    samples = {name: value for name in COLUMNS if (value := getattr(pairs, name)) is not None}
    samples["norms"] = _pair_norms(videos, pairs)
    if score in ("mean", "cosine"):
        return samples | {"scores": _mean_scores(videos, pairs, score)}
    similarities = _similarities(embeddings, frames, pairs, flip)
    if score == "max":
        return samples | {"scores": np.array([block.max() for block in similarities])}
    histograms = np.array([histogram(block) for block in similarities])
    values = decision_values(histograms, pairs.same, samples["folds"], c)
    return samples | {"scores": values, "histograms": histograms}


def _refuse_one_kind(pairs: PairList) -> None:
    for fold in range(pairs.fold_count):
        for name, kind in (("genuine", pairs.same), ("impostor", ~pairs.same)):
            if not kind[pairs.folds == fold].any():
                raise checks.InputError(f"{pairs.source}: fold {fold} has no {name} pair; each fold needs both kinds")
    if pairs.fold_count < 2:
        raise checks.InputError(f"{pairs.source} must have two folds or more, for one chooses the other's threshold")


def _frames(embeddings: Embeddings, pairs: PairList, missing: str) -> dict[str, Rows]:
    """The rows of each video that the list names and that has frames."""
    videos = embeddings.templates
    if videos is None:
        videos = text_array([name.rpartition("/")[0] for name in embeddings.ids.tolist()])
    order = np.argsort(videos, kind="stable")
    ordered = videos[order]
    wanted = pairs.ids
    first, last = np.searchsorted(ordered, wanted), np.searchsorted(ordered, wanted, side="right")
    absent = wanted[first == last].tolist()
    if absent and (missing != "fail" or len(absent) == len(wanted)):
        how = "ids' folders" if embeddings.templates is None else "templates"
        way = "" if len(absent) == len(wanted) else "; or count them as failures to enrol with --missing fail"
        raise checks.InputError(
            f"{len(absent)} of the {len(wanted)} videos of {pairs.source} have no frame in {embeddings.source}: "
            f"{', '.join(absent[:3])}; its {how} name videos like {str(videos[0])!r}{way}"
        )
    return {str(name): order[a:b] for name, a, b in zip(wanted, first, last, strict=True) if b > a}


def _groups(
    embeddings: Embeddings, frames: Mapping[str, Rows], pairs: PairList
) -> tuple[NDArray[np.str_], NDArray[np.str_]] | None:
    """The groups of both videos of each pair; a video whose frames differ has none.

    A video without frames has the group that the file of groups gives it, or all frames in its folder.
    """
    if embeddings.groups is None:
        return None
    of_video = {name: shared_group(embeddings.groups[rows]) for name, rows in frames.items()}
    named: dict[str, set[str]] = {}
    for name, group in embeddings.absent_groups.items():
        for video in (name, name.rpartition("/")[0]):
            named.setdefault(video, set()).add(group)
    for video in set(pairs.ids.tolist()) - set(frames):
        groups = named.get(video, set())
        of_video[video] = groups.pop() if len(groups) == 1 else ""
    left, right = (np.array([of_video[name] for name in names.tolist()]) for names in (pairs.left, pairs.right))
    return left, right


def _similarities(
    embeddings: Embeddings, frames: Mapping[str, Rows], pairs: PairList, flip: str | None
) -> Iterator[Floats]:
    """The matrix of frame similarities of each pair, in [−1, 1]."""
    for left, right in zip(pairs.left.tolist(), pairs.right.tolist(), strict=True):
        a, b = (embeddings.unit(frames[name], flip=flip, dtype=np.float64) for name in (left, right))
        yield np.clip(a @ b.T, -1, 1)


def _mean_scores(videos: Mapping[str, _Video], pairs: PairList, score: str) -> Floats:
    """⟨mean u, mean v⟩, which is the mean of all ⟨u_i, v_j⟩; or the cosine of the mean vectors."""
    vectors = {name: video.unit if score == "mean" else video.whole for name, video in videos.items()}
    if score == "cosine":
        lengths = {name: float(np.linalg.norm(vector)) for name, vector in vectors.items()}
        zero = [name for name, length in lengths.items() if length == 0]
        if zero:
            raise checks.InputError(f"the frames of video {zero[0]} cancel to a vector of zeros, which has no angle")
        vectors = {name: vector / lengths[name] for name, vector in vectors.items()}
    both = zip(pairs.left.tolist(), pairs.right.tolist(), strict=True)
    return np.array([float(vectors[left] @ vectors[right]) for left, right in both])


def _pair_norms(videos: Mapping[str, _Video], pairs: PairList) -> Floats:
    norms = {name: float(np.linalg.norm(video.whole)) for name, video in videos.items()}
    left, right = (np.array([norms[name] for name in names.tolist()]) for names in (pairs.left, pairs.right))
    return np.asarray(np.minimum(left, right), dtype=np.float64)


def _right(samples: Samples) -> Flags:
    return np.asarray((samples["scores"] >= 0) == samples["same"])


def _machine_accuracy(samples: Samples) -> FoldAccuracy:
    accuracies = _shares(samples["folds"], _right(samples), np.ones(len(samples["folds"])))
    return FoldAccuracy(accuracies, np.zeros(len(accuracies)))


def _shares(folds: Rows, right: Flags, weights: Floats) -> Floats:
    """Share of each fold [F] that is right."""
    return np.asarray(np.bincount(folds, weights * right) / np.bincount(folds, weights), dtype=np.float64)


def histogram(similarities: Floats) -> Floats:
    """Shares of similarities in [−1, 1] that fall in 100 equal bins, [100]; the last includes 1.

    Source: NF Sec. 5.3, Fig. 9.

    >>> histogram(np.array([[-1.0, 0.995], [1.0, 0.0]]))[[0, 50, 99]].tolist()
    [0.25, 0.25, 0.5]
    """
    place = np.clip(np.floor((similarities.ravel() + 1) / 2 * HISTOGRAM_BINS), 0, HISTOGRAM_BINS - 1).astype(np.int64)
    return np.asarray(np.bincount(place, minlength=HISTOGRAM_BINS) / place.size, dtype=np.float64)


def intersections(first: Floats, second: Floats) -> Floats:
    """Histogram-intersection kernel K(a, b) = Σ_k min(a_k, b_k) of all rows of both, [A, B].

    Source: A. Barla, F. Odone, A. Verri, "Histogram intersection kernel for image classification", ICIP 2003.

    >>> intersections(np.array([[0.5, 0.5]]), np.array([[1.0, 0.0], [0.25, 0.75]])).tolist()
    [[0.5, 0.75]]
    """
    kernel = np.zeros((len(first), len(second)))
    for start in range(0, len(first), _KERNEL_ROWS):
        block = slice(start, start + _KERNEL_ROWS)
        for a, b in zip(first[block].T, second.T, strict=True):
            if a.any():
                kernel[block] += np.minimum.outer(a, b)
    return kernel


def decision_values(histograms: Floats, same: Flags, folds: NDArray[np.int64], c: float) -> Floats:
    """Decision value [P] of each histogram [P, 100], by the machine trained on the other folds; above 0 is genuine."""
    from sklearn.svm import SVC  # takes a second to import

    kernel = intersections(histograms, histograms)
    values = np.empty(len(same))
    for fold in np.unique(folds):
        test, train = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        machine = SVC(C=c, kernel="precomputed").fit(kernel[np.ix_(train, train)], same[train])
        values[test] = machine.decision_function(kernel[np.ix_(test, train)])
    return values
