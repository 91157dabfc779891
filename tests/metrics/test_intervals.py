"""The bootstrap over people: weights against resamples that are written out, coverage, seeds, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from angulus.core.checks import InputError
from angulus.evaluation.metrics.curves import auc, eer, error_curve
from angulus.evaluation.metrics.intervals import Interval, Units, bootstrap, paired_bootstrap
from people import written_out

LEFT = np.array(["ann", "ann", "ben", "cat", "cat", "ann", "dan"])
RIGHT = np.array(["ann", "ben", "cat", "cat", "ann", "dan", "dan"])


def mean_of(values: np.ndarray) -> object:
    def figures(weights: np.ndarray) -> Mapping[str, float]:
        return {"mean": float(weights @ values / weights.sum())} if weights.any() else {}

    return figures


def test_units_are_numbered_by_their_names() -> None:
    units = Units.of(LEFT, RIGHT)
    assert units.count == 4
    assert units.first.tolist() == [0, 0, 1, 2, 2, 0, 3]
    assert units.second.tolist() == [0, 1, 2, 2, 0, 3, 3]
    alone = Units.of([7, 3, 7])
    assert (alone.count, alone.first.tolist(), alone.second.tolist()) == (2, [1, 0, 1], [1, 0, 1])


def test_weights_are_how_often_a_pair_is_written_out() -> None:
    units = Units.of(LEFT, RIGHT)
    rng = np.random.default_rng(0)
    for _ in range(20):
        drawn = rng.multinomial(4, [0.25] * 4)
        rows = written_out(LEFT, RIGHT, dict(zip(["ann", "ben", "cat", "dan"], drawn.tolist(), strict=True)))
        assert units.weights(drawn.astype(float)).tolist() == np.bincount(rows, minlength=7).tolist()


def test_a_statistic_of_weights_is_that_of_the_resample_written_out() -> None:
    rng = np.random.default_rng(1)
    left = rng.integers(0, 12, 150)
    right = np.where(np.arange(150) < 60, left, (left + rng.integers(1, 12, 150)) % 12)
    scores, same = rng.normal(size=150).round(1) + (left == right), left == right
    units, seen = Units.of(left, right), 0

    def figures(weights: np.ndarray) -> Mapping[str, float]:
        nonlocal seen
        seen += 1
        rows = written_out(left, right, drawn_from(weights))
        whole = error_curve(scores[rows], same[rows])
        curve = error_curve(scores, same, weights)
        assert (auc(curve), eer(curve)) == (pytest.approx(auc(whole)), pytest.approx(eer(whole)))
        return {"AUC": auc(curve)}

    def drawn_from(weights: np.ndarray) -> dict[int, int]:
        """Each person has a genuine pair, whose weight says how often they were drawn."""
        return {person: int(weights[(left == person) & same][0]) for person in np.unique(left[same]).tolist()}

    assert np.array_equal(np.unique(left[same]), np.unique(left))
    bootstrap(figures, units, draws=25)
    assert seen == 25


def test_intervals_cover_what_they_should_and_pairs_alone_would_not() -> None:
    """40 people with 10 items each; what people share makes items dependent. 90 % intervals of the mean, 150 times."""
    rng = np.random.default_rng(2)
    people = np.arange(40).repeat(10)
    inside = {"people": 0, "items": 0}
    for trial in range(150):
        values = rng.normal(size=40)[people] + 0.5 * rng.normal(size=400)  # of mean 0
        for name, units in (("people", Units.of(people)), ("items", Units.of(np.arange(400)))):
            interval = bootstrap(mean_of(values), units, draws=120, seed=trial, level=0.9)["mean"]
            inside[name] += interval.low <= 0 <= interval.high
    assert 0.83 <= inside["people"] / 150 <= 0.96
    assert inside["items"] / 150 < 0.6


def test_an_interval_of_a_mean_is_that_of_theory() -> None:
    values = np.random.default_rng(3).normal(size=2000)
    interval = bootstrap(mean_of(values), Units.of(np.arange(2000)), draws=2000, seed=1)["mean"]
    half = 1.96 * values.std() / np.sqrt(2000)
    assert interval.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.1 * half)
    assert interval.level == 0.95


def test_percentiles_by_hand() -> None:
    """Two units, one drawn twice or both once: the mean is 0, 0.5 or 1 with chances 1/4, 1/2, 1/4."""
    units = Units.of([0, 1])
    interval = bootstrap(mean_of(np.array([0.0, 1.0])), units, draws=500, level=0.4)["mean"]
    assert interval == Interval(0.5, 0.5, 0.4)
    assert bootstrap(mean_of(np.array([0.0, 1.0])), units, draws=500, level=0.6)["mean"] == Interval(0.0, 1.0, 0.6)


def test_the_seed_decides() -> None:
    values, units = np.random.default_rng(4).normal(size=50), Units.of(np.arange(50))
    one, again, other = (bootstrap(mean_of(values), units, draws=50, seed=seed)["mean"] for seed in (5, 5, 6))
    assert one == again
    assert one != other


def test_paired_differences_cancel_what_both_share() -> None:
    rng = np.random.default_rng(5)
    hard, units = rng.normal(size=200), Units.of(np.arange(200))
    before, after = mean_of(hard), mean_of(hard + 0.1 + 0.05 * rng.normal(size=200))
    interval = paired_bootstrap(before, after, units, draws=300)["mean"]
    alone = bootstrap(before, units, draws=300)["mean"]
    assert 0.08 < interval.low < 0.1 < interval.high < 0.12
    assert interval.high - interval.low < 0.1 * (alone.high - alone.low)
    same = paired_bootstrap(before, before, units, draws=20)["mean"]
    assert (same.low, same.high) == (0.0, 0.0)


def test_a_figure_that_is_often_undefined_has_no_interval() -> None:
    def figures(weights: np.ndarray) -> Mapping[str, float]:
        often = {"often": 1.0} if weights[0] else {}  # absent where unit 0 is not drawn, in a third of the resamples
        return {"always": float(weights[0]), "never": float("nan"), **often}

    intervals = bootstrap(figures, Units.of(np.arange(30)), draws=200)
    assert intervals["always"].low == 0.0
    assert np.isnan([intervals["never"].low, intervals["never"].high, intervals["often"].low]).all()


def test_figures_of_one_of_two_have_no_difference() -> None:
    units = Units.of([0, 1])
    intervals = paired_bootstrap(lambda w: {"a": 1.0, "b": 2.0}, lambda w: {"b": 3.0, "c": 4.0}, units, draws=5)
    assert intervals == {"b": Interval(1.0, 1.0)}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"draws": 0}, r"draws must be a whole number in \[1, 100000\]; got 0"),
        ({"draws": 10**50}, r"draws must be a whole number in \[1, 100000\]; got 1000"),
        ({"seed": -1}, "seed must be a whole number >= 0; got -1"),
        ({"level": 1.0}, r"level must be a finite number in \(0, 1\); got 1.0"),
    ],
)
def test_bad_options_are_refused_before_any_work(options: dict[str, float], sentence: str) -> None:
    def figures(weights: np.ndarray) -> Mapping[str, float]:
        raise AssertionError("was asked")

    units = Units.of([0, 1])
    with pytest.raises(InputError, match=sentence):
        bootstrap(figures, units, **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=sentence):
        paired_bootstrap(figures, figures, units, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("arguments", [([],), ([1, 2], [1]), ([[1]],)])
def test_units_refuse(arguments: tuple[list[int], ...]) -> None:
    with pytest.raises(InputError, match=r"first and second must be \[N\] each with N >= 1; got shapes"):
        Units.of(*arguments)


def test_one_unit_has_no_interval() -> None:
    figures = mean_of(np.array([1.0, 2.0]))
    assert bootstrap(figures, Units.of(["ann", "ann"]), draws=50) == {}  # type: ignore[arg-type]
    assert paired_bootstrap(figures, figures, Units.of(["ann", "ann"]), draws=50) == {}  # type: ignore[arg-type]
    with pytest.raises(InputError, match="draws must be"):
        bootstrap(figures, Units.of(["ann"]), draws=0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.2, 0.3, ""),
        (1.0, 1.0, "all resamples agree"),
        (1 - 1e-14, 1.0, "all resamples agree"),
        (0.0, 0.0, "all resamples agree"),
        (np.nan, np.nan, "undefined"),
    ],
)
def test_intervals_that_say_nothing(low: float, high: float, said: str) -> None:
    found = Interval(low, high).degenerate
    assert said in found and bool(found) == bool(said)
