"""Model folders of strangers that name a net of timm: whoever loads one, no option of it reads, fetches or runs."""

from __future__ import annotations

import json
import pickle
import socket
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner

import angulus
import tiny
from angulus import InputError, backbones
from angulus.cli.main import app
from angulus.experiments import build
from angulus.models import artifact, embed
from angulus.models.artifact import Config

CONFIG = Config("timm:toy_net", in_channels=3, image_size=(8, 8), embedding_size=3, options={"drop_rate": 0.25})


class Toy(nn.Module):
    def __init__(self, in_chans: int, num_classes: int, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.conv, self.drop = nn.Conv2d(in_chans, 4, 3), nn.Dropout(drop_rate)

    def forward(self, images: Tensor) -> Tensor:
        return self.drop(self.conv(images)).mean(dim=(2, 3))


@pytest.fixture
def harm(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a timm of old would have done: it unpickles any file, and fetches any URL, that its options name."""
    done: list[str] = []

    def create_model(
        name: str,
        pretrained: bool = False,
        pretrained_cfg: dict[str, str] | None = None,
        pretrained_cfg_overlay: dict[str, str] | None = None,
        checkpoint_path: str | None = None,
        cache_dir: str | None = None,
        scriptable: bool | None = None,
        **options: int,
    ) -> Toy:
        source = {"url": "https://example.org/weights", **(pretrained_cfg or {}), **(pretrained_cfg_overlay or {})}
        if pretrained:
            done.append(f"fetched {source.get('file', source['url'])}")
        if checkpoint_path:
            done.append(f"unpickled {checkpoint_path}")
            pickle.loads(Path(checkpoint_path).read_bytes())
        return Toy(**options)

    module = types.ModuleType("timm")
    module.list_models = lambda: ["toy_net"]  # type: ignore[attr-defined]
    module.is_model = lambda name: name.endswith("toy_net")  # type: ignore[attr-defined]
    module.create_model = create_model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", module)

    def connect(*_: object, **__: object) -> None:
        done.append("connected")
        raise OSError("no network here")

    monkeypatch.setattr(socket.socket, "connect", connect)
    return done


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('it ran')",))


@pytest.fixture
def folder(tmp_path: Path, harm: list[str]) -> Path:
    torch.manual_seed(0)
    artifact.save(CONFIG, CONFIG.build(), tmp_path / "model")
    (tmp_path / "model" / "evil.pth").write_bytes(pickle.dumps(Payload()))
    (tmp_path / "photos").mkdir()
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    return tmp_path / "model"


def test_the_card_and_a_net_of_another_version_name_the_library(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "(`pip install 'angulus[timm]'`)" in (folder / "README.md").read_text().replace("\n", " ")
    create_model = sys.modules["timm"].create_model
    other = lambda *names, **options: nn.Sequential(create_model(*names, **options))  # noqa: E731
    monkeypatch.setattr(sys.modules["timm"], "create_model", other)
    with pytest.raises(InputError, match=r"again, or install the version of timm that it was trained with"):
        artifact.load(folder)


def edit(folder: Path, **options: object) -> None:
    content = json.loads((folder / "config.json").read_text())
    content["options"] = options
    (folder / "config.json").write_text(json.dumps(content))


def by_hub(folder: Path) -> object:
    pytest.importorskip("huggingface_hub")
    from angulus.models.hub import HubModel

    return HubModel.from_pretrained(str(folder))


def by_command(*arguments: str) -> Callable[[Path], object]:
    def call(folder: Path) -> object:
        filled = [part.format(model=folder, next_to=folder.parent) for part in arguments]
        found = CliRunner().invoke(app, filled)
        if found.exception is not None:
            raise found.exception
        return found.output

    return call


DOORS: dict[str, Callable[[Path], object]] = {
    "angulus.load": angulus.load,
    "HubModel": by_hub,
    "embedding.run": lambda folder: embed.run(folder, folder.parent / "photos", folder.parent / "e.npz"),
    "info": by_command("info", "{model}"),
    "embed": by_command("embed", "{model}", "{next_to}/photos", "{next_to}/e.npz"),
    "verify": by_command("verify", "{model}", "{next_to}/photos/0.png", "{next_to}/photos/1.png", "--threshold", "0"),
    "export": by_command("export", "{model}", "--onnx", "{next_to}/m.onnx"),
    "doctor": by_command("doctor", "{model}", "{next_to}/photos"),
}
EVIL: dict[str, dict[str, object]] = {
    "checkpoint_path": {"checkpoint_path": "evil.pth"},
    "pretrained_cfg_overlay": {"pretrained": True, "pretrained_cfg_overlay": {"file": "evil.pth"}},
    "pretrained_cfg": {"pretrained": True, "pretrained_cfg": {"url": "http://127.0.0.1:1"}},
    "cache_dir": {"cache_dir": "/tmp"},
    "scriptable": {"scriptable": True},
    "unknown": {"pretrained_strict": False},
    "word": {"act_layer": "os.system('x')"},
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("evil", EVIL)
def test_options_that_load_weights_are_refused_at_every_door(
    folder: Path, harm: list[str], monkeypatch: pytest.MonkeyPatch, door: str, evil: str
) -> None:
    monkeypatch.chdir(folder)
    edit(folder, **EVIL[evil])
    with pytest.raises(InputError, match=r"option.* 'timm:toy_net'.* (must not hold|must be among|must be one of)"):
        DOORS[door](folder)
    assert not harm


@pytest.mark.parametrize("door", [door for door in DOORS if door not in ("export", "doctor")])
def test_a_stored_pretrained_never_fetches(folder: Path, harm: list[str], door: str) -> None:
    edit(folder, drop_rate=0.25, pretrained=True)
    DOORS[door](folder)
    assert not harm


PLACES = ["timm:hf-hub:someone/toy_net", "timm:local-dir:/tmp/toy_net", "timm:../toy_net"]


@pytest.mark.parametrize("name", [*PLACES, "transformers:someone/net", "transformers:."])
def test_a_name_that_is_a_place_is_refused(folder: Path, harm: list[str], name: str) -> None:
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {"backbone": name}))
    with pytest.raises(InputError, match=r"timm has no net|the net of a stored model of transformers: must be one of"):
        angulus.load(folder)
    assert not harm


def test_training_may_fetch_and_what_it_stores_does_not(tmp_path: Path, harm: list[str]) -> None:
    options = {"pretrained": True, "pretrained_cfg_overlay": {"file": "own.pth"}, "drop_rate": 0.5}
    backbones.build("timm:toy_net", in_channels=3, image_size=8, embedding_size=3, **options)
    assert harm == ["fetched own.pth"]
    recipe = tiny.validated("backbone.name=timm:toy_net", f"backbone.options={json.dumps(options)}")
    assert build.config(recipe, tiny.splits()).options == {"drop_rate": 0.5}
    evil = Config("timm:toy_net", 3, (8, 8), 3, options={"checkpoint_path": "x"})
    with pytest.raises(InputError, match="must not hold 'checkpoint_path'"):
        artifact.save(evil, Toy(3, 0), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_net_that_needs_numbers_to_be_built_is_loaded_all_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Toy.forward

    def by_numbers(self: Toy, images: Tensor) -> Tensor:
        assert images.sum().item() is not None  # meta tensors have none
        return whole(self, images)

    monkeypatch.setattr(Toy, "forward", by_numbers)
    assert angulus.load(folder).embed(torch.zeros(2, 3, 8, 8, dtype=torch.uint8)).shape == (2, 3)
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {"embedding_size": 2**20}))
    with pytest.raises(InputError, match="cannot take images"):
        angulus.load(folder)
