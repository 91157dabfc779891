"""Nets made for ImageNet, with a feature layer instead of its 1000 classes: VGG-13, ResNet-34 and ResNet-50."""

from __future__ import annotations

from torch import nn

from angulus.backbones.layers import (
    Backbone,
    FeatureLayer,
    ImageSize,
    Residual,
    check_dropout,
    check_sizes,
    feature_layers,
)
from angulus.backbones.pooling import Pool

_DEPTHS = (3, 4, 6, 3)  # units in the four stages, of both


def vgg13(
    in_channels: int = 3, image_size: ImageSize = 224, embedding_size: int = 4096, dropout: float = 0.5
) -> Backbone:
    """VGG-13 (configuration B), with its second hidden layer as linear features.

    Five stages of [conv 3x3 - ReLU] x 2 - max-pool 2, with 64, 128, 256, 512 and 512 channels, then FC 4096 - ReLU -
    dropout - FC embedding_size. 128,950,848 parameters at 3x224x224 with 4096-D features; with 1000 class weights and
    biases 133,047,848, the paper's 133 million.

    Args:
        image_size: sides in pixels, >= 32; 224 in the paper.
        embedding_size: 4096 in the paper.
        dropout: share of the first hidden layer set to zero in training, in [0, 1); 0.5 in the paper.

    Source: Simonyan, Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015,
    Table 1 (B) and Table 2.

    Differs: no ReLU and no dropout after the second hidden layer, which gives the features; and weights by He et al.
    from the start, where the paper began with those of a shallower trained net.

    >>> import torch
    >>> vgg13(image_size=32, embedding_size=5)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 5])
    """
    sides = check_sizes("vgg13", in_channels, image_size, embedding_size, smallest=32)
    layers: list[nn.Module] = []
    below = in_channels
    for channels in (64, 128, 256, 512, 512):
        for _ in range(2):
            layers += [nn.Conv2d(below, channels, 3, padding=1), nn.ReLU()]
            below = channels
        layers.append(nn.MaxPool2d(2))
    rows, columns = (side // 32 for side in sides)
    layers += [nn.Flatten(), nn.Linear(below * rows * columns, 4096), nn.ReLU(), nn.Dropout(check_dropout(dropout))]
    layers.append(FeatureLayer(4096, embedding_size))
    return Backbone(layers, in_channels, sides, embedding_size)


def resnet(
    net: str,
    /,
    in_channels: int,
    image_size: ImageSize,
    embedding_size: int,
    pooling: str = "mean",
    feature_activation: str = "none",
) -> Backbone:
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

    Args:
        image_size: sides in pixels, >= 32; 224 in the paper; CM's faces have 128.
        pooling: over the map: "mean", "gem" or "attention", see `pooling.Pool`; the mean in the paper.
        feature_activation: what follows the feature layer, see `layers.feature_layers`; "bnneck" for
            re-identification.

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
            layers.append(_unit(below, width, widen, stride=2 if unit == 0 and stage > 0 else 1))
            below = width * widen
    mean = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    layers += mean if pooling == "mean" else [Pool(pooling, below), nn.Identity()]  # either way, the same names follow
    layers += feature_layers(below, embedding_size, feature_activation)
    return Backbone(layers, in_channels, sides, embedding_size)


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
