"""The improved residual nets of ArcFace: 18 to 200 layers, with output setting E."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import cast

from torch import Tensor, nn

from angulus.backbones.layers import Backbone, FeatureLayer, ImageSize, Residual, check_dropout, check_sizes
from angulus.core.checks import flag

DEPTHS = {  # units per stage
    "ir18": (2, 2, 2, 2),
    "ir34": (3, 4, 6, 3),
    "ir50": (3, 4, 14, 3),
    "ir100": (3, 13, 30, 3),
    "ir200": (6, 26, 60, 6),
}
CHANNELS = (64, 128, 256, 512)  # of the stages


def improved_residual_net(
    net: str,
    /,
    in_channels: int = 3,
    image_size: ImageSize = 112,
    embedding_size: int = 512,
    dropout: float = 0.4,
    squeeze_excitation: bool = False,
    subsample: bool = False,
) -> Backbone:
    """An improved residual net: "ir18", "ir34", "ir50", "ir100" or "ir200" (LResNet..E-IR, and SE-LResNet..E-IR).

    conv 3x3 (stride 1), 64 - batch norm - PReLU - four stages of units with 64, 128, 256 and 512 channels, the first
    of each with stride 2 - output E: batch norm - dropout - FC embedding_size - batch norm. A unit is batch norm - conv
    3x3 - batch norm - PReLU - conv 3x3 (stride) - batch norm, added to its input (projected by 1x1 and batch norm
    where the shape changes). PReLUs have one slope per channel.

    =====  =============  ===========================================
    net    units per stage  parameters at 3x112x112 with 512-D features
    =====  =============  ===========================================
    ir18   2, 2, 2, 2     24,025,600
    ir34   3, 4, 6, 3     34,139,328
    ir50   3, 4, 14, 3    43,590,848
    ir100  3, 13, 30, 3   65,156,160
    ir200  6, 26, 60, 6   118,833,920
    =====  =============  ===========================================

    Args:
        image_size: sides in pixels, >= 16; 112 in the paper.
        embedding_size: 512 in the paper.
        dropout: share of the last map set to zero in training, in [0, 1); 0.4 in the paper, 0 in recent practice.
        squeeze_excitation: whether each unit ends in a squeeze-excitation block.
        subsample: whether the first unit, which halves the map and keeps the channels, adds every second pixel of its
            input in place of a projection, as the nets of AdaFace's authors do.

    Source: Deng, Guo, Xue, Zafeiriou, "ArcFace: additive angular margin loss for deep face recognition", CVPR 2019,
    section 3.1; the unit, input and output settings in its first version (arXiv 1801.07698v1), section 3.2.

    Differs: nothing; as in the authors' code, the gain of the last batch norm stays 1, so a feature's coordinates have
    variance 1 over a batch. Its norm is then near sqrt(embedding_size) for most images, and varies less than after a
    bare linear layer.

    >>> import torch
    >>> improved_residual_net("ir18", image_size=16)(torch.zeros(2, 3, 16, 16)).shape
    torch.Size([2, 512])
    """
    sides = check_sizes(net, in_channels, image_size, embedding_size, smallest=16)
    flag("squeeze_excitation", squeeze_excitation)
    flag("subsample", subsample)
    stages = zip(CHANNELS, DEPTHS[net], (2, 2, 2, 2), strict=True)
    layers = [*stem(in_channels, 64), *_units(64, stages, squeeze_excitation, subsample)]
    layers += output_e(512, sides, embedding_size, check_dropout(dropout))
    return Backbone(layers, in_channels, sides, embedding_size)


def slim_resnet(
    in_channels: int = 3, image_size: ImageSize = 112, embedding_size: int = 256, dropout: float = 0.0
) -> Backbone:
    """An improved residual net with 32, 48, 96 and 192 channels, two units per stage, that trains on two cores.

    conv 3x3 (stride 2), 32 - batch norm - PReLU - four stages of two improved residual units with 32, 48, 96 and 192
    channels, the first unit of the last three with stride 2 - output E: batch norm - dropout - FC embedding_size -
    batch norm. The unit and the output are ArcFace's. 4,005,056 parameters at 3x112x112 with 256-D features.

    Args:
        image_size: sides in pixels, >= 16.
        dropout: share of the last map set to zero in training, in [0, 1).

    Source: none; Angulus's own choice of widths, with the units of `improved_residual_net`.

    >>> import torch
    >>> slim_resnet(image_size=16)(torch.zeros(2, 3, 16, 16)).shape
    torch.Size([2, 256])
    """
    sides = check_sizes("slim_resnet", in_channels, image_size, embedding_size, smallest=16)
    layers = [*stem(in_channels, 32, stride=2), *_units(32, ((32, 2, 1), (48, 2, 2), (96, 2, 2), (192, 2, 2)))]
    layers += output_e(192, sides, embedding_size, check_dropout(dropout))
    return Backbone(layers, in_channels, sides, embedding_size)


def _units(
    below: int, stages: Iterable[tuple[int, int, int]], squeeze_excitation: bool = False, subsample: bool = False
) -> Iterator[nn.Module]:
    """The units of stages of (channels, units, stride of the first)."""
    for channels, depth, stride in stages:
        for unit in range(depth):
            yield improved_residual(below, channels, stride if unit == 0 else 1, squeeze_excitation, subsample)
            below = channels


def stem(in_channels: int, channels: int, stride: int = 1) -> list[nn.Module]:
    """The first convolution, which keeps the size of the image (ArcFace's "L") if the stride is 1."""
    convolution = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(channels), nn.PReLU(channels)]


def improved_residual(
    below: int, channels: int, stride: int, squeeze_excitation: bool, subsample: bool = False
) -> nn.Module:
    """BN - conv - BN - PReLU - conv (stride) - BN, perhaps squeeze-excitation, added to the input."""
    branch: list[nn.Module] = [nn.BatchNorm2d(below), *stem(below, channels)]
    branch += [nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(channels)]
    if squeeze_excitation:
        branch.append(SqueezeExcitation(channels))
    if stride == 1 and below == channels:
        return Residual(nn.Sequential(*branch))
    if below == channels and subsample:
        return Residual(nn.Sequential(*branch), nn.MaxPool2d(1, stride))
    projection = nn.Conv2d(below, channels, 1, stride=stride, bias=False)
    return Residual(nn.Sequential(*branch), nn.Sequential(projection, nn.BatchNorm2d(channels)))


def output_e(channels: int, sides: tuple[int, ...], embedding_size: int, dropout: float) -> list[nn.Module]:
    """BN - dropout - FC - BN, from the map that four halvings leave of an image; the last gain stays 1."""
    rows, columns = (-(-side // 16) for side in sides)
    last = nn.BatchNorm1d(embedding_size)
    last.weight.requires_grad_(False)
    features = FeatureLayer(channels * rows * columns, embedding_size)
    return [nn.BatchNorm2d(channels), nn.Dropout(dropout), nn.Flatten(), features, last]


class SqueezeExcitation(nn.Module):
    """Scales each channel by sigmoid(FC(ReLU(FC(its mean)))), through a sixteenth of the channels.

    Source: Hu, Shen, Sun, "Squeeze-and-excitation networks", CVPR 2018, section 3.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // 16, 1)
        self.gate = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Sigmoid())

    def forward(self, maps: Tensor) -> Tensor:
        """Map [B, channels, height, width] to the same shape."""
        return maps * cast(Tensor, self.gate(maps.mean(dim=(2, 3))))[:, :, None, None]
