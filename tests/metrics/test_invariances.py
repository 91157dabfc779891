"""What must not change a metric of scores: the order of the pairs, a monotone transform, every pair twice."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from angulus.evaluation.metrics.curves import auc, eer, error_curve
from angulus.evaluation.metrics.identification import cmc, dir_at_far, open_set_curve
from angulus.evaluation.metrics.verification import best_threshold, kfold_accuracy, likelihood_ratio, tar_at_far

Scores = NDArray[np.float64]
Same = NDArray[np.bool_]
Folds = NDArray[np.int64]
Figure = Callable[[Scores, Same, Folds], float]


def _open_set(scores: Scores, same: Same, folds: Folds) -> float:
    """Genuine pairs as probes with their mates' scores, impostors as probes with their best; the fold as the rank."""
    curve = open_set_curve(scores[same], folds[same] + 1, scores[~same], rank=3)
    return dir_at_far(curve, 0.1).dir


def _middle(scores: Scores, same: Same, folds: Folds) -> float:
    slope, intercept = likelihood_ratio(scores, same)
    return slope * float(np.median(scores)) + intercept


# Figures that depend on the order of the scores alone.
BY_ORDER: dict[str, Figure] = {
    "AUC": lambda scores, same, folds: auc(error_curve(scores, same)),
    "EER": lambda scores, same, folds: eer(error_curve(scores, same)),
    "TAR@FAR=0.1": lambda scores, same, folds: tar_at_far(error_curve(scores, same), 0.1).tar,
    "TAR@FAR=0": lambda scores, same, folds: tar_at_far(error_curve(scores, same), 0, zero_ok=True).tar,
    "best accuracy": lambda scores, same, folds: best_threshold(scores, same)[1],
    "DIR@FAR=0.1": _open_set,
    "CMC": lambda scores, same, folds: float(cmc(folds + 1, 3).sum()),
}
# And those with a threshold between scores, or a slope: only a linear transform moves these along.
BY_PLACE: dict[str, Figure] = {
    "accuracy over folds": lambda scores, same, folds: kfold_accuracy(scores, same, folds).mean,
    "LLR of the middle": _middle,
}
ALL = {**BY_ORDER, **BY_PLACE}


def data(seed: int) -> tuple[Scores, Same, Folds]:
    rng = np.random.default_rng(seed)
    same = np.arange(240) % 8 < 3
    return (rng.normal(size=240) + 1.3 * same).round(1), same, np.arange(240) // 60  # rounded: many ties


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_order_of_the_pairs_does_not_matter(name: str, seed: int) -> None:
    given = data(seed)
    order = np.random.default_rng(9).permutation(240)
    moved = [column[order] for column in given]
    assert ALL[name](*moved) == pytest.approx(ALL[name](*given), abs=1e-12)


@pytest.mark.parametrize("name", BY_ORDER)
@pytest.mark.parametrize("transform", [np.exp, np.arctan, lambda scores: scores**3, lambda scores: 1e6 * scores - 7])
def test_a_strictly_monotone_transform_does_not_matter(name: str, transform: Callable[[Scores], Scores]) -> None:
    scores, same, folds = data(2)
    assert BY_ORDER[name](transform(scores), same, folds) == pytest.approx(
        BY_ORDER[name](scores, same, folds), abs=1e-12
    )


@pytest.mark.parametrize("name", BY_PLACE)
def test_scale_and_shift_do_not_matter(name: str) -> None:
    scores, same, folds = data(3)
    assert BY_PLACE[name](8 * scores + 64, same, folds) == pytest.approx(BY_PLACE[name](scores, same, folds), abs=1e-6)


@pytest.mark.parametrize("name", [name for name in ALL if name != "LLR of the middle"])  # its targets know the counts
def test_every_pair_twice_does_not_matter(name: str) -> None:
    given = data(4)
    doubled = [column.repeat(2) for column in given]
    assert ALL[name](*doubled) == pytest.approx(ALL[name](*given), abs=1e-12)


@pytest.mark.parametrize("name", ["AUC", "EER", "best accuracy"])
def test_swapping_the_kinds_and_the_sign_mirrors_the_figures(name: str) -> None:
    scores, same, folds = data(6)
    assert ALL[name](-scores, ~same, folds) == pytest.approx(ALL[name](scores, same, folds), abs=1e-12)
