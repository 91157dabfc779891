"""What several backbones share: the feature layer, initialisation, and checks of what they are given."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from angulus import checks
from angulus.checks import InputError


class FeatureLayer(nn.Linear):
    """The linear layer that gives the features, in float32 also under autocast.

    bfloat16 holds 8 bits of each coordinate: too few for the angles and norms that the losses read.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        """Map [B, in_features] to features [B, out_features], float32 or wider."""
        with torch.autocast(inputs.device.type, enabled=False):
            return super().forward(inputs.to(self.weight.dtype))


class UnitFeatures(nn.Module):
    """Scales each row of features to length 1; a zero row stays zero."""

    def forward(self, features: Tensor) -> Tensor:
        """Map [B, d] to [B, d]."""
        norms = torch.linalg.vector_norm(features, dim=1, keepdim=True)
        return features / torch.where(norms > 0, norms, torch.ones_like(norms))


def initialize_xavier(module: nn.Module) -> None:
    """Draw weights of convolutions and linear layers with variance 1 / fan-in, biases zero: Caffe's "xavier"."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            fan_in = layer.weight[0].numel()
            nn.init.uniform_(layer.weight, -((3 / fan_in) ** 0.5), (3 / fan_in) ** 0.5)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def check_sizes(net: str, in_channels: int, image_size: int, embedding_size: int, *, smallest: int) -> None:
    """Refuse sizes that a net cannot be built for; its pooling leaves nothing of images below `smallest` pixels."""
    checks.integer("in_channels", in_channels, low=1)
    checks.integer("image_size", image_size, low=smallest, hint=f"{net} pools smaller images away")
    checks.integer("embedding_size", embedding_size, low=1)


def check_images(images: Tensor, in_channels: int, image_size: int) -> None:
    """Refuse images that are not floats [B, in_channels, image_size, image_size]."""
    expected = (in_channels, image_size, image_size)
    if images.ndim != 4 or tuple(images.shape[1:]) != expected:
        raise InputError(f"images must have shape [batch, {', '.join(map(str, expected))}]; got {list(images.shape)}")
    if not images.is_floating_point():
        raise InputError(f"images must be floating point; got {images.dtype}; scale the bytes first")
