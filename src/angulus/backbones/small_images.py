"""Plain convolutional nets for small images: LeNets, a net for digits, and the nets of IAM and feature incay."""

from __future__ import annotations

from torch import nn

from angulus.backbones.layers import Backbone, FeatureLayer, ImageSize, check_sizes, feature_layers, initialize_xavier

# channels of conv0, conv1, conv2 and conv3, and layers in each of the last three: feature incay's Table 8
_INCAY = {"fi_mnist": ((64,) * 4, 3), "fi_cifar10": ((64, 64, 128, 256), 4), "fi_cifar100": ((128, 128, 256, 512), 4)}


def lenet5(
    in_channels: int = 1, image_size: ImageSize = 28, embedding_size: int = 84, feature_activation: str = "none"
) -> Backbone:
    """LeNet-5 in its usual modern form, with linear features.

    conv 6 5x5 (padding 2) - ReLU - max-pool 2 - conv 16 5x5 - ReLU - max-pool 2 - FC 120 - ReLU - FC embedding_size.

    Args:
        image_size: sides in pixels, >= 12; 28 gives the second pool 5x5, as in the paper.
        embedding_size: 84 in the paper.
        feature_activation: what follows the feature layer, see `layers.feature_layers`.

    Source: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", 1998,
    section II.B.

    Differs: ReLU stands for the scaled tanh; max-pooling without parameters for trainable sums; every map of the second
    convolution sees all six maps below it, not the paper's hand-picked ones; 28x28 images are padded by the first
    convolution instead of beforehand; and the feature layer (F6) has no squashing function and no radial basis
    functions after it: the head is a separate module.

    >>> import torch
    >>> lenet5()(torch.zeros(3, 1, 28, 28)).shape
    torch.Size([3, 84])
    """
    sides = check_sizes("lenet5", in_channels, image_size, embedding_size, smallest=12)
    rows, columns = ((side // 2 - 4) // 2 for side in sides)
    layers = [nn.Conv2d(in_channels, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    layers += [nn.Linear(16 * rows * columns, 120), nn.ReLU()]
    layers += feature_layers(120, embedding_size, feature_activation)
    return Backbone(layers, in_channels, sides, embedding_size, initialize=None)


def lenet_plus_plus(
    in_channels: int = 1, image_size: ImageSize = 28, embedding_size: int = 2, feature_activation: str = "none"
) -> Backbone:
    """LeNet++, the center-loss paper's net for MNIST, with linear features (2-D by default, to be drawn).

    Three stages of [conv 5x5 (padding 2) - PReLU] x 2 - max-pool 2 (stride 2), with 32, 64 and 128 channels, then
    FC embedding_size: a 28x28 image reaches the last layer as 128 x 3 x 3.

    Args:
        image_size: sides in pixels, >= 8.
        embedding_size: 2 in the paper.
        feature_activation: what follows the feature layer, see `layers.feature_layers`; a PReLU in the net that CM's
            authors released.

    Source: Wen, Zhang, Li, Qiao, "A discriminative feature learning approach for deep face recognition", ECCV 2016,
    Table 1.

    Differs: the feature layer is linear, so that features can point in every direction and their norms are the
    layer's own. Each PReLU has one parameter, shared by its channels
    (PyTorch's default). Pooling rounds down (7 -> 3), as PyTorch's does; Caffe's rounds up (7 -> 4).

    >>> import torch
    >>> lenet_plus_plus()(torch.zeros(3, 1, 28, 28)).shape
    torch.Size([3, 2])
    """
    sides = check_sizes("lenet++", in_channels, image_size, embedding_size, smallest=8)
    rows, columns = (side // 8 for side in sides)
    layers: list[nn.Module] = []
    for below, channels in ((in_channels, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(below, channels, 5, padding=2), nn.PReLU()]
        layers += [nn.Conv2d(channels, channels, 5, padding=2), nn.PReLU(), nn.MaxPool2d(2)]
    layers += [nn.Flatten(), *feature_layers(128 * rows * columns, embedding_size, feature_activation)]
    return Backbone(layers, in_channels, sides, embedding_size, initialize_xavier)


def small_net(in_channels: int = 1, image_size: ImageSize = 8, embedding_size: int = 2) -> Backbone:
    """Two convolutions with batch norm, one hidden layer, linear features (2-D by default, to be drawn).

    [conv 3x3 (padding 1) - batch norm - PReLU] with 16, then 32 channels - max-pool 2 - FC 128 - batch norm -
    PReLU - FC embedding_size. What batch norm follows has no bias, which it would cancel; a PReLU has one parameter.

    Args:
        image_size: sides in pixels, >= 2.

    >>> import torch
    >>> small_net()(torch.zeros(3, 1, 8, 8)).shape
    torch.Size([3, 2])
    """
    sides = check_sizes("small", in_channels, image_size, embedding_size, smallest=2)
    rows, columns = (side // 2 for side in sides)
    layers: list[nn.Module] = []
    for below, channels in ((in_channels, 16), (16, 32)):
        layers += [nn.Conv2d(below, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.PReLU()]
    layers += [nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * rows * columns, 128, bias=False)]
    layers += [nn.BatchNorm1d(128), nn.PReLU(), FeatureLayer(128, embedding_size)]
    return Backbone(layers, in_channels, sides, embedding_size, initialize=None)


def iam_mnist(in_channels: int = 1, image_size: ImageSize = 28, embedding_size: int = 3) -> Backbone:
    """IAM's net for MNIST, with linear features (3-D by default, to be drawn).

    Three stages of [conv 3x3 - PReLU] x 2 - max-pool 3x3, with 32, 64 and 128 channels, then FC embedding_size: a 28x28
    image reaches the last layer as 128 x 3 x 3. 290,339 parameters with 3-D features.

    Args:
        image_size: sides in pixels, >= 12; the paper's digits have 28.
        embedding_size: 3 in the paper.

    Source: "Inter-class angular margin loss for face recognition" (IAM), section 5.1 and Table 1.

    Differs: nothing; but the table names neither padding, strides nor activation. Chosen here as in the net for MNIST
    that NormFace's authors released, whose stages and channels are the same: padding 1, pools of stride 2 that round up
    (28, 14, 7, 3), PReLU with one slope per channel, no batch norm; weights by Caffe's "xavier".

    >>> import torch
    >>> iam_mnist()(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 3])
    """
    sides = check_sizes("iam_mnist", in_channels, image_size, embedding_size, smallest=12)
    layers: list[nn.Module] = []
    below, (rows, columns) = in_channels, sides
    for channels in (32, 64, 128):
        for _ in range(2):
            layers += [nn.Conv2d(below, channels, 3, padding=1), nn.PReLU(channels)]
            below = channels
        layers.append(nn.MaxPool2d(3, stride=2, ceil_mode=True))
        rows, columns = rows // 2, columns // 2
    layers += [nn.Flatten(), FeatureLayer(below * rows * columns, embedding_size)]
    return Backbone(layers, in_channels, sides, embedding_size, initialize_xavier)


def feature_incay_net(
    net: str, /, in_channels: int, image_size: ImageSize, embedding_size: int, feature_activation: str = "none"
) -> Backbone:
    """A net of feature incay's Table 8: "fi_mnist", "fi_cifar10" or "fi_cifar100", with linear features.

    ===========  =======  =======  =======  =======  ===  =======  ==========
    net          conv0    conv1    conv2    conv3    FC   images   parameters
    ===========  =======  =======  =======  =======  ===  =======  ==========
    fi_mnist     1 x 64   3 x 64   3 x 64   3 x 64   256  1x28x28  481,984
    fi_cifar10   1 x 64   4 x 64   4 x 128  4 x 256  512  3x32x32  4,832,896
    fi_cifar100  1 x 128  4 x 128  4 x 256  4 x 512  512  3x32x32  15,121,152
    ===========  =======  =======  =======  =======  ===  =======  ==========

    (layers x channels.) Every convolution is 3x3 with padding 1, then batch norm and PReLU with one slope per channel;
    conv1, conv2 and conv3 each end in a max-pool 2x2 of stride 2.

    Args:
        image_size: sides in pixels, >= 8.
        embedding_size: the paper's is the column FC.
        feature_activation: what follows the feature layer, see `layers.feature_layers`; `"batch_norm_relu"` in the nets
            that Liu et al. released.

    Source: "Feature incay for representation regularization", section 6.4 and Table 8; activation, batch norm and
    initialisation (He et al.) from what it follows: Liu, Wen, Yu, Yang, "Large-margin softmax loss for convolutional
    neural networks", ICML 2016, section 5.1.

    Differs: the features are linear, so that their norms are the layer's own. What batch norm follows has no bias,
    which it would cancel.

    >>> import torch
    >>> feature_incay_net("fi_mnist", 1, 28, 256)(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 256])
    """
    sides = check_sizes(net, in_channels, image_size, embedding_size, smallest=8)
    (first, *stages), depth = _INCAY[net]
    layers = _convolution(in_channels, first)
    below = first
    for channels in stages:
        for _ in range(depth):
            layers += _convolution(below, channels)
            below = channels
        layers.append(nn.MaxPool2d(2))
    rows, columns = (side // 8 for side in sides)
    layers += [nn.Flatten(), *feature_layers(below * rows * columns, embedding_size, feature_activation)]
    return Backbone(layers, in_channels, sides, embedding_size)


def _convolution(below: int, channels: int) -> list[nn.Module]:
    return [nn.Conv2d(below, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.PReLU(channels)]
