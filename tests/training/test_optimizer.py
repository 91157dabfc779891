"""Which parameters decay, and that each kind steps as torch's own optimiser does."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

import tiny
from angulus import backbones, losses
from angulus.core.checks import InputError
from angulus.heads.dense import DenseHead
from angulus.heads.sampling import ClassSampling
from angulus.losses.objective import Objective
from angulus.training import optimizer
from angulus.training.settings import SGD, AdamW, Optimizer, RMSProp


def model(objective: Objective | None = None) -> tuple[nn.Module, DenseHead]:
    torch.manual_seed(0)
    backbone = backbones.build("small", in_channels=1, image_size=8, embedding_size=4)
    return backbone, DenseHead(4, 3, objective or losses.normface(s=10, learn=True) + losses.ring_loss(0.1))


def decaying(settings: Optimizer, objective: Objective | None = None) -> tuple[set[str], set[str]]:
    """The names of the parameters that decay, and of those that do not."""
    backbone, head = model(objective)
    names = {id(parameter): name for part in (backbone, head) for name, parameter in part.named_parameters()}
    groups = optimizer.parameter_groups(backbone, head, head.objective, settings)
    found: tuple[set[str], set[str]] = (set(), set())
    for group in groups:
        assert group["weight_decay"] in (0.0, settings.weight_decay)
        found[group["weight_decay"] == 0.0].update(names[id(each)] for each in group["params"])  # type: ignore[attr-defined]
    assert sum(len(group["params"]) for group in groups) == len(names)  # type: ignore[arg-type]  # each exactly once
    return found


WEIGHTS = {"layers.0.weight", "layers.3.weight", "layers.8.weight", "layers.11.weight", "weight"}
PLAIN = {f"layers.{n}.{part}" for n in (1, 4, 9) for part in ("weight", "bias")}
PLAIN |= {"layers.2.weight", "layers.5.weight", "layers.10.weight", "layers.11.bias"}


def test_convolutions_linear_layers_and_class_weights_decay_and_nothing_else() -> None:
    decay, plain = decaying(SGD(weight_decay=0.1))
    assert decay == WEIGHTS
    assert plain == PLAIN | {"objective.radius.s", "objective.ring_loss.R"}


def test_biases_and_norm_layers_decay_when_asked_and_s_and_r_do_not() -> None:
    decay, plain = decaying(SGD(weight_decay=0.1, decay_bias_and_norm=True))
    assert decay == WEIGHTS | PLAIN
    assert plain == {"objective.radius.s", "objective.ring_loss.R"}


def test_s_and_r_decay_when_asked_and_biases_do_not() -> None:
    decay, plain = decaying(SGD(weight_decay=0.1, decay_objective=True))
    assert decay == WEIGHTS | {"objective.radius.s", "objective.ring_loss.R"}
    assert plain == PLAIN


def test_a_class_bias_does_not_decay() -> None:
    decay, plain = decaying(SGD(weight_decay=0.1), losses.softmax(bias=True))
    assert "bias" in plain
    assert "bias" not in decay


@pytest.mark.parametrize("all_others", [False, True])
def test_class_weights_and_their_bias_do_not_decay_if_they_are_left_out(all_others: bool) -> None:
    settings = SGD(weight_decay=0.1, decay_classes=False, decay_bias_and_norm=all_others)
    decay, plain = decaying(settings, losses.softmax(bias=True))
    assert decay == (WEIGHTS - {"weight"}) | (PLAIN if all_others else set())
    assert plain == {"weight", "bias"} | (set() if all_others else PLAIN)


@pytest.mark.parametrize("decay_classes", [True, False])
@pytest.mark.parametrize(
    ("head_options", "settings"),
    [
        ({}, SGD(lr=0.5, weight_decay=0.1)),
        ({}, AdamW(lr=0.5, weight_decay=0.1)),
        ({}, RMSProp(lr=1e-3, weight_decay=0.1)),
        ({"sampling": ClassSampling(1.0)}, SGD(lr=0.5, weight_decay=0.1, decay_bias_and_norm=True)),
        ({"impl": "chunked"}, SGD(lr=0.5, weight_decay=0.1)),
    ],
    ids=["sgd", "adamw", "rmsprop", "sampled", "within-backward"],
)
def test_a_step_without_gradient_shrinks_what_decays(
    head_options: dict[str, Any], settings: Optimizer, decay_classes: bool
) -> None:
    backbone, _ = model()
    head = DenseHead(4, 3, losses.softmax(bias="sampling" in head_options), **head_options)
    settings = dataclasses.replace(settings, decay_classes=decay_classes)
    optim = optimizer.optimizers(backbone, head, settings, update_in_backward="impl" in head_options)
    if head.bias is not None:
        head.bias.data.fill_(1.0)
    before = [each.detach().clone() for each in (*head.parameters(), backbone.layers[0].weight)]
    (0.0 * head(torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1]))).backward()
    for parameter in backbone.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optim.step()
    *of_head, of_backbone = (*head.parameters(), backbone.layers[0].weight)
    for old, new in zip(before, of_head, strict=False):
        assert torch.equal(new, old) if not decay_classes else new.norm() < old.norm()
    assert of_backbone.norm() < before[-1].norm()


def test_frozen_parameters_and_empty_groups_are_left_out() -> None:
    backbone, head = model(losses.normface(learn=False))
    for parameter in backbone.parameters():
        parameter.requires_grad_(False)
    groups = optimizer.parameter_groups(backbone, head, head.objective, SGD(weight_decay=0.1))
    assert len(groups) == 1
    assert [id(each) for each in groups[0]["params"]] == [id(head.weight)]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("settings", "own"),
    [
        (
            SGD(lr=0.05, momentum=0.8, nesterov=True, weight_decay=0.1),
            lambda groups: torch.optim.SGD(groups, lr=0.05, momentum=0.8, nesterov=True),
        ),
        (
            SGD(lr=0.05, momentum=0.8, weight_decay=0.1),
            lambda groups: torch.optim.SGD(groups, lr=0.05, momentum=0.8),
        ),
        (AdamW(lr=0.01, weight_decay=0.1), lambda groups: torch.optim.AdamW(groups, lr=0.01)),
        (
            RMSProp(lr=0.01, momentum=0.7, alpha=0.9, eps=1.0, weight_decay=0.1),
            lambda groups: torch.optim.RMSprop(groups, lr=0.01, momentum=0.7, alpha=0.9, eps=1.0),
        ),
    ],
    ids=["sgd-nesterov", "sgd", "adamw", "rmsprop"],
)
def test_each_kind_steps_as_torchs_own(settings: Optimizer, own: object) -> None:
    def steps(make: object) -> list[torch.Tensor]:
        weight = nn.Parameter(torch.tensor([[1.0, -2.0], [3.0, 0.5]]))
        bias = nn.Parameter(torch.tensor([0.25, -0.5]))
        groups = [{"params": [weight], "weight_decay": 0.1}, {"params": [bias], "weight_decay": 0.0}]
        optim = make(groups)  # type: ignore[operator]
        inputs = torch.tensor([[1.0, 2.0], [-1.0, 0.5], [0.3, -0.7]])
        for _ in range(4):
            optim.zero_grad()
            (inputs @ weight.T + bias).square().sum().backward()
            optim.step()
        return [weight.detach(), bias.detach()]

    ours, theirs = steps(lambda groups: optimizer.build(groups, settings)), steps(own)
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
    assert not torch.equal(ours[0], torch.tensor([[1.0, -2.0], [3.0, 0.5]]))


def test_weight_decay_moves_only_the_group_that_has_it() -> None:
    backbone, head = model()
    settings = SGD(lr=0.5, momentum=0.0, weight_decay=0.1)
    optim = optimizer.build(optimizer.parameter_groups(backbone, head, head.objective, settings), settings)
    before = {name: value.detach().clone() for name, value in head.named_parameters()}
    for parameter in [*backbone.parameters(), *head.parameters()]:
        parameter.grad = torch.zeros_like(parameter)
    optim.step()
    torch.testing.assert_close(head.weight.detach(), before["weight"] * (1 - 0.5 * 0.1))
    assert head.objective.radius.s.item() == 10.0


def test_learning_rate_by_default() -> None:
    assert SGD().lr == 0.1
    assert AdamW().lr == RMSProp().lr == 1e-3


@pytest.mark.parametrize("key", ["compile", "channels_last"])
def test_a_spread_backbone_excludes(key: str) -> None:
    with pytest.raises(InputError, match=f"shard_backbone cannot be combined with training.{key}; set one of them"):
        tiny.validated("training.shard_backbone=true", f"training.{key}=true")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ("{lr: 0}", "training.optimizer.lr must be above 0; got 0"),
        ("{lr: .nan}", "training.optimizer.lr must be a finite number; got nan"),
        ("{lr: .inf}", "training.optimizer.lr must be a finite number; got inf"),
        ("{momentum: 1.0}", "training.optimizer.momentum must be below 1; got 1.0"),
        ("{momentum: -0.1}", "training.optimizer.momentum must be at least 0; got -0.1"),
        ("{weight_decay: -1e-3}", "training.optimizer.weight_decay must be at least 0; got -0.001"),
        ("{backbone_lr_scale: 0}", "training.optimizer.backbone_lr_scale must be above 0; got 0"),
        (
            "{kind: adamw, nesterov: true}",
            "training.optimizer.nesterov applies only to kind sgd, but kind is adamw. Remove it.",
        ),
        ("{momentum: 0, nesterov: true}", "training.optimizer.nesterov needs a momentum above 0; got momentum 0"),
    ],
)
def test_settings_are_refused(settings: str, sentence: str) -> None:
    with pytest.raises(InputError) as raised:
        tiny.validated(f"training.optimizer={settings}")
    assert str(raised.value) == sentence


def test_class_weights_with_an_optimiser_of_their_own_need_sgd() -> None:
    backbone, _ = model()
    head = DenseHead(4, 3, losses.normface(s=10), sampling=ClassSampling(0.5))
    with pytest.raises(InputError, match="need kind sgd; got adamw"):
        optimizer.optimizers(backbone, head, AdamW())
