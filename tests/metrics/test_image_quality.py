"""The split by norm: the papers' counts, slow loops, ties, invariances, and what is refused."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from angulus.core.checks import InputError
from angulus.evaluation.metrics.image_quality import Group, groups, low_count, low_quality, norm_bins

RANDOM = np.random.default_rng(0)
NORMS = RANDOM.gamma(4.0, 2.0, size=203)
CORRECT = RANDOM.random(203) < 0.8
LISTS = st.lists(st.floats(0, 1e6, allow_nan=False), min_size=5, max_size=60)


@pytest.mark.parametrize(
    ("total", "fraction", "low"),
    [
        (202_599, 0.2, 40_520),  # the first two are the paper's own; 0.2 of this is 40,519.8
        (1_183, 0.2, 237),  # 236.6
        (10_000, 0.2, 2_000),  # MNIST's test images
        (12, 0.2, 2),  # 2.4 rounds down
        (5, 0.5, 3),  # a half rounds up
        (3, 0.2, 1),  # 0.6
    ],
)
def test_how_many_are_low(total: int, fraction: float, low: int) -> None:
    assert low_count(total, fraction) == low
    norms = np.random.default_rng(1).random(total)
    chosen = low_quality(norms, fraction)
    assert chosen.dtype == bool
    assert chosen.sum() == low
    assert norms[chosen].max() < norms[~chosen].min()


@given(LISTS, st.floats(0.2, 0.8))
def test_the_split_is_the_one_of_a_slow_loop(norms: list[float], fraction: float) -> None:
    left = list(range(len(norms)))
    low = set()
    for _ in range(math.floor(fraction * len(norms) + 0.5)):
        smallest = min(left, key=lambda index: (norms[index], index))
        left.remove(smallest)
        low.add(smallest)
    assert low_quality(norms, fraction).tolist() == [index in low for index in range(len(norms))]


def test_equal_norms_go_low_in_the_order_they_come() -> None:
    assert low_quality([2.0, 1.0, 1.0, 1.0, 0.5], 0.4).tolist() == [False, True, False, False, True]
    assert low_quality([1.0] * 10, 0.3).tolist() == [True] * 3 + [False] * 7


@given(LISTS.filter(lambda norms: len(set(norms)) == len(norms)), st.randoms(use_true_random=False))
def test_the_order_of_samples_does_not_matter(norms: list[float], random: object) -> None:
    order = list(range(len(norms)))
    random.shuffle(order)  # type: ignore[attr-defined]
    whole = low_quality(norms, 0.4)
    assert low_quality([norms[index] for index in order], 0.4).tolist() == [bool(whole[index]) for index in order]


@settings(max_examples=50)
@given(st.lists(st.integers(0, 1000), min_size=5, max_size=60))
def test_only_the_order_of_the_norms_matters(norms: list[int]) -> None:
    values = np.asarray(norms, dtype=np.float64)
    for transformed in (3 * values + 7, np.sqrt(values), np.exp(values / 200), values**2):
        assert np.array_equal(low_quality(transformed), low_quality(values))


@pytest.mark.parametrize(
    ("norms", "fraction", "sentence"),
    [
        ([1.0, 2.0], 0.2, "a split at 0.2 of 2 samples leaves low empty; evaluate more samples, or change evaluation"),
        ([1.0, 2.0], 0.9, "a split at 0.9 of 2 samples leaves good empty"),
        ([], 0.2, "a split at 0.2 of 0 samples leaves low empty"),
        ([1.0] * 9, 0.0, r"low_fraction must be a finite number in \(0, 1\); got 0"),
        ([1.0] * 9, 1.0, r"low_fraction must be a finite number in \(0, 1\); got 1"),
        ([1.0, float("nan")], 0.5, "norms must be finite numbers >= 0"),
        ([1.0, float("inf")], 0.5, "norms must be finite numbers >= 0"),
        ([1.0, -1.0], 0.5, "norms must be finite numbers >= 0"),
        ([[1.0, 2.0]], 0.5, r"of shape \[N\]; got shape \[1, 2\]"),
    ],
)
def test_what_cannot_be_split_is_refused(norms: list[float], fraction: float, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        low_quality(norms, fraction)


def test_groups_against_a_loop() -> None:
    low = low_quality(NORMS)
    found = groups(NORMS, CORRECT, low)
    assert list(found) == ["good", "low", "entire"]
    for name, member in (("good", lambda i: not low[i]), ("low", lambda i: low[i]), ("entire", lambda i: True)):
        chosen = [index for index in range(len(NORMS)) if member(index)]
        assert found[name].count == len(chosen)
        assert found[name].accuracy == pytest.approx(sum(CORRECT[index] for index in chosen) / len(chosen))
        assert found[name].mean_norm == pytest.approx(sum(NORMS[index] for index in chosen) / len(chosen))


def test_groups_add_up() -> None:
    found = groups(NORMS, CORRECT, low_quality(NORMS))
    good, low, entire = found["good"], found["low"], found["entire"]
    assert good.count + low.count == entire.count == 203
    assert good.count * good.accuracy + low.count * low.accuracy == pytest.approx(entire.count * entire.accuracy)
    assert low.mean_norm < entire.mean_norm < good.mean_norm


def test_groups_by_hand_with_another_models_split() -> None:
    found = groups([4.0, 1.0, 3.0], [True, False, True], [True, False, False])
    assert found == {"good": Group(2, 0.5, 2.0), "low": Group(1, 1.0, 4.0), "entire": Group(3, 2 / 3, 8 / 3)}


def test_groups_do_not_depend_on_the_order_of_samples() -> None:
    order = np.random.default_rng(2).permutation(203)
    low = low_quality(NORMS)
    for name, group in groups(NORMS[order], CORRECT[order], low[order]).items():
        same = groups(NORMS, CORRECT, low)[name]
        assert (group.count, group.accuracy) == (same.count, same.accuracy)
        assert group.mean_norm == pytest.approx(same.mean_norm)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (([1.0, 2.0], [True], [True, False]), r"must be \[N\] each; got shapes \[2\] and \[1\] and \[2\]"),
        (([[1.0]], [[True]], [[False]]), r"norms must be .* of shape \[N\]; got shape \[1, 1\]"),
        (([1.0, float("nan")], [True, True], [True, False]), r"norms must be finite numbers .*; got nan at 1"),
        (([1.0, 2.0], [True, True], [True, True]), "the group 'good' is empty"),
        (([1.0, 2.0], [True, True], [False, False]), "the group 'low' is empty"),
        (([], [], []), "the group 'good' is empty"),
    ],
)
def test_groups_refuse(arguments: tuple[list[float], list[bool], list[bool]], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        groups(*arguments)


@pytest.mark.parametrize("edges", ["quantile", "width"])
@pytest.mark.parametrize("bins", [1, 4, 10])
def test_bins_against_a_loop(edges: str, bins: int) -> None:
    found = norm_bins(NORMS, CORRECT, bins, edges=edges)
    assert len(found) == bins
    assert found[0].low == NORMS.min()
    assert found[-1].high == NORMS.max()
    for number, each in enumerate(found):
        last = number == bins - 1
        chosen = [
            i for i, norm in enumerate(NORMS) if each.low <= norm and (norm <= each.high if last else norm < each.high)
        ]
        assert each.count == len(chosen)
        if chosen:
            assert each.accuracy == pytest.approx(sum(CORRECT[i] for i in chosen) / len(chosen))
        else:
            assert math.isnan(each.accuracy)
    assert sum(each.count for each in found) == len(NORMS)
    assert all(one.high == other.low for one, other in itertools.pairwise(found))


def test_quantile_bins_are_of_equal_count_and_width_bins_of_equal_width() -> None:
    counts = [each.count for each in norm_bins(NORMS, CORRECT, 7)]
    assert max(counts) - min(counts) <= 1
    widths = [each.high - each.low for each in norm_bins(NORMS, CORRECT, 7, edges="width")]
    assert widths == pytest.approx([widths[0]] * 7)


def test_an_empty_width_bin_has_no_accuracy() -> None:
    first, middle, last = norm_bins([0.0, 0.5, 3.0], [True, False, True], 3, edges="width")
    assert (first.count, first.accuracy, last.count, last.accuracy) == (2, 0.5, 1, 1.0)
    assert middle.count == 0
    assert math.isnan(middle.accuracy)


@pytest.mark.parametrize("edges", ["quantile", "width"])
def test_equal_norms_are_one_bin(edges: str) -> None:
    (only,) = norm_bins([2.0] * 4, [True, True, True, False], 5, edges=edges)
    assert (only.low, only.high, only.count, only.accuracy) == (2.0, 2.0, 4, 0.75)


def test_many_ties_leave_fewer_bins_and_lose_no_sample() -> None:
    norms = [1.0] * 90 + [2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0]
    found = norm_bins(norms, [True] * 100, 10)
    assert sum(each.count for each in found) == 100
    assert all(each.count > 0 for each in found)


@pytest.mark.parametrize(
    ("arguments", "options", "sentence"),
    [
        (([], []), {}, r"norms and correct must be \[N\] each with N >= 1; got shapes \[0\] and \[0\]"),
        (([1.0], [True, False]), {}, r"got shapes \[1\] and \[2\]"),
        (([1.0], [True]), {"bins": 0}, r"bins must be a whole number in \[1, 10000\]; got 0"),
        (([1.0], [True]), {"edges": "widths"}, "edges must be one of 'quantile', 'width'; got 'widths'; did you mean"),
    ],
)
def test_bins_refuse(arguments: tuple[list[float], list[bool]], options: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        norm_bins(*arguments, **options)  # type: ignore[arg-type]
