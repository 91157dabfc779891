"""Heads with sub-centres: one row is the plain head to the bit, and what is sampled, saved, added and dropped."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

import angulus
from angulus import ClassSampling, DenseHead, InputError, ShardedHead, SparseSGD, class_loss, losses
from angulus.heads.classes import with_classes, without_classes
from angulus.heads.saving import load_head, read_weight, save_head
from angulus.heads.subcenters import drop_subcenters, find_dominant
from angulus.losses.subcenters import Nearest, Weighted
from angulus.training.start import draw_as_dense

SIZE, CLASSES = 4, 6
SUBCENTERS = losses.subcenter_arcface(16.0, 0.3, k=3)
SOFT_TRIPLE = losses.soft_triple(k=3)
both = pytest.mark.parametrize("objective", [SUBCENTERS, SOFT_TRIPLE], ids=["nearest", "weighted"])


def batch(rows: int = 9, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    features = torch.randn(rows, SIZE, generator=generator, dtype=torch.float64).to(dtype)
    return features, torch.arange(rows) % CLASSES


def head(objective: losses.Objective, **options: object) -> DenseHead:
    torch.manual_seed(0)
    return DenseHead(SIZE, CLASSES, objective, **options).double()  # type: ignore[arg-type]


@pytest.mark.parametrize("impl", ["reference", "chunked"])
def test_one_row_per_class_is_the_plain_head(impl: str, tmp_path: Path) -> None:
    """The objective is the same one, so values, gradients, shapes and files are."""
    features, labels = batch()
    pairs = [
        (losses.subcenter_arcface(k=1), losses.arcface()),
        (losses.subcenter_cosface(k=1), losses.cosface()),
        (losses.soft_triple(k=1), losses.cosface(20, 0.01)),
        (losses.cm_softmax().replace(subcenters=Weighted(1)), losses.cm_softmax()),
    ]
    for number, (single, plain) in enumerate(pairs):
        assert single == plain
        one, two = head(single, impl=impl), head(plain, impl=impl)
        found, expected = one(features, labels), two(features, labels)
        assert torch.equal(found, expected) and one.weight.shape == (CLASSES, SIZE)
        assert torch.equal(*(torch.autograd.grad(loss, own.weight)[0] for loss, own in ((found, one), (expected, two))))
        save_head(one, tmp_path / str(number))
        load_head(two, tmp_path / str(number))
    assert json.loads((tmp_path / "0" / "head.json").read_text())["objective"]["subcenters"] is None


def test_logits_and_statistics_are_those_of_the_nearest_row() -> None:
    features, labels = batch()
    own = head(SUBCENTERS)
    cosines = torch.nn.functional.normalize(features) @ torch.nn.functional.normalize(own.weight, dim=2).mT
    nearest = cosines.max(dim=2).values.T  # [B, C]
    torch.testing.assert_close(own.logits(features), 16.0 * nearest)
    torch.testing.assert_close(own.statistics(features, labels)["target_cos"], nearest[range(9), labels].mean())
    found = own.diagnose(features, labels)
    torch.testing.assert_close(found["accuracy"], (nearest.argmax(dim=1) == labels).float().mean())


def test_only_the_nearest_row_of_a_class_gets_a_gradient_and_of_equals_the_first() -> None:
    own = head(SUBCENTERS)
    with torch.no_grad():
        own.weight[2] = own.weight[2, :1]  # three equal ones
    features, labels = batch(1)[0], torch.tensor([0])
    for impl in ("reference", "chunked"):
        loss = class_loss(features, own.weight, labels, SUBCENTERS, impl=impl)
        moved = (torch.autograd.grad(loss, own.weight)[0] != 0).any(dim=2)
        assert moved.sum(dim=1).tolist() == [1] * CLASSES and moved[2].tolist() == [True, False, False]
    weighted = head(SOFT_TRIPLE)
    gradient = torch.autograd.grad(weighted(features, labels), weighted.weight)[0]
    assert bool((gradient != 0).any(dim=2).all())


@both
def test_sampled_classes_bring_all_their_rows(objective: losses.Objective) -> None:
    features, labels = batch(3)
    for kind in (DenseHead, ShardedHead):
        torch.manual_seed(0)
        few = kind(SIZE, CLASSES, objective, sampling=ClassSampling(0.6)).double()
        before = few.weight.detach().clone()
        loss = few(features, labels)
        loss.backward()
        gradient = few.weight.grad.coalesce()
        rows = gradient.indices()[0]
        assert len(rows) == 4 and gradient.values().shape == (4, 3, SIZE)
        alone = DenseHead(SIZE, 4, objective).double()
        with torch.no_grad():
            alone.weight.copy_(few.weight[rows])
        expected = alone(features, torch.searchsorted(rows, labels))
        expected.backward()
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(gradient.values(), alone.weight.grad)
        SparseSGD([few.weight], lr=0.1, momentum=0.9).step()
        others = [row for row in range(CLASSES) if row not in rows.tolist()]
        assert torch.equal(few.weight[others], before[others])
        torch.testing.assert_close(few.weight[rows], before[rows] - 0.1 * alone.weight.grad)


@both
def test_a_resumed_training_goes_on_as_if_it_had_not_stopped(objective: losses.Objective, tmp_path: Path) -> None:
    features, labels = batch()

    def train(own: DenseHead, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        own(features, labels).backward()
        optimizer.step()

    through = head(objective)
    stopped, resumed = copy.deepcopy(through), head(objective)
    one, two, three = (torch.optim.AdamW(own.parameters(), lr=0.1) for own in (through, stopped, resumed))
    train(through, one)
    train(through, one)
    train(stopped, two)
    save_head(stopped, tmp_path, two)
    load_head(resumed, tmp_path, three)
    train(resumed, three)
    assert torch.equal(resumed.weight, through.weight)
    assert torch.equal(read_weight(tmp_path), stopped.weight)
    with pytest.raises(InputError, match="another objective"):
        load_head(head(objective.replace(subcenters=Nearest(2))), tmp_path)


def test_a_sharded_head_can_start_as_the_dense_one_does() -> None:
    sharded = ShardedHead(SIZE, CLASSES, SUBCENTERS)
    torch.manual_seed(3)
    draw_as_dense(sharded)
    torch.manual_seed(3)
    assert torch.equal(sharded.weight, DenseHead(SIZE, CLASSES, SUBCENTERS).weight)


def test_classes_are_added_and_removed_with_all_their_rows() -> None:
    own, (features, _) = head(SUBCENTERS), batch()
    more = with_classes(own, torch.randn(2, 3, SIZE))
    torch.testing.assert_close(more.logits(features)[:, :CLASSES], own.logits(features))
    torch.testing.assert_close(without_classes(more, range(CLASSES, 8)).weight, own.weight)
    with pytest.raises(
        InputError, match=r"3 sub-centres per class, so weight must have shape \[n, 3, 4\]; got \[2, 4\]"
    ):
        with_classes(own, torch.randn(2, SIZE))


def test_the_dominant_row_is_kept_and_what_is_far_from_it_is_listed() -> None:
    """Counted by hand: class 0 has two rows along e1 and one along e2, class 1 one along e3; a row is ignored."""
    e1, e2, e3 = torch.eye(3)
    own = DenseHead(3, 2, losses.normface().replace(subcenters=Nearest(2)) + losses.subcenter_spread())
    with torch.no_grad():
        own.weight.copy_(torch.stack([torch.stack([2 * e2, e1]), torch.stack([e3, -e3])]))
        own.objective.radius.s.fill_(7.0)
    features = torch.stack([e1, 3 * e1 + 0.1 * e3, e2 + 0.1 * e1, e3 + e1, e1])
    labels = torch.tensor([0, 0, 0, 1, -100])
    dropped = drop_subcenters(own, features, labels)
    assert dropped.dominant.counts.tolist() == [[1, 2], [1, 0]] and dropped.dominant.chosen.tolist() == [1, 0]
    assert torch.equal(dropped.head.weight, torch.stack([e1, e3]))
    assert dropped.head.objective.spec == losses.normface() and float(dropped.head.objective.radius.s) == 7.0
    expected = torch.rad2deg(torch.atan(torch.tensor([0.0, 0.1 / 3, 10.0, 1.0])))
    torch.testing.assert_close(dropped.dominant.angles[:4], expected, rtol=1e-5, atol=1e-4)
    assert bool(dropped.dominant.angles[4].isnan())
    assert dropped.outliers.tolist() == [2]
    assert drop_subcenters(own, features, labels, max_angle=40.0).outliers.tolist() == [2, 3]


def test_bad_input_is_refused() -> None:
    features, labels = batch()
    weight = torch.randn(CLASSES, 3, SIZE, dtype=torch.float64)
    for shape in ((CLASSES, SIZE), (CLASSES, 2, SIZE), (CLASSES * 3, SIZE)):
        with pytest.raises(
            InputError, match=r"3 weight rows per class, so weight must .*\[num_classes, 3, embedding_size"
        ):
            class_loss(features, weight.flatten()[: torch.Size(shape).numel()].view(shape), labels, SUBCENTERS)
    with pytest.raises(InputError, match=r"1 weight row per class, so weight must .*\[num_classes, embedding_size\]"):
        class_loss(features, weight, labels, losses.arcface())
    for k in (0, -1, 1.5, True, "3"):
        for make in (losses.subcenter_arcface, losses.subcenter_cosface, losses.soft_triple):
            with pytest.raises(InputError, match="k must be a whole number"):
                make(k=k)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="gamma must be a finite number > 0; got 0"):
        losses.soft_triple(gamma=0)
    with pytest.raises(InputError, match="tau must be a finite number >= 0; got -1"):
        losses.soft_triple(tau=-1)
    with pytest.raises(InputError, match="compared by their cosines, so weights must be 'unit'"):
        losses.softmax().replace(subcenters=Nearest(2))
    with pytest.raises(InputError, match="give subcenters with k >= 2"):
        losses.arcface() + losses.subcenter_spread()
    with pytest.raises(InputError, match="give subcenters with k >= 2"):
        (losses.c_triplet() + losses.subcenter_spread()).bind(SIZE, CLASSES)
    with pytest.raises(InputError, match="subcenters must be a subcenters piece or None; got 3"):
        losses.arcface().replace(subcenters=3)
    with pytest.raises(InputError, match="that was trained with them; got DenseHead"):
        drop_subcenters(head(losses.arcface()), features, labels)
    with pytest.raises(InputError, match=r"1 of 6 classes have no row.*class 5"):
        drop_subcenters(head(SUBCENTERS), features[:5], labels[:5])
    with pytest.raises(InputError, match=r"max_angle must be a finite number in \[0, 180\]; got 200; it is in degrees"):
        drop_subcenters(head(SUBCENTERS), features, labels, max_angle=200)
    with pytest.raises(InputError, match=r"\[num_classes, K, embedding_size\], with sub-centres; got \[6, 4\]"):
        find_dominant(features, labels, weight[:, 0])


@both
def test_no_gradient_is_infinite_at_the_edges(objective: losses.Objective) -> None:
    """Rows that are opposite, equal or zero, features on them or zero, on both kernels, in float32."""
    weight = torch.randn(3, 3, SIZE)
    weight[0, 1], weight[0, 2], weight[1, 0], weight[1, 1:] = weight[0, 0], -weight[0, 0], 0.0, weight[2, 0] * 1e4
    features = torch.stack([weight[0, 0], -weight[0, 0] * 1e-8, weight[1, 0], weight[2, 0], weight[2, 1] * 1e4])
    for impl in ("reference", "chunked"):
        leaves = [features.clone().requires_grad_(), weight.clone().requires_grad_()]
        for gamma in (0.1, 1e-4):
            soft = objective.softness is not None
            spec = objective.replace(subcenters=Weighted(3, gamma)) if soft else objective
            loss = angulus.class_loss(*leaves, torch.tensor([0, 0, 1, 2, 2]), spec, impl=impl)
            for gradient in (loss, *torch.autograd.grad(loss, leaves)):
                assert bool(torch.isfinite(gradient).all())
