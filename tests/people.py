"""Made-up people: embeddings, pairs over folds, and resamples of the people that are really written out."""

from __future__ import annotations

import numpy as np

from angulus.core.embeddings import Embeddings
from angulus.evaluation.lists.pair_list import PairList


def crowd(people: int = 12, images: int = 4, size: int = 8, noise: float = 0.8, seed: int = 0) -> Embeddings:
    """Images of people around a direction each, with labels, two groups by turns, and mirrored embeddings."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(people, size)).repeat(images, axis=0)
    labels = np.arange(people).repeat(images)
    vectors, flipped = (centres + noise * rng.normal(size=centres.shape) for _ in range(2))
    ids = np.array([f"p{person}/{place % images}" for place, person in enumerate(labels.tolist())])
    groups = np.where(labels % 2 == 0, "even", "odd")
    return Embeddings(vectors, ids, labels=labels.astype(str), groups=groups, flipped=flipped, source="crowd")


def crowd_pairs(
    embeddings: Embeddings, folds: int = 3, per: int = 12, seed: int = 1, *, named: bool = True, grouped: bool = False
) -> PairList:
    """`per` genuine and as many impostor pairs a fold; a fold has people of its own. Grouped: within a group only."""
    assert embeddings.labels is not None
    rng = np.random.default_rng(seed)
    people = embeddings.labels.astype(int)
    rows: list[tuple[int, int, int]] = []
    for fold in range(folds):
        mine = np.flatnonzero(people // 2 % folds == fold)
        every = [(a, b) for a in mine for b in mine if a < b and (not grouped or people[a] % 2 == people[b] % 2)]
        for same in (True, False):
            kind = [pair for pair in every if (people[pair[0]] == people[pair[1]]) == same]
            rows += [(fold, *kind[place]) for place in rng.permutation(len(kind))[:per]]
    fold_of, left, right = np.array(rows).T
    names = embeddings.labels
    return PairList(
        embeddings.ids[left],
        embeddings.ids[right],
        people[left] == people[right],
        fold_of,
        left_identity=names[left] if named else None,
        right_identity=names[right] if named else None,
        source="crowd pairs",
    )


def sized(whole: list[tuple[int, bool]], some: list[tuple[int, bool]]) -> np.ndarray:
    """What each of `some` pairs (fold, kind) has to weigh so that each fold has as many of a kind as in the `whole`."""
    return np.array([whole.count(pair) / some.count(pair) for pair in some])


def written_out(left: np.ndarray, right: np.ndarray, drawn: dict[str, int]) -> np.ndarray:
    """Rows of the pairs, each as often as it occurs once every person is copied as often as they were drawn.

    A genuine pair shows one copy, so it occurs once a copy; an impostor pair occurs once for each two copies.
    """
    rows = []
    for row, (first, second) in enumerate(zip(left.tolist(), right.tolist(), strict=True)):
        if first == second:
            rows += [row for _ in range(drawn[first])]
        else:
            rows += [row for _ in range(drawn[first]) for _ in range(drawn[second])]
    return np.array(rows, dtype=np.int64)
