"""One sentence for each backbone: what it is, and the images that it is made for."""

from __future__ import annotations

_IR = "An improved residual net with {} layers, ending in batch norm, for faces of 112x112 pixels."
_INCAY = "Feature incay's net for {}, of 3x3 convolutions, for images of {} pixels."
_LUNA = "A 3-D net for lung nodules, for volumes of {} voxels (depth, height, width)."

# sizes are height x width, the default or the paper's; most nets take other sizes too
ABOUT = {
    "lenet5": "LeNet-5 in its usual modern form, for images of 28x28 pixels.",
    "lenet++": "LeNet++, center loss's net for MNIST with 2-D features, for images of 28x28 pixels.",
    "small": "Two convolutions and a hidden layer, with 2-D features, for images of 8x8 pixels.",
    "iam_mnist": "IAM's net for MNIST with 3-D features, for images of 28x28 pixels.",
    "fi_mnist": _INCAY.format("MNIST", "28x28"),
    "fi_cifar10": _INCAY.format("CIFAR-10", "32x32"),
    "fi_cifar100": _INCAY.format("CIFAR-100", "32x32"),
    "vgg13": "VGG-13, with its second hidden layer as features, for images of 224x224 pixels.",
    "resnet34": "ResNet-34, of units with two 3x3 convolutions, for images of 224x224 pixels.",
    "resnet50": "ResNet-50, of units with a bottleneck, for images of 224x224 pixels.",
    **{f"ir{layers}": _IR.format(layers) for layers in (18, 34, 50, 100, 200)},
    "spherenet20": "SphereFace's residual net with 20 layers and no batch norm, for faces of 112x96 pixels.",
    "spherenet64": "SphereFace's residual net with 64 layers and no batch norm, for faces of 112x96 pixels.",
    "wen28": "The net of center loss and NormFace, with 28 layers, for faces of 112x96 pixels.",
    "light_cnn9": "Light CNN-9, whose layers take the maximum of two channels, for grey faces of 128x128 pixels.",
    "inception_resnet_v1": "Inception-ResNet-V1, ending in batch norm, for faces of 160x160 pixels.",
    "attention56_irse": "AttentionNet-IRSE, a residual net with attention modules, for faces of 144x144 pixels.",
    "mobilefacenet": "MobileFaceNet, inverted residuals for phones, for faces of 112x112 pixels.",
    "slim_resnet": "An improved residual net that trains on two CPU cores, for faces of 112x112 pixels.",
    "luna_archi1": _LUNA.format("6x20x20"),
    "luna_archi2": _LUNA.format("10x30x30"),
    "luna_archi3": _LUNA.format("26x40x40"),
    "luna_fusion": "The three nets for lung nodules, trained together, for volumes of 26x40x40 voxels "
    "(depth, height, width).",
}
