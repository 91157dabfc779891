"""Accuracies against scikit-learn and a slow loop, ties, invariances, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, top_k_accuracy_score

from angulus.core.checks import InputError
from angulus.evaluation.metrics.accuracy import accuracy, accuracy_per_class, top_k_accuracy

RANDOM = np.random.default_rng(0)
LABELS = RANDOM.integers(0, 6, size=157)
LOGITS = RANDOM.normal(size=(157, 6))  # no two alike
PREDICTIONS = LOGITS.argmax(axis=1)


def test_accuracy_is_scikit_learns() -> None:
    assert accuracy(LABELS, PREDICTIONS) == accuracy_score(LABELS, PREDICTIONS)
    assert accuracy(LABELS, LABELS) == 1.0
    assert accuracy(LABELS, (LABELS + 1) % 6) == 0.0


def test_accuracy_per_class_is_scikit_learns_on_each_class() -> None:
    found = accuracy_per_class(LABELS, PREDICTIONS)
    assert found == {label: accuracy_score(LABELS[label == LABELS], PREDICTIONS[label == LABELS]) for label in range(6)}
    weights = {label: int((label == LABELS).sum()) for label in range(6)}
    assert sum(found[label] * weights[label] for label in found) / 157 == pytest.approx(accuracy(LABELS, PREDICTIONS))


def test_accuracy_per_class_names_only_classes_that_occur() -> None:
    assert accuracy_per_class([7, 2, 2], [7, 7, 2]) == {2: 0.5, 7: 1.0}


@pytest.mark.parametrize("k", [1, 2, 3, 5, 6])
def test_top_k_is_scikit_learns_where_there_are_no_ties(k: int) -> None:
    expected = 1.0 if k == 6 else top_k_accuracy_score(LABELS, LOGITS, k=k)  # scikit-learn warns at k = C
    assert top_k_accuracy(LABELS, LOGITS, k) == expected


def test_top_1_is_accuracy() -> None:
    assert top_k_accuracy(LABELS, LOGITS, 1) == accuracy(LABELS, PREDICTIONS)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.lists(st.integers(0, 3), min_size=4, max_size=4)), min_size=1),
    st.integers(1, 4),
)
def test_top_k_against_a_loop_with_ties(samples: list[tuple[int, list[int]]], k: int) -> None:
    hits = 0
    for label, logits in samples:
        rank = 1 + sum(logits[other] >= logits[label] for other in range(4) if other != label)
        hits += rank <= k
    assert top_k_accuracy([label for label, _ in samples], [logits for _, logits in samples], k) == hits / len(samples)


def test_a_tie_counts_against_the_label() -> None:
    assert top_k_accuracy([0], [[1.0, 1.0, 0.0]], 1) == 0.0
    assert top_k_accuracy([0], [[1.0, 1.0, 0.0]], 2) == 1.0


def test_a_model_that_says_nothing_gets_nothing() -> None:
    assert top_k_accuracy(LABELS, np.zeros((157, 6)), 5) == 0.0


@pytest.mark.parametrize("k", [1, 3])
def test_top_k_sees_neither_the_order_of_samples_nor_the_scale_of_logits(k: int) -> None:
    order = np.random.default_rng(1).permutation(157)
    names = np.random.default_rng(2).permutation(6)
    expected = top_k_accuracy(LABELS, LOGITS, k)
    assert top_k_accuracy(LABELS[order], LOGITS[order], k) == expected
    assert top_k_accuracy(LABELS, 3 * LOGITS + 5, k) == expected
    assert top_k_accuracy(names[LABELS], LOGITS[:, np.argsort(names)], k) == expected  # classes under other numbers


@pytest.mark.parametrize("function", [accuracy, accuracy_per_class])
@pytest.mark.parametrize(("labels", "predictions"), [([], []), ([1, 2], [1]), ([[1]], [[1]])])
def test_pairs_are_refused(function: object, labels: list[int], predictions: list[int]) -> None:
    with pytest.raises(InputError, match=r"labels and predictions must be \[N\] each with N >= 1; got shapes \["):
        function(labels, predictions)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("labels", "logits", "k", "sentence"),
    [
        ([], np.zeros((0, 3)), 1, r"labels must be \[N\] and logits \[N, C\] with N >= 1; got \[0\] and \[0, 3\]"),
        ([0, 1], [[1.0, 2.0]], 1, r"got \[2\] and \[1, 2\]"),
        ([0], [1.0], 1, r"got \[1\] and \[1\]"),
        ([0], [[1.0, 2.0]], 0, r"k must be a whole number in \[1, 2\]; got 0"),
        ([0], [[1.0, 2.0]], 3, r"k must be a whole number in \[1, 2\]; got 3"),
        ([-1], [[1.0, 2.0]], 1, r"labels must be in \[0, 2\)"),
        ([2], [[1.0, 2.0]], 1, r"labels must be in \[0, 2\)"),
        ([0], [[float("nan"), 2.0]], 1, "logits numbers"),
    ],
)
def test_top_k_refuses(labels: list[int], logits: list[list[float]], k: int, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        top_k_accuracy(labels, logits, k)


@pytest.mark.parametrize(
    ("labels", "predictions", "types"),
    [
        (["1", "2"], [1, 2], "<U1 and int64"),
        ([1.0, 2.0], ["1.0", "2.0"], "float64 and <U3"),
        ([None, "a"], ["a", "a"], "object and <U1"),
    ],
)
def test_labels_and_predictions_of_two_types_are_refused(labels: list[Any], predictions: list[Any], types: str) -> None:
    with pytest.raises(InputError, match=f"must both be numbers or both text, or no one equals another; got {types}"):
        accuracy(labels, predictions)


def test_text_has_an_accuracy_and_no_classes_by_number() -> None:
    assert accuracy(["a", "b"], ["a", "c"]) == 0.5
    with pytest.raises(InputError, match="labels must be whole numbers; got <U1"):
        accuracy_per_class(["a", "b"], ["a", "c"])
