"""Batch norm over the rows of all ranks, on any device (PyTorch's own needs CUDA)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from angulus.distributed.collectives import gather
from angulus.distributed.runtime import Ranks


class SyncedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """(x − mean) / √(var + eps) · weight + bias, with the mean and variance over the rows of all ranks.

    It replaces a `BatchNorm1d`, `2d` or `3d` and takes over its parameters and buffers, under the same names. The
    count, mean and variance of each rank are gathered in one small exchange per layer, with its true adjoint; ranks may
    have different numbers of rows. In eval mode it behaves like the layer that it replaced.
    """

    def __init__(self, layer: nn.modules.batchnorm._BatchNorm, ranks: Ranks) -> None:
        super().__init__(layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats)
        self.ranks = ranks
        self.weight, self.bias = layer.weight, layer.bias
        self.running_mean, self.running_var = layer.running_mean, layer.running_var
        self.num_batches_tracked = layer.num_batches_tracked
        self.train(layer.training)

    def _check_input_dim(self, input: Tensor) -> None:
        pass  # the replaced layer has checked it

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        others = [0, *range(2, input.ndim)]
        values = input.to(torch.promote_types(input.dtype, torch.float32))
        mean = values.mean(others)
        variance = values.var(others, unbiased=False)
        count = torch.full_like(mean[:1], values.numel() / values.shape[1])
        table = gather(torch.cat([count, mean, variance])[None], [1] * self.ranks.count, self.ranks)
        counts, means, variances = table[:, :1], *table[:, 1:].chunk(2, dim=1)
        total = counts.detach().sum()
        mean = (counts.detach() * means).sum(0) / total
        variance = (counts.detach() * (variances + (means - mean) ** 2)).sum(0) / total
        self._track(mean.detach(), variance.detach(), total)
        shape = [1, -1, *[1] * (input.ndim - 2)]
        normal = (values - mean.view(shape)) * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            normal = normal * self.weight.view(shape) + self.bias.view(shape)
        return normal.to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Update the running figures as PyTorch's layer does, with the unbiased variance."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        rate = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), rate)
        self.running_var.lerp_((variance * count / (count - 1).clamp_min(1)).to(self.running_var), rate)


def synchronized(module: nn.Module, ranks: Ranks) -> nn.Module:
    """The module, with each of its batch norms replaced by one over all ranks."""
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return SyncedBatchNorm(module, ranks)
    for name, child in module.named_children():
        setattr(module, name, synchronized(child, ranks))
    return module
