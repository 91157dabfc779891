"""SphereNet-20 and SphereNet-64, the nets of SphereFace."""

from __future__ import annotations

from torch import nn

from angulus.backbones.layers import Backbone, FeatureLayer, ImageSize, Residual, check_sizes, initialize_xavier

_DEPTHS = {"spherenet20": (1, 2, 4, 1), "spherenet64": (3, 8, 16, 3)}


def spherenet(
    net: str, /, in_channels: int = 3, image_size: ImageSize = (112, 96), embedding_size: int = 512
) -> Backbone:
    """A net of SphereFace, "spherenet20" or "spherenet64", with linear features and no batch norm.

    Four stages with 64, 128, 256 and 512 channels: conv 3x3 (stride 2) - PReLU, then residual units [conv 3x3 - PReLU]
    x 2; then FC embedding_size. PReLUs have a slope a channel.

    ===========  =============  ==========================================
    net          units a stage  parameters at 3x112x96 with 512-D features
    ===========  =============  ==========================================
    spherenet20  1, 2, 4, 1     22,666,944
    spherenet64  3, 8, 16, 3    48,186,816
    ===========  =============  ==========================================

    Arguments:
        net: the name.
        in_channels: channels of an image, >= 1.
        image_size: height and width in pixels, or one number for both, >= 16; the paper's is 112x96.
        embedding_size: size of a feature, >= 1; the paper's is 512.

    Raises:
        InputError: a size is too small.

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
        layers += [unit(channels) for _ in range(depth)]
        below = channels
    rows, columns = (-(-side // 16) for side in sides)
    body = nn.Sequential(*layers, nn.Flatten(), FeatureLayer(below * rows * columns, embedding_size))
    initialize_units(body)
    return Backbone(body, in_channels, sides, embedding_size)


def unit(channels: int) -> nn.Module:
    """[conv 3x3 - PReLU] x 2, added to the input; without biases."""
    return Residual(
        nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.PReLU(channels),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.PReLU(channels),
        )
    )


def initialize_units(net: nn.Module) -> None:
    """Weights by Caffe's "xavier", but N(0, 0.01²) in residual units."""
    initialize_xavier(net)
    for module in net.modules():
        if isinstance(module, Residual):
            for layer in module.modules():
                if isinstance(layer, nn.Conv2d):
                    nn.init.normal_(layer.weight, 0, 0.01)
