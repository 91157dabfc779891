"""The propositions as functions: against the scalar oracles, against what the papers print, and against themselves."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import angulus
from angulus import InputError, class_loss, losses
from angulus.losses import theory
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
        bound = theory.incay_bound(norm, size, classes)
        assert bound == pytest.approx(oracle.incay_bound(norm, classes, size), rel=1e-14)
        assert bound == pytest.approx(norm * theory.incay_factor(size, classes), rel=1e-14)


def test_the_numbers_that_the_papers_print() -> None:
    assert float(theory.loss_floor(1.0, 10575)) == pytest.approx(8.27, abs=0.005)  # NF, Sec. 3.3
    assert theory.incay_bound(200.0, 512, 10) == pytest.approx(483, abs=0.5)  # FI, Sec. 3.4
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
    "a norm": (lambda: theory.incay_bound(0, 64, 10), "reference_norm must be a finite number > 0; got 0"),
}


@pytest.mark.parametrize(("call", "fragment"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_undefined_is_refused(call: Callable[[], Any], fragment: str) -> None:
    with pytest.raises(InputError, match=re.escape(fragment)):
        call()


def test_target_probability_is_that_of_softmax() -> None:
    logits, bias, scales = np.array([0.3, 0.9, -0.4]), np.array([0.1, -0.2, 0.5]), np.array([0.0, 0.5, 3.0, 800.0])
    direct = torch.softmax(torch.tensor(scales)[:, None] * torch.tensor(logits) + torch.tensor(bias), dim=1)
    np.testing.assert_allclose(theory.target_probability(logits, 0, scales, bias=bias), direct[:, 0], rtol=1e-12)


def test_a_larger_norm_helps_who_is_right_unless_a_bias_decides() -> None:
    s = np.linspace(0, 5, 50)
    assert (np.diff(theory.target_probability([1.0, 0.2], 0, s)) > 0).all()
    assert (np.diff(theory.target_probability([0.2, 1.0], 0, s)) < 0).all()
    biased = theory.target_probability([0.3, 0.6], 0, s, bias=[1.0, 0.0])
    assert biased[10] > 0.5 > biased[-1]


def test_class_weight_pull_is_the_gradient() -> None:
    weight = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    direction = torch.nn.functional.normalize(torch.randn(3, dtype=torch.float64), dim=0)
    for norm in (0.01, 1.0, 20.0):
        loss = class_loss((norm * direction)[None], weight, torch.tensor([2]), losses.softmax())
        gradient = torch.autograd.grad(loss, weight)[0][2]
        pull = theory.class_weight_pull((weight @ direction).detach().numpy(), 2, [norm])
        assert float(pull[0]) == pytest.approx(float(gradient.norm()), rel=1e-9)


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_probability_floor(classes: int) -> None:
    for r in (0.0, 1.0, 10.0, 500.0):
        assert float(theory.probability_floor(r, classes)) == pytest.approx(oracle.property_4_bound(r, classes))


@pytest.mark.parametrize("beta", [0.0, 0.3, 0.8])
def test_iam_pull_and_push_are_the_gradients(beta: float) -> None:
    """IAM Eq. 13 and 14 for one sample: gradients by the unit class weights, which class_loss projects."""
    s, y = 7.0, 1
    x = torch.nn.functional.normalize(torch.randn(4, dtype=torch.float64), dim=0)
    unit = torch.nn.functional.normalize(torch.randn(5, 4, dtype=torch.float64), dim=1).requires_grad_()
    objective = losses.normface(s, learn=False) + losses.iam(beta)
    gradient = torch.autograd.grad(class_loss(x[None], unit, torch.tensor([y]), objective), unit)[0]
    logits = (s * unit @ x).detach()
    p = torch.softmax(logits, dim=0)
    for j in range(5):
        q = float(p[j] / (1 - p[y]))
        size = -theory.iam_own_pull(float(p[y]), beta) if j == y else theory.iam_other_push(float(p[y]), q, beta)
        w = unit[j].detach()
        projected = float(size) * s * (x - (x @ w) * w)
        torch.testing.assert_close(gradient[j], projected, rtol=1e-9, atol=1e-12)


def test_iam_floor_is_attained() -> None:
    w = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    objective = losses.normface(4.0, learn=False) * 0 + losses.iam(0.5, s=4.0)
    loss = class_loss(w[:1], w, torch.tensor([0]), objective)
    assert float(loss) == pytest.approx(theory.iam_floor(4.0, 3, 0.5), rel=1e-12)


def test_agent_distortion_and_its_bound() -> None:
    generator = np.random.default_rng(0)
    members, agent = generator.normal(size=(6, 3)), generator.normal(size=3)
    bound = theory.agent_distortion_bound(members, agent)
    assert bound == pytest.approx(oracle.agent_distortion_bound(members.tolist(), agent.tolist()), rel=1e-12)
    for anchor in members:
        found = theory.agent_distortion(anchor, members, agent)
        assert found == pytest.approx(oracle.agent_distortion(anchor.tolist(), members.tolist(), agent.tolist()))
        assert found <= bound
    head = angulus.DenseHead(3, 2, losses.normface()).double()
    with torch.no_grad():
        head.weight[1] = torch.tensor(agent)
    stats = head.statistics(torch.tensor(members), torch.ones(6, dtype=torch.long))
    assert float(stats["agent_distortion"]) == pytest.approx(bound, rel=1e-12)
