"""The layers that backbones share: features in float32, Caffe's "xavier", unit features."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from angulus import backbones
from angulus.backbones.layers import FeatureLayer, UnitFeatures, feature_layers, initialize_xavier
from angulus.core.checks import InputError


def test_a_feature_layer_is_a_linear_layer() -> None:
    torch.manual_seed(0)
    layer, inputs = FeatureLayer(6, 3), torch.randn(5, 6)
    assert torch.equal(layer(inputs), inputs @ layer.weight.T + layer.bias)
    assert set(layer.state_dict()) == {"weight", "bias"}
    assert layer.double()(inputs.double()).dtype == torch.float64


def test_a_feature_layer_keeps_float32_where_autocast_would_not() -> None:
    torch.manual_seed(0)
    layer, plain = FeatureLayer(64, 3), nn.Linear(64, 3)
    plain.load_state_dict(layer.state_dict())
    inputs = torch.randn(50, 64).bfloat16()  # what a layer below gives under autocast
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features, rounded = layer(inputs), plain(inputs)
    assert (features.dtype, rounded.dtype) == (torch.float32, torch.bfloat16)
    exact = inputs.double() @ layer.weight.double().T + layer.bias.double()
    assert (features - exact).abs().max() < 1e-5 < (rounded - exact).abs().max()
    features.sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32


@pytest.mark.parametrize(
    ("activation", "after"),
    [
        ("relu", lambda features: features.clamp(min=0)),
        ("prelu", lambda features: torch.where(features > 0, features, 0.25 * features)),
        ("batch_norm_relu", lambda features: ((features - features.mean(0)) / features.std(0, False)).clamp(min=0)),
    ],
)
def test_what_follows_the_feature_layer_keeps_float32_too(
    activation: str, after: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(*feature_layers(16, 3, activation))
    inputs = torch.randn(50, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = layers(inputs)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, after(layers[0](inputs)), rtol=1e-4, atol=1e-5)


def test_features_are_linear_unless_asked_otherwise() -> None:
    assert [type(layer) for layer in feature_layers(16, 3)] == [FeatureLayer]
    for name in ("lenet5", "lenet++", "fi_mnist"):
        net = backbones.build(name, in_channels=1, image_size=28, embedding_size=4, feature_activation="relu")
        assert net(torch.randn(8, 1, 28, 28)).min() == 0
    with pytest.raises(InputError, match="feature_activation must be one of 'none', 'relu'"):
        backbones.build("lenet5", in_channels=1, image_size=28, embedding_size=4, feature_activation="tanh")


@pytest.mark.parametrize(
    ("layer", "fan_in"),
    [(nn.Conv2d(8, 60, 5), 8 * 25), (nn.Conv2d(8, 60, 3, groups=4), 2 * 9), (nn.Linear(300, 40), 300)],
)
def test_xavier_draws_weights_uniformly_with_variance_one_over_fan_in(layer: nn.Module, fan_in: int) -> None:
    torch.manual_seed(0)
    layer.bias.data.fill_(1.0)  # type: ignore[union-attr, operator]
    initialize_xavier(nn.Sequential(nn.ReLU(), layer))
    weight = layer.weight.detach().double()  # type: ignore[union-attr, operator]
    deviation = fan_in**-0.5
    edge = 3**0.5 * deviation
    assert weight.std().item() == pytest.approx(deviation, rel=0.05)
    assert weight.mean().abs().item() < 5 * deviation / weight.numel() ** 0.5
    assert 0.97 * edge < weight.abs().max().item() <= edge * (1 + 1e-6)  # uniform: it ends at √3 deviations
    assert (weight.abs() < edge / 2).double().mean().item() == pytest.approx(0.5, abs=0.05)
    assert not layer.bias.any()  # type: ignore[union-attr, operator]


def test_xavier_leaves_other_layers_and_takes_layers_without_bias() -> None:
    norm, bare = nn.BatchNorm1d(4), nn.Linear(4, 4, bias=False)
    norm.weight.data.fill_(2.0)
    before = bare.weight.detach().clone()
    initialize_xavier(nn.Sequential(bare, norm, nn.PReLU(init=0.3)))
    assert norm.weight.tolist() == [2.0] * 4
    assert not torch.equal(bare.weight, before)


def test_lenet_plus_plus_begins_with_features_of_the_size_of_its_images() -> None:
    torch.manual_seed(0)
    net = backbones.build("lenet++", in_channels=1, image_size=28, embedding_size=2)
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            assert layer.weight.std().item() == pytest.approx(layer.weight[0].numel() ** -0.5, rel=0.1)
            assert not layer.bias.any()
    features = net(torch.randn(64, 1, 28, 28))
    assert 0.05 < features.std().item() < 3  # PyTorch's own initialisation gives 0.002


def test_unit_features_have_length_1_and_a_zero_row_stays() -> None:
    features = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-10, 0.0]], requires_grad=True)
    unit = UnitFeatures()(features)
    assert unit.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0.0, 0.0], [pytest.approx(1.0), 0.0]]
    unit.sum().backward()
    assert features.grad is not None
    assert bool(torch.isfinite(features.grad).all())
