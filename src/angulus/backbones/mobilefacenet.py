"""MobileFaceNet, for phones."""

from __future__ import annotations

from torch import nn

from angulus.backbones.layers import Backbone, FeatureLayer, ImageSize, Residual, check_sizes

_STAGES = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))  # t, c, n, s of Table 1


def mobilefacenet(in_channels: int = 3, image_size: ImageSize = 112, embedding_size: int = 128) -> Backbone:
    """The paper's primary MobileFaceNet: inverted residuals, and a depthwise convolution over the whole last map.

    conv 3x3 (stride 2), 64 - depthwise 3x3, 64 - bottlenecks (expansion, channels, repeats, first stride): (2, 64, 5,
    2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1) - conv 1x1, 512 - depthwise over the map (7x7) -
    FC embedding_size. Batch norm follows every layer, and PReLU with one slope per channel all but the linear ones: the
    ends of bottlenecks, and the last two layers. A bottleneck is conv 1x1 - depthwise 3x3 - conv 1x1, added to its
    input where the shape stays.

    1,003,136 parameters at 3x112x112 with 128-D features; the paper's 0.99 million is 993,344, where each batch norm is
    folded into the layer below it. 221 million multiplications, the paper's. (What is elsewhere called MobileFaceNet
    with 512-D features is often another net: twice as wide, or deeper.)

    Args:
        image_size: sides in pixels, >= 16; 112 in the paper.
        embedding_size: 128 in the paper.

    Source: Chen, Liu, Gao, Han, "MobileFaceNets: efficient CNNs for accurate real-time face verification on mobile
    devices", CCBR 2018, section 3.3 and Table 1.

    Differs: the last 1x1 convolution, over a map of one pixel, is written as the linear layer that it is.

    >>> import torch
    >>> mobilefacenet(image_size=16)(torch.zeros(2, 3, 16, 16)).shape
    torch.Size([2, 128])
    """
    sides = check_sizes("mobilefacenet", in_channels, image_size, embedding_size, smallest=16)
    layers = [*_convolution(in_channels, 64, 3, 2), nn.PReLU(64), *_depthwise(64, 3), nn.PReLU(64)]
    below = 64
    for expansion, channels, repeats, stride in _STAGES:
        for repeat in range(repeats):
            layers.append(_bottleneck(below, channels, below * expansion, stride if repeat == 0 else 1))
            below = channels
    rows, columns = (-(-side // 16) for side in sides)
    whole = nn.Conv2d(512, 512, (rows, columns), groups=512, bias=False)
    layers += [*_convolution(below, 512, 1), nn.PReLU(512), whole, nn.BatchNorm2d(512), nn.Flatten()]
    layers += [FeatureLayer(512, embedding_size, bias=False), nn.BatchNorm1d(embedding_size)]
    return Backbone(layers, in_channels, sides, embedding_size)


def _bottleneck(below: int, channels: int, hidden: int, stride: int) -> nn.Module:
    layers = [*_convolution(below, hidden, 1), nn.PReLU(hidden), *_depthwise(hidden, 3, stride), nn.PReLU(hidden)]
    branch = nn.Sequential(*layers, *_convolution(hidden, channels, 1))
    return Residual(branch) if stride == 1 and below == channels else branch


def _depthwise(channels: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    return _convolution(channels, channels, kernel, stride, groups=channels)


def _convolution(below: int, channels: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(below, channels, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(channels)]
