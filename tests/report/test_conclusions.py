"""The sentences on a comparison: the best, what is decided and what is not, by Student's intervals from SciPy."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import tiny
from angulus.experiments.claims import Claim
from angulus.experiments.compare import Cell, Comparison, VariantRow
from angulus.report.chart import COLOURS
from angulus.report.conclusions import conclude, rank_variants
from angulus.report.summary_section import MARKS, comparison_dots


def comparison(accuracies: dict[str, list[float]], low: float = 80.0, diverged: str | None = None) -> Comparison:
    seeds = len(next(iter(accuracies.values())))
    variants = ", ".join(f"{name}: {{}}" for name in accuracies)
    recipe = tiny.validated(f"compare={{seeds: {list(range(seeds))}, variants: {{{variants}}}}}")
    rows = [
        VariantRow(
            name,
            {"accuracy entire %": Cell(values), "accuracy good %": Cell([95.0]), "accuracy low %": Cell([low])},
            {},
            {"good": 120, "low": 30},
            0,
        )
        for name, values in accuracies.items()
    ]
    return Comparison(recipe, Path(), rows, {}, diverged={} if diverged is None else {diverged: "It diverged."})


def test_the_best_what_it_beats_and_what_is_undecided_are_named() -> None:
    found = {"A": [90.0, 91.0, 92.0], "B": [80.0, 81.1, 82.0], "C": [89.0, 92.0, 90.5]}
    best, better, undecided, quality = conclude(comparison(found))
    assert best == "Best here: A, which classifies 91.00 % of the test images correctly."
    for name, said in (("B", better), ("C", undecided)):
        differences = np.subtract(found["A"], found[name])
        low, high = stats.t.interval(0.95, 2, differences.mean(), stats.sem(differences))
        assert (
            f"{name} (by {differences.mean():+.2f}, {low:+.2f} to {high:+.2f})".replace(
                "by " if name == "C" else "\0", ""
            )
            in said
        )
    assert better.startswith("It is better than B")
    assert undecided.startswith("With 3 seeds it is undecided whether A is better than C")
    assert quality == (
        "Images with small feature norms are hard for every loss: 80.0 % of them are classified correctly, but 95.0 % "
        "of the others."
    )


@pytest.mark.parametrize("others", [9, 10])
def test_chance_is_named_where_many_are_compared(others: int) -> None:
    found = conclude(comparison({f"L{n}": [90.0 - n, 91.0 - 2 * n] for n in range(others + 1)}))
    said = [sentence for sentence in found if sentence.startswith(f"Each of these {others} intervals misses by chance")]
    assert len(said) == (others >= 10)


def test_one_seed_decides_nothing_and_one_variant_is_no_comparison() -> None:
    assert conclude(comparison({"A": [90.0], "B": [80.0]}, low=99.0))[1].startswith("With one seed it is unknown")
    assert conclude(comparison({"A": [90.0, 91.0]})) == [
        "A classifies 90.50 % of the test images correctly, the mean of 2 seeds."
    ]


def test_variants_that_are_alike_with_every_seed_are_the_same() -> None:
    found = conclude(comparison({"A": [100.0, 100.0], "B": [100.0, 100.0]}, low=99.0))
    assert found[1:] == ["It equals B with every seed."]


def test_a_variant_that_diverged_is_not_the_best() -> None:
    found = conclude(comparison({"A": [99.0, 98.0], "B": [80.0, 81.0], "C": [79.0, 78.0]}, diverged="A, seed 1"))
    assert found[0].startswith("Best here: B")
    assert found[1] == "Left out because a training diverged: A."
    assert conclude(comparison({"A": [99.0, 98.0], "B": [80.0, 81.0]}, diverged="A, seed 1"))[:2] == [
        "B classifies 80.50 % of the test images correctly, the mean of 2 seeds.",
        "Left out because a training diverged: A.",
    ]


def test_if_all_diverged_nothing_is_ranked() -> None:
    measured = comparison({"A": [99.0, 98.0]}, diverged="A, seed 1")
    assert conclude(measured) == ["No variant can be ranked: of each, a training diverged."]
    assert comparison_dots(measured) is None


@pytest.mark.parametrize(
    ("found", "verdicts"),
    [
        ({"A": [90.0, 91.0, 92.0], "B": [80.0, 81.1, 82.0]}, ["best", "worse"]),
        ({"A": [90.0, 91.0, 92.0], "B": [89.0, 92.0, 90.5]}, ["highest", "undecided"]),
        (
            {"C": [80.0, 81.1, 82.0], "A": [90.0, 91.0, 92.0], "B": [89.0, 92.0, 90.5]},
            ["highest", "undecided", "worse"],
        ),
        ({"A": [100.0, 100.0], "B": [100.0, 100.0]}, ["best", "equal"]),
        ({"A": [90.0, 91.0], "B": [89.0, 90.0]}, ["highest", "undecided"]),  # the same gap says nothing of other seeds
        ({"A": [90.0], "B": [80.0]}, ["highest", "one seed"]),
        ({"A": [90.0, 91.0]}, [""]),
    ],
)
def test_verdicts_and_dots_agree(found: dict[str, list[float]], verdicts: list[str]) -> None:
    measured = comparison(found)
    ranking, chart = rank_variants(measured), comparison_dots(measured)
    assert ranking is not None and chart is not None
    assert [standing.verdict for standing in ranking.standings] == verdicts
    dots = [series for series in chart.series if series.symbol != "tick"][::-1]  # the first is on top
    assert [series.name for series in dots] == sorted(found, key=lambda name: -np.mean(found[name]))
    for series, verdict in zip(dots, verdicts, strict=True):
        assert series.x[0] == pytest.approx(np.mean(found[series.name]))
        assert str(series.y[0]) == f"{series.name}\n{MARKS[verdict]}".rstrip()
        assert (series.symbol == "ring") == (verdict in ("highest", "undecided", "one seed"))
        assert series.colour == COLOURS[list(found).index(series.name)]
        ends = np.array([series.low[0], series.high[0]])
        if len(found[series.name]) < 2 or np.ptp(found[series.name]) == 0:
            assert np.isnan(ends).all()
        else:
            count = len(found[series.name])
            values = found[series.name]
            expected = stats.t.interval(0.95, count - 1, np.mean(values), stats.sem(values))
            assert ends == pytest.approx(np.clip(expected, 0, 100))
    assert "nan" not in chart.summary


def test_few_images_of_low_quality_say_nothing() -> None:
    few = comparison({"A": [90.0, 91.0], "B": [80.0, 80.0]})
    assert any("small feature norms" in each for each in conclude(few))
    for row in few.rows:
        row.counts["low"] = 29
    assert not any("small feature norms" in each for each in conclude(few))


def test_each_claim_of_the_recipe_is_judged() -> None:
    measured = comparison({"A": [90.0, 91.0, 92.0], "B": [80.0, 81.1, 82.0]})
    claims = [Claim("A is better", "A", "accuracy entire %", "B"), Claim("B is better", "B", "accuracy entire %", "A")]
    judged = dataclasses.replace(measured, recipe=dataclasses.replace(measured.recipe, claims=claims))
    low, high = stats.t.interval(0.95, 2, 29.9 / 3, stats.sem([10.0, 9.9, 10.0]))
    assert conclude(judged)[-2:] == [
        f"Claim: A is better: holds ({29.9 / 3:+.2f}, {low:+.2f} to {high:+.2f}).",
        f"Claim: B is better: does not hold ({-29.9 / 3:+.2f}, {-high:+.2f} to {-low:+.2f}).",
    ]
