"""Distances between the sub-centres of a class, and their gradient, from one small product per class."""

from __future__ import annotations

import torch
from torch import Tensor

from angulus.kernels.reduction import lengths, mean_distances

NEAR = 0.25  # of a squared distance; below it 2 − 2 cos loses digits, and the difference itself is squared


def spread(weight: Tensor, eps: float) -> Tensor:
    """`mean_distances(weight, eps)` of weights [C, K, d], K ≥ 2; without gradient."""
    _, squared, _, near = _squared(weight)
    first, second = torch.triu_indices(weight.shape[1], weight.shape[1], 1, device=weight.device)
    distances = (squared[:, first, second] + eps).sqrt().mean(dim=1).masked_fill(near, 0.0)
    return distances.sum() + (mean_distances(weight[near], eps) if bool(near.any()) else 0.0)


def spread_gradient(weight: Tensor, eps: float) -> Tensor:
    """The gradient of `mean_distances(weight, eps)`, [C, K, d].

    Of √(2 − 2 û_k·û_l + eps) by û_k it is −û_l / √…; what lies along û_k itself does not change w_k's direction.
    """
    unit, squared, inverse, near = _squared(weight)
    count = weight.shape[1]
    shares = (squared + eps).rsqrt_().div_(-count * (count - 1) / 2)
    shares.diagonal(dim1=1, dim2=2).zero_()
    gradient = torch.bmm(shares, unit)
    along = (gradient * unit).sum(dim=2, keepdim=True)
    gradient.sub_(unit.mul_(along)).mul_(inverse)
    if bool(near.any()):
        with torch.enable_grad():
            leaf = weight[near].detach().requires_grad_()
            (gradient[near],) = torch.autograd.grad(mean_distances(leaf, eps), leaf)
    return gradient


def _squared(weight: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Unit rows, squared distances [C, K, K], 1 / lengths [C, K, 1], and the classes [C] that need the differences."""
    norms = torch.linalg.vector_norm(weight, dim=2)
    inverse = lengths(weight.flatten(0, 1)).reciprocal().view(*weight.shape[:2], 1)
    unit = weight * inverse
    squared = torch.bmm(unit, unit.transpose(1, 2)).mul_(-2).add_(2)
    squared.diagonal(dim1=1, dim2=2).fill_(2.0)
    near = (squared < NEAR).flatten(1).any(dim=1) | (norms == 0).any(dim=1)
    return unit, squared, inverse, near
