"""The papers' claims as a table: what the paper has, what was measured, and whether the claim holds."""

from __future__ import annotations

from collections.abc import Mapping

from angulus.experiments import recipe as recipes
from angulus.experiments.compare import section
from angulus.experiments.reproduce import MeasuredRecipe
from angulus.experiments.verdicts import Verdict, judge
from angulus.report.tables import NO_SPREAD, NONE, markdown_table


def all_verdicts(measured: Mapping[str, MeasuredRecipe]) -> list[Verdict]:
    """The claims of all shipped recipes, judged by the results of each recipe's name."""
    loaded = map(recipes.load, recipes.shipped())
    return [judge(claim, recipe, measured.get(recipe.name)) for recipe in loaded for claim in recipe.claims]


def to_markdown(measured: Mapping[str, MeasuredRecipe]) -> str:
    """The claims that were measured as a table, and how many were not."""
    verdicts = all_verdicts(measured)
    judged = [verdict for verdict in verdicts if verdict.word != "not measured"]
    heads = ["claim", "paper", "here [95 % interval]", "verdict", "rests on"]
    body = [_row(verdict, measured[verdict.recipe.name]) for verdict in judged]
    rest = [verdict for verdict in verdicts if verdict.word == "not measured"]
    links = dict.fromkeys(f"[{verdict.recipe.name}](../recipes/{verdict.recipe.name}.yaml)" for verdict in rest)
    unmeasured = f"\n\n{len(rest)} further claims are not measured: {', '.join(links)}." if rest else ""
    return markdown_table(heads, body, numbers=False) + unmeasured


def _row(verdict: Verdict, measured: MeasuredRecipe) -> list[str]:
    claim, here = verdict.claim, verdict.here
    if here is None:
        shown = NONE
    elif here.no_interval:
        shown = f"{here.mean:+.2f}, {NO_SPREAD}"
    else:
        shown = f"{here.mean:+.2f} [{here.low:+.2f}, {here.high:+.2f}]"
    says = claim.says if claim.within is None else f"{claim.says} (within ± {claim.within:g})"
    word = f"**{verdict.word}**" + ("; not the paper's difference" if verdict.excludes_paper else "")
    paper = NONE if verdict.paper is None else f"{verdict.paper:+.2f}"
    return [says, paper, shown, word, _basis(verdict, measured)]


def _basis(verdict: Verdict, measured: MeasuredRecipe) -> str:
    recipe = verdict.recipe
    epochs, full = measured.epochs, recipe.training.epochs
    length = f"{epochs} epochs" if epochs == full else f"{epochs} of {full} epochs"
    seeds, planned = measured.seeds, len(section(recipe).seeds)
    count = f"{seeds} seeds" if seeds == planned else f"{seeds} of {planned} seeds"
    return f"[{recipe.name}](results/{recipe.name}.md): {count}, {length}"
