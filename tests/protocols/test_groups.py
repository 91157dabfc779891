"""Accuracy by group: each group alone, the two measures by hand, resamples written out, notes and refusals."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from angulus.core.checks import InputError
from angulus.evaluation.lists.pair_list import PairList
from angulus.evaluation.metrics.verification import kfold_accuracy
from angulus.evaluation.protocols import groups as protocol
from angulus.evaluation.protocols import pairs as pair_protocol
from people import crowd, crowd_pairs, sized, written_out

CROWD = crowd(24, noise=1.1)
PAIRS = crowd_pairs(CROWD, per=40, grouped=True)
NAMES = np.array(["even" if int(person) % 2 == 0 else "odd" for person in np.asarray(PAIRS.left_identity)])
GROUPED = replace(PAIRS, groups=NAMES)


def test_a_group_is_evaluated_as_if_it_were_alone() -> None:
    result = protocol.evaluate(CROWD, GROUPED, draws=0)
    accuracies = []
    for name in ("even", "odd"):
        alone = pair_protocol.evaluate(CROWD, GROUPED.select(name == NAMES), draws=0)
        assert result[f"accuracy {name}"] == alone["accuracy"]
        assert result.number(f"accuracy {name}").spread == alone.number("accuracy").spread
        accuracies.append(alone["accuracy"])
    low, high = sorted(accuracies)
    assert result["mean accuracy"] == pytest.approx((low + high) / 2)
    assert result["standard deviation of accuracy"] == pytest.approx((high - low) / math.sqrt(2))  # n − 1
    assert result["skewed error ratio"] == pytest.approx((1 - low) / (1 - high))
    assert result["skewed error ratio"] > 1
    assert result.counts["groups"] == 2
    assert result.counts["pairs of even"] + result.counts["pairs of odd"] == len(PAIRS) == result.counts["pairs"]
    assert [(curve.kind, curve.name) for curve in result.curves] == [
        ("roc", "even"),
        ("det", "even"),
        ("roc", "odd"),
        ("det", "odd"),
    ]


def test_groups_of_the_images_serve_where_the_list_has_none() -> None:
    by_images = protocol.evaluate(CROWD, PAIRS, draws=30)
    assert repr(by_images.numbers) == repr(protocol.evaluate(CROWD, GROUPED, draws=30).numbers)


def test_pairs_across_groups_are_left_out_and_counted() -> None:
    mixed = crowd_pairs(CROWD, per=120)
    first, second = (
        np.array([int(name) % 2 for name in np.asarray(side)]) for side in (mixed.left_identity, mixed.right_identity)
    )
    across = int((first != second).sum())
    result = protocol.evaluate(CROWD, mixed, draws=0)
    assert across > 0
    assert result.counts["pairs of no one group"] == across
    assert result.notes[0] == f"{across} pairs that belong to no one group are left out"
    kept = mixed.select(first == second)
    assert result["accuracy odd"] == protocol.evaluate(CROWD, kept, draws=0)["accuracy odd"]


def test_three_groups_by_hand() -> None:
    assert protocol.skewed_error_ratio(np.array([0.1, 0.2, 0.05])) == pytest.approx(4)
    assert math.isnan(protocol.skewed_error_ratio(np.array([0.1, 0.0])))


def test_a_group_without_error_has_no_ratio_and_it_is_said() -> None:
    easy = crowd(24, noise=1e-3)
    result = protocol.evaluate(easy, GROUPED, draws=0)
    assert (result["accuracy even"], result["standard deviation of accuracy"]) == (1.0, 0.0)
    assert math.isnan(result["skewed error ratio"])
    assert "the skewed error ratio is undefined: a group has no error" in result.notes


def test_the_statistic_of_weights_is_that_of_the_resample_written_out() -> None:
    samples = dict(protocol.evaluate(CROWD, GROUPED, draws=0).samples)
    statistic, units = protocol.statistic(samples)
    names = np.unique([samples["left_identity"], samples["right_identity"]]).tolist()
    rng, whole = np.random.default_rng(0), 0
    for _ in range(15):
        drawn = rng.multinomial(units.count, np.full(units.count, 1 / units.count))
        rows = written_out(
            samples["left_identity"], samples["right_identity"], dict(zip(names, drawn.tolist(), strict=True))
        )
        figures = statistic(units.weights(drawn.astype(float)))
        for name in ("even", "odd"):
            mine = rows[samples["groups"][rows] == name]
            if f"accuracy {name}" in figures:
                of_group = np.flatnonzero(samples["groups"] == name)
                kinds = [
                    list(zip(samples["folds"][each], samples["same"][each], strict=True)) for each in (of_group, mine)
                ]
                columns = (samples[column][mine] for column in ("scores", "same", "folds"))
                alone = kfold_accuracy(*columns, sized(*kinds))
                assert figures[f"accuracy {name}"] == pytest.approx(alone.mean, abs=1e-12)
        whole += "mean accuracy" in figures
        assert ("mean accuracy" in figures) == ({"accuracy even", "accuracy odd"} <= set(figures))
    assert whole > 3


@pytest.mark.parametrize(
    ("pairs", "sentence"),
    [
        (replace(GROUPED, folds=None), "crowd pairs has no folds, over which the accuracy of a group is taken"),
        (GROUPED.select(NAMES == "odd"), r"groups must be at least two, to be compared; got \['odd'\]"),
        (
            GROUPED.select((NAMES != "odd") | GROUPED.same | (GROUPED.folds != 2)),
            "group odd: fold 2 has no impostor pair; each fold needs both kinds",
        ),
    ],
)
def test_what_has_no_accuracy_by_group_is_refused(pairs: PairList, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        protocol.evaluate(CROWD, pairs, draws=0)


def test_without_groups_it_is_refused() -> None:
    with pytest.raises(InputError, match=r"groups are needed; neither crowd pairs nor crowd has any"):
        protocol.evaluate(replace(CROWD, groups=None), PAIRS, draws=0)
