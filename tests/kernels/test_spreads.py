"""Distances between sub-centres: against autograd of the differences, also where rows are near, equal or zero."""

import pytest
import torch

from angulus.kernels.reduction import mean_distances
from angulus.kernels.spreads import add_spread_gradient, spread


@pytest.mark.parametrize("eps", [0.0, 1e-3])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 3e-6)], ids=str)
def test_equals_autograd_of_the_differences(eps: float, dtype: torch.dtype, tolerance: float) -> None:
    weight = torch.randn(12, 4, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weight[3, 1] = 2 * weight[3, 0] + 1e-3 * weight[4, 0]  # near
    weight[5, 2] = 0.0
    weight[7, 3] = weight[7, 0]
    weight[8, 1] *= 1e-16
    weight[9, 1] = -weight[9, 0]
    leaf = weight.clone().requires_grad_()
    expected = mean_distances(leaf, eps)
    (gradient,) = torch.autograd.grad(expected, leaf)
    found, own = spread(weight.to(dtype), eps), torch.ones(12, 4, 7, dtype=dtype)
    add_spread_gradient(own, weight.to(dtype), eps, torch.tensor(2.0, dtype=dtype))
    own = (own - 1) / 2
    torch.testing.assert_close(found.double(), expected.detach(), rtol=tolerance, atol=0.0)
    others = ~torch.isin(torch.arange(12), torch.tensor([3, 8]))  # near or short rows, whose gradients are large
    torch.testing.assert_close(own.double()[others], gradient[others], rtol=10 * tolerance, atol=tolerance)
    short = torch.arange(12) == 8
    torch.testing.assert_close(own.double()[~short], gradient[~short], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(own.double()[short], gradient[short], rtol=1e-5, atol=tolerance)
