"""What is logged of the test images after each epoch: the trained model's own results, and no influence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
from angulus.experiments.measure import load_test
from angulus.experiments.run import run
from angulus.training.log import read_lines
from angulus.training.state import load_checkpoint


@pytest.mark.parametrize("objective", ["{kind: softmax}", "{kind: arcface, s: 10, m: 0.2}"])
def test_the_last_epoch_is_what_the_results_say(objective: str, tmp_path: Path) -> None:
    chosen = tiny.validated("evaluation.each_epoch=true", "training.epochs=3", f"objective={objective}")
    results = run(chosen, tmp_path, splits=tiny.splits())
    rows = [row for row in read_lines(tmp_path / "metrics.jsonl") if "test_loss" in row]
    assert [row["step"] for row in rows] == [5, 10, 15]
    test, head = load_test(tmp_path), load_checkpoint(tmp_path / "checkpoint.pt")["head"]
    assert rows[-1]["test_accuracy"] == results["accuracy"]
    assert rows[-1]["test_norm"] == pytest.approx(test["norms"].mean())

    features, weight = test["features"].astype(np.float64), head["weight"].numpy().astype(np.float64)
    if "softmax" in objective:
        logits = features @ weight.T + (head["bias"].numpy() if "bias" in head else 0)
    else:
        logits = 10 * (features / test["norms"][:, None]) @ (weight / np.linalg.norm(weight, axis=1)[:, None]).T
    losses = [np.log(np.exp(row - row[label]).sum()) for row, label in zip(logits, test["labels"], strict=True)]
    assert rows[-1]["test_loss"] == pytest.approx(np.mean(losses), rel=1e-5)


def test_it_changes_nothing_of_the_training(tmp_path: Path) -> None:
    for name, value in (("with", "true"), ("without", "false")):
        run(tiny.validated(f"evaluation.each_epoch={value}"), tmp_path / name, splits=tiny.splits())
    one, other = (load_checkpoint(tmp_path / name / "checkpoint.pt")["backbone"] for name in ("with", "without"))
    assert all(torch.equal(one[name], other[name]) for name in one)
