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
from angulus import InputError
from angulus.cli.export import export as command
from angulus.cli.main import app as cli
from angulus.core.contract import Contract
from angulus.core.embeddings import Embeddings
from angulus.evaluation.lists.pair_list import PairList, read_pairs
from angulus.evaluation.protocols.calibration import Calibration, Rate
from angulus.models import artifact, export_check, onnx_model
from angulus.models import export as exporting
from angulus.models.artifact import Config
from angulus.models.export import export
from angulus.models.export_check import run
from angulus.models.inputs import draw_pixels
from angulus.models.parity import Parity, compare_features, compare_on_pairs

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
    options = ["--images", str(root / "images"), "--pairs", str(root / "pairs.txt"), "--draws", "40"]
    options += ["--json", str(root / "new" / "m.json")]
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


def test_an_exported_file_embeds_without_settings(folder: Path, tmp_path: Path) -> None:
    line = ["embed", "--onnx", str(folder / "m.onnx"), str(folder / "images"), str(tmp_path / "e.npz")]
    found = CliRunner().invoke(cli, line)
    assert found.exit_code == 0 and "e.npz: 8 embeddings" in found.output
    written, loaded = Embeddings.read(tmp_path / "e.npz"), onnx_model.load(folder / "m.onnx")
    model = angulus.Embedder.from_pretrained(folder / "model", device="cpu")
    own = model.encode([folder / "images" / name for name in written.ids])
    errors = np.linalg.norm(written.vectors - own, axis=1) / np.linalg.norm(own, axis=1)
    assert errors.max() < 1e-5
    assert written.models is not None and written.models[0] == loaded.name == f"{loaded.fingerprint}-none" != model.name
    with pytest.raises(InputError, match="prepares pixels itself, as angulus export wrote it; leave out mean"):
        onnx_model.load(folder / "m.onnx", mean=0)
    with pytest.raises(InputError, match="is an ONNX file, which can neither be exported"):
        angulus.Embedder(loaded).export(tmp_path / "x.onnx")


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
    assert "best accuracy" in said and "AUC" in said and "ONNX float32" in said and "difference" in said
    assert "4 genuine and 24 impostor pairs" in said
    assert "0 of 28 decisions changed, 0 of genuine and 0 of impostor pairs" in said
    assert "note: 4 genuine pairs are too few: all figures that count them are rough" in said
    assert "may be as high as 75% (rule of 3)" in said and "note: 24 impostor pairs are too few" in said
    model = angulus.load(folder / "model")
    assert f"of the model with fingerprint {model.fingerprint}, flip sum" in said
    saved = json.loads((folder / "new" / "m.json").read_text())
    assert saved["model"] == model.name and saved["images"] == 8 and saved["feature_error"] < 1e-5
    assert saved["pairs"]["counts"]["genuine"] == 4 and saved["pairs"]["PyTorch"]["AUC"]["interval"] is not None
    assert saved["bytes"] == (folder / "m.onnx").stat().st_size and "onnxruntime" in saved["environment"]


def test_changed_decisions_are_those_of_a_slow_loop() -> None:
    rng = np.random.default_rng(5)
    own = (rng.standard_normal((20, 4)).repeat(2, axis=0) + 0.2 * rng.standard_normal((40, 4))).astype(np.float32)
    other = (own + 0.5 * rng.standard_normal(own.shape)).astype(np.float32)
    ids = np.array([f"{n}.png" for n in range(40)])
    left, right = np.triu_indices(40, 1)
    same = left // 2 == right // 2
    pairs = PairList(ids[left], ids[right], same)

    def accepted(vectors: np.ndarray, threshold: float) -> list[bool]:
        units = [[value / np.sqrt(sum(x * x for x in row)) for value in row] for row in vectors.astype(float).tolist()]
        return [
            sum(a * b for a, b in zip(units[i], units[j], strict=True)) >= threshold
            for i, j in zip(left, right, strict=True)
        ]

    for threshold in (0.2, None):
        found = compare_on_pairs(Embeddings(own, ids), Embeddings(other, ids), pairs, threshold=threshold, draws=0)
        decided = found.decisions
        assert decided.calibrated == (threshold is not None) and found.difference is None
        before, after = accepted(own, decided.threshold), accepted(other, decided.threshold)
        changed = [a != b for a, b in zip(before, after, strict=True)]
        assert decided.genuine == sum(c and s for c, s in zip(changed, same, strict=True))
        assert decided.impostors == sum(c and not s for c, s in zip(changed, same, strict=True)) > 0
        if threshold is None:  # the most accurate: no other among the scores is better
            right_ones = sum(a == s for a, s in zip(before, same, strict=True))
            for other_threshold in found.own.samples["scores"][:: len(same) // 50]:
                assert sum(a == s for a, s in zip(accepted(own, other_threshold), same, strict=True)) <= right_ones


def test_the_calibrated_threshold_decides_where_there_is_one(folder: Path, tmp_path: Path) -> None:
    model = angulus.load(folder / "model")
    pairs = read_pairs(folder / "pairs.txt")
    first = export(model, tmp_path / "m.onnx", images=folder / "images", pairs=pairs, draws=0)
    assert first.pairs is not None and not first.pairs.decisions.calibrated
    model.calibration = Calibration(0.01, Rate(0.6), Rate(0.0), Rate(0.0), 50, 100, 10.0, -5.0, model=model.name)
    found = export(model, tmp_path / "m.onnx", images=folder / "images", pairs=pairs, draws=0).pairs
    assert found is not None and found.decisions.calibrated
    assert found.decisions.threshold == 0.6
    other = export(model.with_flip("none"), tmp_path / "n.onnx", images=folder / "images", pairs=pairs, draws=0).pairs
    assert other is not None and not other.decisions.calibrated  # it is for another flip rule


def test_a_file_that_is_there_is_checked_and_not_written(folder: Path, tmp_path: Path) -> None:
    """A file that a tool has changed: its errors and decisions are those of a slow loop over its own features."""
    proto = onnx.load(folder / "m.onnx")
    largest = max(proto.graph.initializer, key=lambda each: len(each.raw_data) if each.data_type == 1 else 0)
    noise = np.random.default_rng(0).normal(0, 0.05, largest.dims).astype(np.float32)
    largest.raw_data = (onnx.numpy_helper.to_array(largest) + noise).tobytes()
    onnx.save(proto, tmp_path / "changed.onnx")
    before = (tmp_path / "changed.onnx").read_bytes()
    line = ["export", str(folder / "model"), "--onnx", str(tmp_path / "changed.onnx"), "--check", "--draws", "0"]
    line += [
        "--images",
        str(folder / "images"),
        "--pairs",
        str(folder / "pairs.txt"),
        "--json",
        str(tmp_path / "c.json"),
    ]
    found = CliRunner().invoke(cli, line)
    assert found.exit_code == 0, (found.output, found.exception)
    assert (tmp_path / "changed.onnx").read_bytes() == before
    said = json.loads((tmp_path / "c.json").read_text())
    images = np.stack([np.asarray(Image.open(folder / "images" / f"{n}.png")) for n in range(8)]).transpose(0, 3, 1, 2)
    own = angulus.load(folder / "model").embed(torch.from_numpy(images.copy())).numpy().astype(float)
    other = run(tmp_path / "changed.onnx", images)[0].astype(float)
    limit, errors, changed = said["pairs"]["decisions"]["threshold"], [], 0
    for a in range(8):
        for b in range(a):
            x, y = (f[a] @ f[b] / np.linalg.norm(f[a]) / np.linalg.norm(f[b]) for f in (own, other))
            errors.append(abs(x - y))
            changed += bool(x >= limit - 1e-9) != bool(y >= limit - 1e-9)
    assert said["pairs"]["score_error"] == pytest.approx(max(errors), rel=1e-5) and max(errors) > 1e-4
    assert said["pairs"]["decisions"]["genuine"] + said["pairs"]["decisions"]["impostors"] == changed
    assert (
        f"largest difference of a score {max(errors):.1e}" in found.output and "changed.onnx: float32" in found.output
    )


def test_check_refuses_what_is_not_a_file_of_this_model(folder: Path, tmp_path: Path) -> None:
    model = angulus.load(folder / "model")
    for other in (model.with_flip("none"), angulus.load(folder / "unit")):
        with pytest.raises(InputError, match=r"m\.onnx must be of the model .*; it is of .* flip sum; give that model"):
            export_check.check(other, folder / "m.onnx")
    proto = onnx.load(folder / "m.onnx")
    proto.graph.output[1].name = proto.graph.node[-1].output[0] = "lengths"
    onnx.save(proto, tmp_path / "other.onnx")
    with pytest.raises(InputError, match=r"must take 'pixels' and give features and norms.* gives features, lengths"):
        export_check.check(model, tmp_path / "other.onnx")
    for options, said in ((["--precision", "int8"], "--precision is for writing"), (["--classes"], "--classes is for")):
        line = [str(folder / "model"), "--onnx", str(folder / "m.onnx"), "--check", *options]
        found = CliRunner().invoke(app, line)
        assert isinstance(found.exception, InputError) and said in str(found.exception)
    proto = onnx.load(folder / "m.onnx")
    del proto.metadata_props[:]  # as other tools may leave it
    onnx.save(proto, tmp_path / "bare.onnx")
    parity, precision = export_check.check(model, tmp_path / "bare.onnx")
    assert precision == "" and parity.feature_error < 1e-5
    with pytest.raises(InputError, match=r"the output 'features' of .*bare\.onnx must be \[32, .* got \[32, "):
        export_check.check(model.with_flip("concat"), tmp_path / "bare.onnx")
    onnx.helper.set_model_props(proto, {"angulus.precision": "\x1b[31m"})
    proto.graph.input[0].type.tensor_type.shape.dim[2].dim_value += 1
    onnx.save(proto, tmp_path / "high.onnx")
    with pytest.raises(InputError, match=r"high\.onnx cannot run on images uint8 \[any, 3, "):
        export_check.check(model, tmp_path / "high.onnx")
    proto.graph.input[0].type.tensor_type.shape.dim[2].dim_value -= 1
    onnx.save(proto, tmp_path / "colours.onnx")
    assert export_check.check(model, tmp_path / "colours.onnx")[1] == ""
    with pytest.raises(InputError, match=r"none\.onnx must be an \.onnx file; there is no such file"):
        export_check.check(model, tmp_path / "none.onnx")


def test_float16_and_unit_features(folder: Path) -> None:
    model = angulus.load(folder / "unit")
    found = angulus.Embedder(model).export(folder / "h.onnx", precision="float16")
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
    assert 1e-4 < found.feature_error < 0.3  # the most without VNNI, where int8 sums saturate at 16 bits
    assert found.pairs is not None and found.pairs.difference is not None
    before, after = found.pairs.own["AUC"], found.pairs.other["AUC"]
    assert 0.9 < before <= 1 and abs(before - after) < 0.05
    assert found.pairs.difference["AUC"] == pytest.approx(after - before)
    assert (folder / "i.onnx").stat().st_size < 0.4 * (folder / "m.onnx").stat().st_size
    about = {each.key: each.value for each in onnx.load(folder / "i.onnx").metadata_props}
    assert about["angulus.precision"] == "int8" and about["angulus.model"] == model.name
    np.testing.assert_array_equal(run(folder / "i.onnx", pixels(2))[0].shape, (2, 5))


def test_the_ranges_of_int8_come_from_other_images_where_they_are_given(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "dark").mkdir()
    for number in range(3):
        dark = np.random.default_rng(number).integers(0, 30, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(dark).save(tmp_path / "dark" / f"{number}.png")
    errors = {}
    for name, ranges in (("own", []), ("dark", ["--ranges", str(tmp_path / "dark")])):
        options = ["--precision", "int8", "--images", str(folder / "images"), "--pairs", str(folder / "pairs.txt")]
        saved = tmp_path / f"{name}.json"
        found = CliRunner().invoke(
            app,
            [str(folder / "model"), "--onnx", str(tmp_path / "i.onnx"), *options, *ranges, "--json", str(saved)],
        )
        assert found.exit_code == 0, (found.output, found.exception)
        assert ("on these very images, which flatters; give others with --ranges" in found.output) == (not ranges)
        errors[name] = json.loads(saved.read_text())["feature_error"]
    assert errors["dark"] > 2 * errors["own"]  # brighter pixels leave the ranges


def test_images_are_drawn_evenly_and_no_more_than_asked(folder: Path) -> None:
    counts = np.zeros(8)
    for seed in range(300):
        drawn = draw_pixels(folder / "images", CONFIG, 3, seed)
        assert len({row.id for row, _ in drawn}) == 3
        for row, pixels_ in drawn:
            counts[int(row.id[0])] += 1
            assert pixels_.shape == (3, 16, 16)
    assert counts.sum() == 900 and counts.min() > 80 and counts.max() < 150  # 112.5 ± 8.4 each
    assert len(draw_pixels(folder / "images", CONFIG, 100)) == 8


def test_errors_are_relative_to_the_feature() -> None:
    own = np.array([[3.0, 4.0], [30.0, 40.0]], dtype=np.float32)
    other = np.array([[3.0, 4.5], [30.0, 41.0]], dtype=np.float32)
    found = compare_features(own, other, np.array([5.0, 49.0], dtype=np.float32))
    cosine = (3 * 3 + 4 * 4.5) / 5 / np.hypot(3, 4.5)
    assert found == Parity(2, pytest.approx(0.1), pytest.approx(cosine), pytest.approx(0.02))


def test_a_file_that_is_not_the_model_is_not_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        exporting, "_write", lambda model, path, precision, classes: shutil.copy(folder / "m.onnx", path)
    )
    other = angulus.load(folder / "model")
    export(other, folder / "same.onnx")
    with torch.no_grad():
        other.backbone.layers[-1].bias += 1e-3
    with pytest.raises(InputError, match=r"must give PyTorch's features within 1e-05; got .* itself rounds by \d"):
        export(other, folder / "other.onnx")
    assert not (folder / "other.onnx").exists()
    monkeypatch.setattr(export_check, "_rounding", lambda model, pixels, own: 0.01)
    assert export(other, folder / "other.onnx").rounding == 0.01


def test_rounding_is_measured_against_float64(folder: Path) -> None:
    model = angulus.load(folder / "model")
    own = model.embed(torch.from_numpy(pixels(3))).numpy()
    wide = angulus.load(folder / "model").double().backbone
    images = (torch.from_numpy(pixels(3)).double().flip(1) - 100) / 50  # BGR
    exact = (wide(images) + wide(images.flip(-1))).detach().numpy()
    expected = (np.linalg.norm(own - exact, axis=1) / np.linalg.norm(exact, axis=1)).max()
    assert export_check._rounding(model, pixels(3), own) == pytest.approx(expected, rel=0.3)
    assert 1e-8 < expected < 1e-6


def test_openvino_reads_the_file_and_gives_pytorchs_features(folder: Path) -> None:
    """As docs/export.md shows it, for any batch."""
    openvino = pytest.importorskip("openvino")
    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(folder / "m.onnx"), "CPU", hint)
    for count in (1, 7):
        own = angulus.load(folder / "model").embed(torch.from_numpy(pixels(count))).numpy()
        found = compiled({"pixels": pixels(count)})
        parity = compare_features(own, found["features"], found["norms"])
        assert parity.feature_error < 1e-5 and parity.norm_error < 1e-5


def test_what_cannot_be_exported_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, out = angulus.load(folder / "model"), tmp_path / "x.onnx"
    pairs = read_pairs(folder / "pairs.txt")
    for options, said in (
        ({"precision": "int4"}, "precision must be one of"),
        ({"precision": "int8"}, "precision int8.* needs images; give .* with --ranges, or --images"),
        ({"pairs": pairs}, "a list of pairs needs images"),
        ({"images": tmp_path}, "holds no image"),
        ({"ranges": folder / "images"}, "apply only to precision int8; got float32; leave --ranges out"),
        ({"precision": "int8", "ranges": tmp_path}, "holds no image"),
        ({"draws": -1}, r"draws must be a whole number in \[0, 100000\]"),
        ({"images": folder / "images", "pairs": replace(pairs, left=np.char.add("x", pairs.left))}, "no embedding in"),
    ):
        with pytest.raises(InputError, match=said):
            export(model, out, **options)
    with pytest.raises(InputError, match=r"ends in \.onnx; got .*x\.pt"):
        export(model, tmp_path / "x.pt")
    one_kind = replace(pairs, same=np.ones(len(pairs), dtype=bool))
    with pytest.raises(InputError, match="must hold genuine and impostor pairs; got 28 genuine ones only; add others"):
        export(model, out, images=folder / "images", pairs=one_kind)
    (tmp_path / "d.onnx").mkdir()
    (tmp_path / "file").write_text("")
    for place, said in (("d.onnx", "is a folder"), ("file/x.onnx", "file is a file"), ("x.pt", "ends in .onnx")):
        found = CliRunner().invoke(app, [str(tmp_path / "no model"), "--onnx", str(tmp_path / place)])
        assert isinstance(found.exception, InputError) and said in str(found.exception)  # before the work
    (tmp_path / "p").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "p" / "s.png")
    with pytest.raises(InputError, match=r"s\.png must be 16 x 16 pixels"):
        export(model, out, images=tmp_path / "p")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"needs `pip install 'angulus\[onnx\]'` \(there is no package onnxruntime"):
        export(model, out)
    assert not out.exists()


@pytest.mark.filterwarnings("ignore:this model was trained as a whole only")
def test_the_first_numbers_of_features(folder: Path, tmp_path: Path) -> None:
    command = [str(folder / "unit"), "--onnx", str(tmp_path / "first.onnx"), "--dimensions", "3"]
    found = CliRunner().invoke(app, command)
    assert found.exit_code == 0, (found.output, found.exception)
    images = pixels(3)
    features, norms = run(tmp_path / "first.onnx", images)
    expected = artifact.load(folder / "unit").with_dimensions(3).embed(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(features, expected, atol=1e-5)
    np.testing.assert_allclose(norms, np.linalg.norm(expected, axis=1), atol=1e-5)
