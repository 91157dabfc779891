"""Values and gradients of the losses that pytorch-metric-learning has too, on random inputs in float64.

    pip install pytorch-metric-learning==2.9.0
    python benchmarks/peers.py [--batch 64] [--classes 20] [--size 16] [--trials 20] [--save]

Half of the features lie at random angles to their class weight, from 0 to 180 degrees, and half are random; their
lengths vary. A difference is the largest one over all trials, as a share of the largest value.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from angulus import class_loss, losses
from angulus.core.checks import InputError
from harness import Row, options, run, show, store

PACKAGE = "pytorch-metric-learning"
SAME = 1e-9  # a larger difference than rounding in float64 makes


@dataclass(frozen=True)
class Pair:
    """A loss of Angulus and the peer's class of the same name.

    Args:
        ours: the objective.
        peer: the name of the peer's class.
        arguments: those that make it the same loss.
        weight: the name of its class weights.
        transposed: they are [d, C].
        centers: rows of weight per class.
        note: why the two differ, or "".
    """

    ours: losses.Objective
    peer: str
    arguments: dict[str, Any]
    weight: str = "W"
    transposed: bool = True
    centers: int = 1
    note: str = ""


def pairs() -> dict[str, Pair]:
    degrees = math.degrees(0.5)
    return {
        "normface": Pair(losses.normface(20, learn=False), "NormalizedSoftmaxLoss", {"temperature": 1 / 20}),
        "cosface": Pair(losses.cosface(64, 0.35), "CosFaceLoss", {"margin": 0.35, "scale": 64}),
        "arcface": Pair(losses.arcface(64, 0.5), "ArcFaceLoss", {"margin": degrees, "scale": 64}),
        "sphereface": Pair(losses.sphereface(4), "SphereFaceLoss", {"margin": 4, "scale": 1}),
        "l_softmax": Pair(losses.l_softmax(4), "LargeMarginSoftmaxLoss", {"margin": 4, "scale": 1}),
        "subcenter_arcface": Pair(
            losses.subcenter_arcface(64, 0.5, 3),
            "SubCenterArcFaceLoss",
            {"margin": degrees, "scale": 64, "sub_centers": 3},
            centers=3,
        ),
        "soft_triple": Pair(
            losses.soft_triple(tau=0),
            "SoftTripleLoss",
            {"centers_per_class": 10},
            weight="fc",
            centers=10,
            note="the peer has no regulariser: tau = 0 here",
        ),
        "proxy_anchor": Pair(losses.proxy_anchor(), "ProxyAnchorLoss", {}, weight="proxies", transposed=False),
    }


def peer_loss(pair: Pair, classes: int, weight: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """The peer's loss, with our class weights."""
    import pytorch_metric_learning.losses as peers

    loss = getattr(peers, pair.peer)(num_classes=classes, embedding_size=weight.shape[1], **pair.arguments)
    getattr(loss, pair.weight).data = (weight.T if pair.transposed else weight).contiguous().clone()
    return loss  # type: ignore[no-any-return]


def inputs(batch: int, classes: int, centers: int, size: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """(features, class weights, labels)."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(classes * centers, size, dtype=torch.float64, generator=generator)
    labels = torch.randint(classes, (batch,), generator=generator)
    features = torch.randn(batch, size, dtype=torch.float64, generator=generator)
    angle = math.pi * torch.rand(batch // 2, 1, dtype=torch.float64, generator=generator)
    own = F.normalize(weight[labels[: batch // 2] * centers])
    aside = features[: batch // 2] - (features[: batch // 2] * own).sum(1, keepdim=True) * own
    features[: batch // 2] = angle.cos() * own + angle.sin() * F.normalize(aside)
    lengths = torch.exp(torch.randn(batch, 1, dtype=torch.float64, generator=generator))
    return features * lengths, weight, labels


def difference(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / ours.abs().max())


def compare(pair: Pair, batch: int, classes: int, size: int, seed: int) -> dict[str, float]:
    """The differences of one trial."""
    features, weight, labels = inputs(batch, classes, pair.centers, size, seed)
    x, w = features.clone().requires_grad_(), weight.clone().requires_grad_()
    value = class_loss(x, w if pair.centers == 1 else w.view(classes, pair.centers, -1), labels, pair.ours)
    mine = [value, *torch.autograd.grad(value, [x, w])]
    loss: Any = peer_loss(pair, classes, weight)
    x = features.clone().requires_grad_()
    value = loss(x, labels)
    by_features, by_weight = torch.autograd.grad(value, [x, getattr(loss, pair.weight)])
    theirs = [value, by_features, by_weight.T if pair.transposed else by_weight]
    named = zip(("value", "gradient of features", "gradient of weight"), mine, theirs, strict=True)
    return {name: difference(own.detach(), other.detach()) for name, own, other in named}


def compare_memory(batch: int, size: int, classes: int, seed: int) -> dict[str, float]:
    """The largest differences of five steps with a memory of three batches."""
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.losses import ContrastiveLoss, CrossBatchMemory

    base, margin, rows = losses.normface(1, learn=False), 0.2, 3 * batch
    ours = (base + losses.cross_batch_memory(rows, margin)).bind(size, classes).double()
    theirs: Any = CrossBatchMemory(ContrastiveLoss(1, margin, distance=CosineSimilarity()), size, rows)
    found: dict[str, float] = {"value": 0.0, "gradient of features": 0.0}
    for step in range(5):
        features, weight, labels = inputs(batch, classes, 1, size, 5 * seed + step)
        both = []
        for loss in (
            lambda x, w=weight, y=labels: class_loss(x, w, y, ours) - class_loss(x, w, y, base),
            lambda x, y=labels: theirs(x, y),
        ):
            x = features.clone().requires_grad_()
            value = loss(x)
            both.append((value.detach(), torch.autograd.grad(value, x)[0]))
        for name, own, other in zip(found, *both, strict=True):
            found[name] = max(found[name], difference(own, other))
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = options(__doc__ or "", batch=64, classes=20, size=16, trials=20)
    asked = parser.parse_args(arguments)
    try:
        import pytorch_metric_learning  # noqa: F401
    except ImportError as error:
        raise InputError(f"this compares with {PACKAGE}, which is not installed: pip install {PACKAGE}") from error
    rows: list[Row] = []
    for name, pair in pairs().items():
        trials = [compare(pair, asked.batch, asked.classes, asked.size, seed) for seed in range(asked.trials)]
        worst = {key: max(trial[key] for trial in trials) for key in trials[0]}
        rows.append({"loss": name, "peer": pair.peer, **worst, "same": max(worst.values()) < SAME, "note": pair.note})
    trials = [compare_memory(asked.batch, asked.size, asked.classes, seed) for seed in range(asked.trials)]
    worst = {key: max(trial[key] for trial in trials) for key in trials[0]}
    memory = {"loss": "cross_batch_memory", "peer": "CrossBatchMemory", **worst, "gradient of weight": "has none"}
    rows.append({**memory, "same": max(worst.values()) < SAME, "note": "of ContrastiveLoss, over five steps"})
    show(
        f"largest difference from {PACKAGE} over {asked.trials} trials, as a share of the largest value",
        [
            {key: f"{value:.1e}" if isinstance(value, float) else str(value) for key, value in row.items()}
            for row in rows
        ],
    )
    if asked.save:
        store("peers", rows, PACKAGE)


if __name__ == "__main__":
    run(main)
