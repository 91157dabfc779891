"""Everything that training logs has words."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import angulus
import reports
from angulus import losses
from angulus.report.terms import STATISTICS, explain_figures, explain_statistic
from angulus.training import log


def test_each_number_that_a_training_logs_is_explained(tmp_path: Path) -> None:
    options = ("validation={identities: 0.2, fmr: 0.1, pairs: 20}", "evaluation.each_epoch=true")
    reports.train(tmp_path / "run", "backbone.embedding_size=2", *options)
    keys = {key for row in log.read_lines(tmp_path / "run" / log.METRICS) for key in row} - {"step"}
    assert {"loss", "lr", "test_loss", "validation_tar", "norm_right"} <= keys <= STATISTICS.keys()


@pytest.mark.parametrize("name", angulus.list_losses())
def test_each_statistic_of_each_loss_is_explained(name: str) -> None:
    torch.manual_seed(0)
    objective = getattr(losses, name)()
    if name in ("iam", "feature_incay", "ring_loss", "center_loss", "cross_batch_memory"):  # these need a base
        objective = losses.normface(s=8, learn=False) + objective
    elif name == "subcenter_spread":
        objective = losses.subcenter_arcface(k=2) + objective
    head = angulus.DenseHead(4, 5, objective.with_counts([5, 4, 3, 2, 1]))
    features, labels = torch.randn(8, 4), torch.arange(8) % 5
    head(features, labels)
    assert {*head.seen, *head.diagnose(features, labels)} <= STATISTICS.keys()


def test_raw_names_are_in_no_title() -> None:
    for key, term in STATISTICS.items():
        assert "_" not in term.title and term.meaning.endswith("."), key
    assert explain_statistic("of_a_plugin").title == "of a plugin"
    assert explain_figures(["TAR@FAR=1e-3", "TAR@FAR=1e-2", "rank-1"]).count("is the share") == 2
