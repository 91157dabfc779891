"""Wen's residual net with 28 layers, which center loss released and NormFace fine-tunes."""

from __future__ import annotations

from torch import nn

from angulus.backbones.layers import Backbone, FeatureLayer, ImageSize, check_dropout, check_sizes
from angulus.backbones.sphereface import initialize_units, unit


def wen28(
    in_channels: int = 3, image_size: ImageSize = (112, 96), embedding_size: int = 512, dropout: float = 0.0
) -> Backbone:
    """Wen's net: 27 convolutions and one fully connected layer, whose outputs are the linear features.

    conv 32 - conv 64 - pool - 1 unit - conv 128 - pool - 2 units - conv 256 - pool - 5 units - conv 512 - pool - 3
    units - FC embedding_size. Every convolution is 3x3 and followed by PReLU with a slope a channel; those outside
    units have no padding; pools are 2x2 maxima of stride 2; a unit is two convolutions, added to its input. A 112x96
    face reaches the last layer as 512 x 5 x 4. 27,536,800 parameters at 3x112x96 with 512-D features.

    Arguments:
        in_channels: channels of an image, >= 1.
        image_size: height and width in pixels, or one number for both, >= 48; the released net's is 112x96.
        embedding_size: size of a feature, >= 1; the released net's is 512.
        dropout: share of a feature's coordinates set to zero in training, in [0, 1): for NormFace's row
            "softmax + dropout", whose ratio the paper does not say.

    Raises:
        InputError: a size is too small, or dropout is outside its range.

    Source: the net that the authors of Wen, Zhang, Li, Qiao, "A discriminative feature learning approach for deep face
    recognition", ECCV 2016, released, and that NormFace, section 5.1, calls a 28-layer ResNet. The paper's own Figure 4
    is another net, of 7 layers. Weights: N(0, 0.01²) in units, Caffe's "xavier" elsewhere.

    Differs: nothing; the released net carries biases in the units, but holds them at zero. They are left out.

    >>> import torch
    >>> wen28(image_size=48, embedding_size=5)(torch.zeros(2, 3, 48, 48)).shape
    torch.Size([2, 5])
    """
    sides = check_sizes("wen28", in_channels, image_size, embedding_size, smallest=48)
    share = check_dropout(dropout)
    layers = _convolution(in_channels, 32)
    below, (rows, columns) = 32, (side - 2 for side in sides)
    for channels, depth in ((64, 1), (128, 2), (256, 5), (512, 3)):
        layers += [*_convolution(below, channels), nn.MaxPool2d(2), *(unit(channels) for _ in range(depth))]
        below, rows, columns = channels, (rows - 2) // 2, (columns - 2) // 2
    features = FeatureLayer(below * rows * columns, embedding_size)
    net = nn.Sequential(*layers, nn.Flatten(), features, *([nn.Dropout(share)] if share else []))
    initialize_units(net)
    return Backbone(net, in_channels, sides, embedding_size)


def _convolution(below: int, channels: int) -> list[nn.Module]:
    return [nn.Conv2d(below, channels, 3), nn.PReLU(channels)]
