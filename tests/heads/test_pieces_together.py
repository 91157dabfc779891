"""Pieces that meet in one objective: figures, sub-centres, numbers per class, and what a head saves of them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

import angulus
from angulus import InputError, losses
from angulus.heads import deferred
from angulus.heads.classes import with_classes, without_classes
from angulus.heads.saving import load_head, save_head
from angulus.kernels import memory
from angulus.losses.subcenters import Weighted
from angulus.losses.weighting import ClassWeights

SOFT = Weighted(3, 0.1)


def head(objective: losses.Objective, classes: int = 8) -> angulus.DenseHead:
    torch.manual_seed(0)
    return angulus.DenseHead(6, classes, objective).double()


def rows(count: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 6, dtype=torch.float64, generator=generator), torch.arange(count)


def soft_cosines(made: angulus.DenseHead, x: Tensor) -> Tensor:
    """Σ_k softmax_k(c_jk / γ) c_jk by loops, [B, C]."""
    found = []
    for row in torch.nn.functional.normalize(x):
        each = []
        for centers in made.weight.detach():
            cosines = [float(row @ (center / center.norm())) for center in centers]
            shares = [math.exp(c / 0.1) for c in cosines]
            each.append(sum(s * c for s, c in zip(shares, cosines, strict=True)) / sum(shares))
        found.append(each)
    return torch.tensor(found, dtype=torch.float64)


def test_figures_see_the_cosine_of_the_subcenters_together() -> None:
    x, labels = rows()
    curricular = head(losses.curricularface(rate=0.5).replace(subcenters=SOFT))
    own = soft_cosines(curricular, x)[labels, labels]
    curricular(x, labels)
    assert curricular.objective.negatives.t.item() == pytest.approx(0.5 * own.mean().item(), abs=1e-12)
    adacos = head(losses.adacos().replace(subcenters=SOFT))
    before, cosines = adacos.objective.radius.s.item(), soft_cosines(adacos, x)
    others = cosines.clone()
    others[labels, labels] = -math.inf
    mean = (before * others).exp().sum(1).mean()
    angle = cosines[labels, labels].acos().median()
    adacos(x, labels)
    expected = math.log(mean) / math.cos(min(math.pi / 4, angle))
    assert adacos.objective.radius.s.item() == pytest.approx(expected, rel=1e-9)


def test_counts_go_only_to_the_pieces_that_wait_for_them() -> None:
    both = losses.dynamic_margin(counts=[5, 50, 500]).replace(weighting=ClassWeights())
    counted = both.with_counts([1, 2, 3])
    assert counted.margin.counts == (5, 50, 500)  # type: ignore[union-attr]
    assert counted.weighting.counts == (1, 2, 3)  # type: ignore[union-attr]
    given = losses.dynamic_margin().replace(weighting=ClassWeights((1.0, 2.0, 3.0)))
    assert given.with_counts([5, 6, 7]).weighting == given.weighting


def test_a_mean_over_the_weights_of_the_batch_reads_the_batch() -> None:
    assert ClassWeights((1.0, 2.0), divide="weights").reads_batch
    assert not ClassWeights((1.0, 2.0)).reads_batch


def test_classes_come_and_go_with_their_numbers() -> None:
    made = head(losses.dynamic_margin(counts=[5, 50, 500]), 3)
    left = without_classes(made, [1])
    assert left.objective.spec.margin.counts == (5, 500)  # type: ignore[union-attr]
    more = with_classes(made, torch.randn(1, 6), counts=[5, 50, 500, 7])
    assert more.objective.spec.margin.counts == (5, 50, 500, 7)  # type: ignore[union-attr]
    with pytest.raises(InputError, match="needs counts, the training images of each class, old and new"):
        with_classes(made, torch.randn(1, 6))
    with pytest.raises(InputError, match="reads no counts of each class"):
        with_classes(head(losses.arcface(), 3), torch.randn(1, 6), counts=[1, 2, 3, 4])
    weighted = head(losses.weighted_softmax(weights=[1, 2, 3]), 3)
    assert without_classes(weighted, [0]).objective.spec.weighting.weights == (2, 3)  # type: ignore[union-attr]
    with pytest.raises(InputError, match="do not follow from counts; make a new head"):
        with_classes(weighted, torch.randn(1, 6), counts=[1, 2, 3, 4])


def test_a_head_that_was_saved_before_a_slot_existed_is_read(tmp_path: Path) -> None:
    made = head(losses.mv_softmax())
    save_head(made, tmp_path)
    path = tmp_path / "head.json"
    index = json.loads(path.read_text())
    del index["objective"]["classifier"], index["objective"]["negatives"]["detach"]
    index["objective"].pop("subcenters", None)
    path.write_text(json.dumps(index))
    other = angulus.DenseHead(6, 8, losses.mv_softmax()).double()
    load_head(other, tmp_path)
    assert torch.equal(other.weight, made.weight)
    with pytest.raises(InputError, match="holds a head with another objective"):
        load_head(angulus.DenseHead(6, 8, losses.mv_softmax(t=0.1)).double(), tmp_path)


def test_an_overflow_gives_features_and_head_gradients_of_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the scaler of each optimiser skips the step."""
    monkeypatch.setattr(deferred, "POSING", True)
    made = angulus.DenseHead(6, 8, losses.arcface())
    x = torch.randn(4, 6).half()
    x[1, 2] = math.inf
    x.requires_grad_()
    made(x, torch.arange(4)).backward()
    assert x.grad is not None and x.grad.isnan().all()
    assert made.weight.grad is not None and made.weight.grad.isnan().all()


def test_the_sentence_on_memory_counts_the_rows_of_all_subcenters() -> None:
    said = memory.describe("reference", torch.empty(256, 512), torch.empty(1000, 3, 512, device="meta"), False)
    assert "256 x 3,000" in said
