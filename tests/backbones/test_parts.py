"""The parts that nets are made of: their laws, and how their weights begin."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from angulus.backbones import build
from angulus.backbones.arcface import SqueezeExcitation, improved_residual
from angulus.backbones.attention import Attention
from angulus.backbones.layers import Concatenate, FeatureLayer, Residual, initialize_he
from angulus.backbones.light_cnn import MaxFeatureMap
from angulus.backbones.nodules import FUSION_WEIGHTS, CentreCrop, fuse
from angulus.core.checks import InputError


@pytest.mark.parametrize(
    ("layer", "fan_in"),
    [
        (nn.Conv2d(8, 60, 5), 8 * 25),
        (nn.Conv2d(64, 64, 3, groups=64), 9),
        (nn.Conv3d(8, 60, (3, 5, 5)), 8 * 75),
        (FeatureLayer(300, 40), 300),
    ],
)
def test_he_draws_normal_weights_with_variance_two_over_fan_in(layer: nn.Module, fan_in: int) -> None:
    torch.manual_seed(0)
    layer.bias.data.fill_(1.0)  # type: ignore[union-attr, operator]
    initialize_he(nn.Sequential(nn.ReLU(), layer))
    weight = layer.weight.detach().double()  # type: ignore[union-attr, operator]
    assert weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.08)
    inside = (weight.abs() < (2 / fan_in) ** 0.5).double().mean().item()
    assert inside == pytest.approx(0.683, abs=0.05)  # one deviation of a normal
    assert not layer.bias.any()  # type: ignore[union-attr, operator]


def test_he_takes_layers_without_bias_and_leaves_others() -> None:
    norm, bare = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, bias=False)
    norm.weight.data.fill_(2.0)
    before = bare.weight.detach().clone()
    initialize_he(nn.Sequential(bare, norm, nn.PReLU(init=0.3)))
    assert norm.weight.tolist() == [2.0] * 4
    assert not torch.equal(bare.weight, before)


def test_residual_adds_its_scaled_branch() -> None:
    x = torch.randn(2, 3)
    double, negative = nn.Linear(3, 3), nn.Linear(3, 3)
    assert torch.equal(Residual(double)(x), x + double(x))
    torch.testing.assert_close(Residual(double, scale=0.17)(x), x + 0.17 * double(x))
    torch.testing.assert_close(Residual(double, negative)(x), negative(x) + double(x))


def test_concatenate_keeps_the_order_of_branches() -> None:
    x = torch.randn(2, 3)
    joined = Concatenate(nn.Identity(), nn.ReLU())(x)
    assert torch.equal(joined, torch.cat([x, x.clamp(min=0)], dim=1))


def test_max_feature_map_is_the_larger_of_two_halves() -> None:
    x = torch.randn(2, 6, 3, 4)
    expected = np.empty((2, 3, 3, 4), dtype=np.float32)
    for index in np.ndindex(expected.shape):
        image, channel, *place = index
        expected[index] = max(x[(image, channel, *place)].item(), x[(image, channel + 3, *place)].item())
    assert np.array_equal(MaxFeatureMap()(x).numpy(), expected)
    assert MaxFeatureMap()(torch.tensor([[1.0, 5.0, 2.0, 4.0]])).tolist() == [[2.0, 5.0]]


def test_squeeze_excitation_scales_whole_channels_between_0_and_1() -> None:
    torch.manual_seed(0)
    block, x = SqueezeExcitation(32), torch.rand(3, 32, 5, 4) + 1
    scale = (block(x) / x).detach()
    assert float(scale.min()) > 0
    assert float(scale.max()) < 1
    torch.testing.assert_close(scale, scale[:, :, :1, :1].expand_as(scale))
    moved = (block(x.roll(2, dims=2)) / x.roll(2, dims=2)).detach()  # it reads means alone
    torch.testing.assert_close(moved[:, :, 0, 0], scale[:, :, 0, 0])
    assert SqueezeExcitation(8).gate[0].out_features == 1  # a sixteenth, but at least one


def test_a_silent_branch_leaves_the_shortcut() -> None:
    for gated in (False, True):
        same = improved_residual(8, 8, 1, gated)
        nn.init.zeros_(same.branch[5].weight)  # type: ignore[index, union-attr]
        x = torch.randn(2, 8, 4, 4)
        assert torch.equal(same.eval()(x), x)
    halved = improved_residual(8, 16, 2, False).eval()
    assert halved(torch.randn(2, 8, 7, 4)).shape == (2, 16, 4, 2)


def test_attention_weights_its_trunk_between_once_and_twice() -> None:
    torch.manual_seed(0)
    module = Attention(16, 2).eval()
    module.first, module.last, module.trunk = nn.Identity(), nn.Identity(), nn.Identity()
    x = torch.rand(2, 16, 9, 6) + 1
    weights = (module(x) / x).detach()
    assert weights.shape == x.shape
    assert float(weights.min()) > 1
    assert float(weights.max()) < 2


def test_the_last_gain_of_output_e_stays_1() -> None:
    net = build("ir18", in_channels=3, image_size=16, embedding_size=6)
    frozen = [name for name, parameter in net.named_parameters() if not parameter.requires_grad]
    assert [net.get_parameter(name).tolist() for name in frozen] == [[1.0] * 6]
    features = net.train()(torch.randn(64, 3, 16, 16))
    torch.testing.assert_close(features.std(dim=0, correction=0), torch.ones(6), rtol=0, atol=0.01)


@pytest.mark.parametrize("name", ["spherenet64", "wen28"])
def test_nets_without_batch_norm_begin_near_identity_in_their_units(name: str) -> None:
    torch.manual_seed(0)
    net = build(name, in_channels=3, image_size=48, embedding_size=64)
    units = [module for module in net.modules() if isinstance(module, Residual)]
    for unit in units:
        for layer in unit.modules():
            if isinstance(layer, nn.Conv2d):
                assert layer.weight.std().item() == pytest.approx(0.01, rel=0.05)
                assert layer.bias is None
    outside = set(net.modules()) - {layer for unit in units for layer in unit.modules()}
    for layer in outside:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            assert layer.weight.std().item() == pytest.approx(layer.weight[0].numel() ** -0.5, rel=0.1)
    assert 0.05 < net(torch.randn(4, 3, 48, 48)).std().item() < 5


def test_light_cnn_begins_with_its_released_biases() -> None:
    net = build("light_cnn9", in_channels=1, image_size=16, embedding_size=8)
    biases = [parameter for name, parameter in net.named_parameters() if name.endswith("bias")]
    assert len(biases) == 10  # layers, as NormFace counts them
    assert all(bool((bias == 0.1).all()) for bias in biases)


@pytest.mark.parametrize(
    ("size", "first"), [((6, 20, 20), (10, 10, 10)), ((10, 30, 30), (8, 5, 5)), ((25, 39, 40), (0, 0, 0))]
)
def test_centre_crop_takes_the_middle(size: tuple[int, ...], first: tuple[int, ...]) -> None:
    volumes = torch.arange(26 * 40 * 40).reshape(1, 1, 26, 40, 40)
    cut = CentreCrop(size)(volumes)
    assert cut.shape[2:] == size
    assert cut[0, 0, 0, 0, 0].item() == first[0] * 1600 + first[1] * 40 + first[2]


def test_fusion_is_a_weighted_mean_of_probabilities() -> None:
    random = np.random.default_rng(0)
    given = random.dirichlet([1, 1], size=(3, 50))
    expected = np.zeros((50, 2))
    for weight, each in zip((0.3, 0.4, 0.3), given, strict=True):
        for row in range(50):
            for column in range(2):
                expected[row, column] += weight * each[row, column]
    fused = fuse([torch.from_numpy(each) for each in given])
    np.testing.assert_allclose(fused.numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(fused.sum(dim=1).numpy(), 1, atol=1e-12)
    assert sum(FUSION_WEIGHTS) == pytest.approx(1)
    assert torch.equal(fuse([torch.tensor([0.25])], weights=[1]), torch.tensor([0.25]))


@pytest.mark.parametrize(
    ("shapes", "weights", "sentence"),
    [
        ([(2,), (2,)], (0.3, 0.4, 0.3), "weights must be one a tensor of probabilities, 2 of them, and sum to 1; got"),
        ([(2,), (2,)], (0.5, 0.4), r"and sum to 1; got \[0\.5, 0\.4\]"),
        ([], (), "0 of them"),
        ([(2,), (3,)], (0.5, 0.5), r"probabilities must be of one shape; got \[2\], \[3\]"),
        ([(2,), (2,)], (1.5, -0.5), r"weights must be a finite number >= 0; got -0\.5"),
        ([(2,), (2,)], ("1", 0), "weights must be a number >= 0; got '1'"),
    ],
)
def test_fusion_refuses(shapes: list[tuple[int, ...]], weights: tuple[float, ...], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        fuse([torch.zeros(shape) for shape in shapes], weights)


@pytest.mark.parametrize("name", ["iam_mnist", "fi_mnist"])
def test_plain_nets_learn_two_patterns(name: str) -> None:
    torch.manual_seed(0)
    net = build(name, in_channels=1, image_size=12, embedding_size=3)
    images = torch.zeros(16, 1, 12, 12)
    images[:8, :, :6], images[8:, :, 6:] = 1.0, 1.0
    images += 0.05 * torch.randn(16, 1, 12, 12)
    labels = torch.arange(16) // 8
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(20):
        loss = nn.functional.cross_entropy(net(images), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]
