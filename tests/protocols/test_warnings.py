"""Warnings about a model that hardly tells people apart: the rule, and each protocol that warns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from angulus.core.embeddings import Embeddings
from angulus.evaluation.metrics.intervals import Interval
from angulus.evaluation.protocols import classification, distractors, figures, groups, pairs
from angulus.evaluation.protocols.calibrate import calibrate, pairs_of_images
from angulus.evaluation.protocols.calibration import Calibration, Rate
from people import crowd, crowd_pairs

GOOD = crowd(12, 4, 16, noise=0.5)
GROUPED = crowd_pairs(GOOD, grouped=True)
LIST = crowd_pairs(GOOD)


def blind(given: Embeddings, seed: int = 0) -> Embeddings:
    return replace(given, vectors=np.random.default_rng(seed).normal(size=given.vectors.shape))


@pytest.mark.parametrize(
    ("auc", "interval", "said"),
    [
        (0.95, None, ""),
        (0.95, Interval(0.9, 0.97), ""),
        (0.6, None, ""),
        (0.599, None, "hardly tells these people apart (AUC 0.599; chance is 0.5)"),
        (0.5, Interval(0.45, 0.55), "hardly tells these people apart (AUC 0.500 [0.45, 0.55]; chance is 0.5)"),
        (0.45, Interval(0.42, 0.48), "hardly tells these people apart (AUC 0.450 [0.42, 0.48]; chance is 0.5)"),
        (0.8, Interval(0.5, 1.0), "whether this model tells these people apart is not known (AUC 0.800 [0.5, 1]"),
        (
            0.1,
            None,
            "two of these people look more similar to this model than two images of one (AUC 0.100; chance is 0.5)",
        ),
        (0.1, Interval(0.0, 0.6), "hardly tells these people apart"),
    ],
)
def test_the_rule(auc: float, interval: Interval | None, said: str) -> None:
    found = figures.auc_warning(auc, interval)
    assert (found == "") == (said == "")
    assert said in found and found.startswith("warning: " if said else "")


def test_one_point_is_judged_as_the_auc_of_normal_scores() -> None:
    gap = np.sqrt(2) * stats.norm.ppf(0.6)
    for far in (1e-6, 1e-3, 0.1, 0.5):
        limit = stats.norm.sf(stats.norm.isf(far) - gap)
        assert figures.share_warnings("TAR", limit * 1.001, far, 10**9) == ()
        assert "hardly" in figures.share_warnings("TAR", limit * 0.999, far, 10**9)[0]
    assert figures.share_warnings("TAR", 0.0, 1e-6, 1000) == ()  # none was to be expected
    assert "hardly" in figures.share_warnings("TAR", 0.0, 0.1, 1000)[0]


def test_every_protocol_of_pairs_says_it() -> None:
    for given, warned in ((GOOD, False), (blind(GOOD), True)):
        results = [
            pairs.evaluate(given, LIST, draws=0),
            groups.evaluate(given, GROUPED, draws=0),
            distractors.megaface(given, other(500), draws=0),
        ]
        for result in results:
            assert any(note.startswith("warning: ") for note in result.notes) == warned, result.protocol
            assert not warned or result.notes[0].startswith("warning: ")


def other(count: int) -> Embeddings:
    return Embeddings(np.random.default_rng(9).normal(size=(count, 16)), np.array([f"d{n}" for n in range(count)]))


def test_a_calibration_keeps_the_auc_and_says_it_again(tmp_path: Path) -> None:
    weak = replace(GOOD, vectors=0.25 * GOOD.vectors + np.random.default_rng(1).normal(size=GOOD.vectors.shape))
    for given, warned in ((GOOD, False), (weak, True)):
        calibration, result = calibrate(given, pairs_of_images(given), target_fmr=0.01, draws=100)
        number = result.number("AUC")
        assert calibration.auc == Rate(number.value, number.interval)
        calibration.write(tmp_path / "calibration.json")
        again = Calibration.read(tmp_path / "calibration.json")
        assert again.auc == calibration.auc
        assert bool(again.warning) == warned == result.notes[0].startswith("warning: ")
    assert replace(calibration, auc=None).warning == ""


def test_a_classifier_that_only_knows_the_commonest_class() -> None:
    labels = np.repeat([0, 1, 2], [60, 30, 30])
    for predictions, warned in ((labels, False), (0 * labels, True), (labels[::-1], True)):
        result = classification.evaluate(
            classification.Predictions.from_arrays(labels, predictions=predictions), draws=0
        )
        assert any(note.startswith("warning: ") for note in result.notes) == warned


@pytest.mark.parametrize("seed", range(5))
def test_a_classifier_that_guesses(seed: int) -> None:
    """By chance it may be more accurate than the commonest class is common; it tells nothing apart."""
    labels = np.repeat(np.arange(10), 100)
    guesses = np.random.default_rng(seed).integers(0, 10, len(labels))
    result = classification.evaluate(classification.Predictions.from_arrays(labels, predictions=guesses), draws=0)
    assert result.notes[0].startswith("warning: this model hardly tells these classes apart (mean accuracy per class")


def test_a_classifier_that_finds_most_of_a_rare_class_is_no_blind_one() -> None:
    labels = np.repeat([0, 1], [990, 10])
    predictions = labels.copy()
    predictions[:8], predictions[-3:] = 1, 0  # less accurate than to say 0 always
    result = classification.evaluate(classification.Predictions.from_arrays(labels, predictions=predictions), draws=0)
    assert result["accuracy"] < 0.99
    assert not any(note.startswith("warning: ") for note in result.notes)
