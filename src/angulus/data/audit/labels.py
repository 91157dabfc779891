"""Identity labels: those shared by two sets or double in one, by name and by embedding; and likely wrong ones."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angulus.evaluation.scoring import PairBatch, above, top_k

Vectors = NDArray[np.floating[Any]]


def normalised_name(name: str) -> str:
    """A name without the differences between spellings: case, accents, punctuation, `Last, First`.

    Source: MV-Softmax removes overlaps by names (X. Wang et al., AAAI 2020).

    >>> normalised_name("Zellweger, Renée"), normalised_name("renee_zellweger")
    ('renee zellweger', 'renee zellweger')
    """
    last, comma, first = name.partition(",")
    if comma and "," not in first:
        name = f"{first} {last}"
    letters = unicodedata.normalize("NFKD", name)
    plain = "".join(letter for letter in letters if not unicodedata.combining(letter)).casefold()
    return " ".join("".join(letter if letter.isalnum() else " " for letter in plain).split())


def is_number(name: str) -> bool:
    """Whether an identity is a number, which means something only within its own set."""
    return not any(letter.isalpha() for letter in name)


def shared_names(names: NDArray[np.str_], others: NDArray[np.str_], *, numbers: bool) -> dict[str, str]:
    """Identities of one set that the other has too: own name -> the name there, the first of several.

    `numbers`: whether equal numbers are the same identity too, as in parts of one data set.
    """
    spellings_there: dict[str, str] = {}
    for other in others.tolist():
        spellings_there.setdefault(normalised_name(other), other)
    spellings_there.pop("", None)
    own = {name: normalised_name(name) for name in names.tolist() if numbers or not is_number(name)}
    return {name: spellings_there[plain] for name, plain in own.items() if plain in spellings_there}


def spellings(names: NDArray[np.str_]) -> list[tuple[str, ...]]:
    """Groups of distinct names with the same normalised name."""
    groups: dict[str, list[str]] = {}
    for name in names.tolist():
        if not is_number(name):
            groups.setdefault(normalised_name(name), []).append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


@dataclass(frozen=True, eq=False)
class Means:
    """The mean direction of each of K identities."""

    names: NDArray[np.str_]  # [K], sorted
    sums: NDArray[np.float64]  # [K, d] float64, sums of unit embeddings
    codes: NDArray[np.int64]  # [N] the identity of each image; −1 if unknown

    @staticmethod
    def compute(vectors: Vectors, identities: NDArray[np.str_]) -> Means:
        """From unit embeddings [N, d] and their identities [N], "" if unknown."""
        names, codes = np.unique(identities, return_inverse=True)
        codes = codes.astype(np.int64)
        if len(names) and names[0] == "":
            names, codes = names[1:], codes - 1
        sums = np.zeros((len(names), vectors.shape[1]))
        np.add.at(sums, codes[codes >= 0], vectors[codes >= 0].astype(np.float64))
        return Means(names, sums, codes)


def similar_identities(means: Means, others: Means | None, threshold: float) -> list[tuple[str, str, float]]:
    """Pairs of identities whose means' cosine is at least the threshold, the most similar first.

    If `others` is None, pairs within `means`, once each.
    """
    names = means.names if others is None else others.names
    if not len(means.names) or not len(names):
        return []
    similar = PairBatch.concatenate(above(means.sums, None if others is None else others.sums, threshold))
    pairs = zip(similar.probes.tolist(), similar.gallery.tolist(), similar.scores.tolist(), strict=True)
    named = [(str(means.names[one]), str(names[other]), score) for one, other, score in pairs]
    return sorted(named, key=lambda pair: (-pair[2], pair[0], pair[1]))


@dataclass(frozen=True)
class Suspect:
    """An image that does not fit its identity."""

    row: int
    own: float  # its cosine with the mean of the others of its identity
    other: float  # that with the nearest other identity's mean, or the least usual one
    name: str = ""  # that other identity; "" for an outlier


@dataclass(frozen=True, eq=False)
class Fit:
    """How images fit their identities."""

    wrong: tuple[Suspect, ...]  # nearer to another identity than to their own by the margin or more, the worst first
    outliers: tuple[Suspect, ...]  # far below what is usual in their identity, the worst first; may be in `wrong` too
    judged: int  # how many images have others of their identity to compare with
    spread: float  # the usual deviation of `own` from its identity's median: 1.4826 times the median absolute one


def fit(vectors: Vectors, means: Means, *, margin: float, outlier: float, at_least: int = 5) -> Fit:
    """Compare each image with the other images of its identity, and with all other identities.

        own_i = cos(x_i, Σ_{j of y_i, j ≠ i} x_j),   other_i = max_{k ≠ y_i} cos(x_i, Σ_{j of k} x_j)

    wrong: other_i − own_i >= margin. Outlier: own_i < median of its identity − outlier · spread, in identities of
    `at_least` images.

    Args:
        vectors: [N, d] unit embeddings, whose `means` these are.
        margin: in cosine, >= 0.
        outlier: in spreads, > 0.
    """
    counts = np.bincount(means.codes[means.codes >= 0], minlength=len(means.names))
    rows = np.flatnonzero((means.codes >= 0) & (counts[means.codes] > 1))
    if not len(rows):
        return Fit((), (), 0, float("nan"))
    codes = means.codes[rows]
    own = _own(vectors[rows], means.sums, codes)
    wrong = []
    if len(means.names) > 1:
        scores, nearest = top_k(vectors[rows].astype(np.float64), means.sums, 1, ids=(codes, np.arange(len(counts))))
        best, names = scores[:, 0].numpy(), means.names[nearest[:, 0].numpy()]
        near = np.flatnonzero(best - own >= margin).tolist()
        wrong = [Suspect(int(rows[k]), float(own[k]), float(best[k]), str(names[k])) for k in near]
    usual = np.full(len(counts), np.nan)
    for code in np.unique(codes).tolist():
        usual[code] = np.median(own[codes == code])
    spread = 1.4826 * float(np.median(np.abs(own - usual[codes])))
    floor = usual[codes] - outlier * spread
    far = np.flatnonzero((own < floor) & (counts[codes] >= at_least)).tolist()
    outliers = [Suspect(int(rows[place]), float(own[place]), float(floor[place])) for place in far]
    for suspects in (wrong, outliers):
        suspects.sort(key=lambda suspect: suspect.own - suspect.other)
    return Fit(tuple(wrong), tuple(outliers), len(rows), spread)


def _own(vectors: Vectors, sums: NDArray[np.float64], codes: NDArray[np.int64]) -> NDArray[np.float64]:
    """The cosine of each image with the sum of the others of its identity."""
    own = np.empty(len(vectors))
    for start in range(0, len(vectors), 4096):
        block = slice(start, start + 4096)
        wide = vectors[block].astype(np.float64)
        rest = sums[codes[block]] - wide
        lengths = np.linalg.norm(rest, axis=1) * np.linalg.norm(wide, axis=1)
        own[block] = np.einsum("ij,ij->i", wide, rest) / np.where(lengths > 0, lengths, 1)
    return own
