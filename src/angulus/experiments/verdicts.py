"""Whether the papers' claims hold: each claim of a recipe, judged by the numbers of every seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from angulus.evaluation.metrics.intervals import Difference, paired_difference
from angulus.experiments.claims import Claim
from angulus.experiments.recipe import Recipe
from angulus.experiments.reproduce import MeasuredRecipe

Word = Literal["holds", "does not hold", "undecided", "not measured"]


@dataclass(frozen=True)
class Verdict:
    """A claim, and what the measured seeds say about it.

    Args:
        claim: the paper's.
        recipe: that measures it.
        word: the verdict at the 95 % level.
        paper: the paper's difference, where it prints both numbers.
        here: ours, paired by seed, with its interval; None if fewer than two seeds were measured.
    """

    claim: Claim
    recipe: Recipe
    word: Word
    paper: float | None = None
    here: Difference | None = None

    @property
    def excludes_paper(self) -> bool:
        """Whether the interval excludes the paper's difference."""
        if self.here is None or self.paper is None or self.here.no_interval:
            return False
        return not self.here.low <= self.paper <= self.here.high


def judge(claim: Claim, recipe: Recipe, measured: MeasuredRecipe | None) -> Verdict:
    """Judge one claim.

    A claim of a difference holds if the interval of the mean difference lies above zero, and does not hold if it lies
    below. A claim of no difference holds if the interval lies within ± `within` (two one-sided tests), and does not
    hold if it lies outside. Otherwise the seeds leave it undecided.
    """
    (variant, column), (other, other_column) = claim.sides
    numbers = [recipe.published.of(name) if recipe.published else {} for name in (variant, other)]
    paper = None
    if column in numbers[0] and other_column in numbers[1]:
        paper = numbers[0][column] - numbers[1][other_column]
    columns = measured.columns if measured is not None else {}
    first, second = columns.get(variant, {}).get(column), columns.get(other, {}).get(other_column)
    if first is None or second is None:
        return Verdict(claim, recipe, "not measured", paper)
    if len(first) < 2:
        return Verdict(claim, recipe, "undecided", paper)
    here = paired_difference([one - two for one, two in zip(first, second, strict=True)])
    return Verdict(claim, recipe, _word(here, claim.within), paper, here)


def _word(here: Difference, within: float | None) -> Word:
    if within is None:
        holds, fails = here.low > 0, here.high < 0
    else:
        holds, fails = -within < here.low and here.high < within, here.low > within or here.high < -within
    return "holds" if holds else "does not hold" if fails else "undecided"  # also if there is no interval
