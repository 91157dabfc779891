"""Pairs across two models: the left image as a query of one, the right image as a stored vector of the other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from angulus.core.checks import InputError
from angulus.core.embeddings import Embeddings
from angulus.core.formats.columns import text_array
from angulus.evaluation.lists.pair_list import PairList

_QUERY, _STORED = " (query)", " (gallery)"  # what tells the two vectors of an image apart


def across(queries: Embeddings, gallery: Embeddings, pairs: PairList) -> tuple[Embeddings, PairList]:
    """What any protocol of pairs takes, to score cos(query vector of left, gallery vector of right).

    Two results of one list have the same samples, whichever models made the vectors, so that
    `differences.compare_results` can subtract them: new on old minus old on old is the gain of an update.

    Args:
        queries: with the left images of `pairs`, by their ids.
        gallery: with the right images; it may be the same embeddings.

    Raises:
        InputError: vectors of different sizes, an image without embedding.
    """
    size, other = queries.vectors.shape[1], gallery.vectors.shape[1]
    if size != other:
        raise InputError(
            f"vectors to compare must be of one size; {queries.source} has {size} numbers, {gallery.source} {other}; "
            "map the stored ones with angulus upgrade"
        )
    parts = []
    for embeddings, ids, mark in ((queries, pairs.left, _QUERY), (gallery, pairs.right, _STORED)):
        rows, place = np.unique(embeddings.rows(ids, pairs.source), return_inverse=True)
        parts.append((embeddings, rows, text_array([f"{name}{mark}" for name in embeddings.ids[rows].tolist()]), place))
    columns: dict[str, Any] = {}
    for name in ("labels", "groups", "norms", "flipped"):
        values = [getattr(embeddings, name) for embeddings, *_ in parts]
        if all(value is not None for value in values):
            columns[name] = np.concatenate([value[rows] for value, (_, rows, *_) in zip(values, parts, strict=True)])
    joined = Embeddings(
        np.concatenate([embeddings.vectors[rows] for embeddings, rows, *_ in parts]),
        np.concatenate([ids for _, _, ids, _ in parts]),
        **columns,
        source=f"{queries.source} on {gallery.source}",
    )
    left, right = (ids[place] for _, _, ids, place in parts)
    return joined, replace(pairs, left=left, right=right)
