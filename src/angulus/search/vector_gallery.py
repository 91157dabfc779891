"""Adding to a gallery, taking out, and asking who is on an image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from angulus.core import checks
from angulus.core.contract import describe_model, split_model_name
from angulus.core.embeddings import Embeddings
from angulus.evaluation.protocols.calibration import Calibration
from angulus.search.lance import LanceStore
from angulus.search.qdrant import QdrantStore
from angulus.search.vector_store import About, Neighbours, VectorStore, keys

EFFORT = 64  # lists or neighbours that an approximate query looks at

_MARGIN = 10  # rows beyond those asked for: a store ranks in float32, and what is shown is ranked in float64
_QUERIES = 256  # at a time
_FUSED = 10_000  # rows at a time
_BYTES = 2**28  # of the rows that are found for those queries
MOST_MATCHES = 10_000_000  # in all answers, which are kept in memory


@dataclass(frozen=True)
class Match:
    """A row of the gallery: its id, who is shown if that is known, and its cosine with the query."""

    id: str
    identity: str | None
    score: float


@dataclass(frozen=True)
class Answer:
    """The best matches at or above the threshold for one query, by falling score; none: nobody who is known."""

    id: str
    matches: tuple[Match, ...]


@dataclass(frozen=True)
class Recall:
    """Share of the true `top` that approximate answers hold, over so many queries."""

    value: float
    top: int
    queries: int


class Gallery:
    """Unit vectors of known people in a store.

    Args:
        store: where they are kept.
    """

    def __init__(self, store: VectorStore) -> None:
        self.store = store

    def __len__(self) -> int:
        return 0 if self.store.about() is None else self.store.count()

    def add(
        self,
        embeddings: Embeddings,
        *,
        flip: str | None = None,
        batch: int = 10_000,
        on_rows: Callable[[int], None] | None = None,
    ) -> int:
        """Add all embeddings, or replace those whose ids are there; returns how many.

        Args:
            embeddings: of one model, that of the gallery; their labels are the identities.
            flip: fuse with the mirrored images' embeddings: None, "sum" or "concat".
            batch: rows a commit, >= 1.
            on_rows: called with the number of rows kept, after each commit: a crash loses none of them, and adding
                again completes the rest.

        Raises:
            checks.InputError: another model, dimension or flip than the gallery's; no gallery, and not an empty place;
                a vector that cannot be fused; another process that writes the gallery for too long.
        """
        checks.integer("batch", batch, low=1)
        ids = embeddings.ids.tolist()
        named = [""] * len(ids) if embeddings.labels is None else embeddings.labels.tolist()
        labels = [name or None for name in named]
        _writable([*ids, *(each for each in labels if each is not None)], embeddings.source)
        about = _about(embeddings, flip)
        self._check_same(about, embeddings.source)
        if flip is not None:
            for start in range(0, len(ids), _FUSED):  # what cannot be fused is refused before anything is written
                embeddings.fused(slice(start, start + _FUSED), flip)
        with self.store.writing():
            if not self._check_same(about, embeddings.source):  # again: another process may have made it meanwhile
                self.store.create(about)
            for start in range(0, len(ids), batch):
                part = slice(start, start + batch)
                rows = np.arange(len(ids))[part]
                vectors = embeddings.unit(rows, flip=flip, dtype=np.float32).astype(np.float32, copy=False)
                self.store.put(ids[part], labels[part], vectors)
                if on_rows is not None:
                    on_rows(int(rows[-1]) + 1)
            self.store.tidy()
        return len(ids)

    def remove(self, ids: list[str]) -> int:
        """Take rows out by their ids; returns how many.

        Raises:
            checks.InputError: an id that is not there; nothing is taken out then.
        """
        self._begun()
        _writable(ids, "the command")
        asked = list(dict.fromkeys(ids))
        with self.store.writing():
            present = self.store.present(asked)
            done = {name for name, key in zip(asked, keys(asked), strict=True) if key in self.store.finished}
            missing = sorted(set(asked) - present - done)
            if missing:
                named = ", ".join(map(repr, missing[:3])) + (", ..." if len(missing) > 3 else "")
                raise checks.InputError(
                    f"{len(missing)} of the {len(asked)} ids are not in {self.store.where}: {named}; nothing is removed"
                )
            if present:
                self.store.delete(sorted(present))
        return len(asked)

    def index(self, kind: str) -> None:
        """Build what approximate queries need.

        Raises:
            checks.InputError: an empty gallery, too few rows, or another kind than the store has.
        """
        self._known()
        with self.store.writing():
            self.store.index(kind)

    def query(
        self,
        embeddings: Embeddings,
        *,
        top: int = 5,
        threshold: float | None = None,
        flip: str | None = None,
        effort: int | None = None,
    ) -> list[Answer]:
        """Who is on each image: the rows of highest cosine, at or above the threshold.

        Args:
            embeddings: of the gallery's model.
            top: matches per query at most, >= 1; all answers together hold at most `MOST_MATCHES`.
            threshold: cosine in [-1, 1]; None: the best are shown, however low.
            flip: as the gallery was made.
            effort: None: exact, every row is compared; else approximate, through the index: how many lists or
                neighbours are looked at, >= 1.

        Raises:
            checks.InputError: another model, dimension or flip, an empty gallery, no index where effort asks for one.
        """
        checks.integer("top", top, low=1)
        if threshold is not None:
            checks.number("threshold", threshold, low=-1, high=1)
        if effort is not None:
            checks.integer("effort", effort, low=1)
        about = self._known()
        _same(_about(embeddings, flip), about, embeddings.source, self.store.where)
        count = self.store.count()
        top = min(top, count)
        checks.integer("top", top, high=max(1, MOST_MATCHES // len(embeddings)), hint=f"of {len(embeddings):,} queries")
        effort = None if effort is None else min(effort, count)
        step = max(1, min(_QUERIES, _BYTES // (4 * about.size * (top + _MARGIN))))
        answers = []
        for start in range(0, len(embeddings), step):
            rows = np.arange(start, min(start + step, len(embeddings)))
            queries = embeddings.unit(rows, flip=flip, dtype=np.float64).astype(np.float64, copy=False)
            found = self.store.nearest(queries.astype(np.float32), top + _MARGIN, effort=effort)
            for row, query, near in zip(rows.tolist(), queries, found, strict=True):
                answers.append(Answer(str(embeddings.ids[row]), _matches(query, near, top, threshold)))
        return answers

    def recall(
        self,
        embeddings: Embeddings,
        *,
        top: int = 5,
        flip: str | None = None,
        effort: int = EFFORT,
        queries: int = 100,
        seed: int = 0,
    ) -> Recall:
        """Share of the exact answers' rows that approximate ones hold, over a draw of the queries.

        A row that is as near as the last of the exact answer counts: of copies, any will do.
        """
        checks.integer("queries", queries, low=1)
        count = min(queries, len(embeddings))
        rows = np.sort(np.random.default_rng(seed).permutation(len(embeddings))[:count])
        chosen = _part(embeddings, rows)
        exact = self.query(chosen, top=top, flip=flip)
        near = self.query(chosen, top=top, flip=flip, effort=effort)
        shares = []
        for truth, answer in zip(exact, near, strict=True):
            last = truth.matches[-1].score
            shares.append(sum(match.score >= last for match in answer.matches) / len(truth.matches))
        return Recall(float(np.mean(shares)), top, count)

    def about(self) -> About:
        """What the gallery holds."""
        return self._known()

    def _check_same(self, about: About, source: str) -> bool:
        """Whether there is a gallery; one that the vectors do not belong into is refused."""
        known = self.store.about()
        if known is not None:
            _same(about, known, source, self.store.where)
        return known is not None

    def _begun(self) -> About:
        about = self.store.about()
        if about is None:
            raise checks.InputError(f"there is no gallery in {self.store.where} yet; make one with angulus search add")
        return about

    def _known(self) -> About:
        about = self._begun()
        if not self.store.count():
            raise checks.InputError(f"the gallery in {self.store.where} is empty; fill it with angulus search add")
        return about


def open_gallery(where: str | Path) -> Gallery:
    """A gallery in a folder (LanceDB), or in a collection http://HOST:6333/COLLECTION (Qdrant)."""
    if isinstance(where, str) and "://" in where:
        return Gallery(QdrantStore.at(where))
    return Gallery(LanceStore(Path(where)))


def false_positives(fmr: float, count: int) -> float:
    """How often someone unknown is taken for one of `count` people, were the comparisons independent: 1 − (1 − FMR)^N.

    >>> round(false_positives(1e-4, 10_000), 3)
    0.632
    """
    return float(-np.expm1(count * np.log1p(-min(fmr, 1 - 1e-16))))


def threshold_of(calibration: Calibration, about: About, where: str) -> float:
    """The calibrated threshold, for a gallery that it is for.

    Raises:
        checks.InputError: a calibration of another model or flip than the gallery's.
    """
    way = "calibrate embeddings made as the gallery's were, or give a threshold of your own"
    if calibration.model != about.model:
        raise checks.InputError(
            f"the calibration is for {describe_model(calibration.model)}, and {where} holds vectors of "
            f"{describe_model(about.model)}; {way}"
        )
    if calibration.flip != about.flip:
        raise checks.InputError(
            f"the calibration is for flip {calibration.flip or 'none'} of the embeddings, and {where} was filled with "
            f"flip {about.flip or 'none'}; {way}"
        )
    return calibration.threshold.value


def _about(embeddings: Embeddings, flip: str | None) -> About:
    size = embeddings.vectors.shape[1] * (2 if flip == "concat" else 1)
    return About(size, embeddings.model, flip)


def _same(asked: About, known: About, source: str, where: str) -> None:
    """Refuse vectors that have no angle with the gallery's."""
    if asked.model != known.model:
        one, other = split_model_name(known.model), split_model_name(asked.model)
        way = "embed the images with the gallery's model (angulus info MODEL says a folder's fingerprint)"
        if one and other and one[0] == other[0]:
            way = f"embed the images with angulus embed --flip {one[1]}"
        raise checks.InputError(
            f"{where} holds vectors of {describe_model(known.model)}; {source} has those of "
            f"{describe_model(asked.model)}; {way}, or begin another gallery"
        )
    if asked.flip != known.flip:
        way = f"give --flip {known.flip}" if known.flip else "leave --flip out"
        raise checks.InputError(
            f"{where} was filled with flip {known.flip or 'none'} of the embeddings; got {asked.flip or 'none'}; {way}"
        )
    if asked.size != known.size:
        raise checks.InputError(
            f"{where} holds vectors of {known.size} numbers; {source} has {asked.size}; embed the images with the "
            "model that made the gallery's, or begin another gallery"
        )


def _writable(texts: list[str], source: str) -> None:
    """Refuse text that no store could give back as it is."""
    for text in texts:
        if not text.isprintable() and ("\0" in text or any("\ud800" <= each <= "\udfff" for each in text)):
            raise checks.InputError(
                f"ids and labels of {source} must be text without NUL and halves of characters; got {text!r}"
            )


def _matches(query: NDArray[np.float64], found: Neighbours, top: int, threshold: float | None) -> tuple[Match, ...]:
    stored = found.vectors.astype(np.float64)
    scores = np.clip(stored @ query / np.linalg.norm(stored, axis=1), -1, 1)
    ranked = sorted(zip(-scores, found.ids, found.identities, strict=True), key=lambda each: (each[0], each[1]))
    kept = [Match(name, identity, float(-score)) for score, name, identity in ranked]
    return tuple(match for match in kept[:top] if threshold is None or match.score >= threshold)


def _part(embeddings: Embeddings, rows: NDArray[np.int64]) -> Embeddings:
    """Some rows, with what a query needs of them."""
    flipped = None if embeddings.flipped is None else embeddings.flipped[rows]
    models = None if embeddings.models is None else embeddings.models[rows]
    return Embeddings(
        embeddings.vectors[rows], embeddings.ids[rows], models=models, flipped=flipped, source=embeddings.source
    )
