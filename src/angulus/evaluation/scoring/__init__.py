"""Exact cosine scores at any scale: blocks of low-precision products reject, float64 decides.

`top_k`, `best_per_probe`, `rows_ahead`, `ahead_and_tied`, `above` and `thresholds_at` never hold all scores. The
product of a block only rules pairs out, by a proven bound on its error; the rest is scored by `pair_scores`, whose
float64 result is the definition of a score and does not depend on blocks, threads, devices or processes.
"""

from angulus.evaluation.scoring.counts import PairBatch, above, genuine, rows_ahead
from angulus.evaluation.scoring.exact import pair_scores
from angulus.evaluation.scoring.mate_counts import ahead_and_tied
from angulus.evaluation.scoring.nearest import best_per_probe, top_k
from angulus.evaluation.scoring.thresholds import ThresholdAtFmr, thresholds_at
from angulus.evaluation.scoring.tiles import DEFAULT, ScoringOptions

__all__ = [
    "DEFAULT",
    "PairBatch",
    "ScoringOptions",
    "ThresholdAtFmr",
    "above",
    "ahead_and_tied",
    "best_per_probe",
    "genuine",
    "pair_scores",
    "rows_ahead",
    "thresholds_at",
    "top_k",
]
