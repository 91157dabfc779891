"""Pairs drawn from labelled images: all genuine ones, some impostor ones, or a list with folds over people."""

import itertools

import numpy as np
from numpy.typing import NDArray

from angulus.core import checks
from angulus.core.checks import InputError
from angulus.evaluation.lists.pair_list import PairList

PairRows = NDArray[np.int64]  # [P, 2]


def genuine_rows(people: NDArray[np.int64]) -> PairRows:
    """All pairs of rows of one person; `people` [N] numbers who is shown."""
    order = np.argsort(people, kind="stable")
    bounds = np.append(np.flatnonzero(np.append(True, np.diff(people[order]) > 0)), len(order))
    return np.concatenate([_all_pairs(order[a:b]) for a, b in itertools.pairwise(bounds)])


def genuine_count(people: NDArray[np.int64]) -> int:
    """How many pairs of rows show one person."""
    counts = np.unique(people, return_counts=True)[1]
    return int((counts * (counts - 1) // 2).sum())


def impostor_count(people: NDArray[np.int64]) -> int:
    """How many pairs of rows show two people."""
    return len(people) * (len(people) - 1) // 2 - genuine_count(people)


def impostor_rows(people: NDArray[np.int64], count: int, rng: np.random.Generator) -> PairRows:
    """`count` different pairs of rows that show two people, lower row first; `count` must not exceed their number."""
    size, total = len(people), impostor_count(people)
    if 2 * count > total:  # most of them: list all, and leave some out
        rows = _all_pairs(np.arange(size))
        rows = rows[people[rows[:, 0]] != people[rows[:, 1]]]
        return np.asarray(rows[np.sort(rng.permutation(total)[:count])])
    keys = np.empty(0, dtype=np.int64)
    while len(keys) < count:
        first, second = np.sort(rng.integers(size, size=(2, 2 * count)), axis=0)
        keys = np.unique(np.concatenate([keys, (first * size + second)[people[first] != people[second]]]))
    chosen = np.sort(rng.permutation(keys)[:count])
    return np.stack([chosen // size, chosen % size], axis=1)


def draw_folds(
    ids: NDArray[np.str_], identities: NDArray[np.str_], *, folds: int = 10, per: int = 300, seed: int = 0
) -> PairList:
    """A list to verify on: in each fold, whose people no other fold has, `per` genuine and `per` impostor pairs.

    Args:
        ids: [N] of the images.
        identities: [N] who is shown; "" for unknown people, whose images are in no pair and counted as `unknown`.
        folds: how many, >= 2.
        per: pairs of each kind in a fold, drawn without repeats.
        seed: of the draw.

    Raises:
        checks.InputError: fewer than two people per fold, or a fold with fewer such pairs.
    """
    checks.integer("folds", folds, low=2)
    checks.integer("per", per, low=1)
    rng = np.random.default_rng(checks.integer("seed", seed, low=0))
    known, total = identities != "", len(ids)
    ids, identities = ids[known], identities[known]
    names, people = np.unique(identities, return_inverse=True)
    if len(names) < 2 * folds:
        raise InputError(f"{folds} folds take {2 * folds} people or more; got {len(names)}; ask for fewer folds")
    groups = [np.flatnonzero(np.isin(people, part)) for part in np.array_split(rng.permutation(len(names)), folds)]
    _refuse_more_than_all_give(per, [people[rows] for rows in groups])
    drawn = []
    for rows in groups:
        genuine = genuine_rows(people[rows])
        genuine = genuine[np.sort(rng.permutation(len(genuine))[:per])]
        drawn += [rows[genuine], rows[impostor_rows(people[rows], per, rng)]]
    left, right = np.concatenate(drawn).T
    return PairList(
        ids[left],
        ids[right],
        people[left] == people[right],
        np.repeat(np.arange(folds), 2 * per),
        identities[left],
        identities[right],
        source="drawn pairs",
        unknown=total - len(ids),
    )


def _refuse_more_than_all_give(per: int, groups: list[NDArray[np.int64]]) -> None:
    """Refuse more pairs per fold than the smallest fold gives, and name a number that all folds can give."""
    given = [(genuine_count(people), impostor_count(people)) for people in groups]
    poorest = min(range(len(given)), key=lambda fold: min(given[fold]))
    most = min(given[poorest])
    if most < per:
        way = f"ask for {most} pairs, or for fewer folds" if most else "ask for fewer folds"
        raise InputError(
            f"a fold must have {per} genuine and {per} impostor pairs; the {len(np.unique(groups[poorest]))} people of "
            f"fold {poorest} give {given[poorest][0]} and {given[poorest][1]}; {way}"
        )


def _all_pairs(rows: NDArray[np.int64]) -> PairRows:
    first, second = np.triu_indices(len(rows), 1)
    return np.stack([rows[first], rows[second]], axis=1)
