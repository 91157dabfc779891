"""How far each kernel is from float64, by dtype: of the loss, of the gradient of the features, and of the weight."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from angulus import class_loss, losses
from angulus.bench.head import MV_IAM, Shape
from angulus.kernels import fused

OBJECTIVES = {
    "ArcFace, s = 16": losses.arcface(16.0, 0.5),
    "ArcFace, s = 64": losses.arcface(64.0, 0.5),
    "MV + IAM, s = 32": MV_IAM,
    "softmax": losses.softmax(),
}


@dataclass(frozen=True)
class Error:
    """‖found − exact‖ / ‖exact‖ of the loss of each row, of the gradient of the features, and of that of the weight."""

    objective: str
    impl: str
    dtype: str
    loss: float
    features: float
    weight: float


def run(shape: Shape) -> Iterator[Error]:
    """Compare every kernel that runs here with float64, on random unit-free features and weights."""
    device = torch.device(shape.device)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(shape.batch, shape.size, generator=generator).to(device)
    weight = torch.randn(shape.classes, shape.size, generator=generator).to(device)
    labels = torch.randint(shape.classes, (shape.batch,), generator=generator).to(device)
    kernels = ["reference", "chunked"] + (["fused"] if fused.unavailable(device) is None else [])

    def step(
        objective: losses.Objective, impl: str, dtype: torch.dtype, products: torch.dtype | None
    ) -> tuple[Tensor, ...]:
        x, w = (each.to(dtype).clone().requires_grad_() for each in (features, weight))
        loss = class_loss(x, w, labels, objective, impl=impl, products=products, reduction="none")
        return (loss.detach(), *torch.autograd.grad(loss.sum(), (x, w)))

    settings = [
        ("float32", torch.float32, None),
        ("float32, bfloat16 products", torch.float32, torch.bfloat16),
        ("bfloat16 features and weight", torch.bfloat16, None),
    ]
    for name, objective in OBJECTIVES.items():
        exact = step(objective, "reference", torch.float64, None)
        for words, dtype, products in settings:
            for impl in kernels:
                found = step(objective, impl, dtype, products)
                errors = [_relative(a, b) for a, b in zip(found, exact, strict=True)]
                yield Error(name, impl, words, *errors)


def _relative(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())
