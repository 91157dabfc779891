"""Pairs of a list scored by embeddings, with the people they show, who are resampled."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angulus.core.checks import InputError
from angulus.core.embeddings import Embeddings
from angulus.evaluation.lists.pair_list import PairList
from angulus.evaluation.metrics.intervals import Flags, Floats, Rows, Samples, Units
from angulus.evaluation.metrics.verification import PresortedFolds
from angulus.evaluation.protocols import failures
from angulus.evaluation.protocols.distinct import Distinct, distinct
from angulus.evaluation.protocols.failures import FAILED
from angulus.evaluation.protocols.vectors import METRICS, flip_choice, pair_scores, projected

COLUMNS = ("left", "right", "same", "folds", "left_identity", "right_identity")  # what names pairs
DISTINCT = "distinct"  # the sample that numbers distinct pairs, of a list that repeats some
MEASURED = ("scores", "fold_scores", "norms", FAILED)  # samples that the embeddings gave; the others say which pairs

_NO_NORMS = (
    "the quality of the pairs is unknown: the column norms of {source} is from before the vectors were normalised, so "
    "that the length of a vector joined with its mirror image's is unknown"
)
_NO_NORM = "the quality of the pairs is unknown, because images without embedding have no norm"
_PCA = "{} directions, of the vectors before any normalisation, fitted on the images of the other folds"
_UNKNOWN = "intervals resample the pairs and not the people behind them, which pairs share: they are too narrow; {why}"


@dataclass(frozen=True, eq=False)
class ScoredPairs:
    """Pairs that embeddings have scored."""

    # the list's columns (`left`, `right`, `same`, and where known `folds`, `left_identity`, `right_identity`;
    # `distinct`, the number of the distinct pair, where some repeat), `scores` [P] and, where known, `norms` [P], the
    # smaller of the two images' (fused as the scores are); with PCA `scores` are each pair's under the projection
    # fitted without its fold, and `fold_scores` [F, P] all pairs' under the one fitted without fold f; `failed` [P],
    # which have an image without embedding, if some have: their score is below all others, and norms are left out
    samples: dict[str, NDArray[Any]]
    left: Rows  # [P], rows of the embeddings; −1 for an image without embedding
    right: Rows
    distinct: Distinct  # the pairs, each once
    choices: dict[str, Any]  # how the scores came about
    counts: dict[str, int]  # how many pairs, images, ...
    notes: tuple[str, ...]  # what a reader must know of them
    unit: str  # what is resampled: "people" or "pairs"
    about: dict[str, Any]  # versions, and where embeddings and pairs came from


def score(
    embeddings: Embeddings,
    pairs: PairList,
    *,
    metric: str = "cosine",
    flip: str | None = None,
    pca: int | None = None,
    missing: str | None = None,
) -> ScoredPairs:
    """Look the pairs up and score them.

    Args:
        embeddings, pairs, metric, flip: as in `pairs.evaluate`.
        pca: directions to project onto, fitted for each fold on the images of the other folds that are not in it.
        missing: None or "refuse": images without embedding are an error; "fail": their pairs score below all others,
            and are `failed`.

    Raises:
        InputError: an image without embedding, a pair that is listed as genuine and as impostor or compares an image
            with itself, embeddings of several models, PCA without folds, or more directions than there can be.
    """
    for kind, listed in (("genuine (1)", pairs.same), ("impostor (0)", ~pairs.same)):
        if not listed.any():
            raise InputError(f"{pairs.source} must hold pairs of both kinds; it has no {kind} pair")
    both = embeddings.rows(np.concatenate([pairs.left, pairs.right]), pairs.source, missing=missing)
    left, right = both[: len(pairs)], both[len(pairs) :]
    failed = np.minimum(left, right) < 0
    if failed.any():
        if failed.all():
            raise InputError(f"{pairs.source} must hold a pair of two images with embeddings; it holds none")
        enrolled = score(embeddings, pairs.select(~failed), metric=metric, flip=flip, pca=pca)
        return _with_failures(enrolled, pairs, left, right, failed)
    rows, place = np.unique(both, return_inverse=True)
    places = place[: len(pairs)], place[len(pairs) :]
    once = distinct(*places, pairs.same, embeddings.ids[rows], pairs.source)
    vectors = embeddings.fused(rows, flip)
    samples: dict[str, NDArray[Any]] = {"left": pairs.left, "right": pairs.right, "same": pairs.same}
    if pairs.folds is not None:
        samples["folds"] = pairs.folds
    if once.notes:
        samples[DISTINCT] = once.number
    if pca is None:
        samples["scores"] = pair_scores(vectors, *places, metric)
    else:
        table = _fold_scores(vectors, *places, metric, pca, pairs)
        samples |= {"scores": table[pairs.folds, np.arange(len(pairs))], "fold_scores": table}
    identities, notes = _identities(embeddings, pairs, left, right)
    source = embeddings.norm_source(flip)
    if source is None:
        notes += (_NO_NORMS.format(source=embeddings.source),)
    else:
        norms = embeddings.lengths(rows, flip)
        samples["norms"] = np.minimum(norms[places[0]], norms[places[1]])
    samples |= identities
    genuine = int(pairs.same.sum())
    counts = {"pairs": len(pairs), "genuine": genuine, "impostors": len(pairs) - genuine, "images": len(rows)}
    counts |= once.counts
    if identities:
        counts["people"] = units_of(samples).count
    if pairs.unknown:
        counts["images of unknown people left out"] = pairs.unknown
    return ScoredPairs(
        samples,
        left,
        right,
        once,
        {
            "score": METRICS[metric],
            "flip": flip_choice(embeddings, flip),
            "pca": "none" if pca is None else _PCA.format(pca),
            "norms": source or "unknown",
            **(failures.CHOICE if missing == "fail" else {}),
        },
        counts,
        notes + once.notes,
        "people" if identities else "pairs",
        {**embeddings.origin, "pairs": pairs.source},
    )


def spread(samples: Samples, pairs: PairList, failed: Flags) -> dict[str, NDArray[Any]]:
    """Samples of the pairs with two embeddings as those of the whole list; pairs that failed score below all others."""
    whole: dict[str, NDArray[Any]] = {FAILED: failed}
    for name in ("scores", "fold_scores", "histograms"):
        if name in samples:
            values = np.moveaxis(samples[name], -1 if name == "fold_scores" else 0, 0)
            filled = np.full((len(failed), *values.shape[1:]), min(values.min(), 0) - 1, dtype=values.dtype)
            filled[~failed] = values
            whole[name] = np.moveaxis(filled, 0, -1) if name == "fold_scores" else filled
    return {name: value for name in COLUMNS if (value := getattr(pairs, name)) is not None} | whole


def _with_failures(enrolled: ScoredPairs, pairs: PairList, left: Rows, right: Rows, failed: Flags) -> ScoredPairs:
    """All pairs of a list, of those that have two embeddings: the others score below all of these."""
    names, place = np.unique(np.concatenate([pairs.left, pairs.right]), return_inverse=True)
    once = distinct(place[: len(pairs)], place[len(pairs) :], pairs.same, names, pairs.source)
    samples = spread(enrolled.samples, pairs, failed)
    if once.notes:
        samples[DISTINCT] = once.number
    notes = [_NO_NORM, *once.notes]
    if "left_identity" not in samples:
        notes.insert(0, _UNKNOWN.format(why="the list does not say who is shown, nor do labels of images without one"))
    genuine = int(pairs.same.sum())
    absent = np.unique(place[np.concatenate([left, right]) < 0])
    counts = {"pairs": len(pairs), "genuine": genuine, "impostors": len(pairs) - genuine, "images": len(names)}
    counts |= {"images without embedding": len(absent), "pairs of them": int(failed.sum()), **once.counts}
    if "left_identity" in samples:
        counts["people"] = units_of(samples).count
    unit = "people" if "left_identity" in samples else "pairs"
    choices = {**enrolled.choices, **failures.CHOICE}
    return ScoredPairs(samples, left, right, once, choices, counts, tuple(notes), unit, enrolled.about)


_OF_PAIRS = {*COLUMNS, "scores", "norms", DISTINCT, "groups", "histograms"}


def without_failures(samples: Samples) -> dict[str, NDArray[Any]]:
    """The samples of the pairs whose two images have embeddings: all, if no pair failed."""
    if FAILED not in samples:
        return dict(samples)
    rest = failures.without_failures(samples, _OF_PAIRS)
    if "fold_scores" in rest:
        rest["fold_scores"] = rest["fold_scores"][:, ~samples[FAILED]]
    return rest


def distinct_impostors(samples: Samples) -> int:
    """The number of distinct impostor pairs."""
    impostors = ~samples["same"]
    return len(np.unique(samples[DISTINCT][impostors])) if DISTINCT in samples else int(impostors.sum())


def require_norms(embeddings: Embeddings, flip: str | None) -> None:
    """Refuse embeddings whose norms, which measure the quality, are unknown when mirror images are joined.

    Raises:
        InputError: as `Embeddings.lengths`.
    """
    embeddings.lengths(np.zeros(1, dtype=np.int64), flip)


def units_of(samples: Samples) -> Units:
    """The people of pairs where they are known, else each distinct pair (or other sample) by itself."""
    if "left_identity" in samples:
        return Units.of(samples["left_identity"], samples["right_identity"])
    if DISTINCT in samples:
        return Units.of(samples[DISTINCT])
    return Units.of(np.arange(len(samples["same" if "same" in samples else "correct"])))


def folds_of(samples: Samples) -> PresortedFolds | None:
    """The scores by folds, sorted; None for a list without folds."""
    if "folds" not in samples:
        return None
    scores = samples["fold_scores"] if "fold_scores" in samples else samples["scores"]
    return PresortedFolds.of(scores, samples["same"], samples["folds"], samples.get(FAILED))


def strata_of(samples: Samples) -> NDArray[np.int64]:
    """Fold and kind of each pair [P] as one number: resamples keep how many there are of each."""
    fold = samples.get("folds", np.zeros(len(samples["same"]), dtype=np.int64))
    return np.asarray(2 * fold + samples["same"])


def _fold_scores(vectors: Any, left: Rows, right: Rows, metric: str, size: int, pairs: PairList) -> Floats:
    """Scores [F, P] under the projection that is fitted without the images of each fold."""
    if pairs.folds is None:
        raise InputError(f"{pairs.source} has no folds, and PCA is fitted on the other folds; leave pca out")
    table = np.empty((pairs.fold_count, len(pairs)))
    for fold in range(pairs.fold_count):
        tested = pairs.folds == fold
        fitted = np.setdiff1d(np.arange(len(vectors)), np.concatenate([left[tested], right[tested]]))
        table[fold] = pair_scores(projected(vectors, fitted, size), left, right, metric)
    return table


def _identities(
    embeddings: Embeddings, pairs: PairList, left: Rows, right: Rows
) -> tuple[dict[str, NDArray[Any]], tuple[str, ...]]:
    """Who is shown, by the list or else by the embeddings' labels; or a note that it is not known."""
    if pairs.left_identity is not None and pairs.right_identity is not None:
        return {"left_identity": pairs.left_identity, "right_identity": pairs.right_identity}, ()
    if embeddings.labels is None:
        return {}, (_UNKNOWN.format(why="neither the list nor the embeddings say who is shown"),)
    first, second = embeddings.labels[left], embeddings.labels[right]
    known = embeddings.labelled[left] & embeddings.labelled[right]
    wrong = int(((first == second) != pairs.same)[known].sum())
    if not known.all():
        unknown = int((~embeddings.labelled[np.union1d(left, right)]).sum())
        return {}, (_UNKNOWN.format(why=f"the embeddings' labels do not say who {unknown:,} of the images show"),)
    if wrong:
        why = f"the embeddings' labels contradict {wrong:,} of the {len(pairs):,} pairs"
        return {}, (_UNKNOWN.format(why=why),)
    return {"left_identity": first, "right_identity": second}, ()


def sides_of(
    embeddings: Embeddings, pairs: PairList, scored: ScoredPairs
) -> tuple[NDArray[np.str_], NDArray[np.str_]] | None:
    """The groups of both images of each pair, [P] each: the list's, or else the embeddings', or None.

    An image without embedding has the group that the file of `--groups` gives it, else an unknown one.
    """
    if pairs.groups is not None:
        return pairs.groups, pairs.groups
    left, right = embeddings.groups_of(scored.left, pairs.left), embeddings.groups_of(scored.right, pairs.right)
    return None if left is None or right is None else (left, right)
