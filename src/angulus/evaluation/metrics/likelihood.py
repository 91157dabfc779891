"""From score to probability: a log-likelihood ratio that is linear in the score."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from angulus.core import checks
from angulus.evaluation.metrics.curves import scored


def likelihood_ratio(scores: ArrayLike, same: ArrayLike) -> tuple[float, float]:
    """Slope a and intercept b of log p(score | genuine) / p(score | impostor) ≈ a · score + b, by logistic regression.

    Genuine and impostor pairs weigh the same in all, so that the share of genuine pairs in the list, which is seldom
    that of an application, does not enter. Targets are Platt's, (G + 1) / (G + 2) and 1 / (I + 2), which keeps the fit
    finite where the scores of the two kinds do not overlap.

    Two parameters and not an isotonic fit: the map is strictly increasing, so it neither ties nor reorders scores; it
    is neither 0 nor 1 anywhere, beyond the scores seen too; and some dozen pairs of each kind determine it.

    Args:
        scores: [N], finite.
        same: [N] of bool.

    Raises:
        checks.InputError: only one kind of pairs, or genuine scores that are not higher than the impostors'.

    Source: J. Platt, "Probabilistic Outputs for Support Vector Machines", 1999; N. Brümmer and J. du Preez, Computer
    Speech and Language 20, 2006 (likelihood ratios by weighted logistic regression).
    """
    scores, same = scored(scores, same)
    genuine = int(same.sum())
    impostors = len(same) - genuine
    if not genuine or not impostors:
        raise checks.InputError(
            f"a likelihood ratio needs pairs of both kinds; got {genuine} genuine and {impostors} impostor pairs"
        )
    spread = float(scores.std())
    if scores[same].mean() <= scores[~same].mean() or spread == 0:
        raise checks.InputError(
            "genuine scores must be higher on average than impostor scores; they are not; check which pairs are "
            "genuine, and that higher scores mean more alike; if so, the model does not tell these people apart"
        )
    from sklearn.linear_model import LogisticRegression  # a second to import, for those who calibrate

    target = np.where(same, (genuine + 1) / (genuine + 2), 1 / (impostors + 2))
    weight = np.where(same, 1 / genuine, 1 / impostors) * len(same) / 2
    standard = ((scores - scores.mean()) / spread)[:, None]
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10, max_iter=200)
    model.fit(
        np.concatenate([standard, standard]),
        np.repeat([1, 0], len(same)),
        sample_weight=np.concatenate([weight * target, weight * (1 - target)]),
    )
    slope = float(model.coef_[0, 0]) / spread
    return slope, float(model.intercept_[0]) - slope * float(scores.mean())
