"""Re-identification by single gallery shot: galleries with one random image of each identity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from angulus.evaluation import scoring
from angulus.evaluation.metrics import retrieval as metrics
from angulus.evaluation.metrics.intervals import Floats, Rows
from angulus.evaluation.metrics.retrieval import MatchRanks
from angulus.evaluation.protocols.query_sides import Searched


@dataclass(frozen=True)
class SingleShot:
    """Galleries with one random image of each identity; the query's own is one that is not ignored."""

    searched: Searched
    places: list[Rows]  # of each repeat: the gallery in random order, as the place of each row
    scores: list[Floats]  # of each repeat and query: the score of its match; NaN until there is one
    best: list[Rows]

    @staticmethod
    def of(searched: Searched, repeats: int, seed: int) -> SingleShot:
        random = np.random.default_rng(seed)
        total, count = len(searched.gallery), len(searched.queries)
        places = [random.permutation(total) for _ in range(repeats)]
        return SingleShot(
            searched, places, [np.full(count, np.nan) for _ in places], [np.full(count, total) for _ in places]
        )

    def see(self, pairs: scoring.PairBatch) -> None:
        """Choose among the matches of some queries, all of which are given."""
        for place, scores, best in zip(self.places, self.scores, self.best, strict=True):
            order = np.lexsort((place[pairs.gallery], pairs.probes))
            rows, first = np.unique(pairs.probes[order], return_index=True)
            scores[rows], best[rows] = pairs.scores[order][first], place[pairs.gallery[order][first]]

    def shares(self, ks: Sequence[int], queries: Rows, options: scoring.ScoringOptions) -> dict[int, Floats]:
        """The CMC of each query at each k, the mean over the repeats."""
        sums = {k: np.zeros(len(queries)) for k in dict.fromkeys(ks)}
        searched = self.searched
        for place, scores in zip(self.places, self.scores, strict=True):
            named = np.flatnonzero(~searched.is_distractor)
            by_class = named[np.lexsort((place[named], searched.gallery_class[named]))]
            _, first = np.unique(searched.gallery_class[by_class], return_index=True)
            rows = np.sort(np.append(by_class[first], np.flatnonzero(searched.is_distractor)))
            ahead, tied = scoring.ahead_and_tied(
                searched.query_vectors,
                searched.gallery_vectors[rows],
                (queries, scores[queries]),
                ids=(searched.query_class, searched.gallery_class[rows]),
                options=options,
            )
            ranks = MatchRanks(np.arange(len(queries) + 1), ahead, tied)
            for k in sums:
                sums[k] += metrics.recall(ranks, k) / len(self.places)
        return sums if self.places else {}
