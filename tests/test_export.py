"""ONNX files against PyTorch, and what is refused."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

import angulus
from angulus import InputError, artifact
from angulus import export as exporting
from angulus.artifact import Config
from angulus.commands.export import export as command
from angulus.contract import Contract
from angulus.export import Parity, export, run
from angulus.lists.pairs import read_pairs

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

CONTRACT = Contract(mean=100.0, scale=50.0, size=(16, 16), colour="bgr", flip="sum")
CONFIG = Config("small", in_channels=3, image_size=(16, 16), embedding_size=5, contract=CONTRACT)
UNIT = replace(CONFIG, normalize=True, contract=Contract(normalize="per_image", flip="concat"))

app = typer.Typer()
app.command()(command)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, eight images, a list of pairs, and the first model exported by the command."""
    root = tmp_path_factory.mktemp("export")
    for name, config in (("model", CONFIG), ("unit", UNIT)):
        torch.manual_seed(0)
        backbone = config.build()
        for module in backbone.modules():  # statistics as after training, not 0 and 1
            if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
                module.running_mean.uniform_(-0.5, 0.5)
                module.running_var.uniform_(0.5, 2.0)
        artifact.save(config, backbone, root / name)
    (root / "images").mkdir()
    for number in range(8):
        base = np.random.default_rng(number // 2).integers(0, 256, (16, 16, 3))
        noise = np.random.default_rng(100 + number).normal(0, 30, base.shape)
        Image.fromarray(np.clip(base + noise, 0, 255).astype(np.uint8)).save(root / "images" / f"{number}.png")
    lines = [f"{a} {b} {int(a // 2 == b // 2)}" for a in range(8) for b in range(a)]
    (root / "pairs.txt").write_text("\n".join(lines) + "\n")
    options = ["--images", str(root / "images"), "--pairs", str(root / "pairs.txt")]
    found = CliRunner().invoke(app, [str(root / "model"), "--onnx", str(root / "m.onnx"), *options])
    assert found.exit_code == 0, (found.output, found.exception)
    (root / "said.txt").write_text(found.output)
    return root


def pixels(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 3, 16, 16), dtype=np.uint8)


@pytest.mark.parametrize("count", [1, 2, 7, 70])
def test_bytes_of_any_batch_give_pytorchs_features_and_norms(folder: Path, count: int) -> None:
    model = angulus.load(folder / "model")
    features, norms = run(folder / "m.onnx", pixels(count))
    expected = model.embed(torch.from_numpy(pixels(count))).numpy()
    assert features.dtype == norms.dtype == np.float32
    np.testing.assert_allclose(features, expected, rtol=0, atol=1e-5 * np.linalg.norm(expected, axis=1).max())
    np.testing.assert_allclose(norms, np.linalg.norm(expected.astype(float), axis=1), rtol=1e-5)


def test_the_file_is_valid_and_says_what_it_takes(folder: Path) -> None:
    proto = onnx.load(folder / "m.onnx")
    onnx.checker.check_model(proto, full_check=True)
    about = {each.key: each.value for each in proto.metadata_props}
    model = angulus.load(folder / "model")
    assert Contract(**json.loads(about["angulus.contract"])) == CONTRACT
    assert about["angulus.model"] == model.name and about["angulus.sha256"] == model.sha256
    assert about["angulus.input"].startswith("uint8 [batch, 3, 16, 16], RGB")
    (given,) = proto.graph.input
    assert given.name == "pixels" and given.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    sides = [side.dim_param or side.dim_value for side in given.type.tensor_type.shape.dim]
    assert isinstance(sides[0], str) and sides[1:] == [3, 16, 16]
    assert [each.name for each in proto.graph.output] == ["features", "norms"]
    assert {node.domain for node in proto.graph.node} == {""}  # no runtime's own operators


def test_the_command_shows_errors_and_accuracy(folder: Path) -> None:
    said = (folder / "said.txt").read_text()
    assert "m.onnx: float32" in said and "over 8 images" in said
    assert "best accuracy" in said and "AUC" in said and "ONNX float32" in said


def test_float16_and_unit_features(folder: Path) -> None:
    model = angulus.load(folder / "unit")
    found = export(model, folder / "h.onnx", precision="float16")
    assert found.images == 32
    assert 1e-6 < found.feature_error < 5e-3
    assert found.norm_error < 1e-5  # lengths are float32
    features, norms = run(folder / "h.onnx", pixels(3))
    expected = model.embed(torch.from_numpy(pixels(3))).numpy()
    assert features.shape == (3, 10)
    np.testing.assert_allclose(features, expected, atol=5e-3)
    np.testing.assert_allclose(norms, np.sqrt(2), rtol=1e-5)
    assert (folder / "h.onnx").stat().st_size < 0.6 * (folder / "m.onnx").stat().st_size


def test_int8_is_a_quarter_of_the_size_and_reports_what_it_loses(folder: Path) -> None:
    pairs = read_pairs(folder / "pairs.txt")
    model = angulus.load(folder / "model")
    found = export(model, folder / "i.onnx", precision="int8", images=folder / "images", pairs=pairs)
    assert 1e-4 < found.feature_error < 0.1
    before, after = found.accuracy["AUC"]
    assert 0.9 < before <= 1 and abs(before - after) < 0.05
    assert (folder / "i.onnx").stat().st_size < 0.4 * (folder / "m.onnx").stat().st_size
    about = {each.key: each.value for each in onnx.load(folder / "i.onnx").metadata_props}
    assert about["angulus.precision"] == "int8" and about["angulus.model"] == model.name
    np.testing.assert_array_equal(run(folder / "i.onnx", pixels(2))[0].shape, (2, 5))


def test_errors_are_relative_to_the_feature() -> None:
    own = np.array([[3.0, 4.0], [30.0, 40.0]], dtype=np.float32)
    other = np.array([[3.0, 4.5], [30.0, 41.0]], dtype=np.float32)
    found = exporting._parity(own, other, np.array([5.0, 49.0], dtype=np.float32))
    assert found == Parity(2, pytest.approx(0.1), pytest.approx(0.02))


def test_a_file_that_is_not_the_model_is_not_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "_write", lambda model, path, precision: shutil.copy(folder / "m.onnx", path))
    other = angulus.load(folder / "model")
    export(other, folder / "same.onnx")
    with torch.no_grad():
        other.backbone.layers[-1].bias += 1e-3
    with pytest.raises(InputError, match=r"must give PyTorch's features within 1e-05; got .* itself rounds by \d"):
        export(other, folder / "other.onnx")
    assert not (folder / "other.onnx").exists()
    monkeypatch.setattr(exporting, "_rounding", lambda model, pixels, own: 0.01)
    assert export(other, folder / "other.onnx").rounding == 0.01


def test_rounding_is_measured_against_float64(folder: Path) -> None:
    model = angulus.load(folder / "model")
    own = model.embed(torch.from_numpy(pixels(3))).numpy()
    wide = angulus.load(folder / "model").double().backbone
    images = (torch.from_numpy(pixels(3)).double().flip(1) - 100) / 50  # BGR
    exact = (wide(images) + wide(images.flip(-1))).detach().numpy()
    expected = (np.linalg.norm(own - exact, axis=1) / np.linalg.norm(exact, axis=1)).max()
    assert exporting._rounding(model, pixels(3), own) == pytest.approx(expected, rel=0.3)
    assert 1e-8 < expected < 1e-6


def test_what_cannot_be_exported_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, out = angulus.load(folder / "model"), tmp_path / "x.onnx"
    pairs = read_pairs(folder / "pairs.txt")
    for options, said in (
        ({"precision": "int4"}, "precision must be one of"),
        ({"precision": "int8"}, "precision int8.* needs images; give them with --images"),
        ({"pairs": pairs}, "a list of pairs needs images"),
        ({"images": tmp_path}, "holds no image"),
    ):
        with pytest.raises(InputError, match=said):
            export(model, out, **options)
    with pytest.raises(InputError, match=r"ends in \.onnx; got .*x\.pt"):
        export(model, tmp_path / "x.pt")
    (tmp_path / "p").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "p" / "s.png")
    with pytest.raises(InputError, match=r"s\.png must be 16 x 16 pixels"):
        export(model, out, images=tmp_path / "p")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"needs the package onnxruntime; pip install 'angulus\[onnx\]'"):
        export(model, out)
    assert not out.exists()
