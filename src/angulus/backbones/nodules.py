"""The three 3-D nets of multi-level contextual nodule detection (LUNA16), and their fusion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from angulus.backbones.layers import Backbone, Concatenate, FeatureLayer, ImageSize, check_dropout, check_sizes
from angulus.core import checks
from angulus.core.checks import InputError

FUSION_WEIGHTS = (0.3, 0.4, 0.3)  # of Archi-1, -2 and -3, which the paper found by a grid search


@dataclass(frozen=True)
class Architecture:
    """What tells the nets apart: volume, pool and third kernel as (depth, height, width), and hidden units."""

    volume: tuple[int, int, int]
    pool: tuple[int, int, int]
    kernel: tuple[int, int, int]
    hidden: int

    def left(self, sides: tuple[int, ...]) -> tuple[int, ...]:
        """The sides of the map that is left of a volume."""
        steps = zip(sides, (3, 5, 5), self.pool, self.kernel, strict=True)
        return tuple((side - size + 1) // pool - (size - 1) - (last - 1) for side, size, pool, last in steps)


ARCHITECTURES = {
    "luna_archi1": Architecture((6, 20, 20), (1, 1, 1), (1, 5, 5), 150),
    "luna_archi2": Architecture((10, 30, 30), (1, 2, 2), (3, 5, 5), 250),
    "luna_archi3": Architecture((26, 40, 40), (2, 2, 2), (3, 5, 5), 250),
}
_SMALLEST = {"luna_archi1": (5, 13, 13), "luna_archi2": (7, 22, 22), "luna_archi3": (12, 22, 22)}


def luna_net(
    net: str, /, in_channels: int, image_size: ImageSize, embedding_size: int, dropout: float = 0.2
) -> Backbone:
    """One of the three nets, "luna_archi1", "luna_archi2" or "luna_archi3", with its hidden layer as linear features.

    [conv - ReLU - dropout] - max-pool - [conv - ReLU - dropout] x 2 - FC embedding_size. Convolutions have 64 kernels
    and no padding. Sides are width x height x depth, as in the paper.

    ===========  ========  =====================  =====  ========  ========  ===  ==========
    net          volume    kernels                pool   coverage  last map  FC   parameters
    ===========  ========  =====================  =====  ========  ========  ===  ==========
    luna_archi1  20x20x6   5x5x3, 5x5x3, 5x5x1    1x1x1  58 %      8x8x2     150  1,643,542
    luna_archi2  30x30x10  5x5x3, 5x5x3, 5x5x3    2x2x1  85 %      5x5x4     250  2,219,642
    luna_archi3  40x40x26  5x5x3, 5x5x3, 5x5x3    2x2x2  99 %      10x10x8   250  13,419,642
    ===========  ========  =====================  =====  ========  ========  ===  ==========

    (Coverage: the nodules of LUNA16 that fit into the volume.)

    Args:
        in_channels: channels of a volume, >= 1; a CT scan has 1.
        image_size: (depth, height, width) of a volume in voxels; the paper's are the column "volume", reversed.
        embedding_size: the paper's is the column FC.
        dropout: share of each convolution's outputs set to zero in training, in [0, 1); 0.2 in the paper.

    Shapes: float volumes [B, in_channels, depth, height, width] -> features [B, embedding_size].

    Source: Dou, Chen, Yu, Qin, Heng, "Multilevel contextual 3-D CNNs for false positive reduction in pulmonary nodule
    detection", IEEE TBME 64(7), 2017, section II.

    Differs: no ReLU and no dropout after the hidden layer, which gives the features. Weights by He et al.: the paper's
    N(0, 0.001²) begins with features shorter than 1e-5, too short for their directions to be learnt from.

    >>> import torch
    >>> luna_net("luna_archi1", 1, (6, 20, 20), 150)(torch.zeros(2, 1, 6, 20, 20)).shape
    torch.Size([2, 150])
    """
    sides = check_sizes(net, in_channels, image_size, embedding_size, smallest=_SMALLEST[net], axes=3)
    chosen = ARCHITECTURES[net]
    layers = _trunk(chosen, in_channels, check_dropout(dropout))
    layers.append(FeatureLayer(64 * math.prod(chosen.left(sides)), embedding_size))
    return Backbone(layers, in_channels, sides, embedding_size)


def luna_fusion(
    in_channels: int = 1, image_size: ImageSize = (26, 40, 40), embedding_size: int = 250, dropout: float = 0.2
) -> Backbone:
    """The three nets on one volume, trained together: their hidden layers side by side, then FC embedding_size.

    Archi-3 sees the whole volume, Archi-1 and Archi-2 its middle 20x20x6 and 30x30x10; each ends in its hidden layer
    (150, 250 and 250 units) - ReLU - dropout, as in the paper. 17,445,576 parameters with 250-D features.

    Args:
        in_channels: channels of a volume, >= 1; a CT scan has 1.
        image_size: (depth, height, width) of a volume in voxels, at least (12, 30, 30); the paper's is (26, 40, 40).
        dropout: share of each layer's outputs set to zero in training, in [0, 1); 0.2 in the paper.

    Shapes: float volumes [B, in_channels, depth, height, width] -> features [B, embedding_size].

    Source: Dou et al., for the three levels.

    Differs: the paper trains the nets one by one and adds their probabilities: that is `fuse`. One net that fuses
    features instead is what a single angular loss can train, and is Angulus's own.

    >>> import torch
    >>> luna_fusion(embedding_size=5)(torch.zeros(1, 1, 26, 40, 40)).shape
    torch.Size([1, 5])
    """
    sides = check_sizes("luna_fusion", in_channels, image_size, embedding_size, smallest=(12, 30, 30), axes=3)
    share = check_dropout(dropout)
    levels: list[nn.Module] = []
    for name, chosen in ARCHITECTURES.items():
        seen = sides if name == "luna_archi3" else chosen.volume
        hidden = nn.Linear(64 * math.prod(chosen.left(seen)), chosen.hidden)
        level = [CentreCrop(seen), *_trunk(chosen, in_channels, share), hidden, nn.ReLU(), nn.Dropout(share)]
        levels.append(nn.Sequential(*level))
    width = sum(chosen.hidden for chosen in ARCHITECTURES.values())
    layers = [Concatenate(*levels), FeatureLayer(width, embedding_size)]
    return Backbone(layers, in_channels, sides, embedding_size)


def fuse(probabilities: Sequence[Tensor], weights: Sequence[float] = FUSION_WEIGHTS) -> Tensor:
    """The paper's fusion of separately trained nets: P = Σ γ_i · P_i.

    Args:
        probabilities: one tensor a net, all of one shape: P(class | volume), after softmax.
        weights: γ, one a net, each >= 0, with sum 1; the paper's are 0.3, 0.4 and 0.3 for Archi-1, -2 and -3.

    Raises:
        InputError: the tensors are not of one shape, or the weights are not as many, or not ones of a mean.

    Source: Dou et al., section II, on model fusion.

    >>> fuse([torch.tensor([0.5]), torch.tensor([1.0]), torch.tensor([0.0])])
    tensor([0.5500])
    """
    for weight in weights:
        checks.number("weights", weight, low=0)
    if not probabilities or len(probabilities) != len(weights) or not math.isclose(sum(weights), 1, abs_tol=1e-6):
        rule = f"weights must be one a tensor of probabilities, {len(probabilities)} of them, and sum to 1"
        raise InputError(f"{rule}; got {list(weights)}")
    shapes = [list(each.shape) for each in probabilities]
    if any(shape != shapes[0] for shape in shapes):
        raise InputError(f"probabilities must be of one shape; got {', '.join(map(str, shapes))}")
    return torch.stack([weight * each for weight, each in zip(weights, probabilities, strict=True)]).sum(dim=0)


class CentreCrop(nn.Module):
    """The middle of a volume; of an odd rest, the smaller half comes off the front."""

    def __init__(self, size: tuple[int, ...]) -> None:
        super().__init__()
        self.size = size

    def forward(self, volumes: Tensor) -> Tensor:
        """Map [B, C, depth, height, width] to [B, C, *size]."""
        for axis, size in enumerate(self.size, start=2):
            volumes = volumes.narrow(axis, (volumes.shape[axis] - size) // 2, size)
        return volumes


def _trunk(chosen: Architecture, in_channels: int, dropout: float) -> list[nn.Module]:
    pool = [nn.MaxPool3d(chosen.pool)] if max(chosen.pool) > 1 else []
    layers = [*_convolution(in_channels, (3, 5, 5), dropout), *pool, *_convolution(64, (3, 5, 5), dropout)]
    return [*layers, *_convolution(64, chosen.kernel, dropout), nn.Flatten()]


def _convolution(below: int, kernel: tuple[int, int, int], dropout: float) -> list[nn.Module]:
    return [nn.Conv3d(below, 64, kernel), nn.ReLU(), nn.Dropout(dropout)]
