"""A model's folder: the same features to the bit, and nothing in it trusted."""

from __future__ import annotations

import json
import pickle
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

import angulus
from angulus import InputError, artifact
from angulus.artifact import Config
from angulus.contract import Contract

CONFIG = Config(
    "small", in_channels=1, image_size=(8, 8), embedding_size=3, contract=Contract(7.0, 16.0), about={"seed": 1}
)


def pixels() -> torch.Tensor:
    return torch.randint(256, (5, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    artifact.save(CONFIG, CONFIG.build(), tmp_path / "model")
    return tmp_path / "model"


def test_a_fresh_process_gives_the_same_features_to_the_bit(folder: Path) -> None:
    torch.manual_seed(0)
    backbone = CONFIG.build().eval()
    expected = backbone(CONFIG.contract(pixels())).detach()
    loaded = angulus.load(folder)
    assert loaded.config == CONFIG
    assert bool((loaded.embed(pixels()) == expected).all())
    code = (
        "import angulus, torch, sys; "
        "p = torch.randint(256, (5, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)); "
        "sys.stdout.buffer.write(angulus.load(sys.argv[1]).embed(p).numpy().tobytes())"
    )
    found = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, check=True).stdout
    assert found == expected.numpy().tobytes()


def test_batch_norm_stays_in_evaluation_mode_and_unit_features_are_unit(tmp_path: Path) -> None:
    config = replace(CONFIG, normalize=True)
    artifact.save(config, config.build(), tmp_path)
    model = angulus.load(tmp_path).train()
    assert not model.backbone.training
    torch.testing.assert_close(model.embed(pixels()).norm(dim=1), torch.ones(5))


def test_images_of_another_size_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match=r"takes images \[batch, 1, 8, 8\]; got \[2, 3, 8, 8\]"):
        angulus.load(folder).embed(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(InputError, match="pixels must be uint8"):
        angulus.load(folder).embed(torch.zeros(2, 1, 8, 8))


def test_tampered_weights_are_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    whole = bytearray(path.read_bytes())
    whole[-1] ^= 1
    path.write_bytes(bytes(whole))
    with pytest.raises(InputError, match=r"is not the file that config\.json was written for"):
        angulus.load(folder)
    path.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        angulus.load(folder)


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('it ran')",))


def test_a_pickle_in_place_of_weights_is_refused_unread(folder: Path) -> None:
    edit(folder, model=pickle.dumps(Payload()))
    with pytest.raises(InputError, match="does not hold the weights of the backbone 'small'"):
        angulus.load(folder)


def test_nothing_unpickles_while_a_model_is_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Payload()))
    (folder / "model.pkl").write_bytes(pickle.dumps(Payload()))

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("it unpickled")

    for name in ("load", "loads", "Unpickler", "_Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)
    assert angulus.load(folder).embed(pixels()).shape == (5, 3)


def header(text: bytes, size: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if size is None else size) + text


@pytest.mark.parametrize(
    "weights",
    [
        b"",
        header(b"{}"),
        header(b"{}", size=2**63),
        header(b"[[[["),
        header(b'{"layers.0.weight":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'),  # no such bytes
        header(
            b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
        )
        + bytes(4),
        header(b'{"a":{"dtype":"F32","shape":[4000000000,4000000000],"data_offsets":[0,4]}}') + bytes(4),
    ],
    ids=["empty", "no tensor", "endless header", "no JSON", "no bytes", "overlap", "overflow"],
)
def test_crafted_weights_are_refused(folder: Path, weights: bytes) -> None:
    edit(folder, model=weights)
    with pytest.raises(InputError, match="does not hold the weights of the backbone 'small'"):
        angulus.load(folder)


def test_weights_of_another_backbone_are_refused(folder: Path) -> None:
    edit(folder, model=safetensors.torch.save({"other": torch.zeros(2)}))
    with pytest.raises(InputError, match="does not hold the weights"):
        angulus.load(folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"backbone": "os.system"}, "backbone must be one of"),
        ({"auto_map": {"AutoModel": "code.Model"}}, "unknown key 'auto_map'"),
        ({"contract": {"mean": 0.0, "code": "x"}}, "lacks or mistakes a key"),
        ({"contract": {"mean": 0.0, "scale": -1.0}}, "input.scale must be"),
        ({"options": {"hook": "x"}}, "options of the backbone 'small'"),
        ({"image_size": 8}, r"must give image_size as \[height, width\]; got 8"),
        ({"format": 2}, "must be an Angulus model of format 1"),
    ],
)
def test_a_configuration_that_names_what_is_not_known_is_refused(
    folder: Path, changes: dict[str, object], said: str
) -> None:
    edit(folder, **changes)
    with pytest.raises(InputError, match=said):
        angulus.load(folder)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a model folder"):
        angulus.load(tmp_path)
    (tmp_path / "config.json").write_text("[1")
    with pytest.raises(InputError, match="is not a model folder"):
        angulus.load(str(tmp_path))


def edit(folder: Path, model: bytes | None = None, **changes: object) -> None:
    """Change the folder as someone who means harm would: checksum and all."""
    import hashlib

    config = json.loads((folder / "config.json").read_text())
    if model is not None:
        (folder / "model.safetensors").write_bytes(model)
        changes["sha256"] = hashlib.sha256(model).hexdigest()
    (folder / "config.json").write_text(json.dumps(config | changes))
