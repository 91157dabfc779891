"""How far each kernel is from float64, by dtype: of the loss, and of the gradients of the features and the weight.

python benchmarks/accuracy.py [--batch 256] [--classes 10000] [--size 512] [--device cpu] [--save]
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from angulus import class_loss, losses
from angulus.kernels import fused
from harness import options, run, show, store
from head import MV_IAM, Shape

OBJECTIVES = {
    "ArcFace, s = 16": losses.arcface(16.0, 0.5),
    "ArcFace, s = 64": losses.arcface(64.0, 0.5),
    "MV + IAM, s = 32": MV_IAM,
    "softmax": losses.softmax(),
}


@dataclass(frozen=True)
class Error:
    """‖computed − exact‖ / ‖exact‖ of the rows' losses, and of the gradients of features and weight."""

    objective: str
    impl: str
    dtype: str
    loss: float
    features: float
    weight: float


def errors_of(shape: Shape) -> Iterator[Error]:
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
        x, w = (tensor.to(dtype).clone().requires_grad_() for tensor in (features, weight))
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
                computed = step(objective, impl, dtype, products)
                errors = [float((a.double() - b).norm() / b.norm()) for a, b in zip(computed, exact, strict=True)]
                yield Error(name, impl, words, *errors)


def main(arguments: list[str] | None = None) -> None:
    parser = options(__doc__ or "", batch=256, classes=10_000, size=512)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    asked = parser.parse_args(arguments)
    shape = Shape(asked.batch, asked.classes, asked.size, asked.device)
    errors = list(errors_of(shape))
    show(
        f"relative error against float64: B = {shape.batch:,}, C = {shape.classes:,}, d = {shape.size}, {shape.device}",
        [
            {"objective": error.objective, "dtype": error.dtype, "impl": error.impl}
            | {"loss": f"{error.loss:.1e}", "dX": f"{error.features:.1e}", "dW": f"{error.weight:.1e}"}
            for error in errors
        ],
    )
    if asked.save:
        store("accuracy", [asdict(shape) | asdict(error) for error in errors], device=shape.device)


if __name__ == "__main__":
    run(main)
