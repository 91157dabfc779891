"""Detect a training that diverged, and name the likely cause and the way out in one sentence."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from angulus.training.state import Progress

FALLEN = 0.95  # a last loss above this share of the first has not fallen
EXPLODED = 10  # times the first step's loss, and that of guessing, ln C
GROWN, LARGE = 100, 1000  # times the first step's mean feature norm, and that norm itself: networks may start near 0
ONE_CLASS = 0.99  # a share of the predictions
FEW = 10  # steps; after fewer a model may guess without a fault


def diagnose(progress: Progress, test: Mapping[str, NDArray[Any]], lr: float, steadier: str) -> str | None:
    """What is wrong with an ended run, or None.

    An exploded norm is a sign by itself, because losses of the angle alone stay small. A loss that did not fall is not:
    annealed margins raise it while the model learns, and fine-tuning starts low. So it also takes an exploded loss, or
    an accuracy no better than guessing after `FEW` steps or more. A model whose loss fell has collapsed if nearly all
    images get one class and the loss is that of guessing.

    Args:
        progress: at the end.
        test: norms, labels and predictions of the test images.
        lr: training.optimizer.lr.
        steadier: the ways out, see `Job.steadier`.
    """
    norm, labels, predictions = float(test["norms"].mean()), test["labels"], test["predictions"]
    first, last = progress.first_loss, progress.last_epoch_loss
    guessing = math.log(max(2, len(np.unique(labels))))
    share, accuracy = _largest_share(labels), float((labels == predictions).mean())
    at_chance = progress.step >= FEW and accuracy <= share + math.sqrt(share * (1 - share) / len(labels))
    signs = []
    if norm >= LARGE and norm >= GROWN * progress.first_norm:
        signs.append(f"the mean feature norm grew from {progress.first_norm:.3g} to {norm:.3g}")
    if not last < FALLEN * first:
        if last >= EXPLODED * max(guessing, first):
            signs.append("the loss is far above that of guessing")
        if at_chance:
            signs.append(f"the test accuracy of {accuracy:.1%} is that of guessing ({share:.1%})")
    if signs:
        moved = f"the loss went from {first:.3g} to {last:.3g}"
        return (
            f"The training diverged: {', '.join([moved, *signs[:-1]])} and {signs[-1]}. The likely cause is a learning "
            f"rate that is too high: {steadier}."
        )
    if at_chance and share <= 0.5 and _largest_share(predictions) >= ONE_CLASS and last >= FALLEN * guessing:
        return (
            f"The model collapsed: nearly all test images are given one class, and the loss of {last:.3g} is no better "
            f"than that of guessing ({guessing:.3g}). The likely cause is a margin or a scale that is too large, or a "
            f"learning rate that is too high: lower the objective's margin, or training.optimizer.lr (it was {lr:g})."
        )
    return None


def _largest_share(values: np.ndarray) -> float:
    return float(np.unique(values, return_counts=True)[1].max() / len(values))
