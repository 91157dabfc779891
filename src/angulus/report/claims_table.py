"""The papers' claims as a table: what the paper has, what was measured, and whether the claim holds."""

from __future__ import annotations

from collections.abc import Mapping

from angulus.core.wording import plural
from angulus.experiments import recipe as recipes
from angulus.experiments.compare import section
from angulus.experiments.judgements import ONE_SEED, Judgement, judge
from angulus.experiments.recipe import Recipe
from angulus.experiments.reproduce import MeasuredRecipe, why_not_run
from angulus.report.tables import NO_SPREAD, NONE, markdown_table


def to_markdown(measured: Mapping[str, MeasuredRecipe]) -> str:
    """The claims of all shipped recipes: those that were measured as a table, the others as a second one."""
    heads = ["claim", "paper", "here [95 % interval]", "verdict", "rests on"]
    body, unmeasured = [], []
    for recipe in map(recipes.load, recipes.shipped()):
        result = measured.get(recipe.name)
        for claim in recipe.claims:
            judgement = judge(claim, result.columns if result else {}, recipe.published)
            if result is None or judgement.word == "not measured":
                says, paper, *_ = _cells(judgement)
                link = f"[{recipe.name}](../recipes/{recipe.name}.yaml)"
                unmeasured.append([says, paper, link, why_not_run(recipe)])
            else:
                body.append([*_cells(judgement), _basis(recipe, result)])
    table = markdown_table(heads, body, numbers=False)
    if not unmeasured:
        return table
    rest = markdown_table(["claim", "paper", "recipe", "why not"], unmeasured, numbers=False)
    count = len(unmeasured)
    return (
        f"{table}\n\n{count} further {plural('claim', count)} {'is' if count == 1 else 'are'} not measured:\n\n{rest}"
    )


def _cells(judgement: Judgement) -> list[str]:
    claim, here = judgement.claim, judgement.here
    if here is None:
        shown = NONE
    elif here.no_interval:
        shown = f"{here.mean:+.2f}, {ONE_SEED if here.no_interval == ONE_SEED else NO_SPREAD}"
    else:
        shown = f"{here.mean:+.2f} [{here.low:+.2f}, {here.high:+.2f}]"
    says = claim.says if claim.within is None else f"{claim.says} (within ± {claim.within:g})"
    word = f"**{judgement.word}**" + ("; not the paper's difference" if judgement.excludes_paper else "")
    return [says, NONE if judgement.paper is None else f"{judgement.paper:+.2f}", shown, word]


def _basis(recipe: Recipe, measured: MeasuredRecipe) -> str:
    """What a verdict rests on: seeds and epochs, and those of the recipe where they differ."""
    planned = len(section(recipe).seeds), recipe.training.epochs
    parts = [
        f"{done} {what}" if done == full else f"{done} of {full} {what}"
        for done, full, what in zip((measured.seeds, measured.epochs), planned, ("seeds", "epochs"), strict=True)
    ]
    return f"[{recipe.name}](results/{recipe.name}.md): {', '.join(parts)}"
