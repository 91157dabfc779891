"""Light CNN-9, Wu's net of ten layers with max-feature-map activations."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from angulus.backbones.layers import Backbone, FeatureLayer, ImageSize, check_dropout, check_sizes, initialize_xavier


def light_cnn9(
    in_channels: int = 1, image_size: ImageSize = 128, embedding_size: int = 256, dropout: float = 0.7
) -> Backbone:
    """Light CNN-9: nine convolutions and one fully connected layer, each halved by a maximum of two channels (MFM).

    Channels after MFM: conv 5x5, 48 - pool - conv 1x1, 48 - conv 3x3, 96 - pool - conv 1x1, 96 - conv 3x3, 192 - pool -
    conv 1x1, 192 - conv 3x3, 128 - conv 1x1, 128 - conv 3x3, 128 - pool - FC embedding_size - dropout. Pools are 2x2
    maxima of stride 2. The features are MFM's outputs: max(a, b) of two linear ones.

    5,480,864 parameters at 1x128x128 with 256-D features. The paper's table sums to 5,556K: without biases, and with
    96 channels below the 3x3 convolution to 96, where the net itself has 48.

    Args:
        in_channels: channels of an image, >= 1; the paper's faces are grey.
        image_size: sides in pixels, >= 16; 128 in the paper.
        embedding_size: 256 in the paper.
        dropout: share of a feature's coordinates set to zero in training, in [0, 1); 0.7 in the paper, the released
            net's 0.75.

    Source: Wu, He, Sun, Tan, "A light CNN for deep face representation with noisy labels", IEEE TIFS 2018, section III;
    NormFace, section 5.1, calls it a 10-layer plain CNN with Maxout. Weights by Caffe's "xavier", biases
    0.1, as in the released net.

    Differs: nothing at 128x128; for sides that 16 does not divide, pools round down, where Caffe's round up.

    >>> import torch
    >>> light_cnn9(image_size=16)(torch.zeros(2, 1, 16, 16)).shape
    torch.Size([2, 256])
    """
    sides = check_sizes("light_cnn9", in_channels, image_size, embedding_size, smallest=16)
    rows, columns = (side // 16 for side in sides)
    layers = [*_convolution(in_channels, 48, 5), nn.MaxPool2d(2), *_group(48, 96), nn.MaxPool2d(2)]
    layers += [*_group(96, 192), nn.MaxPool2d(2), *_group(192, 128), *_group(128, 128), nn.MaxPool2d(2), nn.Flatten()]
    layers += [FeatureLayer(128 * rows * columns, 2 * embedding_size), MaxFeatureMap()]
    layers.append(nn.Dropout(check_dropout(dropout)))
    net = Backbone(layers, in_channels, sides, embedding_size, initialize_xavier)
    for name, parameter in net.named_parameters():
        if name.endswith("bias"):
            nn.init.constant_(parameter, 0.1)
    return net


class MaxFeatureMap(nn.Module):
    """The larger of channel i and channel i + n, of 2n channels: maxout over pairs.

    Source: Wu et al., section III-A.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """Map [B, 2n, ...] to [B, n, ...]."""
        first, second = maps.chunk(2, dim=1)
        return torch.maximum(first, second)


def _group(below: int, channels: int) -> list[nn.Module]:
    return [*_convolution(below, below, 1), *_convolution(below, channels, 3)]


def _convolution(below: int, channels: int, kernel: int) -> list[nn.Module]:
    return [nn.Conv2d(below, 2 * channels, kernel, padding=kernel // 2), MaxFeatureMap()]
