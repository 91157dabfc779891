"""LeNet-5 and LeNet++, the nets of the digit experiments."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from angulus.backbones.layers import FeatureLayer, ImageSize, check_images, check_sizes, initialize_xavier


class LeNet5(nn.Module):
    """LeNet-5 in its usual modern form, with linear features.

    conv 6 5x5 (padding 2) - ReLU - max-pool 2 - conv 16 5x5 - ReLU - max-pool 2 - FC 120 - ReLU - FC embedding_size.

    Arguments:
        in_channels: channels of an image, >= 1.
        image_size: height and width in pixels, or one number for both, >= 12; 28 gives the second pool 5x5, as in the
            paper.
        embedding_size: size of a feature, >= 1; the paper's is 84.

    Shapes: float images [B, in_channels, height, width] -> features [B, embedding_size].

    Raises:
        InputError: a size is too small; in `forward`, images of another shape or no floating-point ones.

    Source: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", 1998,
    section II.B.

    Differs: ReLU stands for the scaled tanh; max-pooling without parameters for trainable sums; every map of the second
    convolution sees all six maps below it, not the paper's hand-picked ones; 28x28 images are padded by the first
    convolution instead of beforehand; and the feature layer (F6) has no squashing function and no radial basis
    functions after it: the head is a separate module.

    >>> import torch
    >>> LeNet5()(torch.zeros(3, 1, 28, 28)).shape
    torch.Size([3, 84])
    """

    def __init__(self, in_channels: int = 1, image_size: ImageSize = 28, embedding_size: int = 84) -> None:
        """Build the layers with PyTorch's default initialisation."""
        super().__init__()
        sides = check_sizes("LeNet5", in_channels, image_size, embedding_size, smallest=12)
        self.in_channels, self.image_size, self.embedding_size = in_channels, sides, embedding_size
        rows, columns = ((side // 2 - 4) // 2 for side in sides)
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, 6, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * rows * columns, 120),
            nn.ReLU(),
            FeatureLayer(120, embedding_size),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map images [B, in_channels, height, width] to features [B, embedding_size]."""
        check_images(images, self.in_channels, self.image_size)
        return cast(Tensor, self.layers(images))


class LeNetPlusPlus(nn.Module):
    """LeNet++, the center-loss paper's net for MNIST, with linear features (2-D by default, to be drawn).

    Three stages of [conv 5x5 (padding 2) - PReLU] x 2 - max-pool 2 (stride 2), with 32, 64 and 128 channels, then
    FC embedding_size: a 28x28 image reaches the last layer as 128 x 3 x 3.

    Arguments:
        in_channels: channels of an image, >= 1.
        image_size: height and width in pixels, or one number for both, >= 8.
        embedding_size: size of a feature, >= 1; the paper's is 2.

    Shapes: float images [B, in_channels, height, width] -> features [B, embedding_size].

    Raises:
        InputError: a size is too small; in `forward`, images of another shape or no floating-point ones.

    Source: Wen, Zhang, Li, Qiao, "A discriminative feature learning approach for deep face recognition", ECCV 2016,
    Table 1.

    Differs: the feature layer is linear, so that features can point in every direction and their norms are the
    layer's own; some implementations put one more PReLU after it. Each PReLU has one parameter, shared by its channels
    (PyTorch's default). Pooling rounds down (7 -> 3), as PyTorch's does; Caffe's rounds up (7 -> 4).

    >>> import torch
    >>> LeNetPlusPlus()(torch.zeros(3, 1, 28, 28)).shape
    torch.Size([3, 2])
    """

    def __init__(self, in_channels: int = 1, image_size: ImageSize = 28, embedding_size: int = 2) -> None:
        """Build the layers, initialised by Caffe's "xavier", as the paper's are: PyTorch's default starts too small."""
        super().__init__()
        sides = check_sizes("LeNetPlusPlus", in_channels, image_size, embedding_size, smallest=8)
        self.in_channels, self.image_size, self.embedding_size = in_channels, sides, embedding_size
        rows, columns = (side // 8 for side in sides)
        self.layers = nn.Sequential(
            *_stage(in_channels, 32),
            *_stage(32, 64),
            *_stage(64, 128),
            nn.Flatten(),
            FeatureLayer(128 * rows * columns, embedding_size),
        )
        initialize_xavier(self)

    def forward(self, images: Tensor) -> Tensor:
        """Map images [B, in_channels, height, width] to features [B, embedding_size]."""
        check_images(images, self.in_channels, self.image_size)
        return cast(Tensor, self.layers(images))


def _stage(below: int, channels: int) -> list[nn.Module]:
    return [
        nn.Conv2d(below, channels, 5, padding=2),
        nn.PReLU(),
        nn.Conv2d(channels, channels, 5, padding=2),
        nn.PReLU(),
        nn.MaxPool2d(2),
    ]
