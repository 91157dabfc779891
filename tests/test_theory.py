"""The propositions as functions: against the scalar oracles, against what the papers print, and against themselves."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from angulus import InputError, class_loss, losses, theory
from scalar import softmax_family as family
from scalar import theory as oracle


@pytest.mark.parametrize("classes", [2, 3, 10, 1000, 10575])
@pytest.mark.parametrize("p", [0.6, 0.9, 0.9999])
def test_lower_bounds(classes: int, p: float) -> None:
    exact = theory.contraction_lower(p, classes, bound="exact")
    assert exact == pytest.approx(family.lower_exact(p, classes), rel=1e-10)  # 1 − p has lost digits
    assert float(theory.ideal_probability(exact, classes)) == pytest.approx(p, rel=1e-12)
    if classes > 2:
        ideal = theory.contraction_lower(p, classes)
        assert ideal == pytest.approx(family.lower_ideal(p, classes), rel=1e-12)
        # the ideal one leaves e^{−s} out
        assert exact - ideal == pytest.approx(math.log1p(math.exp(-exact) / (classes - 2)), rel=1e-9, abs=1e-13)


def test_the_papers_lower_and_upper_bounds() -> None:
    lower = theory.contraction_lower(0.9, 10)
    assert lower == pytest.approx(math.log(72), rel=1e-12)
    assert 3 * lower == pytest.approx(12.83, abs=0.005)
    assert theory.contraction_lower(0.9, 2, bound="exact") == pytest.approx(math.log(9) / 2, rel=1e-12)
    # a regular decagon in the plane, LeNet++'s case on MNIST, stays below p = 0.9 even at the upper bound
    angles = 2 * math.pi * torch.arange(10, dtype=torch.float64) / 10
    decagon = torch.stack([angles.cos(), angles.sin()], dim=1)
    loss = class_loss(decagon, decagon, torch.arange(10), losses.normface(3 * lower, learn=False))
    assert math.exp(-loss.item()) == pytest.approx(0.853, abs=5e-4)


def test_ideal_probability_of_its_classifier() -> None:
    """One class at 180°, the others at 90°: p of the softmax itself."""
    weight = torch.eye(5, dtype=torch.float64)
    weight = torch.cat([weight, -weight[:1]])
    for s in (0.5, 4.0, 30.0):
        loss = class_loss(weight[:1], weight, torch.tensor([0]), losses.normface(s, learn=False))
        assert float(theory.ideal_probability(s, 6)) == pytest.approx(math.exp(-loss.item()), rel=1e-12)
    np.testing.assert_allclose(theory.ideal_probability([0.0, 800.0], 4), [0.25, 1.0], rtol=1e-14)


@pytest.mark.parametrize("gamma", [0.05, 1.0, 3.0])
def test_contraction(gamma: float) -> None:
    norms = [0.0, 1e-9, 0.3, 2.0, 18.0, 500.0]
    expected = [family.f_contraction(norm, 4.0, 12.0, gamma) for norm in norms]
    np.testing.assert_allclose(theory.contraction(norms, 4.0, 12.0, gamma), expected, rtol=1e-12)
    share = theory.contraction_saturation(norms, gamma)
    np.testing.assert_allclose(share, [(value - 4) / 8 for value in expected], rtol=1e-6, atol=1e-12)
    assert share[0] == 0
    auto = family.gamma_auto(2.0)
    assert float(theory.contraction(2.0, 4.0, 12.0, auto)) == pytest.approx(8.0, rel=1e-14)


@pytest.mark.parametrize(("degrees", "factor"), [(0, 1.0), (60, 2.0), (90, 1 + math.sqrt(2)), (180, 3.0)])
def test_separation_factor(degrees: float, factor: float) -> None:
    assert theory.separation_factor(math.radians(degrees)) == pytest.approx(factor, rel=1e-14)


@pytest.mark.parametrize(("classes", "size"), [(10, 64), (127, 64), (128, 64), (129, 64), (10, 2), (3, 2), (4, 2)])
def test_incay_bound(classes: int, size: int) -> None:
    for norm in (0.5, 200.0):
        bound = theory.incay_bound(norm, classes, size)
        assert bound == pytest.approx(oracle.incay_bound(norm, classes, size), rel=1e-14)
        assert bound == pytest.approx(norm * theory.incay_factor(classes, size), rel=1e-14)


def test_the_numbers_that_the_papers_print() -> None:
    assert float(theory.loss_floor(1.0, 10575)) == pytest.approx(8.27, abs=0.005)  # NF, Sec. 3.3
    assert theory.incay_bound(200.0, 10, 512) == pytest.approx(483, abs=0.5)  # FI, Sec. 3.4
    assert theory.coco_scale(10575) == pytest.approx(7.633, abs=5e-4)
    assert theory.coco_scale(2) == 3.0


@pytest.mark.parametrize("n", [2, 3, 10, 40])
@pytest.mark.parametrize("s", [0.1, 1.0, 16.0, 30.0])
def test_loss_floor(n: int, s: float) -> None:
    floor = float(theory.loss_floor(s, n))
    assert floor == pytest.approx(oracle.loss_floor(s, n), rel=1e-12)
    assert floor == pytest.approx(oracle.loss_floor_of_simplex(s, n), rel=1e-10)
    assert float(theory.scale_for_loss(floor, n)) == pytest.approx(s, rel=1e-9)
    assert float(theory.scale_for_loss(floor, n)) == pytest.approx(oracle.scale_for_loss(floor, n), rel=1e-12)


def test_floors_of_arrays() -> None:
    s = np.array([[0.5, 1.0], [5.0, 1e4]])
    floors = theory.loss_floor(s, 100)
    assert floors.shape == s.shape and bool((np.diff(floors.ravel()) < 0).all()) and floors[1, 1] == 0
    np.testing.assert_allclose(theory.scale_for_loss(floors[0], 100), s[0], rtol=1e-12)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "ideal_probability of one class": (
        lambda: theory.ideal_probability(1.0, 1),
        "num_classes must be a whole number >= 2",
    ),
    "lower of p = 0": (lambda: theory.contraction_lower(0, 10), "p must be a finite number in (0, 1); got 0"),
    "lower of p = 1": (lambda: theory.contraction_lower(1, 10), "p must be a finite number in (0, 1); got 1"),
    "lower of one class": (lambda: theory.contraction_lower(0.9, 1), "num_classes must be a whole number >= 2; got 1"),
    "lower of two classes": (lambda: theory.contraction_lower(0.9, 2), "needs C >= 3 classes; got C = 2"),
    "lower of a small p": (lambda: theory.contraction_lower(0.5, 3), "p must exceed 1 / (C - 1) = 0.5 for a positive"),
    "exact of a small p": (lambda: theory.contraction_lower(0.1, 10, bound="exact"), "p must exceed 1 / C = 0.1"),
    "a bound": (lambda: theory.contraction_lower(0.9, 10, bound="exakt"), "bound must be one of 'ideal', 'exact'"),
    "an angle": (lambda: theory.separation_factor(3.2), "angle must be a finite number in [0, 3.14159]; got 3.2"),
    "a negative angle": (lambda: theory.separation_factor(-0.1), "angle must be a finite number in [0, 3.14159]"),
    "gamma": (lambda: theory.contraction(1.0, 4.0, 12.0, 0), "gamma must be a finite number > 0; got 0"),
    "coco of one class": (lambda: theory.coco_scale(1), "num_classes must be a whole number >= 2; got 1"),
    "a floor of one class": (lambda: theory.loss_floor(1.0, 1), "num_classes must be a whole number >= 2; got 1"),
    "a floor at s = 0": (lambda: theory.loss_floor([1.0, 0.0], 5), "s must be > 0; got 0"),
    "a floor at nan": (lambda: theory.loss_floor(math.nan, 5), "s must be > 0; got nan"),
    "a loss of 0": (lambda: theory.scale_for_loss(0.0, 5), "loss must be in (0, log 5 = 1.60944); got 0.0"),
    "the loss of chance": (
        lambda: theory.scale_for_loss(math.log(5), 5),
        "loss must be in (0, log 5 = 1.60944); got 1.6",
    ),
    "a loss of one class": (lambda: theory.scale_for_loss(0.1, 1), "num_classes must be a whole number >= 2; got 1"),
    "a norm": (lambda: theory.incay_bound(0, 10, 64), "reference_norm must be a finite number > 0; got 0"),
}


@pytest.mark.parametrize(("call", "fragment"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_undefined_is_refused(call: Callable[[], Any], fragment: str) -> None:
    with pytest.raises(InputError, match=re.escape(fragment)):
        call()
