"""What class sampling loses: the sum of the negatives, the gradient, and the hardest negative, against all classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from angulus import DenseHead, losses
from angulus.core import checks
from angulus.heads.classes import class_means
from angulus.heads.sampling import ClassSampling, sample
from angulus.kernels.reduction import lengths


@dataclass(frozen=True)
class Sampled:
    """How sampled steps compare with steps that see all classes, over the batches and draws.

    Attributes:
        rate: share of the classes drawn.
        corrected: whether classes were weighed by the inverse of their chance.
        ratio: mean of the sampled Σ_{j≠y} e^{z_j} over the full one; 1 where it is unbiased.
        ratio_error: standard error of that mean.
        gradient_cos: mean cosine of the features' gradient with the full one's.
        recall: share of rows whose hardest negative is in the sample.
    """

    rate: float
    corrected: bool
    ratio: float
    ratio_error: float
    gradient_cos: float
    recall: float


def run(
    features: Tensor, labels: Tensor, rates: Sequence[float], *, s: float = 32.0, batch: int = 128, draws: int = 50
) -> Iterator[Sampled]:
    """Compare, on real features: class weights are the classes' mean directions, the loss is NormFace at s.

    Args:
        features: [N, d].
        labels: [N], every class of [0, C) among them.
        rates: shares of the classes.
        s: scale of the cosines.
        batch: rows a step; the batches go through the features in a random order.
        draws: steps for each rate.
    """
    checks.integer("draws", draws, low=2)
    classes = int(labels.max()) + 1
    objective = losses.normface(s, learn=False)
    full = DenseHead(features.shape[1], classes, objective)
    with torch.no_grad():
        full.weight.copy_(class_means(features, labels, classes))
    order = torch.Generator().manual_seed(0)
    batches = [torch.randperm(len(features), generator=order)[:batch] for _ in range(draws)]
    expected = [_step(full, features[rows], labels[rows]) for rows in batches]
    for rate in rates:
        for corrected in (False, True):
            sampling = ClassSampling(rate, corrected)
            part = DenseHead(features.shape[1], classes, objective, sampling=sampling)
            part.load_state_dict(full.state_dict())
            torch.manual_seed(0)
            ratios, cosines, found = [], [], []
            for rows, (sums, gradient) in zip(batches, expected, strict=True):
                own_sums, own_gradient = _step(part, features[rows], labels[rows])
                ratios.append(own_sums / sums)
                cosines.append(torch.cosine_similarity(own_gradient, gradient))
                found.append(_found(full, features[rows], labels[rows], sampling))
            ratio = torch.stack([each.mean() for each in ratios])
            error = float(ratio.std() / len(ratio) ** 0.5)
            recall = float(torch.cat(found).float().mean())
            yield Sampled(rate, corrected, float(ratio.mean()), error, float(torch.cat(cosines).mean()), recall)


def _step(head: DenseHead, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(Σ_{j≠y} e^{z_j − t} of each row, the gradient of the features)."""
    leaf = features.clone().requires_grad_()
    loss = head(leaf, labels, reduction="none")
    (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    return torch.expm1(loss.detach()), gradient


@torch.no_grad()
def _found(head: DenseHead, features: Tensor, labels: Tensor, sampling: ClassSampling) -> Tensor:
    """Whether each row's hardest negative is among a sample's classes, [B] of bool."""
    cosines = features @ (head.weight / lengths(head.weight)[:, None]).T
    hardest = cosines.scatter(1, labels[:, None], -torch.inf).argmax(dim=1)
    numbers = torch.arange(len(head.weight), dtype=features.dtype)[:, None]
    drawn = sample(sampling, numbers, None, labels).weight.flatten().long()
    return torch.isin(hardest, drawn)
