"""The nets against what their papers and others publish: parameters, multiplications, the sides of maps.

Everything runs on tensors without storage, so that the largest nets cost nothing.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from angulus.backbones import build, list_backbones

Size = int | tuple[int, ...]

# in_channels, image_size, embedding_size that the counts are published, or were counted by hand, for
USUAL: dict[str, tuple[int, Size, int]] = {
    "iam_mnist": (1, 28, 3),
    "fi_mnist": (1, 28, 256),
    "fi_cifar10": (3, 32, 512),
    "fi_cifar100": (3, 32, 512),
    "vgg13": (3, 224, 4096),
    "resnet34": (3, 224, 1000),
    "resnet50": (3, 224, 1000),
    "ir18": (3, 112, 512),
    "ir34": (3, 112, 512),
    "ir50": (3, 112, 512),
    "ir100": (3, 112, 512),
    "ir200": (3, 112, 512),
    "spherenet20": (3, (112, 96), 512),
    "spherenet64": (3, (112, 96), 512),
    "wen28": (3, (112, 96), 512),
    "light_cnn9": (1, 128, 256),
    "inception_resnet_v1": (3, 160, 512),
    "attention56_irse": (3, 144, 512),
    "mobilefacenet": (3, 112, 128),
    "slim_resnet": (3, 112, 256),
    "luna_archi1": (1, (6, 20, 20), 150),
    "luna_archi2": (1, (10, 30, 30), 250),
    "luna_archi3": (1, (26, 40, 40), 250),
    "luna_fusion": (1, (26, 40, 40), 250),
}


@dataclass(frozen=True)
class Measured:
    """What one net is made of and gives."""

    parameters: int
    batch_norms: int  # channels of all batch norms: their gains, or their shifts
    products: float  # millions of multiplications in convolutions and linear layers, for one image
    maps: tuple[tuple[type[nn.Module], tuple[int, ...]], ...]  # of convolutions and pools, in order


def made(name: str, **options: object) -> nn.Module:
    in_channels, image_size, embedding_size = USUAL[name]
    return build(name, in_channels=in_channels, image_size=image_size, embedding_size=embedding_size, **options)


@functools.cache
def measured(name: str) -> Measured:
    seen: list[tuple[type[nn.Module], tuple[int, ...]]] = []
    with FakeTensorMode():
        net = made(name).eval()
        for layer in net.modules():
            if isinstance(layer, nn.Conv2d | nn.Conv3d | nn.MaxPool2d | nn.MaxPool3d):
                layer.register_forward_hook(
                    lambda layer, _, output: seen.append((type(layer), tuple(output.shape[1:])))
                )
        with FlopCounterMode(display=False) as counter:
            features = net(torch.empty(1, USUAL[name][0], *net.image_size))
    assert features.shape == (1, USUAL[name][2])
    kinds = nn.BatchNorm1d | nn.BatchNorm2d
    channels = sum(layer.num_features for layer in net.modules() if isinstance(layer, kinds))
    return Measured(count(net), channels, counter.get_total_flops() / 2e6, tuple(seen))


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def parameters(name: str) -> int:
    return measured(name).parameters


def batch_norms(name: str) -> int:
    return measured(name).batch_norms


def millions_of_products(name: str) -> float:
    return measured(name).products


def maps(name: str, *kinds: type[nn.Module]) -> list[tuple[int, ...]]:
    """What the layers of those kinds give for one image, in order."""
    return [shape for kind, shape in measured(name).maps if kind in kinds]


def convolutions(sizes: Iterable[tuple[int, int, int]], extra: int) -> int:
    """Parameters of convolutions (channels below, channels, positions of the kernel), with `extra` more a channel."""
    return sum(below * channels * positions + extra * channels for below, channels, positions in sizes)


def test_every_net_is_counted() -> None:
    assert set(list_backbones()) == set(USUAL) | {"lenet5", "lenet++", "small"}


# --- counts that others publish ---


def test_vgg13_has_torchvisions_count_with_its_thousand_classes() -> None:
    # torchvision.models.vgg13: num_params 133047848, GFLOPS 11.31 (with the classes' 4.1M)
    assert parameters("vgg13") + 1000 * (4096 + 1) == 133_047_848
    assert millions_of_products("vgg13") + 4.096 == pytest.approx(11_310, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "total", "products"),
    [
        ("resnet34", 21_797_672, 3_660),  # torchvision: num_params, GFLOPS 3.66
        # torchvision's num_params; its GFLOPS, 4.09, are of the later stride. The paper's Table 1 says 3.8e9.
        ("resnet50", 25_557_032, 3_850),
    ],
)
def test_resnets_have_torchvisions_counts(name: str, total: int, products: float) -> None:
    assert parameters(name) == total  # with 1000 features for the 1000 classes
    assert millions_of_products(name) == pytest.approx(products, rel=3e-3)


@pytest.mark.parametrize(
    ("name", "published", "products"),
    [
        ("ir50", 43.59e6, 6_300),  # insightface: 43.59M; 6.3 GFLOPs in its table of nets
        ("ir100", 65.16e6, 24_209 / 2),  # insightface: 65.16M; Open Model Zoo: 24.209 GFLOPs, of 2 a product
    ],
)
def test_improved_residual_nets_have_insightfaces_counts(name: str, published: float, products: float) -> None:
    assert parameters(name) == pytest.approx(published, abs=0.005e6)
    assert millions_of_products(name) == pytest.approx(products, rel=5e-3)


@pytest.mark.parametrize(
    ("name", "products"),
    [
        ("ir18", 2_600),  # insightface's table of nets: 2.6 GFLOPs
        ("ir34", 8_934 / 2),  # Open Model Zoo, face-recognition-resnet34-arcface: 8.934 GFLOPs, of 2 a product
    ],
)
def test_smaller_improved_residual_nets_have_the_published_multiplications(name: str, products: float) -> None:
    assert millions_of_products(name) == pytest.approx(products, rel=5e-3)


@pytest.mark.parametrize(("name", "published"), [("ir34", 34.129e6), ("ir100", 65.131e6)])
def test_improved_residual_nets_without_batch_norms_gains_have_open_model_zoos_counts(
    name: str, published: float
) -> None:
    # its converted nets fold a batch norm into the convolution below it, and keep those that have none
    assert parameters(name) - batch_norms(name) == pytest.approx(published, rel=3e-4)


def test_squeeze_excitation_adds_two_layers_a_unit() -> None:
    units = zip((64, 128, 256, 512), (3, 4, 14, 3), strict=True)
    added = sum(depth * (2 * c * (c // 16) + c // 16 + c) for c, depth in units)
    with FakeTensorMode():
        assert count(made("ir50", squeeze_excitation=True)) - parameters("ir50") == added


def test_spherenet20_has_open_model_zoos_count() -> None:
    # Open Model Zoo, Sphereface: MParams 22.671 and GFLOPs 3.504, of the released net with the units' zero biases
    zeros = 2 * (1 * 64 + 2 * 128 + 4 * 256 + 1 * 512)
    assert parameters("spherenet20") + zeros == pytest.approx(22.671e6, abs=500)
    assert millions_of_products("spherenet20") == pytest.approx(3_504 / 2, rel=2e-3)


def test_inception_resnet_v1_has_open_model_zoos_count() -> None:
    # Open Model Zoo, facenet-20180408-102900 (160x160, 512-D): MParams 23.469, GFLOPs 2.846; no gains there
    assert parameters("inception_resnet_v1") - batch_norms("inception_resnet_v1") == pytest.approx(23.469e6, rel=1e-4)
    assert millions_of_products("inception_resnet_v1") == pytest.approx(2_846 / 2, rel=5e-3)


def test_mobilefacenet_has_the_papers_count() -> None:
    # the paper's 0.99 million and 221 million, with each batch norm folded into the layer below: one number a channel
    assert parameters("mobilefacenet") - batch_norms("mobilefacenet") == pytest.approx(0.99e6, abs=0.005e6)
    assert millions_of_products("mobilefacenet") == pytest.approx(221, abs=0.5)


def test_light_cnn9_has_the_papers_count_once_one_of_its_rows_is_counted_as_there() -> None:
    # 5,556K: weights alone, each row in whole thousands, and 96 instead of 48 channels below the first 3x3 row
    rows = [(1, 96, 25), (48, 96, 1), (48, 192, 9), (96, 192, 1), (96, 384, 9), (192, 384, 1), (192, 256, 9)]
    rows += [(128, 256, 1), (128, 256, 9), (128, 512, 64)]
    assert parameters("light_cnn9") == convolutions(rows, extra=1)
    rows[2] = (96, 192, 9)
    assert convolutions(rows, extra=0) == pytest.approx(5_556e3, rel=1e-3)


# --- counts by hand from the papers' tables, where none is published ---


def test_iam_mnist_by_hand() -> None:
    layers = [(1, 32, 9), (32, 32, 9), (32, 64, 9), (64, 64, 9), (64, 128, 9), (128, 128, 9)]
    assert parameters("iam_mnist") == convolutions(layers, extra=2) + 3 * (128 * 9 + 1)  # bias and slope


@pytest.mark.parametrize(
    ("name", "in_channels", "plan", "last", "fc"),
    [
        ("fi_mnist", 1, [(64, 1), (64, 3), (64, 3), (64, 3)], 3, 256),
        ("fi_cifar10", 3, [(64, 1), (64, 4), (128, 4), (256, 4)], 4, 512),
        ("fi_cifar100", 3, [(128, 1), (128, 4), (256, 4), (512, 4)], 4, 512),
    ],
)
def test_feature_incay_nets_by_hand(
    name: str, in_channels: int, plan: list[tuple[int, int]], last: int, fc: int
) -> None:
    widths = [in_channels] + [channels for channels, layers in plan for _ in range(layers)]
    layers = [(below, channels, 9) for below, channels in pairwise(widths)]
    features = fc * (widths[-1] * last**2 + 1)
    assert parameters(name) == convolutions(layers, extra=3) + features  # gain, shift and slope a channel


def test_spherenet64_by_hand() -> None:
    stages = [(3, 64, 3), (64, 128, 8), (128, 256, 16), (256, 512, 3)]
    first = convolutions([(below, c, 9) for below, c, _ in stages], extra=2)
    units = sum(2 * depth * (9 * c * c + c) for _, c, depth in stages)
    assert parameters("spherenet64") == first + units + 512 * (512 * 7 * 6 + 1)
    assert 4 + sum(2 * depth for _, _, depth in stages) == 64  # its layers, as the paper counts them


def test_wen28_by_hand() -> None:
    plain = [(3, 32, 9), (32, 64, 9), (64, 128, 9), (128, 256, 9), (256, 512, 9)]
    units = [(64, 1), (128, 2), (256, 5), (512, 3)]
    inside = sum(2 * depth * (9 * c * c + c) for c, depth in units)
    assert parameters("wen28") == convolutions(plain, extra=2) + inside + 512 * (512 * 5 * 4 + 1)
    assert len(plain) + sum(2 * depth for _, depth in units) + 1 == 28


def test_attention56_irse_by_hand() -> None:
    def unit(below: int, c: int, projected: bool) -> int:
        norms, slopes, gate = 2 * below + 4 * c, c, 2 * c * (c // 16) + c // 16 + c
        return norms + slopes + gate + 9 * c * (below + c) + projected * (below * c + 2 * c)

    def attention(c: int, halvings: int) -> int:
        units = 2 + 2 + 2 * halvings + (halvings - 1)  # before and after, trunk, mask down and up, skips
        return units * unit(c, c, False) + 2 * (2 * c + c + c * c)

    expected = 3 * 64 * 9 + 3 * 64
    for below, c, halvings in ((64, 64, 3), (64, 128, 2), (128, 256, 1)):
        expected += unit(below, c, True) + attention(c, halvings)
    expected += unit(256, 512, True) + 2 * unit(512, 512, False)
    expected += 2 * 512 + 512 * (512 * 9 * 9 + 1) + 2 * 512
    assert parameters("attention56_irse") == expected


@pytest.mark.parametrize(
    ("name", "widths", "depths", "strided", "embedding_size"),
    [
        ("ir18", (64, 128, 256, 512), (2, 2, 2, 2), True, 512),
        ("ir34", (64, 128, 256, 512), (3, 4, 6, 3), True, 512),
        ("ir50", (64, 128, 256, 512), (3, 4, 14, 3), True, 512),
        ("ir100", (64, 128, 256, 512), (3, 13, 30, 3), True, 512),
        ("ir200", (64, 128, 256, 512), (6, 26, 60, 6), True, 512),
        ("slim_resnet", (32, 48, 96, 192), (2, 2, 2, 2), False, 256),  # its first stage keeps the shape
    ],
)
def test_improved_residual_nets_by_hand(
    name: str, widths: tuple[int, ...], depths: tuple[int, ...], strided: bool, embedding_size: int
) -> None:
    below = widths[0]
    expected = 3 * below * 9 + 3 * below
    for c, depth in zip(widths, depths, strict=True):
        for unit in range(depth):
            expected += 2 * below + 4 * c + c + 9 * c * (below + c)
            if unit == 0 and (strided or below != c):
                expected += below * c + 2 * c
            below = c
    expected += 2 * below + embedding_size * (below * 7 * 7 + 1) + 2 * embedding_size
    assert parameters(name) == expected


ARCHI = {
    "luna_archi1": ([75, 75, 25], (2, 8, 8), 150),
    "luna_archi2": ([75, 75, 75], (4, 5, 5), 250),
    "luna_archi3": ([75, 75, 75], (8, 10, 10), 250),
}


@pytest.mark.parametrize("name", ARCHI)
def test_luna_nets_by_hand(name: str) -> None:
    kernels, left, hidden = ARCHI[name]
    trunk = convolutions(zip((1, 64, 64), (64, 64, 64), kernels, strict=True), extra=1)
    assert parameters(name) == trunk + hidden * (64 * math.prod(left) + 1)


def test_luna_fusion_is_the_three_nets_and_a_layer() -> None:
    assert parameters("luna_fusion") == sum(map(parameters, ARCHI)) + 250 * (150 + 250 + 250 + 1)


# --- sides of the maps, from the papers' tables ---


def test_maps_of_the_luna_nets() -> None:
    # width x height x depth in the paper; depth comes first here
    kinds = (nn.Conv3d, nn.MaxPool3d)
    assert [shape[1:] for shape in maps("luna_archi1", *kinds)] == [(4, 16, 16), (2, 12, 12), (2, 8, 8)]
    assert [shape[1:] for shape in maps("luna_archi2", *kinds)] == [(8, 26, 26), (8, 13, 13), (6, 9, 9), (4, 5, 5)]
    assert [shape[1:] for shape in maps("luna_archi3", *kinds)] == [
        (24, 36, 36),
        (12, 18, 18),
        (10, 14, 14),
        (8, 10, 10),
    ]


@pytest.mark.parametrize(
    ("name", "sides"),
    [
        ("iam_mnist", [28, 14, 7]),
        ("fi_mnist", [28, 14, 7]),
        ("fi_cifar100", [32, 16, 8]),
        ("vgg13", [224, 112, 56, 28, 14]),
        ("light_cnn9", [128, 64, 32, 16]),
        ("resnet34", [112, 56, 28, 14, 7]),
        ("resnet50", [112, 56, 28, 14, 7]),
        ("ir50", [112, 56, 28, 14, 7]),
        ("slim_resnet", [56, 28, 14, 7]),
        ("mobilefacenet", [56, 28, 14, 7, 1]),
        # the sides that FaceNet's stem names for 299, at 160: 79, 77, (38), 36, 17; then 8 and 3
        ("inception_resnet_v1", [79, 77, 38, 36, 17, 8, 3]),
    ],
)
def test_maps_get_smaller_as_in_the_papers(name: str, sides: list[int]) -> None:
    falling: list[int] = []
    for shape in maps(name, nn.Conv2d):
        if not falling or shape[1] < falling[-1]:
            falling.append(shape[1])
    assert falling == sides


def test_wen28_leaves_a_map_of_5_by_4() -> None:
    assert maps("wen28", nn.Conv2d)[-1] == (512, 5, 4)
    assert maps("spherenet20", nn.Conv2d)[-1] == (512, 7, 6)


def test_attention_masks_go_down_to_9_pixels() -> None:
    assert [shape[1] for shape in maps("attention56_irse", nn.MaxPool2d)] == [36, 18, 9, 18, 9, 9]
