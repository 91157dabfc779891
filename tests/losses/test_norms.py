"""Features from 1e-30 to 1e30 long, in every dtype and by every kernel: as float64 has it, or a sentence."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor

from angulus import DenseHead, InputError, ShardedHead, class_loss, losses
from angulus.losses import Objective
from angulus.losses.margins import AdditiveAngle

L = losses
OBJECTIVES: dict[str, Objective] = {
    "softmax": L.softmax(),
    "softmax with bias": L.softmax(bias=True),
    "weight-normalised": L.weight_normalized(),
    "softmax and IAM": L.softmax() + L.iam(0.1, 30.0),
    "A-Softmax": L.sphereface(4),
    "L-Softmax": L.l_softmax(4),
    "ArcFace": L.arcface(64, 0.5),
    "NormFace with eps": L.normface(20, learn=False, eps=1e-3),
    "L2-softmax": L.l2_softmax(30.0),
    "MV": L.mv_softmax(32, AdditiveAngle(0.5), 0.3, "adaptive"),
    "contraction": L.cm_softmax(),
    "C-triplet": L.c_triplet(),
    "C-triplet, hardest class": L.c_triplet(classes="hardest", center="additive"),
}
EXPONENTS = {torch.float64: 10, torch.float32: 3, torch.bfloat16: 5, torch.float16: 2}
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-3, torch.bfloat16: 0.05, torch.float16: 0.02}
WEIGHT = torch.randn(11, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
DIRECTIONS = torch.nn.functional.normalize(
    torch.randn(12, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
)


def gradients(features: Tensor, weight: Tensor, objective: Objective, impl: str) -> tuple[Tensor, Tensor, Tensor]:
    leaves = features.clone().requires_grad_(), weight.clone().requires_grad_()
    bias = torch.zeros(len(weight), dtype=weight.dtype) if objective.bias else None
    labels = torch.arange(len(features)) % len(weight)
    loss = class_loss(*leaves, labels, objective, bias=bias, impl=impl)
    return (loss.detach(), *torch.autograd.grad(loss, leaves))


@pytest.mark.parametrize("rows", [6, 12], ids=["kept products", "multiplied again"])
@pytest.mark.parametrize("dtype", EXPONENTS, ids=str)
@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES.keys())
def test_any_norm(objective: Objective, dtype: torch.dtype, rows: int) -> None:
    for exponent in range(-30, 31, EXPONENTS[dtype]):
        features, weight = (DIRECTIONS[:rows] * 10.0**exponent).to(dtype), WEIGHT.to(dtype)
        if not bool(torch.isfinite(features).all()) or (features == 0).all():
            continue
        loss, of_features, of_weight = gradients(features.double(), weight.double(), objective, "reference")
        for impl in ("reference", "chunked"):
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always")
                found = gradients(features, weight, objective, impl)
            overflow = [each for each in warned if "exceeds float16's 65504" in str(each.message)]
            if dtype == torch.float16 and float(of_features.abs().max()) > 65504:
                assert overflow
                continue
            assert not overflow
            for name, got, right in zip(("loss", "dX", "dW"), found, (loss, of_features, of_weight), strict=True):
                worst = float((got.double() - right).norm())
                # float16 holds nothing below 6e-8
                least = 1e-6 if dtype == torch.float16 else 0.0
                assert worst <= TOLERANCE[dtype] * float(right.norm()) + least, (
                    f"{impl}: {name} at norm 1e{exponent}: {worst:.3g} from one of {float(right.norm()):.3g}"
                )


def test_what_float32_cannot_hold_is_said() -> None:
    features = torch.tensor([[1e30, 0.0], [0.0, 1.0]])
    with pytest.raises(InputError, match="the loss is not finite at row 0"):
        class_loss(features, torch.eye(2), torch.tensor([0, 1]), L.softmax() + L.feature_incay(0.1, "linear"))


LINEAR = {
    "softmax": (L.softmax(), False),
    "softmax with bias": (L.softmax(bias=True), False),
    "weight-normalised": (L.weight_normalized(), True),
    "features times 3": (Objective(radius=losses.radius.Identity(3.0)), True),
    "L-Softmax": (L.l_softmax(4), False),
    "A-Softmax": (L.sphereface(4), True),
    "MV": (L.mv_softmax(1, AdditiveAngle(0.5), 0.3, "fixed").replace(radius=losses.radius.Identity()), True),
}


@pytest.mark.parametrize("length", [0.0, 1e-12, 1e-25, 1e-36, 1e-44])
@pytest.mark.parametrize("impl", ["reference", "chunked", "fused", "blocked"])
@pytest.mark.parametrize("dtype", EXPONENTS, ids=str)
@pytest.mark.parametrize(("objective", "unit"), LINEAR.values(), ids=LINEAR.keys())
def test_a_zero_feature_has_the_gradient_of_cross_entropy(
    objective: Objective, unit: bool, dtype: torch.dtype, impl: str, length: float
) -> None:
    """W^T (p − 1_y), by F.cross_entropy; margins and raised negatives, which have no angle there, leave it so."""
    if objective.margin is not None:
        length = 0.0
    if impl == "fused":
        pytest.importorskip("triton")
    features = (DIRECTIONS[:3] * length).to(dtype).requires_grad_()
    labels, weight = torch.tensor([0, 1, 2]), WEIGHT.to(dtype)
    bias = torch.linspace(-1, 1, len(weight), dtype=dtype) if objective.bias else None
    factor = objective.radius.factor if isinstance(objective.radius, losses.radius.Identity) else 1.0
    truth = features.detach().double().requires_grad_()
    rows = weight.double() / weight.double().norm(dim=1, keepdim=True) if unit else weight.double()
    logits = factor * truth @ rows.T + (0 if bias is None else bias.double())
    (right,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, labels), truth)
    loss = class_loss(features, weight, labels, objective, bias=bias, impl=impl)
    (found,) = torch.autograd.grad(loss, features)
    assert float(right.abs().max()) > 0.01
    torch.testing.assert_close(found.double(), right, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * 0.1)


@pytest.mark.parametrize("objective", [each for each, _ in LINEAR.values()], ids=LINEAR.keys())
def test_heads_and_logits_have_it_too(objective: Objective) -> None:
    labels = torch.tensor([0, 1, 2])
    for head in (DenseHead(8, 11, objective), ShardedHead(8, 11, objective)):
        gradients = []
        for loss in (head, lambda x, y, head=head: torch.nn.functional.cross_entropy(head.logits(x), y)):
            features = torch.zeros(3, 8, requires_grad=True)
            value = loss(features, labels)
            if value.requires_grad:  # a sharded head's logits are for evaluation
                gradients += torch.autograd.grad(value, features)
        for gradient in gradients:
            torch.testing.assert_close(gradient, gradients[0])
            assert bool((gradient.norm(dim=1) > 0.01).all())
