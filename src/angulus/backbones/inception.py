"""Inception-ResNet-V1, as FaceNet's users train it on faces."""

from __future__ import annotations

from torch import nn

from angulus.backbones.layers import (
    Backbone,
    Concatenate,
    FeatureLayer,
    ImageSize,
    Residual,
    check_dropout,
    check_sizes,
)

Kernel = int | tuple[int, int]
_EPSILON, _MOMENTUM = 0.001, 0.005  # of batch norm: FaceNet's


def inception_resnet_v1(
    in_channels: int = 3, image_size: ImageSize = 160, embedding_size: int = 512, dropout: float = 0.2
) -> Backbone:
    """Inception-ResNet-V1: residual units whose branches have kernels of several sizes.

    Stem: conv 3x3 (stride 2), 32 - 3x3, 32 - 3x3 (padding 1), 64 - max-pool 3x3 (stride 2) - 1x1, 80 - 3x3, 192 - 3x3
    (stride 2), 256. Then 5 units A - reduction to 896 - 10 units B - reduction to 1792 - 6 units C - mean over the map
    - dropout - FC embedding_size without bias - batch norm. Sides of the maps of a 160x160 image: 17, 8, 3.

    ====  ========================================================================  ===========
    unit  branches, concatenated, then 1x1 with bias to the unit's channels         scale
    ====  ========================================================================  ===========
    A     1x1, 32 | 1x1, 32 - 3x3, 32 | 1x1, 32 - 3x3, 32 - 3x3, 32                 0.17
    B     1x1, 128 | 1x1, 128 - 1x7, 128 - 7x1, 128                                 0.10
    C     1x1, 192 | 1x1, 192 - 1x3, 192 - 3x1, 192                                 0.20
    ====  ========================================================================  ===========

    A unit is its input plus scale times the branch, then ReLU; the last C has scale 1 and no ReLU. Every other
    convolution is followed by batch norm and ReLU. 23,482,624 parameters at 3x160x160 with 512-D features.

    Args:
        image_size: sides in pixels, >= 75; faces have 160, the first paper 299.
        dropout: share of the pooled channels set to zero in training, in [0, 1); 0.2 in the paper.

    Source: Szegedy, Ioffe, Vanhoucke, Alemi, "Inception-v4, Inception-ResNet and the impact of residual connections on
    learning", AAAI 2017, section 3.2 and Figures 10 to 14, in the form of the TensorFlow FaceNet: its scales, its sixth
    unit C, and batch norm after the feature layer. IAM, section 5.2, names the net and cites both; its batch of 90,
    whitened MTCNN crops and steps are that project's.

    Differs: batch norm has a gain (FaceNet's has none), with momentum 0.005 and epsilon 0.001 as there; weights by He
    et al., where FaceNet truncates N(0, 0.1²).

    >>> import torch
    >>> inception_resnet_v1(image_size=75, embedding_size=5)(torch.zeros(2, 3, 75, 75)).shape
    torch.Size([2, 5])
    """
    sides = check_sizes("inception_resnet_v1", in_channels, image_size, embedding_size, smallest=75)
    layers = [*_stem(in_channels), *(_unit_a() for _ in range(5)), _reduction_a()]
    layers += [*(_unit_b() for _ in range(10)), _reduction_b(), *(_unit_c(0.2) for _ in range(5)), _unit_c(1.0)[0]]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(check_dropout(dropout))]
    layers.append(FeatureLayer(1792, embedding_size, bias=False))
    layers.append(nn.BatchNorm1d(embedding_size, eps=_EPSILON, momentum=_MOMENTUM))
    return Backbone(layers, in_channels, sides, embedding_size)


def _stem(in_channels: int) -> list[nn.Module]:
    return [
        *_convolution(in_channels, 32, 3, 2),
        *_convolution(32, 32, 3),
        *_convolution(32, 64, 3, padded=True),
        nn.MaxPool2d(3, stride=2),
        *_convolution(64, 80, 1),
        *_convolution(80, 192, 3),
        *_convolution(192, 256, 3, 2),
    ]


def _unit_a() -> nn.Sequential:
    branches = (_chain((256, 32, 1), *[(32, 32, 3)] * extra) for extra in range(3))
    return _unit(tuple(branches), 96, 256, 0.17)


def _unit_b() -> nn.Sequential:
    branches = (_chain((896, 128, 1)), _chain((896, 128, 1), (128, 128, (1, 7)), (128, 128, (7, 1))))
    return _unit(branches, 256, 896, 0.1)


def _unit_c(scale: float) -> nn.Sequential:
    branches = (_chain((1792, 192, 1)), _chain((1792, 192, 1), (192, 192, (1, 3)), (192, 192, (3, 1))))
    return _unit(branches, 384, 1792, scale)


def _unit(branches: tuple[nn.Module, ...], joined: int, channels: int, scale: float) -> nn.Sequential:
    branch = nn.Sequential(Concatenate(*branches), nn.Conv2d(joined, channels, 1))
    return nn.Sequential(Residual(branch, scale=scale), nn.ReLU())


def _reduction_a() -> nn.Module:
    return Concatenate(
        nn.Sequential(*_convolution(256, 384, 3, 2)),
        nn.Sequential(*_chain((256, 192, 1), (192, 192, 3)), *_convolution(192, 256, 3, 2)),
        nn.MaxPool2d(3, stride=2),
    )


def _reduction_b() -> nn.Module:
    return Concatenate(
        nn.Sequential(*_chain((896, 256, 1)), *_convolution(256, 384, 3, 2)),
        nn.Sequential(*_chain((896, 256, 1)), *_convolution(256, 256, 3, 2)),
        nn.Sequential(*_chain((896, 256, 1), (256, 256, 3)), *_convolution(256, 256, 3, 2)),
        nn.MaxPool2d(3, stride=2),
    )


def _chain(*steps: tuple[int, int, Kernel]) -> nn.Sequential:
    """Padded convolutions of (channels below, channels, kernel), one after another."""
    return nn.Sequential(*(layer for step in steps for layer in _convolution(*step, padded=True)))


def _convolution(below: int, channels: int, kernel: Kernel, stride: int = 1, padded: bool = False) -> list[nn.Module]:
    convolution = nn.Conv2d(below, channels, kernel, stride, padding="same" if padded else 0, bias=False)
    return [convolution, nn.BatchNorm2d(channels, eps=_EPSILON, momentum=_MOMENTUM), nn.ReLU()]
