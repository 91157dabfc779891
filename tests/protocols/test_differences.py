"""Paired differences: the same resamples for both, planted gains, saved results, and each refusal by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from angulus.core.checks import InputError
from angulus.evaluation.lists.blufr import Blufr, BlufrTrial
from angulus.evaluation.protocols import calibrate, classification, detection, groups, open_set, pairs
from angulus.evaluation.protocols.differences import PROTOCOLS, compare_results
from angulus.evaluation.protocols.result import Result
from people import crowd, crowd_pairs

NOISY = crowd(40, noise=1.3)
BETTER = replace(crowd(40, noise=0.8), source="better")  # the same people and images
PAIRS = crowd_pairs(NOISY, per=60)


def blufr() -> Blufr:
    people = np.arange(40).repeat(4)
    trials = []
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(40)
        gallery = 4 * order[10:20]
        test = np.flatnonzero(np.isin(people, order[10:]))
        probes = np.setdiff1d(test, gallery)
        known = np.isin(people[probes], people[gallery])
        trials.append(
            BlufrTrial(np.flatnonzero(~np.isin(people, order[10:])), test, gallery, probes[known], probes[~known])
        )
    return Blufr(NOISY.ids, people, tuple(trials), "trials")


def evaluated(protocol: str, better: bool) -> Result:
    embeddings = BETTER if better else NOISY
    if protocol == "pairs":
        return pairs.evaluate(embeddings, PAIRS, draws=0)
    if protocol == "rfw":
        return groups.evaluate(embeddings, crowd_pairs(NOISY, per=60, grouped=True), draws=0)
    if protocol == "blufr":
        return open_set.evaluate(embeddings, blufr(), fars=(1e-3,), open_set_fars=(0.05,))
    return calibrate.calibrate(embeddings, PAIRS, target_fmr=0.05, draws=0)[1]


@pytest.mark.parametrize("protocol", ["pairs", "rfw", "blufr", "calibrate"])
def test_every_figure_that_both_have_is_compared(protocol: str) -> None:
    first, second = evaluated(protocol, False), evaluated(protocol, True)
    found = compare_results(first, second, draws=60)
    assert found.protocol == f"{protocol}, second − first"
    assert [number.name for number in found.numbers] == [number.name for number in first.numbers]
    for number in found.numbers:
        assert number.value == pytest.approx(second[number.name] - first[number.name], nan_ok=True)
    assert found.notes[0] == "first: crowd; second: better"
    assert found.choices["intervals"] == "95 % of 60 paired resamples (seed 0)"


@pytest.mark.parametrize("protocol", ["pairs", "rfw", "blufr", "calibrate"])
def test_a_result_does_not_differ_from_itself(protocol: str) -> None:
    one = evaluated(protocol, False)
    found = compare_results(one, one, draws=10)
    for number in found.numbers:
        assert (number.value, number.interval) == (0.0, None)
        assert number.no_interval == "all resamples agree"
    assert any(note.startswith("no interval of ") and note.endswith("all resamples agree") for note in found.notes)


def test_a_real_gain_is_seen_though_the_two_intervals_overlap() -> None:
    """A little less noise on the very same images: what is hard stays hard, so the difference is surer than either."""
    slightly = replace(NOISY, vectors=0.9 * NOISY.vectors + 0.1 * BETTER.vectors)
    first, second = (pairs.evaluate(given, PAIRS, draws=200) for given in (NOISY, slightly))
    before, after = first.number("AUC").interval, second.number("AUC").interval
    assert before is not None
    assert after is not None
    assert before.high > after.low
    difference = compare_results(first, second, draws=200).number("AUC").interval
    assert difference is not None
    assert 0 < difference.low < second["AUC"] - first["AUC"] < difference.high


def test_saved_results_compare_as_fresh_ones(tmp_path: Path) -> None:
    both = [evaluated("pairs", better) for better in (False, True)]
    for number, result in enumerate(both):
        result.save(tmp_path / f"{number}.json")
    read = [Result.read(tmp_path / f"{number}.json") for number in range(2)]
    fresh, again = compare_results(*both, draws=20), compare_results(*read, draws=20)
    assert fresh.numbers == again.numbers
    assert compare_results(*both, draws=20, seed=1).numbers != fresh.numbers


def test_choices_may_differ_where_they_are_named() -> None:
    plain, summed = (pairs.evaluate(NOISY, PAIRS, flip=flip, draws=0) for flip in (None, "sum"))
    sentence = "results must be of the same choices to be compared; flip is 'none' in the first and .* as differing"
    with pytest.raises(InputError, match=sentence):
        compare_results(plain, summed)
    found = compare_results(plain, summed, differing=["flip"], draws=20)
    assert found.choices["flip"] == "none | sum with the mirrored image's"
    assert found["AUC"] == summed["AUC"] - plain["AUC"]
    with pytest.raises(InputError, match=r"differing must be one of .*; got 'flop'; did you mean 'flip'"):
        compare_results(plain, summed, differing=["flop"])


def test_figures_of_one_alone_are_named() -> None:
    first, second = evaluated("pairs", False), evaluated("pairs", True)
    fewer = replace(first, numbers=first.numbers[:2])
    found = compare_results(fewer, second, draws=10)
    assert [number.name for number in found.numbers] == ["accuracy", "AUC"]
    assert found.notes[1] == "only one of the two has EER, TAR@FAR=1e-1, TAR@FAR=1e-2"


def test_a_figure_without_interval_is_a_number_still() -> None:
    """An undefined difference is NaN and says so, and does not hide the others."""
    easy = replace(crowd(24, noise=1e-3), source="easy")
    listed = crowd_pairs(easy, per=30, grouped=True)
    one = groups.evaluate(easy, listed, draws=0)
    found = compare_results(one, groups.evaluate(crowd(24), listed, draws=0), draws=20)
    assert np.isnan(found["skewed error ratio"])
    assert found["accuracy even"] <= 0


FIRST = evaluated("pairs", False)


def changed(**columns: np.ndarray) -> Result:
    return replace(FIRST, samples={**FIRST.samples, **columns})


@pytest.mark.parametrize(
    ("second", "sentence"),
    [
        (replace(FIRST, protocol="rfw"), "results to compare must be of one protocol; got 'pairs' and 'rfw'"),
        (replace(FIRST, samples={}), "the second result holds no samples to compute its figures from"),
        (changed(left=np.roll(FIRST.samples["left"], 1)), r"'left' differs, first at \[0\]: p\d+/\d and p\d+/\d"),
        (changed(same=~FIRST.samples["same"]), r"'same' differs, first at \[0\]: True and False"),
        (changed(fars=np.array([0.5])), r"'fars' has shape \[2\] in the first and \[1\] in the second"),
        (
            replace(FIRST, samples={k: v for k, v in FIRST.samples.items() if k != "folds"}),
            "the second lacks 'folds'",
        ),
        (changed(surplus=np.zeros(1)), "the first lacks 'surplus'"),
        (replace(FIRST, choices={**FIRST.choices, "pca": "8"}), "pca is 'none' in the first and '8' in the second"),
        (replace(FIRST, choices={**FIRST.choices, "new": 1}), "new is None in the first and 1 in the second"),
    ],
)
def test_what_differs_and_must_not_is_named(second: Result, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        compare_results(FIRST, second, draws=5)


def test_other_units_are_refused() -> None:
    one = evaluated("blufr", False)
    few = {"figures": one.samples["figures"]}
    with pytest.raises(InputError, match="both results must be of the same people in the same order; got others"):
        compare_results(
            replace(one, samples={**few, "values": one.samples["values"]}),
            replace(one, samples={**few, "values": one.samples["values"][:2]}),
        )


def test_a_protocol_without_entry_is_refused() -> None:
    other = replace(FIRST, protocol="tea-leaves")
    with pytest.raises(InputError, match=r"protocol must be one of .*'pairs', .*; got 'tea-leaves'; only these can be"):
        compare_results(other, other)


def test_classifications_and_marks_of_two_models_compare() -> None:
    """Protocols of other samples than pairs: of images, and of scans, whose marks are others in each result."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    guessed = [np.where(rng.random(60) < right, labels, rng.integers(0, 3, 60)) for right in (0.5, 0.9)]
    first, second = (
        classification.evaluate(classification.Predictions.from_arrays(labels, predictions=each), draws=0)
        for each in guessed
    )
    found = compare_results(first, second, draws=50)
    assert found["accuracy"] == pytest.approx((guessed[1] == labels).mean() - (guessed[0] == labels).mean())
    marked = []
    for count in (60, 40):
        hit, scans = rng.random(count) < 0.3, np.arange(count) % 10
        marked.append(detection.candidates(hit, rng.random(count) / 2 + 0.4 * hit, scans, draws=0))
    compared = compare_results(*marked, draws=50).number("CPM")
    assert compared.value == marked[1]["CPM"] - marked[0]["CPM"]
    assert compared.interval is not None
    assert compared.interval.low < compared.value < compared.interval.high


def test_the_table_has_each_protocol_with_samples_that_it_knows() -> None:
    for protocol in ("pairs", "rfw", "blufr", "calibrate"):
        assert set(PROTOCOLS[protocol][1]) & set(evaluated(protocol, False).samples)
