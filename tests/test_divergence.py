"""When a training is reported to have diverged: loss, norm and accuracy of runs that did and that did not, by hand."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest

from angulus.experiments.divergence import diagnose
from angulus.training.settings import SGD, Cosine, OneCycle, Training
from angulus.training.state import Progress

LABELS = np.repeat(np.arange(10), 60)  # ln 10 = 2.303


def sentence(
    first: float, last: float, norms: tuple[float, float], share: float, *, one_class: bool = False, step: int = 10
) -> str | None:
    """The sentence on a run with that share of right predictions; wrong ones are one too high, or all one class."""
    wrong = np.zeros(600) if one_class else (LABELS + 1) % 10
    predictions = np.where(np.arange(600) % 100 < round(100 * share), LABELS, wrong)
    progress = Progress(step=step, first_loss=first, last_epoch_loss=last, first_norm=norms[0])
    test = {"norms": np.full(len(LABELS), norms[1]), "labels": LABELS, "predictions": predictions}
    return diagnose(progress, test, 100.0, Training(optimizer=SGD(lr=100.0)).steadier())


@pytest.mark.parametrize(
    ("run", "sign"),
    [
        (
            (2.35, 4.6e3, (0.5, 40.0), 0.3),
            "the loss went from 2.35 to 4.6e.03 and the loss is far above that of guessing",
        ),
        ((2.35, 2.30, (0.5, 2.0), 0.1), r"the test accuracy of 10.0% is that of guessing \(10.0%\)"),
        (
            (10.4, 1.2, (0.5, 4970.0), 0.5),
            r"the mean feature norm grew from 0.5 to 4.97e\+03",
        ),  # a loss of the angle alone
        ((2.35, math.inf, (0.5, 2.0), 0.3), "far above that of guessing"),
    ],
)
def test_a_run_that_diverged_is_named_with_its_signs_and_the_way_out(run: Any, sign: str) -> None:
    found = sentence(*run)
    assert found is not None
    assert re.search(sign, found)
    assert "The training diverged: " in found and "lower training.optimizer.lr (it was 100), set training.cl" in found


@pytest.mark.parametrize(
    ("settings", "ways"),
    [
        (
            Training(),
            "lower training.optimizer.lr (it was 0.1), set training.clip_norm or start with training.schedule.",
        ),
        (Training(clip_norm=1.0, schedule=OneCycle()), "lower training.optimizer.lr (it was 0.1)"),
        (Training(schedule=Cosine(warmup_epochs=1.0)), "lower training.optimizer.lr (it was 0.1) or set training.clip"),
    ],
)
def test_no_way_out_is_named_that_the_recipe_takes_already(settings: Training, ways: str) -> None:
    assert settings.steadier().startswith(ways)
    assert ("clip" in settings.steadier(), "warm" in settings.steadier()) == ("clip" in ways, "schedule" in ways)
    assert "clip" not in settings.steadier(clip=False)


@pytest.mark.parametrize(
    "run",
    [
        (2.35, 0.4, (0.5, 13.0), 0.86),
        (25.1, 12.0, (1.7, 2.0), 0.1),  # a margin, one epoch: the loss falls before the accuracy rises
        (2.35, 6.0, (0.5, 20.0), 0.9),  # an annealed margin raises the loss
        (0.02, 0.3, (20.0, 22.0), 0.95),  # fine-tuning
        (9.3, -20.3, (1.7, 3.6), 0.98),  # a penalty that is negative
        (2.35, 0.3, (1e-4, 25.0), 0.9),  # a network that starts near 0
    ],
)
def test_a_run_that_learns_is_left_alone(run: Any) -> None:
    assert sentence(*run) is None


def test_a_model_that_gives_all_images_one_class_collapsed() -> None:
    found = sentence(33.0, 7.5, (0.5, 2.0), 0.0, one_class=True)
    assert found is not None and found.startswith("The model collapsed: nearly all test images are given one class")
    assert sentence(33.0, 7.5, (0.5, 2.0), 0.3, one_class=True) is None


def test_a_trial_of_a_few_steps_may_guess_but_not_explode() -> None:
    assert sentence(12.2, 11.9, (2.4, 2.6), 0.1, step=9) is None
    assert sentence(33.0, 7.5, (0.5, 2.0), 0.0, one_class=True, step=9) is None
    assert "far above that of guessing" in (sentence(2.35, 4.6e3, (0.5, 40.0), 0.1, step=9) or "")
