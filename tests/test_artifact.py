"""A model's folder: the same features to the bit, and nothing in it trusted."""

from __future__ import annotations

import json
import math
import pickle
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from typer.testing import CliRunner

import angulus
from angulus import InputError, backbones
from angulus.backbones.unfilled import Unfilled
from angulus.cli.main import app
from angulus.core.contract import Contract, fingerprint, split_model_name
from angulus.core.embeddings import Embeddings
from angulus.evaluation.lists.pair_list import PairList
from angulus.evaluation.protocols.calibrate import calibrate
from angulus.models import artifact
from angulus.models.artifact import Config

CONFIG = Config(
    "small", in_channels=1, image_size=(8, 8), embedding_size=3, contract=Contract(7.0, 16.0), about={"seed": 1}
)

DEEPER = {"ir34", "ir50", "ir100", "ir200", "resnet50", "spherenet64"}  # of the layers of another
VOLUMES = ("luna_archi1", "luna_archi2", "luna_archi3", "luna_fusion")


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
        f"import angulus, torch, sys; torch.set_num_threads({torch.get_num_threads()}); "  # other tests may set it
        "p = torch.randint(256, (5, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)); "
        "sys.stdout.buffer.write(angulus.load(sys.argv[1]).embed(p).numpy().tobytes())"
    )
    found = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, check=True).stdout
    assert found == expected.numpy().tobytes()


@pytest.fixture
def unset_memory() -> Iterator[None]:
    """New tensors are NaN, or the largest number, until they are filled."""
    torch.set_deterministic_debug_mode("error")  # with `fill_uninitialized_memory`, which is PyTorch's default
    yield
    torch.set_deterministic_debug_mode("default")


@pytest.mark.parametrize("name", sorted({*backbones.list_backbones()} - DEEPER))
def test_loading_draws_no_first_weights_and_needs_none(name: str, unset_memory: None) -> None:
    before = torch.get_rng_state()
    with Unfilled():
        network = backbones.build(
            name, in_channels=3, image_size=[26, 40, 40] if name in VOLUMES else 112, embedding_size=2
        )
    assert torch.equal(torch.get_rng_state(), before)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(bool((module.weight == 1).all()) and bool((module.running_var == 1).all()) for module in norms)
    assert any(bool(parameter.isnan().any()) for parameter in network.parameters())
    stored = {id(tensor) for tensor in network.state_dict(keep_vars=True).values()}
    for module in network.modules():  # what no file holds: buffers that are not saved, and plain tensors
        for tensor in (*module.buffers(recurse=False), *vars(module).values()):
            if isinstance(tensor, torch.Tensor) and id(tensor) not in stored:
                assert bool((tensor == tensor).all()) and bool((tensor != 2**63 - 1).all())


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


class _Strange(torch.nn.Module):
    """A network of a user's own that returns more than features."""

    def __init__(self, kind: str = "features") -> None:
        super().__init__()
        self.layer, self.kind = torch.nn.Linear(3 * 4 * 4, 5), kind

    def forward(self, images: torch.Tensor) -> object:
        y = self.layer(images.flatten(1))
        maps = y[:, :, None, None]
        return {"features": y, "tuple": (y, y), "dict": {"features": y}, r"\[2, 5, 1, 1\]": maps}[self.kind]


@pytest.mark.parametrize("kind", ["features", "tuple", "dict", r"\[2, 5, 1, 1\]"])
def test_a_network_that_returns_anything_but_features_is_refused(tmp_path: Path, kind: str) -> None:
    config = Config("module:Strange", 3, (4, 4), 5, contract=Contract(size=(4, 4), flip="sum"))
    artifact.save(config, _Strange(), tmp_path / "model")
    model = angulus.load(tmp_path / "model", backbone=_Strange(kind))
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    if kind == "features":
        assert model.embed(images).shape == (2, 5)
        return
    with pytest.raises(InputError, match=rf"must return a tensor of features \[2, 5\] for 2 image.*; got {kind}; wrap"):
        model.embed(images)


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
        ({"backbone": "os.system"}, r"the backbone that .*config\.json names must be one of"),
        ({"auto_map": {"AutoModel": "code.Model"}}, "unknown key 'auto_map'"),
        ({"contract": {"mean": 0.0, "code": "x"}}, "lacks or mistakes a key"),
        ({"contract": {"mean": 0.0, "scale": -1.0}}, "input.scale must be"),
        ({"options": {"hook": "x"}}, "options of the backbone 'small'"),
        ({"contract": {"flip": "both"}}, r"config\.json: input\.flip must be one of .*; fetch or save the model again"),
        ({"options": 3}, r"options in .*config\.json must be names with values; got 3"),
        ({"about": []}, "about in .* must be names with values"),
        ({"embedding_size": "x"}, r"embedding_size in .* must be a whole number in \[1, .*\]; got 'x'"),
        ({"in_channels": 0}, r"in_channels in .* must be a whole number in \[1, .*\]; got 0"),
        ({"normalize": 1}, "normalize in .* must be true or false"),
        ({"image_size": 8}, r"must give image_size as \[height, width\]; got 8"),
        ({"format": 2}, "must be an Angulus model of format 1"),
        ({"embedding_size": 10**12}, r"embedding_size in .* must be a whole number in \[1, .*\]; got 1000000000000"),
        ({"embedding_size": 10**6}, r"does not hold the weights .* must be \[1000000, \d+\]; got \[3, \d+\]"),
        (
            {"in_channels": 10**6, "image_size": [9, 9]},
            "must give images of at most 67,108,864 numbers; got in_channels 1000000 and",
        ),
        ({"image_size": [10**9, 10**9]}, "must give images of at most 67,108,864 numbers"),
        ({"image_size": [True, 8]}, "must give image_size as"),
        ({"image_size": [8] * 9}, "must give image_size as"),
        ({"contract": {"mean": 10**400}}, r"config\.json: input\.mean must be a finite number; got 10+\.\.\.0+;"),
        (
            {"backbone": "ir18", "image_size": [112, 112], "options": {"dropout": 10**4000}},
            "dropout must be a finite number in",
        ),
        ({"backbone": ["small"]}, "names must be one of"),
    ],
)
def test_a_configuration_that_names_what_is_not_known_is_refused(
    folder: Path, changes: dict[str, object], said: str
) -> None:
    edit(folder, **changes)
    with pytest.raises(InputError, match=said):
        angulus.load(folder)


def test_info_prints_nothing_that_a_terminal_obeys(folder: Path) -> None:
    edit(folder, about={"data\x1b[2J": "x\x1b]0;title\x07\n[bold]", "seed": [1, 2]})
    found = CliRunner().invoke(app, ["info", str(folder)])
    assert "  data?[2J: x?]0;title? [bold]" in found.output and "  seed: [1, 2]" in found.output
    assert "\x1b" not in found.output and "\x07" not in found.output


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not a model folder \(it has no config\.json\); give"):
        angulus.load(tmp_path)
    with pytest.raises(InputError, match=r"none is not a model folder \(there is no such folder\); give one that"):
        angulus.load(tmp_path / "none")
    (tmp_path / "config.json").write_text("[1")
    with pytest.raises(InputError, match="is not a model folder"):
        angulus.load(str(tmp_path))
    with pytest.raises(InputError, match=r"is not a model folder \(it is a file\); give"):
        angulus.load(tmp_path / "config.json")
    with pytest.raises(
        InputError, match=r"theirs.onnx is not a model folder .*; give an ONNX file to .* Embedder.from_onnx"
    ):
        angulus.load(tmp_path / "theirs.onnx")


def test_a_run_in_place_of_its_model_is_refused_with_the_model(folder: Path) -> None:
    with pytest.raises(InputError, match=r"is not a model folder \(it has no config\.json\); did you mean .*/model\?"):
        angulus.load(folder.parent)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"about": ' + "[" * 1000 + "]" * 1000 + "}", "must nest lists and mappings at most 64 deep"),
        ('{"about": ' + "[" * 100_000 + "]" * 100_000 + "}", "must nest lists and mappings at most 64 deep"),
        ('{"embedding_size": ' + "9" * 5000 + "}", r"config\.json must be JSON; reading it gave: .*4300 digits"),
        ("\udcff", "must be JSON"),
    ],
    ids=["deep", "very deep", "5,000 digits", "no UTF-8"],
)
def test_a_configuration_that_python_cannot_read_is_refused_in_a_sentence(folder: Path, text: str, said: str) -> None:
    (folder / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=f"is not a model folder .*{said}"):
        angulus.load(folder)
    found = CliRunner().invoke(app, ["info", str(folder)])
    assert isinstance(found.exception, InputError)


def test_no_memory_is_allocated_for_sizes_that_the_weights_do_not_have(folder: Path) -> None:
    edit(folder, embedding_size=2**20, backbone="lenet5", image_size=[1024, 1024])  # 2**37 weights in the last layer
    with pytest.raises(InputError, match="does not hold the weights of the backbone 'lenet5'"):
        angulus.load(folder)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused(folder: Path, value: float) -> None:
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point())
    tensors[name].view(-1)[-1] = value
    edit(folder, model=safetensors.torch.save(tensors))
    with pytest.raises(InputError, match=f"model.safetensors: weights must be finite; {re.escape(name)} holds NaN or"):
        angulus.load(folder)
    tensors[name] = torch.full_like(tensors[name], 1e300, dtype=torch.float64)  # infinite in the network's float32
    edit(folder, model=safetensors.torch.save(tensors))
    with pytest.raises(InputError, match="weights must be finite"):
        angulus.load(folder)


def test_a_calibration_of_nobody_is_refused_with_its_name(folder: Path) -> None:
    for text in ("[]", '{"format": 1}', "{", '{"format": 1, "groups": 3}'):
        (folder / "calibration.json").write_text(text)
        with pytest.raises(InputError, match=r"calibration\.json"):
            angulus.load(folder)


def test_the_fingerprint_changes_with_what_features_depend_on_and_with_nothing_else(folder: Path) -> None:
    own = angulus.load(folder)
    assert own.name == f"{own.fingerprint}-none" and split_model_name(own.name) == (own.fingerprint, "none", None)
    assert own.with_flip("sum").fingerprint == own.fingerprint and own.with_flip("sum").name != own.name
    edit(folder, about={"seed": 2})
    assert angulus.load(folder).fingerprint == own.fingerprint
    unit = fingerprint(own.sha256, asdict(replace(CONFIG, normalize=True)))
    edit(folder, contract={"mean": 8.0, "scale": 16.0})
    brighter = angulus.load(folder).fingerprint
    torch.manual_seed(1)
    artifact.save(CONFIG, CONFIG.build(), folder)
    assert len({own.fingerprint, unit, brighter, angulus.load(folder).fingerprint}) == 4


def test_info_and_the_card_say_the_fingerprint(folder: Path) -> None:
    found = CliRunner().invoke(app, ["info", str(folder)])
    model = angulus.load(folder)
    assert found.exit_code == 0, found.output
    assert f"fingerprint {model.fingerprint}, flip none" in found.output
    assert model.sha256 in found.output and "uint8 [batch, 1, 8, 8], grey" in found.output
    assert "small, features of 3 numbers" in found.output and "not calibrated" in found.output
    assert f"fingerprint `{model.fingerprint}`" in (folder / "README.md").read_text()
    made = Embeddings(np.eye(4), np.array(["a", "b", "c", "d"]), models=np.full(4, model.name))
    pairs = PairList(made.ids[:2], made.ids[2:], np.array([True, False]))
    made = replace(made, vectors=np.array([[1, 0], [0, 1], [1, 0.1], [1, 0.0]]))
    artifact.calibrate(folder, calibrate(made, pairs, target_fmr=1.0, draws=0)[0])
    said = CliRunner().invoke(app, ["info", str(folder)]).output
    assert f"for FMR 1 of the model with fingerprint {model.fingerprint}, flip none" in said


def edit(folder: Path, model: bytes | None = None, **changes: object) -> None:
    """Change the folder as someone who means harm would: checksum and all."""
    import hashlib

    config = json.loads((folder / "config.json").read_text())
    if model is not None:
        (folder / "model.safetensors").write_bytes(model)
        changes["sha256"] = hashlib.sha256(model).hexdigest()
    (folder / "config.json").write_text(json.dumps(config | changes))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"backbone": "smal"}, "the backbone that the configuration names must be one of .* did you mean 'small'"),
        ({"embedding_size": 0}, "embedding_size in the configuration must be a whole number in"),
        ({"image_size": (8, 8, 8, 8)}, "the configuration must give image_size"),
        ({"compatible_with": ("me",)}, "compatible_with in the configuration must be a list of fingerprints"),
        ({"backbone": "timm:resnet18", "options": {"checkpoint_path": "x"}}, "must not hold 'checkpoint_path'"),
    ],
)
def test_what_load_refuses_is_not_saved(tmp_path: Path, change: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        artifact.save(replace(CONFIG, **change), CONFIG.build(), tmp_path / "model")  # type: ignore[arg-type]
    assert not (tmp_path / "model").exists()
