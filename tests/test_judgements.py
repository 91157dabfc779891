"""The papers' claims: judged by intervals of paired differences, and written as a table."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from scipy import stats

from angulus.core.checks import InputError
from angulus.experiments import recipe as recipes
from angulus.experiments.claims import Claim
from angulus.experiments.judgements import judge
from angulus.experiments.recipe import Recipe

ROOT = Path(__file__).parents[1]
TITLE = "accuracy entire %"


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return recipes.load("iam-t2")


def measured(first: list[float], second: list[float]) -> dict[str, dict[str, list[float]]]:
    return {"AM + 0.2 IAM": {TITLE: first, "accuracy low %": second}, "AM": {TITLE: second}}


BETTER = Claim("IAM improves AM", "AM + 0.2 IAM", TITLE, than="AM")
EQUAL = Claim("IAM changes nothing", "AM + 0.2 IAM", TITLE, than="AM", within=0.5)


@pytest.mark.parametrize(
    ("claim", "differences", "word"),
    [
        (BETTER, [0.2, 0.3, 0.25], "holds"),
        (BETTER, [-0.2, -0.3, -0.25], "does not hold"),
        (BETTER, [0.2, -0.3, 0.25], "undecided"),
        (BETTER, [0.2, 0.2, 0.2], "undecided"),  # no spread, no interval
        (BETTER, [0.2], "undecided"),
        (EQUAL, [0.2, 0.3, 0.25], "holds"),
        (EQUAL, [-0.2, -0.3, -0.25], "holds"),
        (EQUAL, [0.2, 0.6, 0.4], "undecided"),  # its mean lies within, its interval does not
        (EQUAL, [0.8, 0.9, 0.85], "does not hold"),
        (EQUAL, [-0.8, -0.9, -0.85], "does not hold"),
    ],
)
def test_the_interval_decides(recipe: Recipe, claim: Claim, differences: list[float], word: str) -> None:
    base = [99.0, 98.5, 99.2][: len(differences)]
    columns = measured([one + two for one, two in zip(base, differences, strict=True)], base)
    verdict = judge(claim, columns, recipe.published)
    assert verdict.word == word
    assert verdict.paper == pytest.approx(99.42 - 99.24)  # IAM Table 2
    assert verdict.here is not None
    if len(differences) == 1:
        assert (verdict.here.mean, verdict.here.no_interval) == (pytest.approx(differences[0]), "one seed")
    if not verdict.here.no_interval:
        interval = stats.t.interval(0.95, len(base) - 1, sum(differences) / len(base), stats.sem(differences))
        assert (verdict.here.low, verdict.here.high) == pytest.approx(interval, abs=1e-9)
        assert verdict.excludes_paper == (not interval[0] <= 0.18 <= interval[1])


def test_two_columns_of_one_variant_are_compared(recipe: Recipe) -> None:
    claim = Claim("low is worse", "AM + 0.2 IAM", TITLE, than_column="accuracy low %")
    verdict = judge(claim, measured([99.0, 99.1, 99.2], [97.0, 97.0, 97.3]), recipe.published)
    assert verdict.word == "holds"
    assert verdict.paper is None  # the paper does not print the low fifth
    assert verdict.here is not None and verdict.here.mean == pytest.approx(2.0)


def test_what_was_not_measured_is_not_judged() -> None:
    assert judge(BETTER, {}).word == "not measured"
    other = Claim("a variant that was left out", "Eq. 3", TITLE, than="AM")
    assert judge(other, measured([99.0, 99.1], [98.0, 98.2])).word == "not measured"


@pytest.mark.parametrize(
    ("claim", "sentence"),
    [
        ({"variant": "AMM"}, "a variant of the claim 'x' must be one of"),
        ({"column": "accuracy"}, "a column of the claim 'x' must be one of"),
        ({"than": None}, r"the claim 'x' needs than \(a variant\) or than_column \(a column\)"),
        ({"than": "AM"}, r"the claim 'x' compares AM .* with itself"),
        ({"within": 0}, "within"),
    ],
)
def test_a_claim_about_nothing_measured_is_refused(claim: dict[str, object], sentence: str) -> None:
    content = recipes.compose(str(ROOT / "recipes/iam-t2.yaml"), [])
    content["claims"] = [{"says": "x", "variant": "AM", "column": TITLE, "than": "Eq. 3"} | claim]
    with pytest.raises(InputError, match=sentence):
        recipes.validate(content)


def test_claims_of_what_an_override_removes_go_with_it() -> None:
    loaded = recipes.load("iam-t2", ["compare.variants={AM: {}, AM + 0.2 IAM: {}}", "compare.quality_split=null"])
    assert [claim.variant for claim in loaded.claims] == ["AM + 0.2 IAM"]


def test_claims_need_a_comparison() -> None:
    content = recipes.compose(str(ROOT / "recipes/iam-t2.yaml"), [])
    del content["compare"], content["published"]
    with pytest.raises(InputError, match="claims are about the variants of a comparison"):
        recipes.validate(content)


def test_the_table_in_the_docs_is_what_recipes_and_results_say() -> None:
    spec = importlib.util.spec_from_file_location("docs_claims", ROOT / "docs/claims.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.page() == module.PAGE.read_text(encoding="utf-8"), "make docs, and commit it"
    assert "classified worse (CM Sec. 3) | +1.29 | [cm-t1b](../recipes/cm-t1b.yaml) |" in module.page()
