"""The nets' layers written out from the papers, with PyTorch's functions and nothing of the package."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from angulus.backbones import build

Way = Callable[[Tensor], Tensor]


class Tape:
    """Hands out a net's tensors in order, checked for their shapes by the functions that use them."""

    def __init__(self, tensors: list[Tensor], buffers: list[Tensor]) -> None:
        self.tensors: Iterator[Tensor] = iter(tensors)
        self.buffers: Iterator[Tensor] = iter(buffers)

    def take(self, tensors: int, buffers: int) -> tuple[list[Tensor], list[Tensor]]:
        """What a part needs that runs later than its turn."""
        return [next(self.tensors) for _ in range(tensors)], [next(self.buffers) for _ in range(buffers)]

    def conv(self, x: Tensor, stride: int = 1, padding: int = 0, bias: bool = False, groups: int = 1) -> Tensor:
        weight, shift = next(self.tensors), next(self.tensors) if bias else None
        function = F.conv3d if x.ndim == 5 else F.conv2d
        return function(x, weight, shift, stride=stride, padding=padding, groups=groups)

    def linear(self, x: Tensor, bias: bool = True) -> Tensor:
        return F.linear(x.flatten(1), next(self.tensors), next(self.tensors) if bias else None)

    def prelu(self, x: Tensor) -> Tensor:
        slope = next(self.tensors).reshape(1, -1, *[1] * (x.ndim - 2))
        return x.clamp(min=0) + slope * x.clamp(max=0)

    def norm(self, x: Tensor, eps: float = 1e-5) -> Tensor:
        """Batch norm in eval mode."""
        gain, shift, mean, variance = next(self.tensors), next(self.tensors), next(self.buffers), next(self.buffers)
        shape = (1, -1, *[1] * (x.ndim - 2))
        scale = gain / (variance + eps).sqrt()
        return x * scale.reshape(shape) + (shift - mean * scale).reshape(shape)

    def done(self) -> bool:
        return next(self.tensors, None) is None and next(self.buffers, None) is None


def iam_mnist(t: Tape, x: Tensor) -> Tensor:
    for _ in range(3):
        x = t.prelu(t.conv(x, padding=1, bias=True))
        x = t.prelu(t.conv(x, padding=1, bias=True))
        x = F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-torch.inf), 3, 2)  # of an even side: one column past the edge
    return t.linear(x)


def fi_cifar10(t: Tape, x: Tensor) -> Tensor:
    x = t.prelu(t.norm(t.conv(x, padding=1)))
    for _ in range(3):
        for _ in range(4):
            x = t.prelu(t.norm(t.conv(x, padding=1)))
        x = F.max_pool2d(x, 2)
    return t.linear(x)


def vgg13(t: Tape, x: Tensor) -> Tensor:
    for _ in range(5):
        x = F.max_pool2d(t.conv(t.conv(x, padding=1, bias=True).relu(), padding=1, bias=True).relu(), 2)
    return t.linear(t.linear(x).relu())


def resnet(bottleneck: bool) -> Callable[[Tape, Tensor], Tensor]:
    def net(t: Tape, x: Tensor) -> Tensor:
        x = F.max_pool2d(t.norm(t.conv(x, 2, 3)).relu(), 3, 2, 1)
        for stage, depth in enumerate((3, 4, 6, 3)):
            for unit in range(depth):
                stride = 2 if stage and not unit else 1
                if bottleneck:
                    y = t.norm(t.conv(x, stride)).relu()
                    y = t.norm(t.conv(t.norm(t.conv(y, 1, 1)).relu()))
                else:
                    y = t.norm(t.conv(t.norm(t.conv(x, stride, 1)).relu(), 1, 1))
                x = (y + (x if y.shape == x.shape else t.norm(t.conv(x, stride)))).relu()
        return t.linear(x.mean(dim=(2, 3)))

    return net


def improved_residual(t: Tape, x: Tensor, stride: int, gated: bool = False) -> Tensor:
    y = t.norm(t.conv(t.prelu(t.norm(t.conv(t.norm(x), 1, 1))), stride, 1))
    if gated:
        gate = t.linear(t.linear(y.mean(dim=(2, 3))).relu()).sigmoid()
        y = y * gate[:, :, None, None]
    return y + (x if y.shape == x.shape else t.norm(t.conv(x, stride)))


def improved_residual_net(
    depths: tuple[int, ...], gated: bool, first: tuple[int, int]
) -> Callable[[Tape, Tensor], Tensor]:
    def net(t: Tape, x: Tensor) -> Tensor:
        x = t.prelu(t.norm(t.conv(x, first[0], 1)))
        for stage, depth in enumerate(depths):
            for unit in range(depth):
                x = improved_residual(t, x, (2 if stage else first[1]) if not unit else 1, gated)
        return t.norm(t.linear(t.norm(x)))

    return net


def attention(t: Tape, x: Tensor, halvings: int) -> Tensor:
    def unit() -> Way:
        held = t.take(13, 6)
        return lambda x: improved_residual(Tape(*held), x, 1, gated=True)

    def hourglass(halvings: int) -> Way:
        down, up = unit(), unit()
        inner, skip = (hourglass(halvings - 1), unit()) if halvings > 1 else (None, None)

        def run(x: Tensor) -> Tensor:
            low = down(F.max_pool2d(x, 3, 2, 1))
            if inner is not None and skip is not None:
                low = inner(low) + skip(low)
            return F.interpolate(up(low), x.shape[2:], mode="bilinear", align_corners=True)

        return run

    first, last, trunk, trunk_end = unit(), unit(), unit(), unit()
    mask = hourglass(halvings)
    x = first(x)
    weights = mask(x)
    for _ in range(2):
        weights = t.conv(t.prelu(t.norm(weights)))
    return last((1 + weights.sigmoid()) * trunk_end(trunk(x)))


def attention56_irse(t: Tape, x: Tensor) -> Tensor:
    x = t.prelu(t.norm(t.conv(x, 1, 1)))
    for halvings in (3, 2, 1):
        x = attention(t, improved_residual(t, x, 2, gated=True), halvings)
    for stride in (2, 1, 1):
        x = improved_residual(t, x, stride, gated=True)
    return t.norm(t.linear(t.norm(x)))


def spherenet20(t: Tape, x: Tensor) -> Tensor:
    for depth in (1, 2, 4, 1):
        x = t.prelu(t.conv(x, 2, 1, bias=True))
        for _ in range(depth):
            x = x + t.prelu(t.conv(t.prelu(t.conv(x, 1, 1)), 1, 1))
    return t.linear(x)


def wen28(t: Tape, x: Tensor) -> Tensor:
    x = t.prelu(t.conv(x, bias=True))
    for depth in (1, 2, 5, 3):
        x = F.max_pool2d(t.prelu(t.conv(x, bias=True)), 2)
        for _ in range(depth):
            x = x + t.prelu(t.conv(t.prelu(t.conv(x, 1, 1)), 1, 1))
    return t.linear(x)


def light_cnn9(t: Tape, x: Tensor) -> Tensor:
    def larger(y: Tensor) -> Tensor:
        half = y.shape[1] // 2
        return torch.where(y[:, :half] > y[:, half:], y[:, :half], y[:, half:])

    def group(x: Tensor) -> Tensor:
        return larger(t.conv(larger(t.conv(x, bias=True)), 1, 1, bias=True))

    x = F.max_pool2d(larger(t.conv(x, 1, 2, bias=True)), 2)
    x = F.max_pool2d(group(x), 2)
    x = F.max_pool2d(group(x), 2)
    x = F.max_pool2d(group(group(x)), 2)
    return larger(t.linear(x))


def mobilefacenet(t: Tape, x: Tensor) -> Tensor:
    x = t.prelu(t.norm(t.conv(x, 2, 1)))
    x = t.prelu(t.norm(t.conv(x, 1, 1, groups=64)))
    below = 64
    for expansion, channels, repeats, stride in (
        (2, 64, 5, 2),
        (4, 128, 1, 2),
        (2, 128, 6, 1),
        (4, 128, 1, 2),
        (2, 128, 2, 1),
    ):
        for repeat in range(repeats):
            y = t.prelu(t.norm(t.conv(x)))
            y = t.prelu(t.norm(t.conv(y, 1 if repeat else stride, 1, groups=below * expansion)))
            y = t.norm(t.conv(y))
            x = x + y if y.shape == x.shape else y
            below = channels
    x = t.prelu(t.norm(t.conv(x)))
    x = t.norm(t.conv(x, groups=512))
    return t.norm(t.linear(x, bias=False))


def inception_resnet_v1(t: Tape, x: Tensor) -> Tensor:
    def conv(x: Tensor, stride: int = 1, padding: int | tuple[int, int] = 0) -> Tensor:
        return t.norm(t.conv(x, stride, padding), eps=1e-3).relu()  # type: ignore[arg-type]

    def unit_a(x: Tensor) -> Tensor:
        one = conv(x)
        two = conv(conv(x), 1, 1)
        three = conv(conv(conv(x), 1, 1), 1, 1)
        return x + 0.17 * t.conv(torch.cat([one, two, three], 1), bias=True)

    def unit(x: Tensor, scale: float, reach: int) -> Tensor:
        one = conv(x)
        two = conv(conv(conv(x), 1, (0, reach)), 1, (reach, 0))
        return x + scale * t.conv(torch.cat([one, two], 1), bias=True)

    x = conv(conv(conv(x, 2)), 1, 1)
    x = conv(conv(conv(F.max_pool2d(x, 3, 2))), 2)
    for _ in range(5):
        x = unit_a(x).relu()
    x = torch.cat([conv(x, 2), conv(conv(conv(x), 1, 1), 2), F.max_pool2d(x, 3, 2)], 1)
    for _ in range(10):
        x = unit(x, 0.1, 3).relu()
    ways = [conv(conv(x), 2), conv(conv(x), 2), conv(conv(conv(x), 1, 1), 2), F.max_pool2d(x, 3, 2)]
    x = torch.cat(ways, 1)
    for _ in range(5):
        x = unit(x, 0.2, 1).relu()
    x = unit(x, 1.0, 1)
    return t.norm(t.linear(x.mean(dim=(2, 3)), bias=False), eps=1e-3)


def luna(pool: tuple[int, int, int]) -> Callable[[Tape, Tensor], Tensor]:
    def net(t: Tape, x: Tensor) -> Tensor:
        x = F.max_pool3d(t.conv(x, bias=True).relu(), pool)
        x = t.conv(x, bias=True).relu()
        return t.linear(t.conv(x, bias=True).relu())

    return net


def luna_fusion(t: Tape, x: Tensor) -> Tensor:
    assert x.shape[2:] == (26, 40, 40)
    small, middle = x[:, :, 10:16, 10:30, 10:30], x[:, :, 8:18, 5:35, 5:35]
    seen = [luna(pool)(t, each).relu() for pool, each in (((1, 1, 1), small), ((1, 2, 2), middle), ((2, 2, 2), x))]
    return t.linear(torch.cat(seen, dim=1))


NETS: dict[str, tuple[Callable[[Tape, Tensor], Tensor], int, int | tuple[int, ...], dict[str, object]]] = {
    "iam_mnist": (iam_mnist, 1, 28, {}),
    "fi_cifar10": (fi_cifar10, 3, 16, {}),
    "vgg13": (vgg13, 3, 32, {}),
    "resnet34": (resnet(False), 3, 45, {}),
    "resnet50": (resnet(True), 3, 32, {}),
    "ir18": (improved_residual_net((2, 2, 2, 2), False, (1, 2)), 3, (24, 17), {}),
    "ir34": (improved_residual_net((3, 4, 6, 3), True, (1, 2)), 3, 16, {"squeeze_excitation": True}),
    "attention56_irse": (attention56_irse, 3, (40, 33), {}),
    "slim_resnet": (improved_residual_net((2, 2, 2, 2), False, (2, 1)), 3, 33, {}),
    "spherenet20": (spherenet20, 3, (33, 24), {}),
    "wen28": (wen28, 3, (51, 48), {}),
    "light_cnn9": (light_cnn9, 1, 32, {}),
    "mobilefacenet": (mobilefacenet, 3, (32, 27), {}),
    "inception_resnet_v1": (inception_resnet_v1, 3, 79, {}),
    "luna_archi1": (luna((1, 1, 1)), 1, (6, 20, 20), {}),
    "luna_archi2": (luna((1, 2, 2)), 1, (10, 30, 30), {}),
    "luna_archi3": (luna((2, 2, 2)), 1, (12, 22, 23), {}),
    "luna_fusion": (luna_fusion, 1, (26, 40, 40), {}),
}


@pytest.mark.parametrize("name", NETS)
def test_layers_are_the_papers(name: str) -> None:
    by_hand, in_channels, image_size, options = NETS[name]
    torch.manual_seed(0)
    net = build(name, in_channels=in_channels, image_size=image_size, embedding_size=5, **options).double().eval()
    with torch.no_grad():
        for label, tensor in net.state_dict().items():  # no gain of 1, no shift of 0, nor statistics of the start
            if tensor.ndim == 1 and tensor.is_floating_point():
                moved = torch.rand_like(tensor)
                tensor.copy_(0.5 + moved if "var" in label or "weight" in label else 0.2 * moved)
        images = torch.randn(2, in_channels, *net.image_size, dtype=torch.float64)
        tape = Tape(list(net.parameters()), [each for each in net.buffers() if each.ndim])
        expected = by_hand(tape, images)
        torch.testing.assert_close(net(images), expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))
    assert tape.done()
