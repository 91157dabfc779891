"""VGG-13, the net of the norms of CelebA's faces."""

from __future__ import annotations

from torch import nn

from angulus.backbones.layers import Backbone, FeatureLayer, ImageSize, check_dropout, check_sizes, initialize_he


def vgg13(
    in_channels: int = 3, image_size: ImageSize = 224, embedding_size: int = 4096, dropout: float = 0.5
) -> Backbone:
    """VGG-13 (configuration B), with its second hidden layer as linear features.

    Five stages of [conv 3x3 - ReLU] x 2 - max-pool 2, with 64, 128, 256, 512 and 512 channels, then FC 4096 - ReLU -
    dropout - FC embedding_size. 128,950,848 parameters at 3x224x224 with 4096-D features; with 1000 class weights and
    biases 133,047,848, the paper's 133 million.

    Arguments:
        in_channels: channels of an image, >= 1.
        image_size: height and width in pixels, or one number for both, >= 32; the paper's is 224.
        embedding_size: size of a feature, >= 1; the paper's is 4096.
        dropout: share of the first hidden layer set to zero in training, in [0, 1); the paper's is 0.5.

    Raises:
        InputError: a size is too small, or dropout is outside its range.

    Source: Simonyan, Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015,
    Table 1 (B) and Table 2.

    Differs: no ReLU and no dropout after the second hidden layer, which gives the features; and weights by He et al.
    from the start, where the paper began with those of a shallower trained net.

    >>> import torch
    >>> vgg13(image_size=32, embedding_size=5)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 5])
    """
    sides = check_sizes("vgg13", in_channels, image_size, embedding_size, smallest=32)
    layers: list[nn.Module] = []
    below = in_channels
    for channels in (64, 128, 256, 512, 512):
        for _ in range(2):
            layers += [nn.Conv2d(below, channels, 3, padding=1), nn.ReLU()]
            below = channels
        layers.append(nn.MaxPool2d(2))
    rows, columns = (side // 32 for side in sides)
    net = nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Linear(below * rows * columns, 4096),
        nn.ReLU(),
        nn.Dropout(check_dropout(dropout)),
        FeatureLayer(4096, embedding_size),
    )
    initialize_he(net)
    return Backbone(net, in_channels, sides, embedding_size)
