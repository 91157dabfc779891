"""SphereNet-20 and SphereNet-64, the nets of SphereFace."""

from __future__ import annotations

from torch import nn

from angulus.backbones.layers import (
    Backbone,
    FeatureLayer,
    ImageSize,
    Residual,
    check_dropout,
    check_sizes,
    initialize_xavier,
)

_DEPTHS = {"spherenet20": (1, 2, 4, 1), "spherenet64": (3, 8, 16, 3)}


def spherenet(
    net: str, /, in_channels: int = 3, image_size: ImageSize = (112, 96), embedding_size: int = 512
) -> Backbone:
    """A net of SphereFace, "spherenet20" or "spherenet64", with linear features and no batch norm.

    Four stages with 64, 128, 256 and 512 channels: conv 3x3 (stride 2) - PReLU, then residual units [conv 3x3 - PReLU]
    x 2; then FC embedding_size. PReLUs have one slope per channel.

    ===========  =============  ==========================================
    net          units per stage  parameters at 3x112x96 with 512-D features
    ===========  =============  ==========================================
    spherenet20  1, 2, 4, 1     22,666,944
    spherenet64  3, 8, 16, 3    48,186,816
    ===========  =============  ==========================================

    Args:
        image_size: sides in pixels, >= 16; 112x96 in the paper.
        embedding_size: 512 in the paper.

    Source: Liu, Wen, Yu, Li, Raj, Song, "SphereFace: deep hypersphere embedding for face recognition", CVPR 2017,
    Table 2; initialisation from the nets that the authors released: N(0, 0.01²) in residual units, so that they begin
    near identity, and Caffe's "xavier" elsewhere.

    Differs: nothing; the released nets carry biases in the units, but hold them at zero. They are left out (3,712 in
    spherenet20, which makes 22,670,656 with them).

    >>> import torch
    >>> spherenet("spherenet20", image_size=16, embedding_size=5)(torch.zeros(2, 3, 16, 16)).shape
    torch.Size([2, 5])
    """
    sides = check_sizes(net, in_channels, image_size, embedding_size, smallest=16)
    layers: list[nn.Module] = []
    below = in_channels
    for depth, channels in zip(_DEPTHS[net], (64, 128, 256, 512), strict=True):
        layers += [nn.Conv2d(below, channels, 3, stride=2, padding=1), nn.PReLU(channels)]
        layers += [_unit(channels) for _ in range(depth)]
        below = channels
    rows, columns = (-(-side // 16) for side in sides)
    layers += [nn.Flatten(), FeatureLayer(below * rows * columns, embedding_size)]
    return Backbone(layers, in_channels, sides, embedding_size, _initialize_units)


def wen28(
    in_channels: int = 3, image_size: ImageSize = (112, 96), embedding_size: int = 512, dropout: float = 0.0
) -> Backbone:
    """Wen's net: 27 convolutions and one fully connected layer, whose outputs are the linear features.

    conv 32 - conv 64 - pool - 1 unit - conv 128 - pool - 2 units - conv 256 - pool - 5 units - conv 512 - pool - 3
    units - FC embedding_size. Every convolution is 3x3 and followed by PReLU with one slope per channel; those outside
    units have no padding; pools are 2x2 maxima of stride 2; a unit is two convolutions, added to its input. A 112x96
    face reaches the last layer as 512 x 5 x 4. 27,536,800 parameters at 3x112x96 with 512-D features.

    Args:
        image_size: sides in pixels, >= 48; the released net's is 112x96.
        embedding_size: the released net's is 512.
        dropout: share of a feature's coordinates set to zero in training, in [0, 1): for NormFace's row
            "softmax + dropout", whose ratio the paper does not say.

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
        layers += [*_convolution(below, channels), nn.MaxPool2d(2), *(_unit(channels) for _ in range(depth))]
        below, rows, columns = channels, (rows - 2) // 2, (columns - 2) // 2
    layers += [nn.Flatten(), FeatureLayer(below * rows * columns, embedding_size)]
    layers += [nn.Dropout(share)] if share else []
    return Backbone(layers, in_channels, sides, embedding_size, _initialize_units)


def _convolution(below: int, channels: int) -> list[nn.Module]:
    return [nn.Conv2d(below, channels, 3), nn.PReLU(channels)]


def _unit(channels: int) -> nn.Module:
    """[conv 3x3 - PReLU] x 2, added to the input; without biases."""
    layers: list[nn.Module] = []
    for _ in range(2):
        layers += [nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.PReLU(channels)]
    return Residual(nn.Sequential(*layers))


def _initialize_units(net: nn.Module) -> None:
    """Weights by Caffe's "xavier", but N(0, 0.01²) in residual units."""
    initialize_xavier(net)
    for unit in (module for module in net.modules() if isinstance(module, Residual)):
        for layer in (module for module in unit.modules() if isinstance(module, nn.Conv2d)):
            nn.init.normal_(layer.weight, 0, 0.01)
