"""What a gallery's rows go through: the end of their time, duplicates, templates of people, strangers."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from angulus.core import checks
from angulus.core.checks import InputError
from angulus.core.embeddings import SAME_LENGTH, Embeddings
from angulus.search.vector_store import Neighbours, keys

SAME_PHOTO = 0.9999  # a cosine: one photo embedded twice differs by float32's rounding, some 1e-6
MOST_DAYS = 36_500

_ROWS = 1000  # new rows compared at a time with a part of the gallery


@dataclass(frozen=True)
class Duplicate:
    """A photo that is there under another id: its id and person, those of the other, and their cosine."""

    id: str
    identity: str | None
    other_id: str
    other_identity: str | None
    score: float


@dataclass(frozen=True)
class OpenSet:
    """A threshold for one gallery, and what strangers showed of it.

    Attributes:
        threshold: a cosine; a query at or above it matches somebody.
        fpir: the share of the strangers who match somebody, and the upper end of its exact 95 % interval (one-sided).
        strangers, rows: how many queries of strangers, and rows of the gallery.
    """

    threshold: float
    fpir: float
    fpir_high: float
    strangers: int
    rows: int


def now(given: float | None = None) -> float:
    """The second of Unix time."""
    return time.time() if given is None else given


def moment(text: str, what: str = "expires", given: float | None = None) -> int:
    """The second of Unix time that a date (00:00 UTC unless it has a time), or a number of days from now, names.

    >>> moment("2027-01-31"), moment("2027-01-31T12:00:00+02:00"), moment("30", given=0)
    (1801353600, 1801389600, 2592000)
    """
    if re.fullmatch(r"(19|2[01])\d\d", text):
        fault = f"{what} must be a date such as {text}-01-31, or a number of days; got {text}, which may be a year"
        raise InputError(f"{fault}; give a date")
    if re.fullmatch(r"\d{1,5}", text):
        return int(now(given)) + 86_400 * checks.integer(what, int(text), low=1, high=MOST_DAYS, hint="days from now")
    try:
        end = datetime.fromisoformat(text)
        return int((end if end.tzinfo else end.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError) as error:
        rule = f"{what} must be a date such as 2027-01-31, or a number of days"
        raise InputError(f"{rule}; got {checks.shown(text)}") from error


def ends(embeddings: Embeddings, expires: str | None) -> list[int | None]:
    """When each row ends, in seconds of Unix time; None: never."""
    if expires is not None:
        end = moment(expires, "--expires")
        if end <= now():
            raise InputError(f"--expires must be in the future; got {expires}")
        return [end] * len(embeddings)
    texts = [] if embeddings.expires is None else embeddings.expires.tolist()
    known = {text: moment(text, f"expires of {embeddings.source}") for text in set(texts) if text}
    return [known.get(text) for text in texts] or [None] * len(embeddings)


def norms(embeddings: Embeddings) -> list[float | None]:
    """The length of each feature: as the embeddings say, or of the vectors; unknown if all of these have length 1."""
    lengths = embeddings.feature_norms
    if embeddings.norms is None and np.allclose(lengths, 1, atol=SAME_LENGTH):
        return [None] * len(embeddings)
    return list(map(float, lengths))


def alive(rows: Neighbours, removed: Collection[str], second: float) -> Neighbours:
    """The rows whose time has not ended, and that are not of removed people."""
    if not removed and not any(end is not None for end in rows.expires):
        return rows
    gone = set(keys([who for who in set(rows.identities) if who])) & set(removed)
    ends = rows.expires or [None] * len(rows.ids)
    kept = [
        row
        for row, (who, end) in enumerate(zip(rows.identities, ends, strict=True))
        if (end is None or end > second) and not (gone and who and keys([who])[0] in gone)
    ]
    return rows.take(kept)


def find_duplicates(new: Neighbours, stored: Callable[[], Iterable[Neighbours]]) -> Iterator[Duplicate]:
    """New photos that are stored, or stand earlier among the new ones, under another id: cosine >= `SAME_PHOTO`.

    `stored` gives the gallery's rows, once for each 1,000 new ones. All pairs are compared, in float32.
    """
    for start in range(0, len(new.ids), _ROWS):
        part = slice(start, start + _ROWS)
        earlier = new.take(range(min(start + _ROWS, len(new.ids))))
        for others, is_new in itertools.chain(((rows, False) for rows in stored()), [(earlier, True)]):
            # float16 rounds a stored length by more than two copies differ
            scores = new.vectors[part] @ others.vectors.T / np.linalg.norm(others.vectors, axis=1)
            for row, other in np.argwhere(scores >= SAME_PHOTO).tolist():
                mine = start + row
                if new.ids[mine] != others.ids[other] and (not is_new or other < mine):
                    sides = (new.ids[mine], new.identities[mine], others.ids[other], others.identities[other])
                    yield Duplicate(*sides, float(scores[row, other]))


class Template(NamedTuple):
    """What stands for a person: the ids of photos, and their unit vectors, float64 [T, d]; a mean has no id."""

    ids: Sequence[str]
    vectors: NDArray[np.float64]


def templates(
    parts: Iterable[Neighbours], *, mean: bool = True, best: int | None = None, where: str = "the gallery"
) -> dict[str, Template]:
    """Each person's template: the unit mean of the unit vectors of all photos, or of the best; or these themselves.

    Args:
        best: how many photos, those of the largest norms, >= 1; None: all. Of equal ones the first ids are taken.

    Raises:
        checks.InputError: photos of unknown norm, with `best`; `where` is the gallery, for that.
    """
    if mean and best is None:
        sums: dict[str, NDArray[np.float64]] = {}
        for part in parts:
            for who, vector in zip(part.identities, part.vectors, strict=True):
                if who is not None:
                    sums[who] = sums.get(who, 0) + vector.astype(np.float64)
        return {who: Template((), _unit(total)) for who, total in sums.items()}
    photos: dict[str, list[tuple[float, str, NDArray[np.float32]]]] = {}
    for part in parts:
        norms = part.norms or [None] * len(part.ids)
        for name, who, vector, norm in zip(part.ids, part.identities, part.vectors, norms, strict=True):
            if who is None:
                continue
            if norm is None and best is not None:
                fault = f"the best photos are those with the largest norms, and {where} has no norm of {name!r}"
                raise InputError(f"{fault}; add it again from embeddings with norms, or leave --best out")
            kept = photos.setdefault(who, [])
            kept.append((-(norm or 0), name, vector.copy()))  # a view would keep the whole part
            if best is not None and len(kept) > best:
                kept.sort(key=lambda photo: photo[:2])
                del kept[best:]
    found = {}
    for who, kept in photos.items():
        vectors = np.stack([vector for *_, vector in kept]).astype(np.float64)
        found[who] = (
            Template((), _unit(vectors.sum(0))) if mean else Template([name for _, name, _ in kept], _unit(vectors))
        )
    return found


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows [T, d], or one of [d] as [1, d], of length 1."""
    rows = np.atleast_2d(vectors)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def open_set(best: ArrayLike, fpir: float, rows: int) -> OpenSet:
    """The lowest threshold at which at most a share `fpir` of strangers match somebody in a gallery.

        FPIR = #(strangers whose best score >= threshold) / #strangers

    Unlike 1 − (1 − FMR)^N it assumes nothing: the best scores are those against all N rows, which depend on each other.

    Args:
        best: the highest score of each stranger with the gallery, [S].
        fpir: in (0, 1); needs S >= 1 / fpir.
        rows: N.

    Source: ISO/IEC 19795-1, false-positive identification rate. The interval is Clopper and Pearson's (1934).

    >>> found = open_set([0.1, 0.4, 0.3, 0.2], 0.25, rows=9)
    >>> found.fpir, 0.3 < found.threshold < 0.4
    (0.25, True)
    """
    from scipy.stats import beta

    scores = np.sort(np.asarray(best, dtype=np.float64))[::-1]
    checks.number("fpir", fpir, low=0, high=1, open_low=True, open_high=True)
    allowed, least = int(fpir * len(scores) + 1e-9), int(np.ceil(1 / fpir - 1e-9))
    if allowed < 1:
        rule = f"an FPIR of {fpir:g} needs {least:,} strangers at least"
        raise InputError(f"{rule}; got {len(scores):,}; give more strangers, or a higher --fpir")
    threshold = float(np.nextafter(scores[allowed], 2)) if allowed < len(scores) else -1.0
    accepted = int(np.sum(scores >= threshold))
    high = 1.0 if accepted == len(scores) else float(beta.ppf(0.95, accepted + 1, len(scores) - accepted))
    return OpenSet(threshold, accepted / len(scores), high, len(scores), rows)
