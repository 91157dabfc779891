"""Frozen parts, layer-wise rates and the running mean of the weights, against loops written out here."""

from __future__ import annotations

import itertools
import os
import signal
from pathlib import Path

import pytest
import torch
from torch import nn

import tiny
from angulus import backbones
from angulus.backbones.layers import Backbone, FeatureLayer, UnitFeatures
from angulus.core.checks import InputError
from angulus.experiments import build
from angulus.experiments.run import run
from angulus.models import artifact
from angulus.training import finetune, loop, start
from angulus.training.ema import Ema
from angulus.training.settings import Training
from angulus.training.signals import Interrupted
from angulus.training.state import load_checkpoint

EMA = "training.ema=0.7"


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.norm = nn.Linear(4, 4), nn.LayerNorm(4)


class Transformer(nn.Module):
    """The names and order of a vision transformer's parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.patch_embed = nn.Conv2d(3, 4, 2)
        self.blocks = nn.ModuleList([Block(), Block(), Block()])
        self.norm = nn.LayerNorm(4)


def shell(net: nn.Module | None = None) -> Backbone:
    backbone = Backbone([net or Transformer(), FeatureLayer(4, 2)], 3, (8, 8), 2)
    backbone.net_prefix = "layers.0."
    return backbone


def scales(backbone: nn.Module, decay: float = 0.5) -> dict[str, float]:
    found = finetune.layer_scales(backbone, decay)
    return {name: found[id(parameter)] for name, parameter, _ in finetune.parameters_by_name(backbone)}


# rates by layer


@pytest.mark.parametrize("wrap", [lambda net: net, lambda net: nn.Sequential(net, nn.Identity())])
def test_rates_fall_from_layer_to_layer_down_to_the_embeddings(wrap: type) -> None:
    found = scales(wrap(shell()))
    assert {name for name, scale in found.items() if scale == 1} == {
        *("norm.weight", "norm.bias", "layers.1.weight", "layers.1.bias")
    }
    assert [found[f"blocks.{n}.qkv.weight"] for n in range(3)] == [0.125, 0.25, 0.5]
    assert [found[f"blocks.{n}.norm.bias"] for n in range(3)] == [0.125, 0.25, 0.5]
    assert found["cls_token"] == found["patch_embed.weight"] == 0.0625


def test_rates_fall_over_the_numbered_layers_of_an_own_net() -> None:
    found = scales(backbones.build("lenet++", in_channels=1, image_size=28, embedding_size=2))
    numbers = sorted({int(name.split(".")[1]) for name in found})
    for name, scale in found.items():
        assert scale == 0.5 ** (len(numbers) - 1 - numbers.index(int(name.split(".")[1])))


def test_a_net_of_stages_counts_its_blocks() -> None:
    net = nn.Module()
    stages = [nn.Module(), nn.Module()]
    for stage in stages:
        stage.downsample = nn.Linear(2, 2)
        stage.blocks = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    net.stages = nn.ModuleList(stages)
    found = scales(shell(net))
    names = [f"stages.{n}.{part}.weight" for n in range(2) for part in ("downsample", "blocks.0", "blocks.1")]
    assert [found[name] for name in names] == [0.5**n for n in (6, 5, 4, 3, 2, 1)]


def test_single_layers_of_a_stem_and_what_lies_between_blocks_go_with_what_precedes_them() -> None:
    net = nn.Module()  # the names and order of timm's ResNet with a deep stem
    net.conv1, net.bn1 = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 3)), nn.BatchNorm2d(2)
    net.tokens = nn.ParameterList([nn.Parameter(torch.zeros(2))])
    net.layer1, net.between = nn.Sequential(Block(), Block()), nn.Linear(2, 2)
    net.layer2, net.norm = nn.Sequential(Block()), nn.LayerNorm(2)
    found = scales(shell(net))
    stem = {scale for name, scale in found.items() if name.startswith(("conv1.", "bn1.", "tokens."))}
    assert stem == {0.5**4}
    blocks = [found[f"{name}.qkv.weight"] for name in ("layer1.0", "layer1.1", "layer2.0")]
    assert blocks == [0.5**3, 0.5**2, 0.5]
    assert found["between.weight"] == 0.5**2
    assert found["norm.weight"] == found["layers.1.weight"] == 1
    assert len(finetune.blocks(shell(net))) == 3


def test_a_transition_after_the_blocks_of_its_stage_is_not_before_them() -> None:
    net = nn.Module()
    stages = [nn.Module(), nn.Module()]
    for stage in stages:
        stage.downsample, stage.blocks, stage.transition = Block(), nn.ModuleList([Block()]), nn.Linear(2, 2)
    net.stages = nn.ModuleList(stages)
    found = scales(shell(net))
    parts = ("downsample.qkv", "blocks.0.qkv", "transition")
    names = [f"stages.{n}.{part}.weight" for n in range(2) for part in parts]
    assert [found[name] for name in names] == [0.5**n for n in (4, 3, 3, 2, 1, 1)]


def test_layer_decay_reaches_the_optimiser_and_refuses_nets_without_layers() -> None:
    from angulus.training import optimizer

    job = build.job(tiny.validated("training.optimizer={layer_decay: 0.5, backbone_lr_scale: 0.1}"), tiny.splits())
    optim = optimizer.optimizers(job.backbone, job.head, job.settings.optimizer)
    optim.set_rate(2.0)
    rates = {id(each): group["lr"] for group in optim.param_groups for each in group["params"]}
    assert rates[id(job.head.weight)] == 2.0
    found = finetune.layer_scales(job.backbone, 0.5)
    assert all(rates[key] == pytest.approx(0.2 * scale) for key, scale in found.items())
    assert len(set(found.values())) > 3
    with pytest.raises(InputError, match="layer_decay needs a net with numbered layers"):
        finetune.layer_scales(nn.Linear(2, 2), 0.5)


def test_a_network_of_ones_own_has_its_own_names_also_before_unit_features() -> None:
    net = nn.Module()
    net.layer, net.out = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)]), nn.Linear(2, 2)
    whole = nn.Sequential(net, UnitFeatures())
    assert scales(whole) == scales(net)
    assert scales(whole)["layer.0.weight"] == 0.25
    finetune.freeze(whole, ["layer.0.*"])
    assert [name for name, each in net.named_parameters() if not each.requires_grad] == [
        "layer.0.weight",
        "layer.0.bias",
    ]


# frozen parts


def test_frozen_parameters_are_those_whose_name_matches() -> None:
    backbone = shell()
    finetune.freeze(backbone, ["patch_embed*", "blocks.[01].*", "cls_token"])
    kept = {name for name, parameter, _ in finetune.parameters_by_name(backbone) if parameter.requires_grad}
    assert kept == {
        *(f"blocks.2.{part}.{kind}" for part, kind in itertools.product(("qkv", "norm"), ("weight", "bias"))),
        *(f"{part}.{kind}" for part, kind in itertools.product(("norm", "layers.1"), ("weight", "bias"))),
    }


def test_frozen_weights_and_their_batch_norm_do_not_move(tmp_path: Path) -> None:
    frozen = tiny.validated("training.freeze=['layers.0.*', 'layers.1.*']")
    before = {name: value.clone() for name, value in build.job(frozen, tiny.splits()).backbone.state_dict().items()}
    run(frozen, tmp_path, splits=tiny.splits())
    after = load_checkpoint(tmp_path / "checkpoint.pt")["backbone"]
    still = {name for name, value in before.items() if torch.equal(value, after[name])}
    assert {name for name in before if name.startswith(("layers.0.", "layers.1."))} <= still
    assert "layers.1.running_mean" in still
    assert not {"layers.3.weight", "layers.4.running_mean", "layers.11.weight"} & still


@pytest.mark.parametrize(
    ("pattern", "meant"),
    [
        ("blocks.0", "blocks.0.*"),
        ("blocks.0.", "blocks.0.*"),
        ("block.0.*", "blocks.0.*"),
        ("layers.0.blocks.1.*", "blocks.1.*"),
        ("patch_embd.*", "patch_embed.*"),
        ("cls_tokens", "cls_token"),
    ],
)
def test_a_pattern_that_matches_nothing_is_named_with_the_one_that_was_meant(pattern: str, meant: str) -> None:
    with pytest.raises(InputError) as error:
        finetune.freeze(shell(), [pattern])
    assert str(error.value).endswith(f"{pattern!r} matches no parameter of the backbone; did you mean {meant!r}?")


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("training.freeze=[encoder*]", r"'encoder\*' matches no parameter of the backbone; names are as 'layers"),
        ("training.freeze=[layers.0.weigth]", r"matches no parameter .*did you mean 'layers\.0\.weight'"),
        ("training.freeze=['*']", "leaves nothing of the backbone to train"),
        ("training.activation_checkpointing=true", "needs a transformer of timm or transformers"),
    ],
)
def test_what_cannot_be_frozen_or_recomputed_is_refused(key: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        build.job(tiny.validated(key), tiny.splits())


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("training.ema=1", "training.ema must be below 1"),
        ("training.ema=0", "training.ema must be above 0"),
        ("training.optimizer.layer_decay=1.5", "layer_decay must be at most 1"),
        ("training.optimizer.layer_decay=0", "layer_decay must be above 0"),
        ("training.freeze=layers.0.*", "training.freeze must be a list, such as"),
    ],
)
def test_settings_out_of_range_are_refused(key: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        tiny.validated(key)


def test_a_net_of_a_library_recomputes_its_activations_by_its_own_switch() -> None:
    class Switch(nn.Module):
        def __init__(self, able: bool = True, norm: bool = False) -> None:
            super().__init__()
            self.fc, self.able, self.on = nn.Linear(2, 2), able, False
            self.norm = nn.BatchNorm1d(2) if norm else None

        def set_grad_checkpointing(self, enable: bool) -> None:
            assert self.able, "gradient checkpointing not supported"
            self.on = enable

    settings = Training(activation_checkpointing=True)
    net = Switch()
    finetune.prepare(shell(net), settings)
    assert net.on
    with pytest.raises(InputError, match="this net of timm does not support it"):
        finetune.prepare(shell(Switch(able=False)), settings)
    with pytest.raises(InputError, match="moves the means of batch norm twice"):
        finetune.prepare(shell(Switch(norm=True)), settings)


# the running mean


def test_the_mean_follows_its_equation() -> None:
    job = build.job(tiny.validated("objective.learn=true"), tiny.splits())
    mean = Ema(job, 0.2)
    assert "layers.1.running_var" in mean.state("backbone")
    assert "layers.1.num_batches_tracked" not in mean.state("backbone")
    assert mean.state("head").keys() >= {"weight", "objective.radius.s"}
    expected = {name: value.clone().double() for name, value in mean.state("backbone").items()}
    for step in (1, 2, 3):
        decay = min(0.2, (1 + step) / (10 + step))  # 2/11, then 0.2
        with torch.no_grad():
            for tensor in job.backbone.state_dict().values():
                tensor.add_(step)
        mean.update(step)
        live = job.backbone.state_dict()
        expected = {name: decay * value + (1 - decay) * live[name].double() for name, value in expected.items()}
    for name, value in mean.state("backbone").items():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-5)


def test_a_mask_that_is_not_saved_is_not_averaged() -> None:
    job = build.job(tiny.validated(EMA), tiny.splits())
    mask = torch.tensor([0.0, -torch.inf])
    job.backbone.register_buffer("mask", mask.clone(), persistent=False)
    mean = Ema(job, 0.7)
    mean.update(1)
    mean.swap()
    assert torch.equal(job.backbone.mask, mask)


def test_the_mean_is_what_is_saved_and_measured(tmp_path: Path) -> None:
    recipe = tiny.validated(EMA, "training.snapshots={every: 3}", "validation={identities: 0.3, fmr: 0.05, pairs: 200}")
    run(recipe, tmp_path / "mean", splits=tiny.splits())
    run(tiny.validated("validation={identities: 0.3, fmr: 0.05, pairs: 200}"), tmp_path / "raw", splits=tiny.splits())
    state, raw = (load_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("mean", "raw"))
    assert tiny.differences(state["backbone"], raw["backbone"]) == []  # the training itself is the same
    assert tiny.differences(state["head"], raw["head"]) == []
    model = artifact.load(tmp_path / "mean" / "model")
    saved = model.backbone.state_dict()
    assert all(torch.equal(saved[name], value) for name, value in state["ema"]["backbone"].items())
    assert not torch.equal(saved["layers.0.weight"], state["backbone"]["layers.0.weight"])
    last = max((tmp_path / "mean" / "snapshots").iterdir(), key=lambda path: int(path.name.removeprefix("step-")))
    assert int(last.name.removeprefix("step-")) == state["progress"]["step"]
    last = artifact.load(last / "model").backbone.state_dict()
    assert tiny.differences(saved, last) == []
    rows = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("mean", "raw")]
    assert rows[0] != rows[1]  # validation measured the mean

    job = build.job(tiny.validated(), tiny.splits())
    start.from_checkpoint(tmp_path / "mean", job)
    assert torch.equal(job.backbone.state_dict()["layers.0.weight"], saved["layers.0.weight"])


def test_a_stopped_run_resumes_to_the_same_bits(tmp_path: Path) -> None:
    recipe = tiny.validated(EMA, "training.freeze=['layers.0.*']", "training.optimizer.layer_decay=0.9")
    run(recipe, tmp_path / "whole", splits=tiny.splits())

    def kill(step: int, *_: object) -> None:
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        run(recipe, tmp_path / "stopped", splits=tiny.splits(), on_step=kill)
    run(recipe, tmp_path / "stopped", splits=tiny.splits(), resume=True)
    whole, stopped = (tiny.outcome(tmp_path / name) for name in ("whole", "stopped"))
    assert tiny.differences(whole, stopped) == []
    models = [artifact.load(tmp_path / name / "model").backbone.state_dict() for name in ("whole", "stopped")]
    assert tiny.differences(*models) == []


def test_a_checkpoint_without_a_mean_is_refused(tmp_path: Path) -> None:
    job = build.job(tiny.validated(), tiny.splits())
    loop.fit(job, tmp_path, resume=False)
    with pytest.raises(InputError, match=r"has no running mean of the weights; resume without training.ema"):
        loop.fit(build.job(tiny.validated(EMA), tiny.splits()), tmp_path, resume=True)
