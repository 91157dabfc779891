"""What several backbones share: the shell around their layers, the feature layer, initialisation, and size checks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from angulus.core import checks
from angulus.core.checks import InputError

ImageSize = int | Sequence[int]  # one side of a square or cube, or every side: height and width; depth first in 3-D


class FeatureLayer(nn.Linear):
    """The linear layer that gives the features, in float32 also under autocast.

    bfloat16 holds 8 bits of each coordinate: too few for the angles and norms that the losses read.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        """Map [B, in_features] to features [B, out_features], float32 or wider."""
        with torch.autocast(inputs.device.type, enabled=False):
            return super().forward(inputs.to(self.weight.dtype))


class FloatSequential(nn.Sequential):
    """Layers after the feature layer, in float32 also under autocast, for the reason that the feature layer is."""

    def forward(self, features: Tensor) -> Tensor:
        """Map features [B, d] to features [B, d]."""
        with torch.autocast(features.device.type, enabled=False):
            for layer in self:
                features = layer(features)
        return features


class BNNeck(nn.BatchNorm1d):
    """Batch norm without a bias, between the feature and the classes; the bias stays 0.

    Source: H. Luo et al., "Bag of tricks and a strong baseline for deep person re-identification", CVPR workshops
    2019, Sec. 3.5.

    Differs: penalties such as center loss read the feature after this layer, where the paper has them before it.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.bias.requires_grad_(False)


FEATURE_ACTIVATIONS = ("none", "relu", "prelu", "batch_norm_relu", "bnneck")


def check_feature_activation(value: object) -> str:
    """Return what follows the feature layer, or say what may."""
    return checks.choice("feature_activation", value, FEATURE_ACTIVATIONS)


def feature_layers(in_features: int, embedding_size: int, activation: str = "none") -> list[nn.Module]:
    """The feature layer, and what some released nets put after it.

    Args:
        in_features, embedding_size: of the feature layer.
        activation: `"none"`: the features are linear, so that they can point in every direction; `"relu"`; `"prelu"`,
            with one slope; `"batch_norm_relu"`; `"bnneck"`: see `BNNeck`.
    """
    check_feature_activation(activation)
    after: dict[str, list[nn.Module]] = {
        "none": [],
        "relu": [nn.ReLU()],
        "prelu": [nn.PReLU()],
        "batch_norm_relu": [nn.BatchNorm1d(embedding_size), nn.ReLU()],
        "bnneck": [BNNeck(embedding_size)],
    }
    return [
        FeatureLayer(in_features, embedding_size),
        *([FloatSequential(*after[activation])] if after[activation] else []),
    ]


class UnitFeatures(nn.Module):
    """Scales each row of features to length 1; a zero row stays zero."""

    def forward(self, features: Tensor) -> Tensor:
        """Map [B, d] to [B, d]."""
        norms = torch.linalg.vector_norm(features, dim=1, keepdim=True)
        return features / torch.where(norms > 0, norms, torch.ones_like(norms))


class FirstNumbers(nn.Module):
    """Keeps the first `size` numbers of each row of features."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, features: Tensor) -> Tensor:
        """Map [B, d] to [B, size]."""
        return features[:, : self.size]


class Residual(nn.Module):
    """shortcut(x) + scale · branch(x); without a shortcut, x itself."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module | None = None, scale: float = 1.0) -> None:
        super().__init__()
        self.branch, self.scale = branch, scale
        self.shortcut = nn.Identity() if shortcut is None else shortcut

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs to the sum of both ways."""
        change = self.branch(inputs) if self.scale == 1 else self.scale * self.branch(inputs)
        return cast(Tensor, self.shortcut(inputs) + change)


class Concatenate(nn.Module):
    """The outputs of several branches on one input, one after another along the channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map [B, ...] to [B, sum of the branches' channels, ...]."""
        return torch.cat([branch(inputs) for branch in self.branches], dim=1)


def initialize_xavier(module: nn.Module) -> None:
    """Draw weights of convolutions and linear layers with variance 1 / fan-in, biases zero: Caffe's "xavier"."""
    for layer in _weighted(module):
        bound = (3 / layer.weight[0].numel()) ** 0.5
        nn.init.uniform_(layer.weight, -bound, bound)


def initialize_he(module: nn.Module) -> None:
    """Draw weights of convolutions and linear layers from N(0, 2 / fan-in), biases zero.

    Source: He, Zhang, Ren, Sun, "Delving deep into rectifiers", ICCV 2015, eq. 10: what keeps the size of signals
    through layers that ReLU follows.
    """
    for layer in _weighted(module):
        nn.init.normal_(layer.weight, 0, (2 / layer.weight[0].numel()) ** 0.5)


def _weighted(module: nn.Module) -> list[nn.Conv2d | nn.Conv3d | nn.Linear]:
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Conv3d | nn.Linear)]
    for layer in layers:
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return layers


class Backbone(nn.Module):
    """Layers, one after another, that map images of one size to features; refuses other images.

    Shapes: float images [B, in_channels, *image_size] -> features [B, embedding_size].

    Attributes:
        net_prefix: what precedes the names of a net of another library among those of the parameters.
        stored: the name and options that a model of it is stored with, where they are not those it was built with.
    """

    net_prefix = ""
    stored: tuple[str, dict[str, Any]] | None = None

    def __init__(
        self,
        layers: Iterable[nn.Module],
        in_channels: int,
        image_size: tuple[int, ...],
        embedding_size: int,
        initialize: Callable[[nn.Module], None] | None = initialize_he,
    ) -> None:
        super().__init__()
        self.in_channels, self.image_size, self.embedding_size = in_channels, image_size, embedding_size
        self.layers = nn.Sequential(*layers)
        if initialize is not None:
            initialize(self.layers)

    def forward(self, images: Tensor) -> Tensor:
        """Map images [B, in_channels, *image_size] to features [B, embedding_size]."""
        check_images(images, self.in_channels, self.image_size)
        return cast(Tensor, self.layers(images))


def shell(network: nn.Module) -> tuple[str, Backbone | None]:
    """(where the net is in a network that may have `UnitFeatures` after it, the `Backbone` in it, if there is one)."""
    found = ((name, module) for name, module in network.named_modules() if isinstance(module, Backbone))
    unit = isinstance(network, nn.Sequential) and len(network) == 2 and isinstance(network[1], UnitFeatures)
    return next(found, ("0" if unit else "", None))


def check_sizes(
    net: str, in_channels: int, image_size: ImageSize, embedding_size: int, *, smallest: ImageSize, axes: int = 2
) -> tuple[int, ...]:
    """Refuse sizes that a net cannot be built for; its pooling leaves nothing of images below `smallest` pixels.

    Returns the sides of an image, one an axis: (height, width), or (depth, height, width).
    """
    checks.integer("in_channels", in_channels, low=1)
    checks.integer("embedding_size", embedding_size, low=1)
    if isinstance(image_size, Sequence) and (isinstance(image_size, str) or len(image_size) != axes):
        order = ["depth", "height", "width"][3 - axes :]
        rule = f"image_size must be a whole number, or {axes} of them: {', '.join(order)}"
        raise InputError(f"{rule}; got {image_size!r}")
    sides = image_size if isinstance(image_size, Sequence) else (image_size,) * axes
    least = smallest if isinstance(smallest, Sequence) else (smallest,) * axes
    hint = f"{net} pools smaller images away"
    return tuple(checks.integer("image_size", side, low=low, hint=hint) for side, low in zip(sides, least, strict=True))


def check_images(images: Tensor, in_channels: int, image_size: tuple[int, ...]) -> None:
    """Refuse images that are not floats [B, in_channels, *image_size]."""
    expected = (in_channels, *image_size)
    if images.ndim != len(expected) + 1 or tuple(images.shape[1:]) != expected:
        raise InputError(f"images must have shape [batch, {', '.join(map(str, expected))}]; got {list(images.shape)}")
    if not images.is_floating_point():
        raise InputError(f"images must be floating point; got {images.dtype}; scale the bytes first")


def check_dropout(dropout: float) -> float:
    """Return the share of values that dropout sets to zero, in [0, 1), or say so."""
    return checks.number("dropout", dropout, low=0, high=1, open_high=True)
