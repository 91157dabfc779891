"""Templates: the embeddings of a set of images pooled into one vector, by the options that papers differ in."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.sparse import csgraph

from angulus.core import checks
from angulus.core.checks import InputError
from angulus.core.embeddings import Embeddings
from angulus.core.formats.columns import text_array
from angulus.evaluation.lists.ijb import Comparisons, TemplateImages
from angulus.evaluation.protocols.failures import CHOICE
from angulus.evaluation.protocols.group_trials import shared_group
from angulus.evaluation.protocols.vectors import FLIPS, flip_choice

Floats = NDArray[np.floating[Any]]

_ROWS = 16_384  # images pooled at a time, so that a mapped file stays on disk


@dataclass(frozen=True)
class Pooling:
    """How the images of a template become one vector.

    With u_i an image's unit vector and w_i its weight (its norm, its detector's score, their product, or 1), the
    template is Σ over media of the medium's mean of w_i·u_i, or the mean over all images, divided by its length.

    Args:
        pool: "media": mean within a medium (the frames of a video are one), then over media; "flat": mean of all
            images (CM).
        norm: weight by the feature's norm (N1), or not (N0).
        detector: weight by the detector's score (D1), or not (D0).
        flip: None, "sum" or "concat": fuse with the mirrored image (F1), or not (F0).
    """

    pool: str = "media"
    norm: bool = True
    detector: bool = False
    flip: str | None = None

    def __post_init__(self) -> None:
        checks.choice("pool", self.pool, ("media", "flat"))
        checks.flag("norm", self.norm)
        checks.flag("detector", self.detector)
        if self.flip is not None:
            checks.choice("flip", self.flip, ("sum", "concat"), hint="or None")

    @property
    def mode(self) -> str:
        """The options in short, such as N1D0F0.

        >>> Pooling(norm=False, detector=True, flip="sum").mode
        'N0D1F1'
        """
        return f"N{int(self.norm)}D{int(self.detector)}F{int(self.flip is not None)}"

    def choices(self) -> dict[str, object]:
        """For a result's choices."""
        return {
            "pool": {"media": "media (mean within a medium then over media)", "flat": "flat (mean of all images)"}[
                self.pool
            ],
            "mode": self.mode,
            "weighted by norm": self.norm,
            "weighted by detector score": self.detector,
        }


@dataclass(frozen=True, eq=False)
class Templates:
    """Pooled templates, in ascending order of their numbers."""

    numbers: NDArray[np.int64]  # [T] int64, unique
    units: Floats  # [T, d] unit vectors
    # [T] float64, quality: the length of the mean of the images' vectors, each as long as its norm, pooled as
    # `Pooling.pool` says and without the detector's score
    norms: NDArray[np.float64]
    subjects: NDArray[np.int64] | None  # [T] int64, who each shows, or None if unknown
    how: Pooling  # the pooling
    images: int  # how many images were pooled
    source: str  # the list of images, for messages and results
    embeddings: str = "these embeddings"  # what was pooled, for results
    flip: str = FLIPS[None]  # what was done with mirror images, for results
    norm_source: str = "lengths of the vectors"  # where the images' norms come from, for results
    linked: bool = False  # whether the subjects are those that `link` found
    model: str | None = None  # which model and flip rule made the vectors, if known
    groups: NDArray[np.str_] | None = None  # [T], the group that all images of a template have, "" if they differ
    failed: NDArray[np.bool_] | None = None  # [T], templates without any embedding, whose units are zeros; None: none
    absent: int | None = None  # images without embedding, where these are failures to enrol

    def __len__(self) -> int:
        return len(self.numbers)

    def choices(self) -> dict[str, object]:
        """For a result's choices."""
        treated = {} if self.absent is None else {**CHOICE, "templates": "pooled of the images with embeddings"}
        return {**self.how.choices(), "flip fusion": self.flip, "norms": self.norm_source, **treated}

    def counts(self) -> dict[str, int]:
        """For a result's counts: images without embedding, if any."""
        if not self.absent:
            return {}
        return {"images without embedding": self.absent, "templates of such only": int(self.is_failed.sum())}

    @property
    def is_failed(self) -> NDArray[np.bool_]:
        """[T], which have no embedding at all."""
        return np.zeros(len(self), dtype=bool) if self.failed is None else self.failed

    @property
    def origin(self) -> dict[str, str]:
        """The source of the vectors, and the model and flip rule if known; for a result."""
        return {"embeddings": self.embeddings} | ({} if self.model is None else {"model": self.model})

    def rows(self, numbers: ArrayLike, what: str) -> NDArray[np.int64]:
        """Where templates [K] stand.

        Raises:
            InputError: some are not among the pooled ones; `what` asks for them.
        """
        asked = np.asarray(numbers, dtype=np.int64)
        place = np.minimum(np.searchsorted(self.numbers, asked), len(self) - 1)
        missing = np.unique(asked[self.numbers[place] != asked])
        if len(missing):
            raise InputError(
                f"{len(missing)} templates of {what} are not among the {len(self)} pooled ones: "
                f"{', '.join(map(str, missing[:3].tolist()))}; give the list that says which images are theirs"
            )
        return place


def pool(embeddings: Embeddings, images: TemplateImages, how: Pooling, missing: str = "refuse") -> Templates:
    """Pool the images of each template.

    An image that a template lists twice counts twice. Where `missing` is "fail", images without embedding are left out,
    and a template of such images only has failed.

    Raises:
        InputError: an image without embedding, a list without media where they are asked for, embeddings without
            detector scores or mirrored images where they are, weights below 0, or a template whose vectors cancel.

    Source: N. Crosswhite et al., "Template Adaptation for Face Verification and Identification", FG 2017 (media before
    templates); CM Sec. 5.3 (the mean of all images).
    """
    if how.pool == "media" and images.media is None:
        raise InputError(f'{images.source} does not say which medium an image is from; use pool="flat"')
    rows = embeddings.rows(images.ids, images.source, missing=missing)
    if missing == "fail":
        there = pool(embeddings, images.select(rows >= 0), how)
        return _with_failed(there, images, rows, embeddings.groups_of(rows, images.ids))
    weights = _detector_weights(embeddings, rows) if how.detector else np.ones(len(rows))
    media = np.zeros(len(rows), dtype=np.int64) if images.media is None or how.pool == "flat" else images.media
    order = np.lexsort((media, images.templates))
    numbers, starts = np.unique(images.templates[order], return_index=True)
    units: list[Floats] = []
    of_image = None if embeddings.groups is None else embeddings.groups[rows[order]]
    norms = np.empty(len(numbers))
    for first, last in _blocks(starts):
        begin, end = starts[first], starts[last] if last < len(starts) else len(rows)
        chosen = order[begin:end]
        vectors = embeddings.unit(rows[chosen], flip=how.flip)
        dtype, vectors = vectors.dtype, vectors.astype(np.float64)
        long = vectors * embeddings.lengths(rows[chosen], how.flip)[:, None]
        own_starts = starts[first:last] - begin
        of_medium = _changes(media[chosen], own_starts)
        norms[first:last] = np.linalg.norm(_means(long, of_medium, own_starts), axis=1)
        pooled = _means((long if how.norm else vectors) * weights[chosen, None], of_medium, own_starts)
        lengths = np.linalg.norm(pooled, axis=1)
        if not (lengths > 0).all():
            number = int(numbers[first + int(np.argmin(lengths))])
            raise InputError(f"{images.source}: the images of template {number} cancel to a vector of zeros")
        units.append((pooled / lengths[:, None]).astype(dtype))
    subjects = None if images.subjects is None else images.subject_of(numbers)
    fused = flip_choice(embeddings, how.flip)
    sources = images.source, embeddings.source, fused, embeddings.norm_source(how.flip) or ""
    groups = None if of_image is None else text_array([shared_group(part) for part in np.split(of_image, starts[1:])])
    return Templates(
        numbers, np.concatenate(units), norms, subjects, how, len(rows), *sources, False, embeddings.model, groups
    )


def _with_failed(
    pooled: Templates, images: TemplateImages, rows: NDArray[np.int64], groups: NDArray[np.str_] | None
) -> Templates:
    """All templates of a list, of those pooled, and how many of its images have no embedding."""
    numbers = np.unique(images.templates)
    place = np.searchsorted(numbers, pooled.numbers)
    failed = np.ones(len(numbers), dtype=bool)
    units, norms = np.zeros((len(numbers), pooled.units.shape[1]), pooled.units.dtype), np.zeros(len(numbers))
    failed[place], units[place], norms[place] = False, pooled.units, pooled.norms
    if groups is not None:
        order = np.argsort(images.templates, kind="stable")
        starts = np.searchsorted(images.templates[order], numbers)
        groups = text_array([shared_group(part) for part in np.split(groups[order], starts[1:])])
    subjects = None if images.subjects is None else images.subject_of(numbers)
    return replace(
        pooled, numbers=numbers, units=units, norms=norms, subjects=subjects, groups=groups,
        failed=failed if failed.any() else None, absent=int((rows < 0).sum()),
    )  # fmt: skip


def link(templates: Templates, comparisons: Iterable[Comparisons]) -> Templates:
    """Templates with subjects where the list of images has none: genuine comparisons link templates of one subject.

    Templates that genuine comparisons link, directly or through others, show one subject; one that they leave alone
    shows a subject of its own. IJB-B's and IJB-C's lists link each subject's probes with its gallery template, and so
    all of them; a list that leaves links out splits subjects, and intervals over them are then too narrow.

    Raises:
        InputError: a template that was not pooled.
    """
    pairs = [np.empty((2, 0), dtype=np.int64)]
    for block in comparisons:
        left, right = (templates.rows(side[block.same], "the comparisons") for side in (block.left, block.right))
        pairs.append(np.stack([left, right]))
    first, second = np.concatenate(pairs, axis=1)
    links = sparse.coo_array((np.ones(len(first)), (first, second)), (len(templates), len(templates)))
    _, subjects = csgraph.connected_components(links, directed=False)
    return replace(templates, subjects=subjects.astype(np.int64), linked=True)


def _detector_weights(embeddings: Embeddings, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    if embeddings.detector_scores is None:
        raise InputError(
            f"weighting by the detector's score needs 'detector_scores'; {embeddings.source} has none; "
            "leave the option off, or add them"
        )
    scores = embeddings.detector_scores[rows]
    if np.isnan(scores).any():
        missing = int(np.isnan(scores).sum())
        raise InputError(
            f"weighting by the detector's score needs one of each image; {embeddings.source} lacks {missing:,} of the "
            "templates'; leave the option off, or add them"
        )
    if (scores < 0).any():
        raise InputError(f"{embeddings.source}: detector_scores that weight must be >= 0; got {scores.min()}")
    return scores


def _blocks(starts: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Runs of whole templates with about `_ROWS` images each."""
    first = 0
    while first < len(starts):
        last = int(np.searchsorted(starts, starts[first] + _ROWS))
        yield first, last
        first = last


def _changes(media: NDArray[np.int64], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where a medium of a template begins."""
    begins = np.append(True, media[1:] != media[:-1])
    begins[starts] = True
    return np.flatnonzero(begins)


def _means(vectors: NDArray[np.float64], media: NDArray[np.int64], templates: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean of each medium, then of each template's media: [templates, d]."""
    of_media = np.add.reduceat(vectors, media) / np.diff(np.append(media, len(vectors)))[:, None]
    first = np.searchsorted(media, templates)
    return np.asarray(np.add.reduceat(of_media, first) / np.diff(np.append(first, len(media)))[:, None])
