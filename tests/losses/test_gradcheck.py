"""The gradients that autograd gives are those of the values it gives, near θ = 0 and θ = π too, and of second order."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from angulus import class_loss
from losses.aliases import CASES
from losses.oracles import Case, Point, batch, point

SMOOTH = {name: case for name, case in CASES.items() if not case.held}
POINTS = {
    "between": point(),
    "at both ends": point(angles=(1e-3, math.pi - 1e-3, 1e-3, math.pi - 1e-3, 1.0)),
}
SECOND_ORDER = (
    "softmax-bias",
    "normface",
    "l2_softmax-bias-learned",
    "arcface",
    "combined_margin-psi",
    "l_softmax-3-lam",
    "focal_softmax-am-plain",
    "mv_softmax-adaptive-arc",
    "cm_softmax",
    "cm_m_softmax-arc",
    "c_triplet-gated",
    "c_triplet-hardest-additive",
    "iam-normface-learned",
    "sphereface2-C-2.5",
    "siglip",
    "label_smoothing-softmax-bias",
    "circle-exact",
    "proxy_anchor-cosface-iam",
    "mv_softmax-everything",
)


def inputs(case: Case, p: Point) -> tuple[tuple[Tensor, ...], torch.nn.Module, Tensor]:
    bound, data = case.bind_at(p), batch(p, case)
    bias = () if data.bias is None else (data.bias,)
    return (data.features, data.weight, *bias, *bound.parameters()), bound, data.labels


@pytest.mark.parametrize("p", POINTS.values(), ids=POINTS.keys())
@pytest.mark.parametrize("case", SMOOTH.values(), ids=SMOOTH.keys())
def test_gradcheck(case: Case, p: Point) -> None:
    leaves, bound, labels = inputs(case, p)

    def losses(features: Tensor, weight: Tensor, *learned: Tensor) -> Tensor:
        bias = learned[0] if case.objective.bias else None
        return class_loss(features, weight, labels, bound, bias=bias, reduction="none")

    assert torch.autograd.gradcheck(losses, leaves, eps=1e-6, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", SECOND_ORDER)
def test_gradgradcheck_of_the_reference(name: str) -> None:
    case = CASES[name]
    leaves, bound, labels = inputs(case, POINTS["between"])

    def loss(features: Tensor, weight: Tensor, *learned: Tensor) -> Tensor:
        bias = learned[0] if case.objective.bias else None
        return class_loss(features, weight, labels, bound, bias=bias, impl="reference")

    assert torch.autograd.gradgradcheck(loss, leaves, eps=1e-6, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("theta", [1e-3, 1e-2, math.pi - 1e-2, math.pi - 1e-3])
def test_margin_gradients_keep_their_digits_near_both_ends(theta: float, dtype: torch.dtype) -> None:
    """DESIGN's accuracy: 2e-4 in float32 for θ in [1e-3, π − 1e-3], against the chain rule written out."""
    case = CASES["arcface-plain"]
    p = point(angles=[theta] * 5)
    exact, rough = batch(p, case), batch(p, case, dtype)
    gradients = [torch.autograd.grad(data.loss(case.objective, "sum"), data.features)[0] for data in (exact, rough)]
    error = (gradients[1].double() - gradients[0]).norm(dim=1) / gradients[0].norm(dim=1)
    assert float(error.max()) < 2e-4
    unit = torch.nn.functional.normalize(exact.features.detach(), dim=1)
    assert float((gradients[0] * unit).sum(dim=1).abs().max()) < 1e-12
