"""The nets for digits: shapes, sizes counted by hand, gradients, modes, mixed precision, bad inputs; and the table."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import angulus
from angulus.backbones import build, list_backbones, registry
from angulus.backbones.layers import FeatureLayer, check_images, check_sizes
from angulus.backbones.small_images import lenet5, lenet_plus_plus, small_net
from angulus.core.checks import InputError

DIGITS = ("lenet5", "lenet++", "small")  # test_nets.py tests the others
SMALLEST = {"lenet5": 12, "lenet++": 8, "small": 2}
USUAL = {"lenet5": (28, 84), "lenet++": (28, 2), "small": (8, 2)}
DEFAULTS = {"lenet5": lenet5, "lenet++": lenet_plus_plus, "small": small_net}


def usual(name: str, in_channels: int = 1, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    image_size, embedding_size = USUAL[name]
    return build(name, in_channels=in_channels, image_size=image_size, embedding_size=embedding_size)


def noise(name: str, batch: int = 4, in_channels: int = 1) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(batch, in_channels, USUAL[name][0], USUAL[name][0])


def test_the_list_of_backbones_is_sorted() -> None:
    assert list_backbones() == sorted(list_backbones()) == angulus.list_backbones()
    assert set(DIGITS) <= set(list_backbones())
    assert set(DIGITS) == set(SMALLEST) == set(USUAL) == set(DEFAULTS)


@pytest.mark.parametrize("name", DIGITS)
@pytest.mark.parametrize(("in_channels", "extra", "embedding_size"), [(1, 0, 2), (3, 1, 5), (2, 7, 1)])
def test_output_shape(name: str, in_channels: int, extra: int, embedding_size: int) -> None:
    size = SMALLEST[name] + extra
    net = build(name, in_channels=in_channels, image_size=size, embedding_size=embedding_size)
    features = net(torch.randn(3, in_channels, size, size))
    assert features.shape == (3, embedding_size)
    assert features.dtype == torch.float32
    assert bool(torch.isfinite(features).all())


@pytest.mark.parametrize("name", DIGITS)
def test_defaults_are_the_usual_sizes(name: str) -> None:
    net = DEFAULTS[name]()
    side, embedding_size = USUAL[name]
    assert (net.in_channels, net.image_size, net.embedding_size) == (1, (side, side), embedding_size)
    assert type(net) is type(usual(name))


@pytest.mark.parametrize(
    ("name", "in_channels", "count"),
    [
        # conv 1*6*25 + 6, conv 6*16*25 + 16, FC 400*120 + 120, FC 120*84 + 84
        ("lenet5", 1, 156 + 2_416 + 48_120 + 10_164),
        ("lenet5", 3, 456 + 2_416 + 48_120 + 10_164),
        # conv 1*32*25 + 32, 32*32*25 + 32, 32*64*25 + 64, 64*64*25 + 64, 64*128*25 + 128, 128*128*25 + 128; six
        # PReLUs; FC 1152*2 + 2
        ("lenet++", 1, 832 + 25_632 + 51_264 + 102_464 + 204_928 + 409_728 + 6 + 2_306),
        ("lenet++", 3, 2_432 + 25_632 + 51_264 + 102_464 + 204_928 + 409_728 + 6 + 2_306),
        # conv 1*16*9, batch norm 2*16, conv 16*32*9, batch norm 2*32, FC 512*128, batch norm 2*128; three PReLUs;
        # FC 128*2 + 2
        ("small", 1, 144 + 32 + 4_608 + 64 + 65_536 + 256 + 3 + 258),
    ],
)
def test_parameter_count(name: str, in_channels: int, count: int) -> None:
    assert sum(parameter.numel() for parameter in usual(name, in_channels).parameters()) == count


def by_hand(name: str, p: list[Tensor], x: Tensor) -> Tensor:
    """The papers' layers, written out; `p` are the parameters in order, and batch norm is at its first state."""
    if name == "lenet5":
        x = F.max_pool2d(F.conv2d(x, p[0], p[1], padding=2).clamp(min=0), 2, 2)
        x = F.max_pool2d(F.conv2d(x, p[2], p[3]).clamp(min=0), 2, 2)
        return F.linear(F.linear(x.flatten(1), p[4], p[5]).clamp(min=0), p[6], p[7])
    if name == "lenet++":
        for stage in range(3):
            a, b, slope, c, d, second_slope = p[6 * stage : 6 * stage + 6]
            x = F.prelu(F.conv2d(x, a, b, padding=2), slope)
            x = F.max_pool2d(F.prelu(F.conv2d(x, c, d, padding=2), second_slope), 2, 2)
        return F.linear(x.flatten(1), p[18], p[19])
    scale = (1 + 1e-5) ** -0.5  # running mean 0 and variance 1, gain 1, shift 0
    x = F.prelu(scale * F.conv2d(x, p[0], padding=1), p[3])
    x = F.max_pool2d(F.prelu(scale * F.conv2d(x, p[4], padding=1), p[7]), 2, 2)
    return F.linear(F.prelu(scale * F.linear(x.flatten(1), p[8]), p[11]), p[12], p[13])


@pytest.mark.parametrize("name", DIGITS)
def test_layers_are_the_documented_ones(name: str) -> None:
    net, images = usual(name, in_channels=2).double().eval(), noise(name, in_channels=2).double()
    torch.testing.assert_close(net(images), by_hand(name, list(net.parameters()), images))


@pytest.mark.parametrize("name", DIGITS)
def test_gradient_reaches_every_parameter(name: str) -> None:
    net = usual(name)
    net(noise(name)).square().sum().backward()
    for label, parameter in net.named_parameters():
        assert parameter.grad is not None, label
        assert bool(torch.isfinite(parameter.grad).all()), label
        assert bool(parameter.grad.any()), label


@pytest.mark.parametrize("name", DIGITS)
def test_last_layer_is_linear_and_bare(name: str) -> None:
    # Negated weights give negated features: nothing stands after the layer, neither an activation nor a normalisation.
    net = usual(name).eval()
    images = noise(name)
    last = [module for module in net.modules() if not list(module.children())][-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        before = net(images)
        last.weight.mul_(-3)
        last.bias.mul_(-3)
        torch.testing.assert_close(net(images), -3 * before)


@pytest.mark.parametrize("name", DIGITS)
def test_eval_is_deterministic_and_keeps_its_state(name: str) -> None:
    net = usual(name).eval()
    images = noise(name)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with torch.no_grad():
        together = net(images)
        alone = torch.cat([net(image[None]) for image in images])
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-6)  # a sample's feature does not see its batch
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_small_net_trains_with_the_statistics_of_its_batch() -> None:
    net = usual("small")
    running = net.get_buffer("layers.1.running_mean").clone()
    images = noise("small")
    trained = net.train()(images)
    assert not torch.equal(net.get_buffer("layers.1.running_mean"), running)
    assert not torch.allclose(net.eval()(images), trained)


@pytest.mark.parametrize("name", ["lenet5", "lenet++"])
def test_lenets_do_the_same_in_both_modes(name: str) -> None:
    net, images = usual(name), noise(name)
    assert torch.equal(net.train()(images), net.eval()(images))


@pytest.mark.parametrize("name", DIGITS)
def test_same_seed_same_net(name: str) -> None:
    images = noise(name)
    assert torch.equal(usual(name, seed=3)(images), usual(name, seed=3)(images))
    assert not torch.equal(usual(name, seed=3)(images), usual(name, seed=4)(images))


@pytest.mark.parametrize("name", DIGITS)
def test_bfloat16_autocast(name: str) -> None:
    net, images = usual(name).eval(), noise(name)
    with torch.no_grad():
        exact = net(images)
    given: list[tuple[type[nn.Module], torch.dtype]] = []
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(lambda layer, _, output: given.append((type(layer), output.dtype)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = net(images)
    *products, (last, dtype) = given
    assert len(products) > 1
    assert {dtype for _, dtype in products} == {torch.bfloat16}
    assert (last, dtype) == (FeatureLayer, torch.float32)
    assert features.dtype == torch.float32
    # more than bfloat16's 8 bits reach the features
    assert not torch.equal(features, features.bfloat16().float())
    # bfloat16 keeps 8 bits: a rounding of 2^-9 a layer, at most 8 layers.
    assert float((features.detach() - exact).norm() / exact.norm()) < 8 * 2**-9
    features.square().sum().backward()
    for label, parameter in net.named_parameters():
        assert parameter.grad is not None, label
        assert parameter.grad.dtype == torch.float32, label
        assert bool(torch.isfinite(parameter.grad).all()), label


def test_small_net_separates_two_patterns_in_a_few_steps() -> None:
    net = usual("small")
    images = torch.zeros(16, 1, 8, 8)
    images[:8, :, :4], images[8:, :, 4:] = 1.0, 1.0
    images += 0.05 * noise("small", 16)
    labels = torch.arange(16) // 8
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(20):
        loss = F.cross_entropy(net(images), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


def test_build_names_the_nearest_backbone() -> None:
    with pytest.raises(
        InputError, match=r"name must be one of 'lenet5', .*, 'luna_fusion'; got 'lenet6'; did you mean 'lenet5'\?"
    ):
        build("lenet6", in_channels=1, image_size=28, embedding_size=2)
    with pytest.raises(InputError, match=r"name must be one of .*; got 5"):
        build(5, in_channels=1, image_size=28, embedding_size=2)  # type: ignore[arg-type]


def test_build_refuses_unknown_options() -> None:
    with pytest.raises(InputError, match=r"options of the backbone 'small' must be left out, .*; got 'depth'"):
        build("small", in_channels=1, image_size=8, embedding_size=2, depth=3)


def test_build_passes_options_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def toy(in_channels: int, image_size: int, embedding_size: int, depth: int = 1) -> nn.Module:
        return nn.Linear(depth, embedding_size)

    monkeypatch.setitem(registry._TABLE, "toy", toy)
    built = build("toy", in_channels=1, image_size=8, embedding_size=2, depth=3)
    assert built.get_parameter("weight").shape == (2, 3)
    with pytest.raises(InputError, match=r"'toy' must be one of 'depth'; got 'dept'; did you mean 'depth'\?"):
        build("toy", in_channels=1, image_size=8, embedding_size=2, dept=3)


@pytest.mark.parametrize("name", DIGITS)
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"in_channels": 0}, "in_channels must be a whole number >= 1; got 0"),
        ({"in_channels": "1"}, "in_channels must be a whole number >= 1; got '1'"),
        ({"embedding_size": 0}, "embedding_size must be a whole number >= 1; got 0"),
        ({"embedding_size": 2.5}, "embedding_size must be a whole number >= 1; got 2.5"),
        ({"image_size": (28, 1)}, r"image_size must be a whole number >= \d+; got 1; [\w+]+ pools"),
        ({"image_size": 28.0}, r"image_size must be a whole number >= \d+; got 28\.0; "),
        ({"image_size": (28,)}, r"image_size must be a whole number, or 2 of them: height, width; got \(28,\)"),
        ({"image_size": "28"}, r"image_size must be a whole number, or 2 of them: height, width; got '28'"),
    ],
)
def test_build_refuses_sizes(name: str, change: dict[str, object], sentence: str) -> None:
    sizes: dict[str, object] = {"in_channels": 1, "image_size": 28, "embedding_size": 2, **change}
    with pytest.raises(InputError, match=sentence):
        build(name, **sizes)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", DIGITS)
def test_build_refuses_images_that_pooling_would_leave_nothing_of(name: str) -> None:
    least = SMALLEST[name]
    sentence = rf"image_size must be a whole number >= {least}; got {least - 1}; [\w+]+ pools"
    with pytest.raises(InputError, match=sentence):
        build(name, in_channels=1, image_size=least - 1, embedding_size=2)


@pytest.mark.parametrize("name", DIGITS)
def test_forward_refuses_images(name: str) -> None:
    net, size = usual(name), USUAL[name][0]
    rule = rf"images must have shape \[batch, 1, {size}, {size}\]; got "
    for shape in ((1, size, size), (2, 3, size, size), (2, 1, size + 1, size), (2, 1, size, size - 1)):
        with pytest.raises(InputError, match=rule + r"\[" + ", ".join(map(str, shape))):
            net(torch.zeros(shape))
    with pytest.raises(InputError, match=r"images must be floating point; got torch\.uint8; scale the bytes first"):
        net(torch.zeros(2, 1, size, size, dtype=torch.uint8))


@pytest.mark.parametrize("name", DIGITS)
def test_images_may_be_rectangles(name: str) -> None:
    height, width = SMALLEST[name] + 3, SMALLEST[name] + 8
    net = build(name, in_channels=1, image_size=[height, width], embedding_size=2)
    assert net(torch.randn(2, 1, height, width)).shape == (2, 2)
    with pytest.raises(InputError, match=rf"images must have shape \[batch, 1, {height}, {width}\]; got "):
        net(torch.randn(2, 1, width, height))


def test_checks_alone() -> None:
    assert check_sizes("Net", 1, 4, 1, smallest=4) == (4, 4)
    assert check_sizes("Net", 1, [5, 4], 1, smallest=(5, 4)) == (5, 4)
    assert check_sizes("Net", 1, 6, 1, smallest=4, axes=3) == (6, 6, 6)
    with pytest.raises(InputError, match="image_size must be a whole number >= 5; got 4; Net pools"):
        check_sizes("Net", 1, (4, 5), 1, smallest=(5, 4))
    with pytest.raises(InputError, match=r"or 3 of them: depth, height, width; got \(4, 5\)"):
        check_sizes("Net", 1, (4, 5), 1, smallest=4, axes=3)
    check_images(torch.zeros(0, 1, 4, 4), 1, (4, 4))
    with pytest.raises(
        InputError, match="image_size must be a whole number >= 4; got 3; Net pools smaller images away"
    ):
        check_sizes("Net", 1, 3, 1, smallest=4)
    with pytest.raises(InputError, match="images must have shape"):
        check_images(torch.zeros(4, 4), 1, (4, 4))
