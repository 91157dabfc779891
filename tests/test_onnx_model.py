"""Any ONNX model as one that embeds: against PyTorch, in every form of input, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

import angulus
from angulus import InputError
from angulus.cli.main import app
from angulus.core.contract import Contract
from angulus.core.embeddings import Embeddings
from angulus.models import artifact, onnx_model
from angulus.models.artifact import Config

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
F = onnx.TensorProto

SIDE, D = 8, 4
IMAGES = np.random.default_rng(0).integers(0, 256, (5, SIDE, SIDE, 3), dtype=np.uint8)
WEIGHT = np.random.default_rng(1).normal(size=(3 * SIDE * SIDE, D)).astype(np.float32) / 14


def save(path: Path, nodes: list[Any], wants: tuple[str, int, list[Any]], outputs: list[str], weights: Any) -> Path:
    """Write an ONNX file with one input."""
    helper = onnx.helper
    infos = [helper.make_tensor_value_info(name, F.FLOAT, None) for name in outputs]
    body = helper.make_graph(nodes, "net", [helper.make_tensor_value_info(*wants)], infos, weights)
    domains = [helper.make_opsetid(name, 17 if not name else 1) for name in {"", *(node.domain for node in nodes)}]
    onnx.save(helper.make_model(body, opset_imports=domains, ir_version=8), str(path))
    return path


def graph(path: Path, shape: list[Any], kind: int = F.FLOAT, *, more: bool = False, ops: str = "") -> Path:
    """An ONNX file: the flattened input times WEIGHT, as the graph's input is laid out."""
    node = onnx.helper.make_node
    rows = int(np.prod(shape[1:])) if all(isinstance(side, int) for side in shape[1:]) else len(WEIGHT)
    nodes = [
        node("Cast", ["images"], ["wide"], to=F.FLOAT),
        node("Flatten", ["wide"], ["flat"], domain=ops),
        node("MatMul", ["flat", "w"], ["out"]),
        node("ReduceSum", ["out"], ["total"], keepdims=0),
    ]
    weights = [onnx.numpy_helper.from_array(np.resize(WEIGHT, (rows, D)), "w")]
    return save(path, nodes, ("images", kind, shape), ["out", "total"] if more else ["out"], weights)


def expected(scaled: np.ndarray) -> np.ndarray:
    """Images [B, H, W, 3], scaled, through the net of `graph`, in the order of its layout."""
    return scaled.reshape(len(scaled), -1).astype(np.float64) @ WEIGHT.astype(np.float64)


def nchw(images: np.ndarray) -> np.ndarray:
    return images.transpose(0, 3, 1, 2)


X = IMAGES.astype(np.float64)


@pytest.mark.parametrize(
    ("shape", "kind", "options", "values"),
    [
        (["n", 3, SIDE, SIDE], F.FLOAT, {}, nchw((X - 127.5) / 127.5)),
        ([1, 3, SIDE, SIDE], F.FLOAT, {"mean": 0, "scale": 255}, nchw(X / 255)),
        ([2, 3, SIDE, SIDE], F.FLOAT, {"colour": "bgr"}, nchw((X[..., ::-1] - 127.5) / 127.5)),
        (["n", SIDE, SIDE, 3], F.FLOAT, {"scale": 128}, (X - 127.5) / 128),
        ([None, 3, "h", "w"], F.FLOAT, {"size": (SIDE, SIDE)}, nchw((X - 127.5) / 127.5)),
        (
            ["n", 3, SIDE, SIDE],
            F.FLOAT,
            {"mean": [123.7, 116.3, 103.5], "scale": [58, 57, 56]},
            nchw((X - [123.7, 116.3, 103.5]) / [58, 57, 56]),
        ),
        (["n", 3, SIDE, SIDE], F.FLOAT16, {}, nchw((X - 127.5) / 127.5).astype(np.float16)),
        (["n", SIDE, SIDE, 3], F.UINT8, {}, X),
        (["n", "h", "w", "c"], F.FLOAT, {"layout": "nhwc", "size": (SIDE, SIDE)}, (X - 127.5) / 127.5),
    ],
    ids=["any batch", "batch of 1", "batch of 2", "nhwc", "any size", "per channel", "float16", "uint8", "named nhwc"],
)
def test_every_form_of_input_gets_what_it_wants(
    tmp_path: Path, shape: list[Any], kind: int, options: dict[str, Any], values: np.ndarray
) -> None:
    model = angulus.Embedder.from_onnx(graph(tmp_path / "m.onnx", shape, kind), **options)
    found = model.encode(IMAGES)
    assert found.shape == (5, D) == (5, model.size)
    np.testing.assert_allclose(found, expected(values), rtol=1e-4, atol=1e-4 * np.abs(values).max())
    mirrored = angulus.Embedder.from_onnx(tmp_path / "m.onnx", flip="sum", **options)
    both = found + model.encode(np.ascontiguousarray(IMAGES[:, :, ::-1]))
    np.testing.assert_allclose(mirrored.encode(IMAGES), both, rtol=1e-4, atol=1e-4 * np.abs(values).max())


def test_a_convolutional_net_gives_pytorchs_features(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(54, D)).eval()
    helper, names = onnx.helper, ["cw", "cb", "lw", "lb"]
    weights = [
        onnx.numpy_helper.from_array(value.detach().numpy(), name)
        for name, value in zip(names, net.parameters(), strict=True)
    ]
    nodes = [
        helper.make_node("Conv", ["x", "cw", "cb"], ["c"], strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("Gemm", ["f", "lw", "lb"], ["y"], transB=1),
    ]
    save(tmp_path / "m.onnx", nodes, ("x", F.FLOAT, ["n", 3, SIDE, SIDE]), ["y"], weights)
    model = angulus.Embedder.from_onnx(tmp_path / "m.onnx", mean=127.5, scale=128, colour="bgr")
    with torch.no_grad():
        x = torch.from_numpy(nchw(IMAGES)[:, ::-1].copy()).float()
        features = net((x - 127.5) / 128).numpy()
    errors = np.linalg.norm(model.encode(IMAGES) - features, axis=1) / np.linalg.norm(features, axis=1)
    assert errors.max() < 1e-5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder, for its config.json, and images."""
    folder = tmp_path_factory.mktemp("onnx")
    torch.manual_seed(0)
    contract = Contract(size=(16, 16), colour="bgr", flip="sum")
    config = Config("small", 3, (16, 16), 5, contract=contract)
    artifact.save(config, config.build(), folder / "model")
    (folder / "photos" / "ann").mkdir(parents=True)
    for number, image in enumerate(np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)):
        Image.fromarray(image).save(folder / "photos" / "ann" / f"{number}.png")
    return folder


def test_the_command_takes_settings_or_a_contract_file(folder: Path, tmp_path: Path) -> None:
    weight = np.random.default_rng(2).normal(size=(768, 3)).astype(np.float32)
    node = onnx.helper.make_node
    nodes = [node("Flatten", ["x"], ["f"]), node("MatMul", ["f", "w"], ["y"])]
    weights = [onnx.numpy_helper.from_array(weight, "w")]
    save(tmp_path / "m.onnx", nodes, ("x", F.FLOAT, ["n", 3, 16, 16]), ["y"], weights)
    (tmp_path / "own.json").write_text('{"mean": 127.5, "scale": 127.5, "colour": "bgr", "flip": "sum"}')
    head, tail = ["embed", "--onnx", str(tmp_path / "m.onnx")], [str(folder / "photos")]
    settings = (
        ["--colour", "bgr", "--flip", "sum", "--mean", "127.5,127.5,127.5", "--scale", "127.5"],
        ["--contract", str(tmp_path / "own.json")],
        ["--contract", str(folder / "model" / "config.json")],
    )
    vectors = []
    for number, options in enumerate(settings):
        found = CliRunner().invoke(app, [*head, *tail, str(tmp_path / f"{number}.npz"), *options])
        assert found.exit_code == 0, found.output
        vectors.append(Embeddings.read(tmp_path / f"{number}.npz").vectors)
    np.testing.assert_allclose(vectors[0], vectors[1], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(vectors[1], vectors[2])
    names = {onnx_model.load(tmp_path / "m.onnx", colour=colour).name for colour in ("rgb", "bgr")}
    assert len(names) == 2  # the fingerprint changes with the preparation
    for options, sentence in (
        ([*tail, "e.npz", "--mean", "a"], "--mean must be a number, or one per channel"),
        ([*tail, "e.npz", "--precision", "bfloat16"], "--precision is for model folders"),
        ([*tail, "e.npz", "more"], "leave out the model folder"),
    ):
        refused = CliRunner().invoke(app, [*head, *options])
        assert refused.exit_code != 0 and sentence in " ".join(f"{refused.output} {refused.exception}".split())
    for options, sentence in (
        (["embed", str(folder / "model"), *tail], "takes MODEL SOURCE OUT"),
        (["embed", str(folder / "model"), *tail, "e.npz", "--mean", "1"], "--mean is for ONNX models"),
    ):
        refused = CliRunner().invoke(app, options)
        assert refused.exit_code != 0 and sentence in " ".join(f"{refused.output} {refused.exception}".split())


@pytest.mark.parametrize(
    ("shape", "options", "sentence"),
    [
        (["n", 3, SIDE, SIDE], {"size": (9, 9)}, r"wants 'images' as float \[n, 3, 8, 8\], takes no size 9x9"),
        (["n", 3, "h", "w"], {}, r"wants 'images' as float \[n, 3, h, w\], takes any size; give"),
        (["n", 3, "h", "w"], {"size": (9, 9)}, r"wants 'images' .*cannot run on float32 \[1, 3, 9, 9\]: "),
        (["n", 4, SIDE, SIDE], {}, "must take images of 1 or 3 channels"),
        (["n", 3, SIDE, SIDE], {"colour": "grey"}, "must take images of 1 or 3 channels in the colour .*got grey"),
        (["n", 3 * SIDE * SIDE], {}, r"must take images \[batch, channels, height, width\].*it wants 'images' tensor"),
        (["n", 3, SIDE, SIDE], {"output": "ouT"}, "--output must be one of out .*got 'ouT'; did you mean 'out'"),
        (["n", 3, SIDE, SIDE], {"mean": [1.0, 2.0]}, "mean must be one number, or one for each of 3 channels; got 2"),
        (["n", 3, SIDE, SIDE], {"scale": [1.0, 2.0, 0.0]}, "scale must be a finite number > 0; got 0.0"),
        (["n", 3, SIDE, SIDE], {"scale": 0.0}, "input.scale must be a finite number > 0"),
        (["n", 3, SIDE, SIDE], {"layout": "chwn"}, "layout must be one of 'nchw', 'nhwc'; got 'chwn'"),
    ],
)
def test_what_does_not_fit_names_what_the_model_wants(
    tmp_path: Path, shape: list[Any], options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        onnx_model.load(graph(tmp_path / "m.onnx", shape), **options)


def test_one_of_several_outputs_is_named(tmp_path: Path) -> None:
    path = graph(tmp_path / "m.onnx", ["n", 3, SIDE, SIDE], more=True)
    with pytest.raises(InputError, match=r"several outputs; name the one with the features with --output: out \[.*tot"):
        onnx_model.load(path)
    assert angulus.Embedder.from_onnx(path, output="out").encode(IMAGES).shape == (5, D)
    with pytest.raises(InputError, match=r"the output 'total' must be features \[batch, d\].*got \[\]"):
        onnx_model.load(path, output="total")
    raw = graph(tmp_path / "raw.onnx", ["n", 3, SIDE, SIDE], F.UINT8)
    with pytest.raises(InputError, match="takes bytes of pixels and scales them itself; leave out mean and scale"):
        onnx_model.load(raw, mean=0.0)


def test_strangers_files_run_no_code_and_read_no_other_file(tmp_path: Path) -> None:
    shape = ["n", 3, SIDE, SIDE]
    with pytest.raises(InputError, match="needs the custom operator evil:Flatten, which would be code"):
        onnx_model.load(graph(tmp_path / "m.onnx", shape, ops="evil"))
    (tmp_path / "in").mkdir()
    proto = onnx.load(str(graph(tmp_path / "in" / "m.onnx", shape)))
    onnx.save(proto, str(tmp_path / "in" / "m.onnx"), save_as_external_data=True, location="w.bin", size_threshold=0)
    assert (tmp_path / "in" / "w.bin").exists()
    inside = onnx_model.load(tmp_path / "in" / "m.onnx")
    changed = bytearray((tmp_path / "in" / "w.bin").read_bytes())
    changed[0] ^= 1
    (tmp_path / "in" / "w.bin").write_bytes(bytes(changed))
    assert onnx_model.load(tmp_path / "in" / "m.onnx").fingerprint != inside.fingerprint
    shutil.move(tmp_path / "in" / "w.bin", tmp_path / "w.bin")
    with pytest.raises(InputError, match=r"needs the file w\.bin next to it, which is not there"):
        onnx_model.load(tmp_path / "in" / "m.onnx")
    (tmp_path / "in" / "w.bin").symlink_to(tmp_path / "w.bin")
    with pytest.raises(InputError, match=r"must keep its weights in its own folder; it names 'w\.bin'"):
        onnx_model.load(tmp_path / "in" / "m.onnx")
    (tmp_path / "no.onnx").write_bytes(b"\xff\x01 no model")
    for name, sentence in (("no.onnx", "must be an ONNX model"), ("none.onnx", "there is no such file")):
        with pytest.raises(InputError, match=sentence):
            onnx_model.load(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("[1]", r"c\.json must be a JSON object; got \[1\]"),
        ("{", r"c\.json must be JSON"),
        (json.dumps({"meen": 1}), "unknown key 'meen'; did you mean 'mean'"),
        (json.dumps({"contract": 3}), "must be names with values; got 3"),
        (json.dumps({"normalize": "mean_image"}), "cannot subtract a mean image"),
        (json.dumps({"size": 112}), "size must be height and width; got 112"),
        (json.dumps({"mean": "x"}), "input.mean must be a number"),
    ],
)
def test_a_contract_file_is_checked(tmp_path: Path, content: str, sentence: str) -> None:
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(InputError, match=sentence):
        onnx_model.load(graph(tmp_path / "m.onnx", ["n", 3, SIDE, SIDE]), contract=tmp_path / "c.json")
