"""Distances between the sub-centres of a class, and their gradient, from the products of a class's own rows."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from angulus.kernels.reduction import mean_distances

NEAR = 0.25  # of a squared distance; below it 2 − 2 cos loses digits, and the difference itself is squared
SHORT = 1e-12  # of a length; the squares of shorter rows lose digits
AT_ONCE = 1 << 19  # elements of all differences between near rows


def spread(weight: Tensor, eps: float) -> Tensor:
    """`mean_distances(weight, eps)` of weights [C, K, d], K ≥ 2; without gradient."""
    cosines, _, far = _cosines(weight)
    first, second = torch.triu_indices(weight.shape[1], weight.shape[1], 1, device=weight.device)
    distances = (2 - 2 * cosines[:, first, second] + eps).sqrt_().mean(dim=1)
    total = torch.where(far, distances, 0.0).sum()
    for chosen in _parts(far, weight):
        total += mean_distances(weight[chosen], eps)
    return total


def add_spread_gradient(gradient: Tensor, weight: Tensor, eps: float, factor: Tensor) -> None:
    """Add `factor` times the gradient of `mean_distances(weight, eps)` to a gradient [C, K, d].

    With c_kl = 1 / (√(2 − 2 cos_kl + eps) · pairs), that of w_k is Σ_l c_kl (cos_kl ŵ_k − ŵ_l) / ‖w_k‖: a matrix [K, K]
    times the rows of the class.
    """
    cosines, inverse, far = _cosines(weight)
    count = weight.shape[1]
    shares = (2 - 2 * cosines + eps).rsqrt_().div_(count * (count - 1) / 2)
    shares.diagonal(dim1=1, dim2=2).zero_()
    along = (shares * cosines).sum(dim=2)
    shares.neg_().mul_(inverse[:, None, :]).diagonal(dim1=1, dim2=2).copy_(along * inverse)
    shares *= inverse[:, :, None]
    gradient.baddbmm_(torch.where(far[:, None, None], shares * factor, 0.0), weight)
    for chosen in _parts(far, weight):
        with torch.enable_grad():
            leaf = weight[chosen].detach().requires_grad_()
            (own,) = torch.autograd.grad(mean_distances(leaf, eps), leaf)
        gradient[chosen] += own * factor


def _cosines(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cosines [C, K, K], with 0 on the diagonal, 1 / lengths [C, K], and the classes [C] whose rows are far apart."""
    products = torch.bmm(weight, weight.transpose(1, 2))
    lengths = products.diagonal(dim1=1, dim2=2).sqrt()
    inverse = 1 / lengths
    cosines = products.mul_(inverse[:, :, None]).mul_(inverse[:, None, :])
    cosines.diagonal(dim1=1, dim2=2).zero_()
    far = (2 - 2 * cosines >= NEAR).flatten(1).all(dim=1)  # false for NaN
    return cosines, inverse, far & ((lengths > SHORT) & torch.isfinite(lengths)).all(dim=1)


def _parts(far: Tensor, weight: Tensor) -> Iterator[Tensor]:
    """The numbers of the classes that are not far, few enough at a time."""
    count, size = weight.shape[1:]
    near = (~far).nonzero().squeeze(1)
    step = max(1, AT_ONCE // (count * (count - 1) // 2 * size))
    return iter(torch.split(near, step) if len(near) else ())
