"""Images without embedding as failures to enrol: figures with and without them, by hand from the rates of the rest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from angulus.core.checks import InputError
from angulus.core.embeddings import Embeddings
from angulus.evaluation.metrics.verification import kfold_accuracy
from angulus.evaluation.protocols import groups, pairs
from angulus.evaluation.protocols.differences import compare_results
from angulus.report.sections import write_report
from angulus.report.thumbnails import Captioned, wrong_result_pairs
from people import crowd, crowd_pairs

CROWD = crowd()
PAIRS = crowd_pairs(CROWD)
ABSENT = CROWD.ids[[1, 6, 17]]


def without(embeddings: Embeddings, ids: np.ndarray = ABSENT) -> Embeddings:
    kept = ~np.isin(embeddings.ids, ids)
    return replace(
        embeddings, vectors=embeddings.vectors[kept], ids=embeddings.ids[kept], labels=None, groups=None, flipped=None
    )


FAILED = np.isin(PAIRS.left, ABSENT) | np.isin(PAIRS.right, ABSENT)
RESULT = pairs.evaluate(without(CROWD), PAIRS, missing="fail", draws=0)
ENROLLED = pairs.evaluate(CROWD, PAIRS.select(~FAILED), draws=0)
SUFFIX = ", without failures"


def test_figures_without_failures_are_those_of_the_other_pairs() -> None:
    own = {name.removesuffix(SUFFIX): RESULT.number(name) for name in _names() if SUFFIX in name}
    assert set(own) == {number.name for number in ENROLLED.numbers} >= {"accuracy", "AUC", "EER", "TAR@FAR=1e-1"}
    for name, number in own.items():
        expected = ENROLLED.number(name)
        assert (number.value, number.spread, number.threshold) == (expected.value, expected.spread, expected.threshold)


def _names() -> list[str]:
    return [number.name for number in RESULT.numbers]


def test_figures_with_failures_count_them_as_rejections() -> None:
    """ISO/IEC 19795-1: a genuine pair that fails is an error, an impostor pair that fails is rejected."""
    genuine, impostors = (ENROLLED.samples["scores"][ENROLLED.samples["same"] == kind] for kind in (True, False))
    lost = [int((FAILED & (PAIRS.same == kind)).sum()) for kind in (True, False)]
    assert min(lost) > 0
    tar = 0.0
    for threshold in np.concatenate([genuine, impostors]):
        if sum(impostors >= threshold) / (len(impostors) + lost[1]) <= 0.1:
            tar = max(tar, sum(genuine >= threshold) / (len(genuine) + lost[0]))
    assert RESULT["TAR@FAR=1e-1"] == pytest.approx(tar)
    assert RESULT["TAR@FAR=1e-1"] < RESULT[f"TAR@FAR=1e-1{SUFFIX}"]
    assert PAIRS.folds is not None
    kept = PAIRS.folds[~FAILED]
    chosen = kfold_accuracy(ENROLLED.samples["scores"], PAIRS.same[~FAILED], kept)
    accuracies = []
    for fold, accuracy in enumerate(chosen.accuracies):
        rejected = (FAILED & ~PAIRS.same & (PAIRS.folds == fold)).sum()
        accuracies.append((accuracy * (kept == fold).sum() + rejected) / (PAIRS.folds == fold).sum())
    assert RESULT["accuracy"] == pytest.approx(np.mean(accuracies))
    counted = {"pairs": 72, "images without embedding": 3, "pairs of them": int(FAILED.sum())}
    assert {name: RESULT.counts[name] for name in counted} == counted
    assert RESULT.choices["images without embedding"].startswith("failures to enrol")
    assert "norms" not in RESULT.samples and any("have no norm" in note for note in RESULT.notes)


def test_curves_are_of_all_pairs_and_have_a_report(tmp_path: Path) -> None:
    """A failure is accepted nowhere: the ROC ends at the shares of pairs that have two embeddings."""
    roc, det = RESULT.curves
    same = PAIRS.same
    assert (roc.x[-1], roc.y[-1]) == pytest.approx([(~FAILED[same == kind]).mean() for kind in (False, True)])
    assert det.y.tolist() == (1 - roc.y).tolist()
    assert roc.y[roc.x <= 0.1].max() == pytest.approx(RESULT["TAR@FAR=1e-1"])
    RESULT.save(tmp_path / "failures.json")
    write_report([tmp_path / "failures.json"], tmp_path / "page.html")
    shown = {name for one in wrong_result_pairs(RESULT, {}).values() for wrong in one for name in _ids(wrong)}
    assert shown and not shown & set(ABSENT.tolist())


def _ids(wrong: Captioned) -> list[str]:
    return [thumbnail.alt for thumbnail in wrong.images]


def test_intervals_and_comparisons_go_over_both_kinds() -> None:
    noisy = replace(CROWD, vectors=CROWD.vectors + 0.5)
    first = pairs.evaluate(without(CROWD), PAIRS, missing="fail", draws=50)
    number = first.number(f"AUC{SUFFIX}")
    assert number.interval is not None and number.interval.low < number.value < number.interval.high
    second = pairs.evaluate(without(noisy, ABSENT[:1]), PAIRS, missing="fail", draws=0)
    found = compare_results(first, second, draws=20)
    assert found["AUC"] == second["AUC"] - first["AUC"] and f"AUC{SUFFIX}" in {n.name for n in found.numbers}
    whole = pairs.evaluate(CROWD, PAIRS, missing="fail", draws=0)
    assert _names()[:4] == [number.name for number in whole.numbers]
    assert compare_results(first, whole, draws=20)["AUC"] == whole["AUC"] - first["AUC"]


def test_folds_fitted_projections_and_lists_without_people() -> None:
    projected = pairs.evaluate(without(CROWD), PAIRS, pca=4, missing="fail", draws=0)
    rest = pairs.evaluate(CROWD, PAIRS.select(~FAILED), pca=4, draws=0)
    assert projected[f"accuracy{SUFFIX}"] == rest["accuracy"]
    unnamed = pairs.evaluate(without(CROWD), crowd_pairs(CROWD, named=False), missing="fail", draws=0)
    assert any("intervals resample the pairs" in note for note in unnamed.notes)


def test_groups_with_failures() -> None:
    listed = crowd_pairs(CROWD, grouped=True)
    even = np.isin(listed.left_identity, [str(n) for n in range(0, 12, 2)])
    of_group = replace(listed, groups=np.where(even, "even", "odd"))
    absent = listed.left[:1]
    failed = np.isin(listed.left, absent) | np.isin(listed.right, absent)
    found = groups.evaluate(without(CROWD, absent), of_group, missing="fail", draws=0)
    rest = groups.evaluate(CROWD, of_group.select(~failed), draws=0)
    assert failed.any()
    for number in rest.numbers:
        assert found[f"{number.name}{SUFFIX}"] == number.value
    assert found["mean accuracy"] != rest["mean accuracy"]
    absent = np.random.default_rng(64).permutation(CROWD.ids)[:20]
    enrolled = ~of_group.same & ~np.isin(of_group.left, absent) & ~np.isin(of_group.right, absent)
    assert enrolled.sum() < 10 <= (~of_group.same).sum()  # pairs that failed do not support a FAR of 0.1
    assert not groups.evaluate(without(CROWD, absent), of_group, missing="fail", draws=0).by_group
    with pytest.raises(InputError, match="have no group in crowd; give one list per group"):
        groups.evaluate(without(CROWD, absent), listed, missing="fail")


def test_what_cannot_fail_is_refused() -> None:
    with pytest.raises(InputError, match=r"3 of the 48 ids .* with --missing fail"):
        pairs.evaluate(without(CROWD), PAIRS)
    with pytest.raises(InputError, match="missing must be one of 'refuse', 'fail'; got 'skip'"):
        pairs.evaluate(CROWD, PAIRS, missing="skip")
    lone = without(CROWD, CROWD.ids[1:])
    with pytest.raises(InputError, match="must hold a pair of two images with embeddings; it holds none"):
        pairs.evaluate(lone, PAIRS, missing="fail")
    with pytest.raises(InputError, match=r"FAR 0.028 needs at least 36 impostor pairs; got 3"):
        pairs.evaluate(without(CROWD), PAIRS, missing="fail", fars=[0.028])
