"""Nets of transformers: through a stand-in of the library everywhere, and through it where it is installed."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import angulus
import tiny
from angulus import backbones
from angulus.backbones import transformers_models
from angulus.core.checks import InputError
from angulus.data import Images, Splits
from angulus.experiments import build
from angulus.experiments import recipe as recipes
from angulus.experiments.run import run
from angulus.models import artifact
from angulus.report.finished_run import DataSets, read_run
from angulus.training import finetune
from toy_transformers import Toy, installed

SIZES = {"in_channels": 3, "image_size": 8, "embedding_size": 4}
SETTINGS: dict[str, Any] = {
    "hidden_size": 6,
    "num_hidden_layers": 2,
    "image_size": 8,
    "patch_size": 4,
    "num_channels": 3,
}
PROCESSOR = {
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "do_center_crop": True,
    "size": {"shortest_edge": 10},
    "crop_size": {"height": 8, "width": 8},
}


@pytest.fixture
def toy() -> Iterator[None]:
    with installed():
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A net on disk, as from a hub."""
    torch.manual_seed(1)
    where = tmp_path / "net"
    where.mkdir()
    (where / "config.json").write_text(json.dumps({"model_type": "dinov2", "out_indices": [2], **SETTINGS}))
    (where / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    save_file(Toy(types.SimpleNamespace(**SETTINGS)).state_dict(), where / "model.safetensors")
    return where


def colour(count: int) -> Splits:
    """Digits as RGB images of 8 x 8."""
    splits = tiny.splits()

    def rgb(images: Images) -> Images:
        return Images(
            images.pixels[:count].expand(-1, 3, -1, -1).contiguous(), images.labels[:count], images.class_names
        )

    return Splits("digits", rgb(splits.train), rgb(splits.test), "digits in colour")


@pytest.mark.usefixtures("toy")
def test_a_folder_gives_its_weights_and_is_stored_by_its_kind(folder: Path) -> None:
    net = backbones.build(f"transformers:{folder}", **SIZES, pooling="mean").eval()
    weights = load_file(folder / "model.safetensors")
    assert all(torch.equal(net.state_dict()[f"layers.0.net.{name}"], value) for name, value in weights.items())
    images = torch.randn(2, 3, 8, 8)
    tokens = net.layers[0].net(images).last_hidden_state
    torch.testing.assert_close(net(images), net.layers[-1](tokens[:, 1:].mean(1)))
    name, options = backbones.stored(net, f"transformers:{folder}", {"pooling": "mean"})
    assert (name, options) == ("transformers:dinov2", {"config": SETTINGS, "pooling": "mean"})
    again = backbones.rebuild(name, **SIZES, **options).eval()
    again.load_state_dict(net.state_dict())
    assert torch.equal(again(images), net(images))
    names = [name for name, *_ in finetune.parameters_by_name(net)]
    assert names[0] == "cls_token"
    assert "layer.1.fc.weight" in names
    assert not next(each for name, each, _ in finetune.parameters_by_name(net) if name == "mask_token").requires_grad
    finetune.recompute_activations(net)
    assert net.layers[0].net.checkpointing == {"use_reentrant": False}


@pytest.mark.usefixtures("toy")
def test_the_input_of_the_weights_is_the_recipes_unless_it_says_otherwise(folder: Path) -> None:
    name = f"backbone.name=transformers:{folder}"
    content = tiny.content(name)
    del content["input"]
    found = recipes.validate(content).input
    assert found.mean == pytest.approx([255 * each for each in PROCESSOR["image_mean"]])  # type: ignore[arg-type]
    assert found.scale == pytest.approx([255 * each for each in PROCESSOR["image_std"]])  # type: ignore[arg-type]
    assert found.size == (8, 8)
    own = recipes.validate(tiny.content(name))
    assert (own.input.mean, own.input.scale, own.input.size) == (78, 96, (8, 8))
    with pytest.warns(UserWarning) as warned:
        build.job(own, colour(20))
    sentences = [str(each.message) for each in warned]
    assert any(
        re.match(r"input.mean is 78.*, but the weights of .* were trained with \[123", each) for each in sentences
    )
    assert any(
        re.match(r"input.scale is 96.*, but the weights of .* were trained with \[58", each) for each in sentences
    )
    whole = recipes.dump(recipes.validate(content))
    processor = json.dumps({**PROCESSOR, "crop_size": {"height": 16, "width": 12}})
    (folder / "preprocessor_config.json").write_text(processor)
    with pytest.raises(
        InputError, match=r"were trained with images of 16x12, and these are 8x8; .*set input.size=\[8, 8\]"
    ):
        build.job(recipes.validate(content), colour(20))
    with pytest.warns(UserWarning, match=r"input.size is \(8, 8\), but the weights of .* were trained with \[16, 12\]"):
        build.job(recipes.validate({**content, "input": {"size": [8, 8]}}), colour(20))
    (folder / "preprocessor_config.json").unlink()
    (folder / "config.json").unlink()
    assert recipes.validate(whole).input == found  # a run's own recipe needs the folder no more


@pytest.mark.usefixtures("toy")
def test_a_stored_net_that_cannot_be_takes_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = backbones.build("transformers:dinov2", **SIZES, config=SETTINGS)
    name, options = backbones.stored(net, "", {})
    artifact.save(artifact.Config(name, 3, (8, 8), 4, options), net, tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**content, "image_size": [9, 8]}))
    devices, construct = [], Toy.__init__

    def watched(self: Toy, config: Any) -> None:
        devices.append(torch.empty(0).device.type)
        construct(self, config)

    monkeypatch.setattr(Toy, "__init__", watched)
    with pytest.raises(InputError, match="needs sides that are multiples of its patches' 4 pixels; got 9 x 8"):
        artifact.load(tmp_path)
    assert devices == ["meta"]


@pytest.mark.usefixtures("toy")
def test_a_trainer_takes_the_input_of_the_weights_as_a_recipe_does(folder: Path, tmp_path: Path) -> None:
    def trainer(out: str, **options: Any) -> angulus.Trainer:
        arguments = angulus.TrainingArguments(epochs=1, batch_size=32, threads=1)
        model, loss = f"transformers:{folder}", angulus.losses.normface()
        out = str(tmp_path / out)
        return angulus.Trainer(
            model, loss, colour(64), arguments, embedding_size=4, out=out, progress=False, name="own", **options
        )

    content = tiny.content(f"backbone.name=transformers:{folder}")
    del content["input"]
    assert trainer("run").recipe.input == recipes.validate(content).input
    assert trainer("run", input={"mean": 0}).recipe.input.mean == 0
    trained = trainer("run").train()
    shutil.rmtree(folder)
    pixels = colour(4).test.pixels
    assert torch.equal(
        angulus.load(trained.folder / "model").embed(pixels), torch.from_numpy(trained.model.encode(pixels))
    )


def test_a_recipe_of_a_strangers_run_fetches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers_models, "find", lambda *_: pytest.fail("it was read"))
    content = tiny.content("backbone.name=transformers:owner/net")
    del content["input"]
    (tmp_path / "recipe.yaml").write_text(json.dumps(content))  # which is YAML, too
    (tmp_path / "results.json").write_text(json.dumps({}))
    assert recipes.stored(tmp_path / "recipe.yaml").backbone.name == "transformers:owner/net"
    with pytest.raises(InputError, match="lacks 'name'"):
        read_run("run", tmp_path, None, DataSets(), 1)


@pytest.mark.usefixtures("toy")
def test_a_run_is_fine_tuned_and_loads_without_the_folder(folder: Path, tmp_path: Path) -> None:
    lora = {"r": 2, "targets": ["fc"]}
    overrides = [
        f"backbone={{name: 'transformers:{folder}', embedding_size: 4, options: {{lora: {json.dumps(lora)}}}}}",
        *("training.optimizer={layer_decay: 0.5}", "training.ema=0.9", "training.epochs=1"),
    ]
    content = tiny.content(*overrides)
    del content["input"]
    run(recipes.validate(content), tmp_path / "run", splits=colour(30))
    before = load_file(folder / "model.safetensors")
    for path in folder.iterdir():
        path.unlink()
    model = artifact.load(tmp_path / "run" / "model")
    state = model.backbone.state_dict()
    assert torch.equal(state["layers.0.net.layer.0.fc.base.weight"], before["layer.0.fc.weight"])
    assert state["layers.0.net.layer.0.fc.B"].any()
    assert model.config.contract.size == (8, 8)
    assert str(folder) not in (tmp_path / "run" / "model" / "config.json").read_text()
    assert "(123.675, 116.28, 103.53)" in (tmp_path / "run" / "model" / "README.md").read_text()


@pytest.mark.usefixtures("toy")
def test_a_network_of_ones_own_around_such_a_net_is_stored_as_ones_own() -> None:
    whole = nn.Sequential(backbones.build("transformers:dinov2", **SIZES, config=SETTINGS), nn.Linear(4, 2))
    assert backbones.stored(whole, "module:Sequential", {}) == ("module:Sequential", {})


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model_type": "bert"}, "config.json must be of the model_type dinov2, .*; got 'bert'"),
        ({"auto_map": {"AutoModel": "x.Y"}}, "holds 'auto_map', and nets with code of its own are not loaded"),
        ({"quantization_config": {}}, "holds 'quantization_config'"),
        ({"hidden_size": "6"}, "hidden_size of 'transformers:.*' must be a whole number"),
        ({"hidden_act": "os.system"}, "hidden_act of .* must be a word of small letters"),
        ({"hidden_size": 7}, "its model.safetensors cannot be loaded: "),
        ({"num_hidden_layers": 3}, "its weights lack layer.2.fc.bias and 1 more of a dinov2"),
        ({"odd": 2}, "has settings that change its features and cannot be stored"),
    ],
)
def test_folders_of_other_nets_are_refused(change: dict[str, Any], sentence: str, folder: Path) -> None:
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | change))
    with pytest.raises(InputError, match=sentence):
        backbones.build(f"transformers:{folder}", **SIZES)


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        (
            "dinov2",
            {"config": SETTINGS, "image_size": 9},
            "needs sides that are multiples of its patches' 4 pixels; got 9",
        ),
        ("dinov2", {"config": SETTINGS, "in_channels": 1}, "takes images of 3 channels; got 1"),
        ("dinov2", {"config": {"hidden_sizes": 6}}, "must hold hidden_size, .*; got 'hidden_sizes'; did you mean"),
        ("dinov2", {"config": 3}, "option config of .* must be names with values; got 3"),
        ("dinov2", {"pool": "mean"}, "must be among pooling, .*config; got 'pool'"),
        ("dinov2", {"config": SETTINGS, "pooling": "max"}, "option pooling of .* must be one of 'cls'"),
        ("siglip_vision_model", {"pooling": "cls"}, "has no class token; take the pooling mean, gem or attention"),
        ("no/where/at all", {}, "there is no folder 'no/where/at all', and it is no OWNER/NAME on a hub"),
        ("dinov3_vits", {}, "did you mean 'dinov3_vit'"),
        ("vit", {}, "transformers cannot build 'transformers:vit': .*ViTModel"),
    ],
)
def test_what_cannot_be_built_is_refused(name: str, change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        backbones.build(f"transformers:{name}", **{**SIZES, **change})


@pytest.mark.parametrize(
    ("error", "way"),
    [
        (OSError("no address"), "there is no folder 'owner/name', .*: OSError: no address; check the name, or"),
        (type("GatedRepoError", (OSError,), {})("403"), "it is gated; accept its licence on its page"),
    ],
)
def test_a_repository_that_cannot_be_fetched_is_a_sentence(
    error: Exception, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(name: str, allow_patterns: list[str]) -> str:
        assert not [pattern for pattern in allow_patterns if "bin" in pattern or "*" in pattern.partition(".")[2]]
        raise error

    hub = types.ModuleType("huggingface_hub")
    hub.snapshot_download = fetch  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    with pytest.raises(InputError, match=way):
        backbones.build("transformers:owner/name", **SIZES)


@pytest.mark.parametrize("name", ["owner/name", "/tmp", "../net"])
def test_a_stored_model_names_a_kind_and_nothing_to_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers_models, "find", lambda *_: pytest.fail("it looked for weights"))
    with pytest.raises(InputError, match="the net of a stored model of transformers: must be one of 'dinov2'"):
        backbones.rebuild(f"transformers:{name}", **SIZES)


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="needs transformers")
@pytest.mark.parametrize("kind", ["dinov2", "dinov3_vit", "siglip_vision_model", "clip_vision_model"])
def test_transformers_itself(kind: str, tmp_path: Path) -> None:
    import transformers

    settings = {**SETTINGS, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 16}
    torch.manual_seed(0)
    theirs = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(kind, **settings)).eval()
    theirs.save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(
        json.dumps({**content, "attn_implementation": "owner/kernel"})
    )  # code of a hub
    net = backbones.build(f"transformers:{tmp_path}", **SIZES).eval()
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        expected = theirs(pixel_values=images).pooler_output
        torch.testing.assert_close(net(images), net.layers[-1](expected))
    name, options = backbones.stored(net, "", {})
    again = backbones.rebuild(name, **SIZES, **json.loads(json.dumps(options))).eval()
    again.load_state_dict(net.state_dict())
    assert torch.equal(again(images), net(images))
