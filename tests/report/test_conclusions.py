"""The sentences on a comparison: the best, what is decided and what is not, by Student's intervals from SciPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import stats

import tiny
from angulus.experiments.compare import Cell, Comparison, VariantRow
from angulus.report.conclusions import conclude


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
    assert quality.startswith("Images with small feature norms are hard for every loss: 80.0 to 80.0 %")


def test_one_seed_decides_nothing_and_one_variant_is_no_comparison() -> None:
    assert conclude(comparison({"A": [90.0], "B": [80.0]}, low=99.0))[1].startswith("With one seed it is unknown")
    assert conclude(comparison({"A": [90.0, 91.0]})) == []


def test_variants_that_are_alike_with_every_seed_are_the_same() -> None:
    found = conclude(comparison({"A": [100.0, 100.0], "B": [100.0, 100.0]}, low=99.0))
    assert found[1:] == ["It equals B with every seed."]


def test_a_variant_that_diverged_is_not_the_best() -> None:
    found = conclude(comparison({"A": [99.0, 98.0], "B": [80.0, 81.0], "C": [79.0, 78.0]}, diverged="A, seed 1"))
    assert found[0].startswith("Best here: B")
    assert found[1] == "Left out because a training diverged: A."
    assert conclude(comparison({"A": [99.0, 98.0], "B": [80.0, 81.0]}, diverged="A, seed 1")) == []


def test_few_images_of_low_quality_say_nothing() -> None:
    few = comparison({"A": [90.0, 91.0], "B": [80.0, 80.0]})
    assert any("small feature norms" in each for each in conclude(few))
    for row in few.rows:
        row.counts["low"] = 29
    assert not any("small feature norms" in each for each in conclude(few))
