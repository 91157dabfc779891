"""The script for a day with a GPU runs here too: at small sizes, in Triton's interpreter."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from angulus import losses
from angulus.heads import deferred
from angulus.kernels import tuned

RUN = Path(__file__).parents[2] / "benchmarks" / "gpu" / "run"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(RUN), *arguments], capture_output=True, text=True, check=False)


def test_each_stage_stores_its_lines_and_what_is_skipped_is_named(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    out = tmp_path / "deep" / "gpu.jsonl"
    stages = "facts,compile,exact,modes,speed,huge,costs,tune"
    done = run("--out", str(out), "--stages", stages, "--wheels", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "skipped wheels: none could be installed" in done.stdout
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert {row["stage"] for row in rows} == {*stages.split(",")}
    assert not [row for row in rows if "failed" in json.dumps(row)]
    exact = [row for row in rows if row.get("precision") == "float32"]
    assert {row["impl"] for row in exact} == {"chunked", "fused", "blocked"}
    assert {*losses.list_losses()} < {row["objective"] for row in exact}
    assert all(row[name] < 1e-4 for row in exact for name in ("loss", "features", "weight"))
    assert all(row["result"][1] < row["result"][0] for row in rows if row["stage"] == "modes")
    assert all(row["losses"][-1] < row["losses"][0] for row in rows if row["stage"] == "huge")
    costs = {row["what"]: row for row in rows if row["stage"] == "costs"}
    assert {name.removeprefix("normface + ") for name in costs} == {*losses.list_losses()} - {"subcenter_spread"}
    assert all(row["low"] <= row["ratio"] <= row["high"] and row["median_ms"] > 0 for row in costs.values())
    assert costs["soft_triple"]["to"] == "arcface of K x C classes" and costs["cosface"]["to"] == "arcface"
    entry = eval(rows[-1]["entry"], vars(tuned))  # what one would paste into its table
    assert entry.tiles == tuned.TILES and entry.blocking == tuned.BLOCKING and len(entry.fastest) == 1


def test_a_loss_that_waits_is_named_by_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU that poses as a GPU: a wait raises, as PyTorch does there in that mode."""
    monkeypatch.syspath_prepend(RUN.parent)
    stages = importlib.import_module("stages")
    monkeypatch.setattr(stages, "GPU", True)
    monkeypatch.setattr(stages, "MODES", {"no synchronisation": stages.quiet_steps})
    monkeypatch.setattr(stages, "kernels", lambda: ["reference"])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda mode: None)
    monkeypatch.setattr(deferred, "POSING", True)
    rows = list(stages.modes())
    assert {row["head"] for row in rows} == {*stages.QUIET}
    assert all("later: labels must be in [0, 1000)" in row["result"] for row in rows)

    def wait(mode: str) -> None:
        raise RuntimeError("called a synchronizing CUDA operation")

    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", wait)
    assert all("synchronizing" in row["failed"] for row in stages.modes())


def test_a_stage_out_of_time_is_stopped_and_named(tmp_path: Path) -> None:
    done = run("--out", str(tmp_path / "gpu.jsonl"), "--stages", "exact,facts", "--seconds", "2")
    assert done.returncode == 0
    assert "skipped exact: stopped after 2 s" in done.stdout
    assert "skipped facts: no time left of 2 s" in done.stdout


def test_a_step_needs_torch_alone() -> None:
    """The machine of that day may have torch and triton only, and angulus as a checkout that was not installed."""
    script = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(('scipy', 'pydantic', 'sklearn', 'pyarrow', 'matplotlib', 'safetensors')))\n"
        "import torch, angulus\n"
        "head = angulus.DenseHead(4, 40, angulus.losses.arcface(16), impl='chunked')\n"  # more classes than 2 d
        "optimizer = angulus.BackwardSGD(head.bfloat16(), 0.1, rounding='kahan')\n"
        "head(torch.randn(3, 4), torch.arange(3)).backward()\n"
        "import importlib.metadata\n"
        "importlib.metadata.distribution = None\n"
        "from angulus.core import environment\n"
        "assert environment.describe(torch.device('cpu'))['angulus'] == angulus.__version__\n"
    )
    source = str(RUN.parents[2] / "src")
    done = subprocess.run([sys.executable, "-c", script], env={"PYTHONPATH": source}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_unknown_stage_is_refused(tmp_path: Path) -> None:
    done = run("--stages", "facts,fast", "--out", str(tmp_path / "gpu.jsonl"))
    assert done.returncode == 2
    assert "there is no stage 'fast'; known: facts, compile" in done.stderr
    assert not (tmp_path / "gpu.jsonl").exists()


@pytest.mark.parametrize(
    ("impl", "kernels"),
    [
        ("fused", {"reduce_tile", "coefficient_tile"}),
        ("blocked", {"reduce_block", "coefficient_block", "finish_rows", "invert_lengths"}),
    ],
)
def test_the_launches_compile_for_an_h100_without_one(impl: str, kernels: set[str], tmp_path: Path) -> None:
    """Triton's compiler refuses what its interpreter runs, such as a variable that changes its type in a loop."""
    pytest.importorskip("triton")
    command = [sys.executable, str(RUN.with_name("compiled.py")), "--impl", impl]
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert {row["kernel"] for row in rows} == kernels
    assert all(row["shared_bytes"] <= 227 * 1024 for row in rows)
    if impl == "fused":
        assert len(rows) == 16  # forward and backward of two losses in four precisions
        assert all(row["tensor_cores"] == ("bf16" in row["what"] or "tf32" in row["what"]) for row in rows)
    else:
        assert all(row["spilled_bytes"] == 0 and row["programs"] >= 3 for row in rows)
