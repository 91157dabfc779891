"""ResNet-34 and ResNet-50, with a feature layer in the place of their classes."""

from __future__ import annotations

from torch import nn

from angulus.backbones.layers import Backbone, FeatureLayer, ImageSize, Residual, check_sizes, initialize_he

_DEPTHS = (3, 4, 6, 3)  # units in the four stages, of both


def resnet(net: str, /, in_channels: int, image_size: ImageSize, embedding_size: int) -> Backbone:
    """A residual net: "resnet34" with two 3x3 convolutions a unit, "resnet50" with a bottleneck.

    conv 7x7 (stride 2), 64 - batch norm - ReLU - max-pool 3x3 (stride 2) - 3, 4, 6 and 3 units with 64, 128, 256 and
    512 channels, the first of the last three stages with stride 2 - mean over the map - FC embedding_size.

    ========  =========================================  ============  =======================
    net       unit, each conv followed by batch norm     channels      parameters below the FC
    ========  =========================================  ============  =======================
    resnet34  3x3 - ReLU - 3x3                           64 ... 512    21,284,672
    resnet50  1x1 - ReLU - 3x3 - ReLU - 1x1, 4 x wider   256 ... 2048  23,508,032
    ========  =========================================  ============  =======================

    A unit ends in the sum with its input (projected by 1x1 where the shape changes) and ReLU.

    Arguments:
        net: the name.
        in_channels: channels of an image, >= 1.
        image_size: height and width in pixels, or one number for both, >= 32; the paper's is 224, CM's faces have 128.
        embedding_size: size of a feature, >= 1.

    Raises:
        InputError: a size is too small.

    Source: He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016, Table 1 and section 4.1
    (projection shortcuts, option B). A bottleneck strides in its first 1x1 convolution, as there; the later habit is
    the 3x3 one.

    Differs: a feature layer stands for the 1000 classes; the contraction-mapping paper does not say how it takes its
    features, nor their size.

    >>> import torch
    >>> resnet("resnet34", 1, 32, 7)(torch.zeros(2, 1, 32, 32)).shape
    torch.Size([2, 7])
    """
    sides = check_sizes(net, in_channels, image_size, embedding_size, smallest=32)
    widen = 4 if net == "resnet50" else 1
    layers = [*_convolution(in_channels, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1)]
    below = 64
    for stage, (depth, width) in enumerate(zip(_DEPTHS, (64, 128, 256, 512), strict=True)):
        for unit in range(depth):
            stride = 2 if unit == 0 and stage > 0 else 1
            layers.append(_unit(below, width, widen, stride))
            below = width * widen
    body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), FeatureLayer(below, embedding_size))
    initialize_he(body)
    return Backbone(body, in_channels, sides, embedding_size)


def _unit(below: int, width: int, widen: int, stride: int) -> nn.Module:
    if widen == 1:
        branch = [*_convolution(below, width, 3, stride), nn.ReLU(), *_convolution(width, width, 3)]
    else:
        branch = [*_convolution(below, width, 1, stride), nn.ReLU(), *_convolution(width, width, 3), nn.ReLU()]
        branch += _convolution(width, width * widen, 1)
    same = stride == 1 and below == width * widen
    shortcut = None if same else nn.Sequential(*_convolution(below, width * widen, 1, stride))
    return nn.Sequential(Residual(nn.Sequential(*branch), shortcut), nn.ReLU())


def _convolution(below: int, channels: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(below, channels, kernel, stride=stride, padding=kernel // 2, bias=False)
    return [convolution, nn.BatchNorm2d(channels)]
