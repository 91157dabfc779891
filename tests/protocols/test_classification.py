"""Classification: slow loops, scikit-learn, planted splits, ties, seeds, files, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, recall_score, top_k_accuracy_score

from angulus.core.checks import InputError
from angulus.evaluation.metrics.accuracy import top_k_accuracy
from angulus.evaluation.protocols import classification as protocol
from angulus.evaluation.protocols.classification import Predictions, over_seeds
from angulus.evaluation.protocols.classification import evaluate as classification
from angulus.evaluation.protocols.result import Result

RANDOM = np.random.default_rng(0)
LABELS = RANDOM.integers(0, 7, 210)
LOGITS = RANDOM.normal(size=(210, 7)) + 2.0 * np.eye(7)[LABELS]
NORMS = RANDOM.gamma(4.0, 2.0, 210)


def test_figures_are_scikit_learns() -> None:
    result = classification(Predictions.from_arrays(LABELS, logits=LOGITS), draws=0)
    predicted = LOGITS.argmax(axis=1)
    assert result["accuracy"] == pytest.approx(accuracy_score(LABELS, predicted))
    assert result["error"] == pytest.approx(1 - accuracy_score(LABELS, predicted))
    assert result["top-5 accuracy"] == pytest.approx(top_k_accuracy_score(LABELS, LOGITS, k=5))
    assert result["top-5 accuracy"] == pytest.approx(top_k_accuracy(LABELS, LOGITS, 5))
    assert result["top-5 error"] == pytest.approx(1 - top_k_accuracy(LABELS, LOGITS, 5))
    for label, recall in enumerate(recall_score(LABELS, predicted, average=None)):
        assert result[f"accuracy, class {label}"] == pytest.approx(recall)
    assert result.counts == {"samples": 210, "classes": 7}
    assert result.notes == ("without norms there are no good and low samples",)


def test_predictions_give_what_their_logits_give() -> None:
    by_logits = classification(Predictions.from_arrays(LABELS, logits=LOGITS, norms=NORMS), draws=20)
    by_class = classification(Predictions.from_arrays(LABELS, predictions=LOGITS.argmax(axis=1), norms=NORMS), draws=20)
    assert [n for n in by_logits.numbers if not n.name.startswith("top-5")] == list(by_class.numbers)


def test_ties_count_as_wrong() -> None:
    given = Predictions.from_arrays([0, 1, 2], logits=[[1.0, 1.0, 0.0]] * 3)
    assert given.correct.tolist() == [False, False, False]
    assert Predictions.from_arrays([0], logits=[[3.0] * 6 + [0.0]]).in_top5.tolist() == [False]  # type: ignore[union-attr]
    assert Predictions.from_arrays([0], logits=[[3.0] * 5 + [0.0] * 2]).in_top5.tolist() == [True]  # type: ignore[union-attr]


def test_five_classes_have_no_top5() -> None:
    result = classification(Predictions.from_arrays([0, 1], logits=np.eye(5)[:2]), draws=0)
    assert [number.name for number in result.numbers] == ["accuracy", "error", "accuracy, class 0", "accuracy, class 1"]


def test_good_low_and_entire_of_a_planted_split() -> None:
    """Norms 1 ... 10: the two smallest are low; of them one is right, of the good ones six of eight."""
    labels, norms = np.zeros(10, dtype=int), np.arange(1.0, 11.0)
    predicted = np.array([0, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    result = classification(Predictions.from_arrays(labels, predictions=predicted, norms=norms), draws=0)
    assert result["accuracy, low"] == 1 / 2
    assert result["accuracy, good"] == 6 / 8
    assert result["accuracy, entire"] == result["accuracy"] == 7 / 10
    assert result["mean norm, low"] == 1.5
    assert result["mean norm, good"] == pytest.approx(6.5)
    assert result["mean norm, entire"] == pytest.approx(5.5)


def test_another_models_norms_decide_the_split_and_the_own_stands_second() -> None:
    labels = np.zeros(10, dtype=int)
    given = Predictions.from_arrays(labels, predictions=[0] * 8 + [1] * 2, norms=np.arange(1.0, 11.0), source="mine")
    softmax = Predictions.from_arrays(labels, predictions=labels, norms=np.arange(10.0, 0.0, -1.0), source="softmax")
    result = classification(given, softmax, draws=0)
    assert (result["accuracy, good"], result["accuracy, low"]) == (1.0, 0.0)
    assert (result["accuracy, good (own norms)"], result["accuracy, low (own norms)"]) == (6 / 8, 1.0)
    assert result["mean norm, low"] == 9.5  # the norms are those of the model that is measured
    assert result.choices["split by"] == "norms of softmax"


def test_intervals_are_resamples_of_the_samples() -> None:
    predicted = LOGITS.argmax(axis=1)
    result = classification(Predictions.from_arrays(LABELS, predictions=predicted), per_class=False, draws=300, seed=7)
    random = np.random.default_rng(7)
    correct = predicted == LABELS
    drawn = [np.repeat(correct, random.multinomial(210, np.full(210, 1 / 210))).mean() for _ in range(300)]
    interval = result.number("accuracy").interval
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])))


def test_order_does_not_matter() -> None:
    order = RANDOM.permutation(210)
    first = classification(Predictions.from_arrays(LABELS, logits=LOGITS, norms=NORMS), draws=0)
    other = classification(Predictions.from_arrays(LABELS[order], logits=LOGITS[order], norms=NORMS[order]), draws=0)
    assert [n.name for n in other.numbers] == [n.name for n in first.numbers]
    assert [n.value for n in other.numbers] == pytest.approx([n.value for n in first.numbers], abs=1e-12)


def test_a_saved_result_gives_its_figures_again(tmp_path: Path) -> None:
    result = classification(Predictions.from_arrays(LABELS, logits=LOGITS, norms=NORMS), draws=0)
    result.save(tmp_path / "c.json")
    figures, units = protocol.statistic(Result.read(tmp_path / "c.json").samples)
    assert figures(np.ones(units.count)) == {number.name: number.value for number in result.numbers}


def test_a_class_or_part_that_is_not_drawn_has_no_figure() -> None:
    result = classification(
        Predictions.from_arrays([0, 1, 1, 1, 1], predictions=[0, 1, 1, 1, 0], norms=[1, 2, 3, 4, 5]), draws=0
    )
    figures, _ = protocol.statistic(result.samples)
    found = figures(np.array([0.0, 2.0, 1.0, 1.0, 1.0]))
    assert found["accuracy"] == found["accuracy, class 1"] == 0.8
    assert "accuracy, class 0" not in found
    assert "accuracy, low" not in found


def test_over_seeds_is_mean_and_standard_deviation() -> None:
    results = []
    for wrong in (0, 1, 3):
        predicted = np.zeros(10, dtype=int)
        predicted[:wrong] = 1
        results.append(classification(Predictions.from_arrays(np.zeros(10, dtype=int), predictions=predicted), draws=0))
    mean = over_seeds(results)
    assert mean.protocol == "classification, mean of 3 seeds"
    assert mean["accuracy"] == pytest.approx((1.0 + 0.9 + 0.7) / 3)
    assert mean.number("accuracy").spread == pytest.approx(math.sqrt((0.4**2 + 0.1**2 + 0.5**2) / 9 / 2))
    assert mean.counts["seeds"] == 3


def test_over_seeds_refuses_what_differs() -> None:
    one = classification(Predictions.from_arrays([0, 1], predictions=[0, 1]), draws=0)
    other = classification(Predictions.from_arrays([0, 1, 1], predictions=[0, 1, 1]), draws=0)
    with pytest.raises(InputError, match="needs at least two results; got 1"):
        over_seeds([one])
    with pytest.raises(InputError, match="must be of one protocol and the same samples"):
        over_seeds([one, other])


def test_files(tmp_path: Path) -> None:
    features = np.ones((210, 2), dtype=np.float32)
    np.savez(
        tmp_path / "a.npz",
        labels=LABELS,
        logits=LOGITS,
        norms=NORMS,
        features=features,
        predictions=LABELS,
        probabilities=NORMS,
    )
    read = Predictions.read(tmp_path / "a.npz")
    assert np.array_equal(read.correct, LOGITS.argmax(axis=1) == LABELS)  # the logits count
    np.savez(tmp_path / "b.npz", labels=LABELS, predictions=LABELS)
    assert Predictions.read(tmp_path / "b.npz").norms is None
    np.savez(tmp_path / "c.npz", logits=LOGITS)
    np.savez(tmp_path / "d.npz", labels=LABELS)
    np.savez(tmp_path / "e.npz", labels=LABELS, logit=LOGITS)
    for name, sentence in {
        "c.npz": "must hold 'labels'; it holds logits",
        "d.npz": "must hold predictions or logits",
        "e.npz": "must hold predictions or logits",
        "f.npz": "there is no file",
        "g.csv": "must be in a file that ends in .npz",
    }.items():
        with pytest.raises(InputError, match=sentence):
            Predictions.read(tmp_path / name)


@pytest.mark.parametrize(
    ("labels", "given", "sentence"),
    [
        ([0, 1], {}, "must hold predictions or logits, and not both"),
        ([0, 1], {"predictions": [0, 1], "logits": [[1, 0], [0, 1]]}, "and not both"),
        ([0.0, 1.0], {"predictions": [0, 1]}, "labels must be whole numbers"),
        ([], {"predictions": []}, r"labels must be whole numbers \[N"),
        ([0, 1], {"predictions": [0, 1, 1]}, r"predictions must be \[2\]; got \[3\]"),
        ([0, 2], {"logits": [[1, 0], [0, 1]]}, r"labels must be in \[0, 2\); got 0 to 2"),
        ([0, 1], {"logits": [[1, 0], [0, math.nan]]}, "logits must be finite"),
        ([0, 1], {"logits": [[1], [0]]}, r"got \[2, 1\]"),
        ([0, 1], {"predictions": [0, 1], "norms": [1, -1]}, "norms must be finite numbers >= 0"),
        ([0, 1], {"predictions": [0, 1], "norms": [1]}, r"of shape \[2\]; got shape \[1\]"),
    ],
)
def test_what_is_refused(labels: object, given: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Predictions.from_arrays(labels, **given)  # type: ignore[arg-type]


def test_a_reference_that_does_not_fit_is_refused() -> None:
    given = Predictions.from_arrays(LABELS, logits=LOGITS, norms=NORMS)
    without = Predictions.from_arrays(LABELS, logits=LOGITS, source="softmax")
    with pytest.raises(InputError, match="softmax must hold norms, which tell good samples from low ones"):
        classification(given, without)
    with pytest.raises(InputError, match="softmax must hold norms"):
        classification(without, given)
    with pytest.raises(InputError, match="labels differs first at 0"):
        classification(given, Predictions.from_arrays(LABELS[::-1], logits=LOGITS[::-1], norms=NORMS))
    with pytest.raises(InputError, match="leaves low empty"):
        classification(Predictions.from_arrays([0, 1], predictions=[0, 1], norms=[1, 2]))
