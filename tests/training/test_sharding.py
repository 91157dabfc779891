"""Spreading nets whose numbered parts hold others, against the same net in one piece."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import distributed, nn

from angulus.training import finetune, sharding


@pytest.fixture
def group() -> Iterator[None]:
    """A process group of this process alone."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


class Stage(nn.Module):
    """As those of timm's ConvNeXt (the step down first) and of transformers' Swin (last)."""

    def __init__(self, size: int, first: bool) -> None:
        super().__init__()
        if first:
            self.downsample = nn.Linear(size, size)
        self.blocks = nn.Sequential(*(nn.Sequential(nn.Linear(size, size), nn.Tanh()) for _ in range(2)))
        if not first:
            self.downsample = nn.Linear(size, size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(self.downsample(x))


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("first", [True, False])
def test_stages_with_blocks_are_spread_and_train_as_before(first: bool) -> None:
    torch.manual_seed(0)
    stages = nn.Sequential(Stage(4, first), Stage(4, first))
    net = nn.Sequential(OrderedDict(stages=stages, norm=nn.LayerNorm(4)))
    whole, x = copy.deepcopy(net), torch.randn(5, 4)
    names = {id(part): name for name, part in net.named_modules()}
    assert {names[id(part)] for part in finetune.blocks(net)} == {
        *("stages.0", "stages.0.blocks.0", "stages.0.blocks.1"),
        *("stages.1", "stages.1.blocks.0", "stages.1.blocks.1"),
    }
    job: Any = SimpleNamespace(backbone=net, device=torch.device("cpu"), ranks=SimpleNamespace(count=1))
    sharding.shard(job)
    for each in (whole, net):
        each(x).pow(3).mean().backward()
    expected = dict(whole.named_parameters())
    for name, parameter in net.named_parameters():
        assert sharding.is_spread(parameter)
        torch.testing.assert_close(parameter.grad.full_tensor(), expected[name].grad)
