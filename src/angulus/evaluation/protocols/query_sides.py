"""Which rows of embeddings search which: by files, splits, labels and cameras."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angulus.core import checks
from angulus.core.checks import InputError
from angulus.core.embeddings import Embeddings
from angulus.evaluation.metrics.intervals import Flags, Rows
from angulus.evaluation.protocols.vectors import Vectors, require_alike

Texts = NDArray[np.str_]

QUERY, GALLERY = "query", "gallery"  # the splits that need no option


@dataclass(frozen=True)
class Chosen:
    """What a protocol asks of the columns.

    Args:
        queries, gallery: names in the column `splits` of the rows that search and of those that are searched.
        split: the only split to use, whose rows search each other.
        camera_rule: whether gallery images of a query's class and camera are ignored; None: there must be no cameras.
        junk: the label of gallery images that are ignored, and
        distractors: of those that match nobody; "" or None: there are none.
    """

    queries: str | None = None
    gallery: str | None = None
    split: str | None = None
    camera_rule: bool | None = None
    junk: str | None = None
    distractors: str | None = None

    def __post_init__(self) -> None:
        if (self.queries is None) != (self.gallery is None):
            raise InputError("queries and gallery each name a split and go together; give both or none")
        if self.split is not None and self.queries is not None:
            raise InputError("split names the only split to use; leave it out, or leave out queries and gallery")


def defaults(kind: str, **given: Any) -> Chosen:
    """What re-identification assumes of Market-1501's labels; retrieval assumes nothing."""
    assumed = {"camera_rule": True, "junk": "-1", "distractors": "0"} if kind == "reid" else {}
    return Chosen(**{**assumed, **given})


@dataclass(frozen=True, eq=False)
class Searched:
    """Queries and gallery: rows of their embeddings, vectors, and classes as numbers."""

    queries: Rows  # [Q] rows of the embeddings
    gallery: Rows  # [N]
    query_vectors: Vectors
    gallery_vectors: Vectors
    query_class: Rows  # [Q] in [0, classes)
    gallery_class: Rows  # [N]; a class of no query for images of other classes and distractors
    classes: Texts  # of the queries
    own: Rows  # [Q]: the gallery place of the query itself, or -1
    cameras: tuple[Rows, Rows] | None  # as numbers, where the camera rule holds
    is_distractor: Flags  # [N]
    query_ids: Texts  # of all rows of the embeddings
    gallery_ids: Texts
    choices: Mapping[str, Any]
    counts: Mapping[str, int]
    notes: tuple[str, ...]
    labels: tuple[str, str]  # one of the queries', one of the gallery's, for messages

    def ignored(self, queries: Rows, gallery: Rows) -> Flags:
        """Which pairs are left out: the query itself, and images of its class from its camera, [M] each."""
        left_out = self.own[queries] == gallery
        if self.cameras is not None:
            same = self.query_class[queries] == self.gallery_class[gallery]
            left_out |= same & (self.cameras[0][queries] == self.cameras[1][gallery])
        return np.asarray(left_out)

    def no_match(self) -> str:
        """Why a search is refused in which no query has a match."""
        if self.cameras is not None and np.isin(self.query_class, self.gallery_class[~self.is_distractor]).any():
            return (
                "no query has a match that another camera took, so no figure is defined; give images of a class from "
                "two cameras or more, or turn the rule off with --no-camera-rule (in Python camera_rule=False)"
            )
        if (self.own >= 0).all():
            return (
                "no query has a match in the gallery, so no figure is defined: no two images are of one class; labels "
                f"look like {self.labels[0]!r}; give the class of each image, not a name of its own"
            )
        return (
            "no query has a match in the gallery, so no figure is defined; the queries' labels look like "
            f"{self.labels[0]!r} and the gallery's like {self.labels[1]!r}; give both the same kind of labels, and two "
            "images or more of a class"
        )


def choose(embeddings: Embeddings, others: Embeddings | None, chosen: Chosen, flip: str | None) -> Searched:
    """The queries and the gallery of one embeddings file, or of two.

    Raises:
        InputError: labels, splits or cameras that are missing, or that need a choice that was not made.
    """
    far = embeddings if others is None else others
    require_alike(embeddings, far)
    rows, places, splits = _split(embeddings, others, chosen)
    counts: dict[str, int] = {}
    sides = []
    for what, side, used in (("queries", embeddings, rows), ("gallery images", far, places)):
        if side.labels is None:
            raise InputError(f"{side.source} must say the class of each image; add a column labels, one per embedding")
        known = used[side.labelled[used]]
        if len(known) < len(used):
            counts[f"{what} of unknown class left out"] = len(used) - len(known)
        sides.append(known)
    rows, places = sides
    _refuse_special(embeddings, rows, chosen)
    if chosen.junk:
        junk = far.labels[places] == chosen.junk  # type: ignore[index]
        if junk.any():
            counts["junk images left out"] = int(junk.sum())
            places = places[~junk]
    for side, used, what in ((embeddings, rows, "query"), (far, places, "gallery image")):
        if not len(used):
            raise InputError(f"{side.source} must hold a {what} of a known class; it holds none")
    labels, targets = embeddings.labels[rows], far.labels[places]  # type: ignore[index]
    classes, query_class = np.unique(labels, return_inverse=True)
    gallery_class = np.minimum(np.searchsorted(classes, targets), len(classes) - 1)
    distractor = targets == chosen.distractors if chosen.distractors else np.zeros(len(targets), dtype=bool)
    elsewhere = (classes[gallery_class] != targets) | distractor
    others_named = np.unique(targets[elsewhere], return_inverse=True)[1] if elsewhere.any() else np.empty(0, int)
    gallery_class[elsewhere] = len(classes) + others_named
    if distractor.any():
        counts["distractors"] = int(distractor.sum())
    own, notes = _own(embeddings, others, rows, places)
    return Searched(
        rows,
        places,
        _vectors(embeddings, rows, flip),
        _vectors(far, places, flip),
        query_class.astype(np.int64),
        gallery_class.astype(np.int64),
        classes,
        own,
        _cameras(embeddings, far, rows, places, chosen),
        np.asarray(distractor),
        embeddings.ids,
        far.ids,
        {**splits, "camera rule": "ignore the query's class and camera" if chosen.camera_rule else "none"},
        counts,
        notes,
        (str(labels[0]), str(targets[0])),
    )


def _split(embeddings: Embeddings, others: Embeddings | None, chosen: Chosen) -> tuple[Rows, Rows, dict[str, str]]:
    """The rows of the queries and of the gallery, and the choice that describes them."""
    everything = np.arange(len(embeddings))
    asked = chosen.queries, chosen.gallery, chosen.split
    if others is not None:
        if any(asked):
            raise InputError("splits choose within one file; leave queries, gallery and split out, or give one file")
        return everything, np.arange(len(others)), {"queries": "all images of the first file"}
    if embeddings.splits is None:
        if any(asked):
            raise InputError(f"{embeddings.source} has no column splits, which --queries, --gallery and --split read")
        return everything, everything, {"queries": "each image searches all others"}
    names = np.unique(embeddings.splits).tolist()
    listed = ", ".join(map(repr, names))
    if chosen.split is not None:
        used = np.flatnonzero(embeddings.splits == _known(embeddings, chosen.split, listed, names))
        return used, used, {"queries": f"each image of split {chosen.split} searches the others of it"}
    pair = (chosen.queries, chosen.gallery) if chosen.queries else (QUERY, GALLERY)
    if not chosen.queries and not {QUERY, GALLERY} <= set(names):
        raise InputError(
            f"{embeddings.source} has the splits {listed}; name one with --split, or two with --queries and --gallery"
        )
    rows, places = (np.flatnonzero(embeddings.splits == _known(embeddings, str(name), listed, names)) for name in pair)
    return rows, places, {"queries": f"split {pair[0]} searches split {pair[1]}"}


def _known(embeddings: Embeddings, name: str, listed: str, names: list[str]) -> str:
    if name not in names:
        raise InputError(f"{embeddings.source} has no split {name!r}{checks.nearest(name, names)}; it has {listed}")
    return name


def _refuse_special(embeddings: Embeddings, rows: Rows, chosen: Chosen) -> None:
    """Refuse queries of the labels that stand for junk and distractors: with other labels, 0 may be a class."""
    for what in ("junk", "distractors"):
        label = getattr(chosen, what)
        count = int((embeddings.labels[rows] == label).sum()) if label else 0  # type: ignore[index]
        if count:
            raise InputError(
                f"{embeddings.source}: no query may have the label {label!r}, which stands for {what}; {count} have "
                f'it; if it is a class, give --{what} "" (in Python {what}="")'
            )


def _cameras(
    embeddings: Embeddings, far: Embeddings, rows: Rows, places: Rows, chosen: Chosen
) -> tuple[Rows, Rows] | None:
    given = [side.source for side in (embeddings, far) if side.cameras is not None]
    if chosen.camera_rule is None and given:
        raise InputError(
            f"{given[0]} has cameras; say whether gallery images of a query's class and camera are ignored: "
            "--camera-rule or --no-camera-rule (in Python camera_rule=True or False)"
        )
    if not chosen.camera_rule:
        return None
    if embeddings.cameras is None or far.cameras is None:
        lacking = embeddings if embeddings.cameras is None else far
        raise InputError(
            f"the camera rule needs the column cameras, which {lacking.source} lacks; add it, or turn "
            "the rule off with --no-camera-rule (in Python camera_rule=False)"
        )
    first, second = embeddings.cameras[rows], far.cameras[places]
    unknown = int((first == "").sum() + (second == "").sum())
    if unknown:
        raise InputError(f"the camera rule needs the camera of every image; {unknown} have none")
    numbers = np.unique(np.concatenate([first, second]), return_inverse=True)[1].astype(np.int64)
    return numbers[: len(first)], numbers[len(first) :]


def _own(embeddings: Embeddings, others: Embeddings | None, rows: Rows, places: Rows) -> tuple[Rows, tuple[str, ...]]:
    """Where the gallery holds the query itself: the same row of one file, or the same id in two."""
    own = np.full(len(rows), -1, dtype=np.int64)
    if others is None:
        _, first, second = np.intersect1d(rows, places, assume_unique=True, return_indices=True)
        own[first] = second
        return own, ()
    _, first, second = np.intersect1d(embeddings.ids[rows], others.ids[places], assume_unique=True, return_indices=True)
    if not len(first):
        return own, ()
    differs = np.flatnonzero(embeddings.labels[rows[first]] != others.labels[places[second]])  # type: ignore[index]
    if len(differs):
        row, place = rows[first[differs[0]]], places[second[differs[0]]]
        raise InputError(
            f"an image in both files must have one label; {len(differs)} differ, first {str(embeddings.ids[row])!r}: "
            f"{str(embeddings.labels[row])!r} in {embeddings.source}, {str(others.labels[place])!r} in {others.source}"  # type: ignore[index]
        )
    own[first] = second
    return own, (f"{len(first):,} queries are in the gallery, by their ids; each is left out of its own search",)


def _vectors(embeddings: Embeddings, rows: Rows, flip: str | None) -> Vectors:
    """Vectors of chosen rows; consecutive ones as a view, so that a mapped file stays on disk."""
    consecutive = int(rows[-1]) - int(rows[0]) + 1 == len(rows)
    if consecutive:
        return embeddings.fused(slice(int(rows[0]), int(rows[-1]) + 1), flip)
    return embeddings.fused(rows, flip)
