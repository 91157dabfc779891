"""AttentionNet-56 with improved residual squeeze-excitation units, the net of MV-Softmax."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from angulus.backbones.arcface import improved_residual, output_e, stem
from angulus.backbones.layers import Backbone, ImageSize, check_dropout, check_sizes


def attention56_irse(
    in_channels: int = 3, image_size: ImageSize = 144, embedding_size: int = 512, dropout: float = 0.4
) -> Backbone:
    """AttentionNet-IRSE with [1, 1, 1] attention modules: a trunk whose maps a second way down and up weights.

    conv 3x3 (stride 1), 64 - batch norm - PReLU - unit 64 (stride 2) - attention (3 halvings) - unit 128 (stride 2) -
    attention (2) - unit 256 (stride 2) - attention (1) - units 512 (stride 2), 512, 512 - output E: batch norm -
    dropout - FC embedding_size - batch norm. A unit is ArcFace's improved residual with squeeze-excitation, in
    both trunk and masks. 46,589,268 parameters at 3x144x144 with 512-D features; 38,200,660 at 3x112x112.

    Args:
        image_size: sides in pixels, >= 16; 144 in the paper.
        embedding_size: 512 in the paper.
        dropout: share of the last map set to zero in training, in [0, 1); ArcFace's is 0.4.

    Source: "Mis-classified vector guided softmax loss for face recognition" (MV), "CNN architecture": the attention net
    of Wang, Jiang, Qian, Yang, Li, Zhang, Wang, Tang, "Residual attention network for image classification", CVPR 2017,
    Table 2 (Attention-56: one module per stage), with the units of ArcFace.

    Differs: unknown in detail, since MV gives neither widths nor stem nor head and no code for the net. Chosen here:
    ArcFace's stem, widths (64 to 512, units of two 3x3 convolutions, where the attention net has bottlenecks of 256 to
    2048) and output E.

    >>> import torch
    >>> attention56_irse(image_size=16, embedding_size=5)(torch.zeros(2, 3, 16, 16)).shape
    torch.Size([2, 5])
    """
    sides = check_sizes("attention56_irse", in_channels, image_size, embedding_size, smallest=16)
    layers = stem(in_channels, 64)
    for below, channels, halvings in ((64, 64, 3), (64, 128, 2), (128, 256, 1)):
        layers += [_unit(below, channels, 2), Attention(channels, halvings)]
    layers += [_unit(256, 512, 2), _unit(512, 512), _unit(512, 512)]
    layers += output_e(512, sides, embedding_size, check_dropout(dropout))
    return Backbone(layers, in_channels, sides, embedding_size)


class Attention(nn.Module):
    """An attention module: last((1 + M(x)) · T(x)), with x = first(inputs), trunk T of two units and mask M in (0, 1).

    The mask goes down by max-pools and up by bilinear interpolation, one unit a step (r = 1), then twice batch norm -
    PReLU - conv 1x1, and sigmoid.

    Source: Wang et al., section 3, eq. 3 and Figure 2, with p = 1, t = 2, r = 1.
    """

    def __init__(self, channels: int, halvings: int) -> None:
        super().__init__()
        self.first, self.last = _unit(channels, channels), _unit(channels, channels)
        self.trunk = nn.Sequential(_unit(channels, channels), _unit(channels, channels))
        pointwise = [*_pointwise(channels), *_pointwise(channels)]
        self.mask = nn.Sequential(_Hourglass(channels, halvings), *pointwise, nn.Sigmoid())

    def forward(self, maps: Tensor) -> Tensor:
        """Map [B, channels, height, width] to the same shape."""
        maps = self.first(maps)
        return cast(Tensor, self.last((1 + self.mask(maps)) * self.trunk(maps)))


class _Hourglass(nn.Module):
    """Halves the maps, works on them (with another hourglass inside), and brings them back to their size."""

    def __init__(self, channels: int, halvings: int) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.down, self.up = _unit(channels, channels), _unit(channels, channels)
        self.inner = _Hourglass(channels, halvings - 1) if halvings > 1 else None
        self.skip = _unit(channels, channels) if halvings > 1 else None

    def forward(self, maps: Tensor) -> Tensor:
        low = self.down(self.pool(maps))
        if self.inner is not None and self.skip is not None:
            low = self.inner(low) + self.skip(low)
        return F.interpolate(self.up(low), size=maps.shape[2:], mode="bilinear", align_corners=True)


def _unit(below: int, channels: int, stride: int = 1) -> nn.Module:
    return improved_residual(below, channels, stride, squeeze_excitation=True)


def _pointwise(channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels), nn.PReLU(channels), nn.Conv2d(channels, channels, 1, bias=False)]
