"""A gallery of known people: add, remove, and identify the person in an image."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angulus.core import checks
from angulus.core.checks import InputError
from angulus.core.contract import comparable, describe_model, split_model_name
from angulus.core.embeddings import Embeddings
from angulus.evaluation.protocols.calibration import Calibration
from angulus.search import life
from angulus.search.faiss import FaissStore
from angulus.search.lance import LanceStore
from angulus.search.qdrant import QdrantStore
from angulus.search.vector_store import DTYPES, LANCE, SQLITE, SUFFIX, About, Neighbours, VectorStore, keys

EFFORT = 64  # lists or neighbours that an approximate query searches

BY = ("photo", "person", "template")  # what a match is

_MORE = 4  # times as many rows are looked at if those looked at show too few people
_SHORTLIST = 20  # people whose templates are compared
_MARGIN = 10  # extra rows: a store ranks in float32, and answers are ranked in float64
_QUERIES = 256  # at a time
_FUSED = 10_000  # rows checked at a time
_BYTES = 2**28  # of the rows found for those queries
MOST_MATCHES = 10_000_000  # in all answers, which are kept in memory


@dataclass(frozen=True)
class Match:
    """A row of the gallery: its id, its identity if known, and its cosine with the query."""

    id: str
    identity: str | None
    score: float


@dataclass(frozen=True)
class Answer:
    """The best matches of one query at or above the threshold, by falling score; none: nobody in the gallery."""

    id: str
    matches: tuple[Match, ...]


@dataclass(frozen=True)
class Recall:
    """Share of the true `top` rows that approximate answers hold, over a number of queries."""

    value: float
    top: int
    queries: int


class Gallery:
    """Unit vectors of known people in a `store`."""

    def __init__(self, store: VectorStore) -> None:
        self.store = store

    def __len__(self) -> int:
        return 0 if self.store.about() is None else self.store.count()

    def add(
        self,
        embeddings: Embeddings,
        *,
        flip: str | None = None,
        expires: str | None = None,
        readmit: bool = False,
        dtype: str | None = None,
        batch: int = 10_000,
        on_rows: Callable[[int], None] | None = None,
    ) -> int:
        """Add all embeddings, replacing rows with the same ids; returns how many.

        Args:
            embeddings: of the gallery's model; their labels are the identities, `expires` when a row ends, and the
                norms of the features say which photos are best.
            flip: fuse with the mirrored images' embeddings: None, "sum" or "concat".
            expires: for all rows: a date, or a number of days; None: as the embeddings say.
            readmit: allow people of the embeddings again who were removed from the gallery.
            dtype: of the stored vectors, "float32" or "float16", which takes half the disk; a gallery keeps that which
                it was made with. None: that, or float32.
            batch: rows per commit, >= 1.
            on_rows: called with the number of committed rows after each commit; a crash loses none of them, and adding
                again completes the rest.

        Raises:
            checks.InputError: another model, dimension or flip than the gallery's; a folder that is not a gallery;
                a vector that cannot be fused; photos of a removed person without `readmit`; another process that writes
                the gallery for too long.
        """
        checks.integer("batch", batch, low=1)
        ids = embeddings.ids.tolist()
        known = [""] * len(ids) if embeddings.labels is None else embeddings.labels.tolist()
        labels = [name or None for name in known]
        _check_writable([*ids, *filter(None, labels)], embeddings.source)
        ends, norms = life.ends(embeddings, expires), life.norms(embeddings)
        if dtype is not None:
            checks.choice("dtype", dtype, DTYPES)
        about = replace(_about(embeddings, flip), dtype=dtype or DTYPES[0])
        self._check_same(about, embeddings.source, dtype)
        if flip is not None:
            for start in range(0, len(ids), _FUSED):  # refuse what cannot be fused before writing anything
                embeddings.fused(slice(start, start + _FUSED), flip)
        with self.store.writing():
            if not self._check_same(about, embeddings.source, dtype):  # again: another process may have made it since
                self.store.create(about)
            self.admit(labels, embeddings.source, readmit=readmit)
            for start in range(0, len(ids), batch):
                part = slice(start, start + batch)
                rows = np.arange(len(ids))[part]
                vectors = embeddings.unit(rows, flip=flip, dtype=np.float32).astype(np.float32, copy=False)
                self.store.put(Neighbours(ids[part], labels[part], vectors, ends[part], norms[part]))
                if on_rows is not None:
                    on_rows(int(rows[-1]) + 1)
            self.store.tidy()
        return len(ids)

    def remove(self, ids: list[str]) -> int:
        """Remove rows by their ids; returns how many. A missing id is an error, and nothing is removed."""
        self._existing()
        _check_writable(ids, "the command")
        asked = list(dict.fromkeys(ids))
        with self.store.writing():
            present = self.store.present(asked)
            done = {name for name, key in zip(asked, keys(asked), strict=True) if key in self.store.finished}
            missing = sorted(set(asked) - present - done)
            if missing:
                named = ", ".join(map(repr, missing[:3])) + (", ..." if len(missing) > 3 else "")
                fault = f"{len(missing)} of the {len(asked)} ids are not in {self.store.where}: {named}"
                raise InputError(f"{fault}; nothing is removed")
            self._delete(sorted(present))
        return len(asked)

    def remove_people(self, people: list[str]) -> int:
        """Remove people with all their photos; returns how many photos.

        From the first step on no query finds them, and `add` refuses their photos until it is given `readmit`: the
        gallery keeps a digest of each name. A killed command is completed by giving it again, or by `expire`. A person
        without photo here is an error, and nothing is removed, unless that person was removed before.
        """
        _check_writable(people, "the command")
        self._existing()
        asked = list(dict.fromkeys(people))
        with self.store.writing():
            about = self._existing()
            rows = [
                pair
                for part in self.store.rows(people=asked, vectors=False)
                for pair in zip(part.ids, part.identities, strict=True)
            ]
            known = about.removed | set(keys([who for _, who in rows if who]))
            missing = [who for who, key in zip(asked, keys(asked), strict=True) if key not in known]
            if missing:
                fault = f"{len(missing)} of the {len(asked)} people are not in {self.store.where}"
                raise InputError(f"{fault}: {checks.shown(missing)}; nothing is removed")
            self.store.describe(replace(about, removed=about.removed | set(keys(asked))))
            self._delete([name for name, _ in rows])
        return len(rows)

    def expire(self) -> int:
        """Remove the rows whose time has ended, which no query finds any more, from the files too; returns how many.

        It also removes the photos that a killed `remove_people` left.
        """
        self._existing()
        with self.store.writing():
            about, second = self._existing(), life.now()
            parts = self.store.rows(expired=None if about.removed else int(second), vectors=False)
            ended = {
                name for part in parts for name in set(part.ids) - set(life.alive(part, about.removed, second).ids)
            }
            self._delete(sorted(ended))
        return len(ended)

    def _delete(self, ids: list[str]) -> None:
        if ids:
            self.store.delete(ids)

    def admit(self, labels: Sequence[str | None], source: str, *, readmit: bool = False) -> None:
        """Refuse photos of removed people, or end their removal; within `store.writing()`."""
        about = self._existing()
        people = sorted(set(filter(None, labels))) if about.removed else []
        back = {who: key for who, key in zip(people, keys(people), strict=True) if key in about.removed}
        if back and not readmit:
            count = sum(who in back for who in labels)
            fault = f"{count:,} rows of {source} are of people who were removed from {self.store.where}"
            way = "leave them out, or allow these people again with --readmit"
            raise InputError(f"{fault}: {checks.shown(list(back))}; nothing is added; {way}")
        if back:  # what a killed removal left of them must not come back with them
            self._delete([name for part in self.store.rows(people=list(back), vectors=False) for name in part.ids])
            self.store.describe(replace(about, removed=about.removed - set(back.values())))

    def index(self, kind: str) -> None:
        """Build the index for approximate queries: "ivf-pq", "hnsw", "int8" or "binary", as the store supports.

        "int8" and "binary" hold a byte or a bit per number in memory. The scores of matches are always exact cosines.
        """
        self.about()
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
        by: str = "photo",
        best: int | None = None,
        exclude_self: bool = False,
        compatible_with: Collection[str] = (),
    ) -> list[Answer]:
        """Identify the person in each image: the rows of highest cosine, at or above the threshold.

        Args:
            top: matches per query at most, >= 1; all answers together hold at most `MOST_MATCHES`.
            threshold: cosine in [-1, 1]; None: return the best, however low.
            effort: None: exact, every row is compared; else approximate, through the index: how many lists or
                neighbours to search, >= 1.
            by: "photo"; "person": of each person only the best row; a row without identity is a person of its own; or
                "template": the 20 people (or `top`) with the best rows, by the mean of all unit vectors of each.
                Fewer than `top` are returned if the nearest rows, up to 256 MiB of them, show no more people.
            best: by person or template: of each person, out of those found by all photos, only that many photos with
                the largest norms count, >= 1; None: all.
            exclude_self: leave out the row with the query's own id; not with "template" or `best`, which choose photos
                of a person without looking at the query.
            compatible_with: fingerprints that the queries' model is compatible with (`model.config.compatible_with`).

        Raises:
            checks.InputError: another model, dimension or flip, an empty gallery, effort without an index, `best` of a
                gallery without norms.
        """
        checks.integer("top", top, low=1)
        if threshold is not None:
            checks.number("threshold", threshold, low=-1, high=1)
        if effort is not None:
            checks.integer("effort", effort, low=1)
        about = self.about()
        asked = _about(embeddings, flip)
        if comparable(asked.model, about.model, compatible_with):
            asked = replace(asked, model=about.model)
        check_same(asked, about, embeddings.source, self.store.where)
        checks.choice("by", by, BY)
        if best is not None:
            checks.integer("best", best, low=1)
            if by == "photo":
                raise InputError(
                    "best must be left out for matches by photo: it chooses the photos of a person, for matches by "
                    "person or template"
                )
        chosen = by == "template" or best is not None
        if chosen and exclude_self:
            raise InputError(
                "exclude_self must be left out for matches by template, and where best chooses photos: both may hold "
                "the query itself"
            )
        count = self.store.count()
        top = min(top, count)
        checks.integer("top", top, high=max(1, MOST_MATCHES // len(embeddings)), hint=f"of {len(embeddings):,} queries")
        effort = None if effort is None else min(effort, count)
        people, second = (max(top, _SHORTLIST) if chosen else top), life.now()
        few, most = people + _MARGIN, min(count, _BYTES // (4 * about.size))
        step = max(1, min(_QUERIES, _BYTES // (4 * about.size * few)))
        answers = []
        for start in range(0, len(embeddings), step):
            rows = np.arange(start, min(start + step, len(embeddings)))
            queries = embeddings.unit(rows, flip=flip, dtype=np.float64).astype(np.float64, copy=False)
            found = self.store.nearest(queries.astype(np.float32), few, effort=effort)
            ranked = []
            for row, query, near in zip(rows.tolist(), queries, found, strict=True):
                own, wanted = str(embeddings.ids[row]) if exclude_self else None, few
                ranked.append(_ranked(query, life.alive(near, about.removed, second), by, own))
                while len(ranked[-1]) < people and len(near.ids) >= wanted and wanted < most:
                    wanted = min(_MORE * wanted, most)  # one person's photos, or expired ones, may fill many rows
                    (near,) = self.store.nearest(query[None].astype(np.float32), wanted, effort=effort)
                    ranked[-1] = _ranked(query, life.alive(near, about.removed, second), by, own)
            if chosen:
                ranked = self._by_chosen(queries, ranked, about, second, best, mean=by == "template")
            for row, matches in zip(rows.tolist(), ranked, strict=True):
                kept = tuple(match for match in matches[:top] if threshold is None or match.score >= threshold)
                answers.append(Answer(str(embeddings.ids[row]), kept))
        return answers

    def _by_chosen(
        self,
        queries: NDArray[np.float64],
        found: list[list[Match]],
        about: About,
        second: float,
        best: int | None,
        *,
        mean: bool,
    ) -> list[list[Match]]:
        """The people found, by the mean of their `best` photos, or by the nearest of these, which the match names."""
        people = {match.identity for matches in found for match in matches if match.identity}
        if not people:
            return found

        def read() -> dict[str, life.Template]:
            parts = (life.alive(part, about.removed, second) for part in self.store.rows(people=people))
            return life.templates(parts, mean=mean, best=best, where=self.store.where)

        known = self.store.repeated(read)

        def scored(query: NDArray[np.float64], match: Match) -> Match:
            if match.identity not in known:
                return match
            ids, vectors = known[match.identity]
            scores = np.clip(vectors @ query, -1, 1)
            place = int(np.argmax(scores))
            return Match(ids[place] if ids else match.id, match.identity, float(scores[place]))

        ranked = ([scored(query, match) for match in matches] for query, matches in zip(queries, found, strict=True))
        return [sorted(matches, key=lambda match: (-match.score, match.id)) for matches in ranked]

    def recall(
        self,
        embeddings: Embeddings,
        *,
        top: int = 5,
        flip: str | None = None,
        effort: int = EFFORT,
        by: str = "photo",
        best: int | None = None,
        exclude_self: bool = False,
        queries: int = 100,
        seed: int = 0,
        compatible_with: Collection[str] = (),
    ) -> Recall:
        """Share of the exact answers' rows that approximate answers hold, over a random draw of the queries.

        A row that is as near as the last exact match counts too, so that copies are interchangeable.
        """
        checks.integer("queries", queries, low=1)
        count = min(queries, len(embeddings))
        rows = np.sort(np.random.default_rng(seed).permutation(len(embeddings))[:count])
        chosen = _part(embeddings, rows)
        asked: dict[str, Any] = {"top": top, "flip": flip, "by": by, "best": best, "exclude_self": exclude_self}
        asked["compatible_with"] = compatible_with
        exact = self.query(chosen, **asked)
        approximate = self.query(chosen, **asked, effort=effort)
        shares = []
        for truth, answer in zip(exact, approximate, strict=True):
            if not truth.matches:  # the gallery holds the query alone
                continue
            last = truth.matches[-1].score
            shares.append(sum(match.score >= last for match in answer.matches) / len(truth.matches))
        return Recall(float(np.mean(shares)) if shares else 1.0, top, count)

    def _check_same(self, about: About, source: str, dtype: str | None = None) -> bool:
        """Whether there is a gallery; refuse vectors that do not belong in it, and a dtype that it does not store."""
        existing = self.store.about()
        if existing is not None:
            check_same(about, existing, source, self.store.where)
            check_dtype(dtype, existing, self.store.where)
        return existing is not None

    def _existing(self) -> About:
        about = self.store.about()
        if about is None:
            raise InputError(f"there is no gallery in {self.store.where} yet; make one with angulus search add")
        return about

    def about(self) -> About:
        """What the gallery holds; an error if it is missing or empty."""
        about = self._existing()
        if not self.store.count():
            raise InputError(f"the gallery in {self.store.where} is empty; fill it with angulus search add")
        return about

    def duplicates(self, embeddings: Embeddings, *, flip: str | None = None) -> list[life.Duplicate]:
        """Photos of the embeddings that the gallery, or an earlier row of them, has under another id: each two once."""
        exists = self._check_same(_about(embeddings, flip), embeddings.source)
        labels = [None] * len(embeddings) if embeddings.labels is None else embeddings.labels.tolist()
        unit = embeddings.unit(flip=flip, dtype=np.float32).astype(np.float32, copy=False)
        new = Neighbours(embeddings.ids.tolist(), [name or None for name in labels], unit)
        found = life.find_duplicates(new, (lambda: self.store.rows()) if exists else (lambda: ()))
        once: dict[frozenset[str], life.Duplicate] = {}
        for one in found:
            once.setdefault(frozenset((one.id, one.other_id)), one)
        return list(once.values())

    def measure_strangers(self, strangers: Embeddings, fpir: float, *, flip: str | None = None) -> life.OpenSet:
        """The threshold at which at most a share `fpir` of strangers match somebody in this gallery; `life.open_set`.

        Raises:
            checks.InputError: strangers whose labels are people of the gallery; too few of them.
        """
        answers = self.query(strangers, top=1, flip=flip)
        names = set() if strangers.labels is None else set(filter(None, strangers.labels.tolist()))
        parts = self.store.rows(people=names, vectors=False) if names else ()
        known = {who for part in parts for who in part.identities}
        if known:
            fault = f"{len(known)} people of {strangers.source} are in {self.store.where}, and no strangers to it"
            raise InputError(f"{fault}: {checks.shown(sorted(map(str, known)))}; leave their images out")
        best = [answer.matches[0].score if answer.matches else -1.0 for answer in answers]
        return life.open_set(best, fpir, len(self))


def open_gallery(where: str | Path) -> Gallery:
    """A gallery in a folder, of the store that made it, or in http://HOST:6333/COLLECTION (Qdrant).

    A new one is of faiss if the folder's name ends in .faiss, else of LanceDB.
    """
    if isinstance(where, str) and "://" in where:
        return Gallery(QdrantStore.at(where))
    folder = Path(where)
    if (folder / SQLITE).exists() or (folder.suffix.lower() == SUFFIX and not (folder / LANCE).exists()):
        return Gallery(FaissStore(folder))
    return Gallery(LanceStore(folder))


def false_positives(fmr: float, count: int) -> float:
    """How often a stranger matches one of `count` people, if comparisons are independent: 1 − (1 − FMR)^N.

    >>> round(false_positives(1e-4, 10_000), 3)
    0.632
    """
    return float(-np.expm1(count * np.log1p(-min(fmr, 1 - 1e-16))))


def threshold_of(calibration: Calibration, about: About, where: str, model: str | None = None) -> float:
    """The calibrated threshold; a calibration of other models or another flip than these is refused.

    Args:
        model: of the queries; None: the gallery's.
    """
    way = "calibrate embeddings made like the gallery's, or give a threshold of your own"
    model = about.model if model is None else model
    if (calibration.model, calibration.stored) != (model, about.model):
        if calibration.gallery is None and model == about.model:
            fault = f"the calibration is for {describe_model(calibration.model)}"
            raise InputError(f"{fault}, and {where} holds vectors of {describe_model(about.model)}; {way}")
        fault = f"the calibration is for queries of {describe_model(calibration.model)} on vectors of "
        fault += f"{describe_model(calibration.stored)}, and {where} holds those of {describe_model(about.model)}, "
        fault += f"searched with {describe_model(model)}"
        way = "calibrate this pair with angulus calibrate --gallery --model, or give a threshold of your own"
        raise InputError(f"{fault}; {way}")
    if calibration.flip != about.flip:
        fault = f"the calibration is for flip {calibration.flip or 'none'} of the embeddings"
        raise InputError(f"{fault}, and {where} was filled with flip {about.flip or 'none'}; {way}")
    return calibration.threshold.value


def _about(embeddings: Embeddings, flip: str | None) -> About:
    size = embeddings.vectors.shape[1] * (2 if flip == "concat" else 1)
    return About(size, embeddings.model, flip)


def check_same(asked: About, existing: About, source: str, where: str) -> None:
    """Refuse vectors that cannot be compared with the gallery's."""
    if asked.model != existing.model:
        stored, given = split_model_name(existing.model), split_model_name(asked.model)
        way = (
            "embed the images with the gallery's model (angulus info MODEL shows a folder's fingerprint), give the "
            "folder of one that was trained to be compatible with it as --model, map the gallery with angulus upgrade"
        )
        if stored and given and stored[0] == given[0]:
            cut = "" if stored.dimensions is None else f" --dimensions {stored.dimensions}"
            way = f"embed the images with angulus embed --flip {stored.flip}{cut}"
        fault = f"{where} holds vectors of {describe_model(existing.model)}"
        got = describe_model(asked.model)
        raise InputError(f"{fault}; {source} has those of {got}; {way}, or make another gallery")
    if asked.flip != existing.flip:
        way = f"give --flip {existing.flip}" if existing.flip else "leave --flip out"
        fault = f"{where} was filled with flip {existing.flip or 'none'} of the embeddings"
        raise InputError(f"{fault}; got {asked.flip or 'none'}; {way}")
    if asked.size != existing.size:
        fault = f"{where} holds vectors of {existing.size} numbers; {source} has {asked.size}"
        raise InputError(f"{fault}; embed the images with the model that made the gallery's, or make another gallery")


def check_dtype(dtype: str | None, existing: About, where: str) -> None:
    """Refuse a dtype that a gallery does not store."""
    if dtype not in (None, existing.dtype):
        fault = f"{where} stores vectors as {existing.dtype}; got dtype {dtype}"
        raise InputError(f"{fault}; leave it out, or copy the gallery into a new one of that dtype")


def _check_writable(texts: list[str], source: str) -> None:
    """Refuse text that a store could not return unchanged."""
    for text in texts:
        if not text.isprintable() and ("\0" in text or any("\ud800" <= sign <= "\udfff" for sign in text)):
            rule = f"ids and labels of {source} must be text without NUL and halves of characters"
            raise InputError(f"{rule}; got {text!r}")


def _ranked(query: NDArray[np.float64], near: Neighbours, by: str, own: str | None) -> list[Match]:
    """Rows by falling score, without that of the id `own`; by "person" the best of each."""
    stored = near.vectors.astype(np.float64)
    scores = np.clip(stored @ query / np.linalg.norm(stored, axis=1), -1, 1)
    ranked = sorted(zip(-scores, near.ids, near.identities, strict=True), key=lambda row: row[:2])
    matches = [Match(name, identity, float(-score)) for score, name, identity in ranked if name != own]
    if by == "photo":
        return matches
    best: dict[tuple[bool, str], Match] = {}
    for match in matches:
        best.setdefault((match.identity is None, match.identity or match.id), match)
    return list(best.values())


def _part(embeddings: Embeddings, rows: NDArray[np.int64]) -> Embeddings:
    """Chosen rows, with the columns that a query needs."""
    given = {name: getattr(embeddings, name) for name in ("models", "flipped")}
    chosen = {name: value[rows] for name, value in given.items() if value is not None}
    return Embeddings(embeddings.vectors[rows], embeddings.ids[rows], **chosen, source=embeddings.source)
