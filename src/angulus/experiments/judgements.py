"""Whether the papers' claims hold: each claim of a recipe, judged by the numbers of every seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from angulus.evaluation.metrics.intervals import Difference, paired_difference
from angulus.experiments.claims import Claim, Published

ONE_SEED = "one seed"  # why a difference has no interval
Word = Literal["holds", "does not hold", "undecided", "not measured"]


@dataclass(frozen=True)
class Judgement:
    """A claim, and what the measured seeds say about it.

    Args:
        claim: the paper's.
        word: the verdict at the 95 % level.
        paper: the paper's difference, where it prints both numbers.
        here: ours, paired by seed, with its interval if there are two seeds or more; None if nothing was measured.
    """

    claim: Claim
    word: Word
    paper: float | None = None
    here: Difference | None = None

    @property
    def excludes_paper(self) -> bool:
        """Whether the interval excludes the paper's difference."""
        if self.here is None or self.paper is None or self.here.no_interval:
            return False
        return not self.here.low <= self.paper <= self.here.high


def judge(
    claim: Claim, columns: Mapping[str, Mapping[str, Sequence[float]]], published: Published | None = None
) -> Judgement:
    """Judge one claim.

    A claim of a difference holds if the interval of the mean difference lies above zero, and does not hold if it lies
    below. A claim of no difference holds if the interval lies within ± `within` (two one-sided tests), and does not
    hold if it lies outside. Otherwise the seeds leave it undecided.

    Args:
        claim: names variants and columns.
        columns: variant -> column -> one number per seed.
        published: the paper's numbers.
    """
    (variant, column), (other, other_column) = claim.sides
    paper = None
    if published is not None and column in published.of(variant) and other_column in published.of(other):
        paper = published.of(variant)[column] - published.of(other)[other_column]
    first, second = columns.get(variant, {}).get(column), columns.get(other, {}).get(other_column)
    if first is None or second is None:
        return Judgement(claim, "not measured", paper)
    if len(first) < 2:
        here = Difference(first[0] - second[0], math.nan, math.nan, no_interval=ONE_SEED)
        return Judgement(claim, "undecided", paper, here)
    here = paired_difference([one - two for one, two in zip(first, second, strict=True)])
    return Judgement(claim, _word(here, claim.within), paper, here)


def _word(here: Difference, within: float | None) -> Word:
    if within is None:
        holds, fails = here.low > 0, here.high < 0
    else:
        holds, fails = -within < here.low and here.high < within, here.low > within or here.high < -within
    return "holds" if holds else "does not hold" if fails else "undecided"  # also if there is no interval
