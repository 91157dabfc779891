"""The log-likelihood ratio: Gaussians whose ratio is known, another solver, scores apart, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from angulus.core.checks import InputError
from angulus.evaluation.metrics.verification import likelihood_ratio


def gaussians(genuine: int, impostors: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    same = np.repeat([True, False], [genuine, impostors])
    return np.where(same, 0.5, 0.1) + 0.1 * rng.normal(size=genuine + impostors), same


@pytest.mark.parametrize(("genuine", "impostors"), [(20_000, 20_000), (4_000, 60_000)])
def test_the_ratio_of_two_gaussians_is_found_whatever_their_shares(genuine: int, impostors: int) -> None:
    """ln N(s; 0.5, 0.1²) / N(s; 0.1, 0.1²) = 40 s − 12."""
    slope, intercept = likelihood_ratio(*gaussians(genuine, impostors))
    assert slope == pytest.approx(40, rel=0.05)
    assert -intercept / slope == pytest.approx(0.3, abs=0.005)


def test_it_is_the_minimum_that_another_solver_finds() -> None:
    scores, same = gaussians(30, 90)
    target = np.where(same, 31 / 32, 1 / 92)
    weight = np.where(same, 1 / 30, 1 / 90)

    def loss(parameters: np.ndarray) -> float:
        odds = parameters[0] * scores + parameters[1]
        return float(weight @ (target * np.logaddexp(0, -odds) + (1 - target) * np.logaddexp(0, odds)))

    found = minimize(loss, [1.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-14, "maxiter": 4000})
    assert likelihood_ratio(scores, same) == pytest.approx(tuple(found.x), rel=1e-5)


def test_scores_that_do_not_overlap_have_a_finite_ratio() -> None:
    slope, intercept = likelihood_ratio([0.9, 0.8, 0.2, 0.1], [True, True, False, False])
    assert 0 < slope < 100
    assert -intercept / slope == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("scores", "same", "sentence"),
    [
        ([0.1, 0.2], [True, True], "needs pairs of both kinds; got 2 genuine, 0 impostors"),
        ([0.1, 0.2], [True, False], "genuine scores must be higher on average than impostor scores; they are not"),
        ([0.1, 0.1], [True, False], "genuine scores must be higher on average"),
        ([float("nan"), 0.1], [True, False], "scores must be finite"),
    ],
)
def test_what_has_no_ratio_is_refused(scores: list[float], same: list[bool], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        likelihood_ratio(scores, same)
