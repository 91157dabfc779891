"""Pooling by name, the neck and LoRA, against loops from their equations."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from angulus.backbones import build, lora
from angulus.backbones.layers import BNNeck
from angulus.backbones.pooling import AttentionPool, GeM, Pool
from angulus.core.checks import InputError


def test_gem_is_its_equation_and_the_mean_for_p_of_1() -> None:
    torch.manual_seed(0)
    tokens = torch.randn(2, 5, 3, dtype=torch.float64)
    found = GeM(p=2.5)(tokens).detach()
    for row in range(2):
        for channel in range(3):
            values = [max(float(value), 1e-6) ** 2.5 for value in tokens[row, :, channel]]
            assert float(found[row, channel]) == pytest.approx((sum(values) / 5) ** (1 / 2.5), rel=1e-6)
    torch.testing.assert_close(GeM(p=1)(tokens.abs()), tokens.abs().mean(1))
    assert torch.autograd.gradcheck(GeM().double(), tokens.abs().requires_grad_())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert GeM()(tokens.bfloat16()).dtype == torch.float32


def test_attention_is_a_softmax_over_places() -> None:
    torch.manual_seed(0)
    pool, tokens = AttentionPool(4).double().requires_grad_(False), torch.randn(1, 3, 4, dtype=torch.float64)
    weights, biases = (each.view(3, 4, -1) for each in (pool.attention.in_proj_weight, pool.attention.in_proj_bias))
    query, keys, values = (
        inputs @ weight.T + bias.view(-1)
        for inputs, weight, bias in zip((pool.query[0, 0], tokens[0], tokens[0]), weights, biases, strict=True)
    )
    scores = [math.exp(float(query @ key) / 2) for key in keys]
    mixed = sum(score / sum(scores) * value for score, value in zip(scores, values, strict=True))
    torch.testing.assert_close(pool(tokens)[0], pool.attention.out_proj(mixed))


@pytest.mark.parametrize("kind", ["mean", "gem", "attention"])
def test_maps_and_tokens_of_the_same_places_pool_alike(kind: str) -> None:
    torch.manual_seed(0)
    pool, maps = Pool(kind, 4, prefix=0), torch.rand(2, 4, 3, 5)
    expected = pool(maps)
    assert expected.shape == (2, 4)
    pool.channels_last = True
    torch.testing.assert_close(pool(maps.permute(0, 2, 3, 1)), expected)
    tokens = maps.flatten(2).transpose(1, 2)
    torch.testing.assert_close(pool(tokens), expected)
    pool.prefix = 2  # a class token and a register, which no place pools
    torch.testing.assert_close(pool(torch.cat([torch.full((2, 2, 4), 9.0), tokens], dim=1)), expected)
    if kind == "mean":
        torch.testing.assert_close(expected, maps.mean((2, 3)))


def test_cls_is_the_first_token() -> None:
    tokens = torch.rand(2, 5, 4)
    assert torch.equal(Pool("cls", 4, prefix=1)(tokens), tokens[:, 0])
    with pytest.raises(InputError, match="needs a net with a class token"):
        Pool("cls", 4)
    with pytest.raises(InputError, match="pooling must be one of 'cls', 'mean', 'gem', 'attention'; got 'max'"):
        Pool("max", 4)


def test_the_neck_has_no_bias_and_a_residual_net_takes_it_with_gem() -> None:
    torch.manual_seed(0)
    net = build("resnet34", in_channels=1, image_size=32, embedding_size=4, pooling="gem", feature_activation="bnneck")
    neck = next(module for module in net.modules() if isinstance(module, BNNeck))
    images = torch.randn(6, 1, 32, 32)
    features = net(images)
    torch.testing.assert_close(features.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    features.square().sum().backward()
    assert neck.bias.grad is None
    assert not neck.bias.any()
    plain = build("resnet34", in_channels=1, image_size=32, embedding_size=4)
    assert set(plain.state_dict()) <= set(net.state_dict())


# LoRA


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.ModuleDict({"qkv": nn.Linear(3, 6), "proj": nn.Linear(6, 3)})])
        self.norm = nn.LayerNorm(3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.norm(self.blocks[0]["proj"](self.blocks[0]["qkv"](inputs)))  # type: ignore[no-any-return, index, operator]


def test_lora_begins_as_the_net_and_trains_two_thin_matrices() -> None:
    torch.manual_seed(0)
    net, inputs = Net(), torch.randn(4, 3)
    before = net(inputs)
    lora.add("lora", net, 2, 8.0, ["qkv"])
    assert torch.equal(net(inputs), before)
    assert [name for name, each in net.named_parameters() if each.requires_grad] == [
        *("blocks.0.qkv.A", "blocks.0.qkv.B")
    ]
    layer = net.blocks[0]["qkv"]  # type: ignore[index]
    with torch.no_grad():
        layer.B.normal_()
    weight = layer.base.weight + 8 / 2 * sum(torch.outer(layer.B[:, n], layer.A[n]) for n in range(2))
    expected = inputs @ weight.T + layer.base.bias
    torch.testing.assert_close(layer(inputs), expected)
    torch.testing.assert_close(nn.functional.linear(inputs, layer.weight, layer.bias), expected)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({"r": 2}, "must hold r, targets and perhaps alpha; got"),
        ({"r": 2, "targets": ["qkv"], "init": "x"}, "must hold r, targets and perhaps alpha; got"),
        ({"r": 0, "targets": ["qkv"]}, "r of lora must be a whole number in"),
        ({"r": 2, "targets": "qkv"}, "targets of lora must be a list of names"),
        ({"r": 2, "targets": []}, "targets of lora must be a list of names"),
        ({"r": 2, "alpha": 0, "targets": ["qkv"]}, "alpha of lora must be a finite number > 0"),
        ({"r": 2, "targets": ["qvk"]}, "'qvk' names no linear layer of the net; did you mean 'qkv'"),
        ({"r": 2, "targets": ["norm"]}, "'norm' names no linear layer of the net; its linear layers are as 'blocks"),
    ],
)
def test_lora_that_cannot_be_is_refused(value: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        lora.add("lora", Net(), **lora.check("lora", value))
