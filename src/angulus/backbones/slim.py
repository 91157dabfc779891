"""A slim residual net for small faces, quick on a CPU."""

from __future__ import annotations

from torch import nn

from angulus.backbones.arcface import improved_residual, output_e, stem
from angulus.backbones.layers import Backbone, ImageSize, check_dropout, check_sizes, initialize_he


def slim_resnet(
    in_channels: int = 3, image_size: ImageSize = 112, embedding_size: int = 256, dropout: float = 0.0
) -> Backbone:
    """An improved residual net with 32, 48, 96 and 192 channels, two units a stage, that trains on two cores.

    conv 3x3 (stride 2), 32 - batch norm - PReLU - four stages of two improved residual units with 32, 48, 96 and 192
    channels, the first unit of the last three with stride 2 - output E: batch norm - dropout - FC embedding_size -
    batch norm. The unit and the output are ArcFace's. 4,005,056 parameters at 3x112x112 with 256-D features.

    Arguments:
        in_channels: channels of an image, >= 1.
        image_size: height and width in pixels, or one number for both, >= 16.
        embedding_size: size of a feature, >= 1.
        dropout: share of the last map set to zero in training, in [0, 1).

    Raises:
        InputError: a size is too small, or dropout is outside its range.

    Source: none; Angulus's own choice of widths, with the units of `improved_residual_net`.

    >>> import torch
    >>> slim_resnet(image_size=16)(torch.zeros(2, 3, 16, 16)).shape
    torch.Size([2, 256])
    """
    sides = check_sizes("slim_resnet", in_channels, image_size, embedding_size, smallest=16)
    layers = stem(in_channels, 32, stride=2)
    below = 32
    for channels, stride in ((32, 1), (48, 2), (96, 2), (192, 2)):
        layers += [improved_residual(below, channels, stride, False), improved_residual(channels, channels, 1, False)]
        below = channels
    net = nn.Sequential(*layers, *output_e(below, sides, embedding_size, check_dropout(dropout)))
    initialize_he(net)
    return Backbone(net, in_channels, sides, embedding_size)
