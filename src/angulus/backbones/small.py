"""A small net for small images, which trains on scikit-learn's digits in seconds."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from angulus.backbones.layers import FeatureLayer, ImageSize, check_images, check_sizes


class SmallNet(nn.Module):
    """Two convolutions with batch norm, one hidden layer, linear features (2-D by default, to be drawn).

    [conv 3x3 (padding 1) - batch norm - PReLU] with 16, then 32 channels - max-pool 2 - FC 128 - batch norm -
    PReLU - FC embedding_size. What batch norm follows has no bias, which it would cancel; a PReLU has one parameter.

    Arguments:
        in_channels: channels of an image, >= 1.
        image_size: height and width in pixels, or one number for both, >= 2.
        embedding_size: size of a feature, >= 1.

    Shapes: float images [B, in_channels, height, width] -> features [B, embedding_size].

    Raises:
        InputError: a size is too small; in `forward`, images of another shape or no floating-point ones.

    >>> import torch
    >>> SmallNet()(torch.zeros(3, 1, 8, 8)).shape
    torch.Size([3, 2])
    """

    def __init__(self, in_channels: int = 1, image_size: ImageSize = 8, embedding_size: int = 2) -> None:
        """Build the layers with PyTorch's default initialisation."""
        super().__init__()
        sides = check_sizes("SmallNet", in_channels, image_size, embedding_size, smallest=2)
        self.in_channels, self.image_size, self.embedding_size = in_channels, sides, embedding_size
        rows, columns = (side // 2 for side in sides)
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.PReLU(),
            nn.Conv2d(16, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.PReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * rows * columns, 128, bias=False),
            nn.BatchNorm1d(128),
            nn.PReLU(),
            FeatureLayer(128, embedding_size),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map images [B, in_channels, height, width] to features [B, embedding_size]."""
        check_images(images, self.in_channels, self.image_size)
        return cast(Tensor, self.layers(images))
