"""The gradient of ArcFace against the paper's equation, by the angle between a feature and its own class weight.

    python benchmarks/gradient.py [--classes 10000] [--save]

Compares the gradient of the features with float64 autograd of s·cos(θ + m), written out in `equation`, for
Angulus, for pytorch-metric-learning's ArcFaceLoss (if it is installed) and for a margin that is added without gradient,
so that ∂logit/∂cosθ is s instead of s·sin(θ + m)/sinθ. That is what insightface's `CombinedMarginLoss` does
(recognition/arcface_torch/losses.py, the block under `torch.no_grad()`; it is not on PyPI, so its rule is measured, not
its code).
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from angulus import class_loss, losses
from harness import Row, options, run, show, store

S, M, SIZE, BATCH = 64.0, 0.5, 512, 256
ANGLES = (0, 45, 60, 75, 90, 150)  # degrees between a feature and its class weight


def cosines(x: Tensor, w: Tensor) -> Tensor:
    return F.normalize(x) @ F.normalize(w).T


def equation(x: Tensor, w: Tensor, labels: Tensor) -> Tensor:
    """ArcFace, equation 3: cos(θ + m) = cosθ·cos m − sinθ·sin m, with the gradient of both terms."""
    cos = cosines(x, w)
    target = cos.gather(1, labels[:, None])
    sine = (1 - target.square()).clamp_min(1e-24).sqrt()
    margined = target * math.cos(M) - sine * math.sin(M)
    return F.cross_entropy(S * cos.scatter(1, labels[:, None], margined), labels)


def margin_without_gradient(x: Tensor, w: Tensor, labels: Tensor) -> Tensor:
    """The same loss, with the difference between cos(θ + m) and cosθ as a constant."""
    cos = cosines(x, w)
    target = cos.gather(1, labels[:, None])
    with torch.no_grad():
        shift = (target.clamp(-1, 1).acos() + M).cos() - target
    return F.cross_entropy(S * cos.scatter(1, labels[:, None], target + shift), labels)


def angulus_loss(x: Tensor, w: Tensor, labels: Tensor) -> Tensor:
    return class_loss(x, w, labels, losses.arcface(s=S, m=M), impl="chunked")


def metric_learning_loss(x: Tensor, w: Tensor, labels: Tensor) -> Tensor:
    """pytorch-metric-learning keeps the weights as [d, C] and the margin in degrees."""
    from pytorch_metric_learning.losses import ArcFaceLoss

    loss = ArcFaceLoss(len(w), SIZE, margin=math.degrees(M), scale=S)
    loss.W.data = w.T.contiguous()
    value: Tensor = loss(x, labels)
    return value


def gradient(loss: Callable[[Tensor, Tensor, Tensor], Tensor], x: Tensor, w: Tensor, labels: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(loss(x, w, labels), x)[0].double()


def at_angle(degrees: float, w: Tensor, labels: Tensor) -> Tensor:
    """Features of length 1 that lie at that angle to their class weights."""
    own = F.normalize(w[labels])
    other = torch.randn_like(own)
    other = F.normalize(other - (other * own).sum(1, keepdim=True) * own)
    return math.cos(math.radians(degrees)) * own + math.sin(math.radians(degrees)) * other


def main(arguments: list[str] | None = None) -> None:
    asked = options(__doc__ or "", classes=10_000).parse_args(arguments)
    torch.manual_seed(0)
    w = torch.randn(asked.classes, SIZE, dtype=torch.float64)
    labels = torch.randint(asked.classes, (BATCH,))
    compared = {"angulus": angulus_loss, "margin without gradient": margin_without_gradient}
    if importlib.util.find_spec("pytorch_metric_learning"):
        compared["pytorch-metric-learning"] = metric_learning_loss
    rows: list[Row] = []
    for degrees in ANGLES:
        x = at_angle(degrees, w, labels)
        exact = gradient(equation, x, w, labels)
        for name, loss in compared.items():
            computed = gradient(loss, x.float(), w.float(), labels)
            finite = bool(computed.isfinite().all())
            # at 0° the gradient has no limit
            error = float((computed - exact).norm() / exact.norm()) if degrees and finite else None
            rows.append({"what": name, "degrees": degrees, "classes": asked.classes, "finite": finite, "error": error})
    show(
        f"gradient of ArcFace against the equation, {asked.classes:,} classes",
        [
            {
                "loss": row["what"],
                "degrees": str(row["degrees"]),
                "gradient": "finite" if row["finite"] else "NaN or infinite",
                "relative error": "" if row["error"] is None else f"{row['error']:.1e}",
            }
            for row in rows
        ],
    )
    if asked.save:
        store("gradient", rows, "pytorch-metric-learning")


if __name__ == "__main__":
    run(main)
