"""Class weights that are spread apart: how far, from what seed, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import tiny
from angulus import DenseHead, InputError, ShardedHead, losses
from angulus.experiments import build
from angulus.heads import init
from angulus.losses.theory import margin_room


def angles(weight: Tensor) -> NDArray[np.float64]:
    """Every angle between two rows, by arithmetic on pairs."""
    rows = weight.double().numpy()
    pairs = [(rows[i], rows[j]) for i in range(len(rows)) for j in range(i)]
    return np.array([math.acos(np.clip(a @ b / math.sqrt((a @ a) * (b @ b)), -1, 1)) for a, b in pairs])


@pytest.mark.parametrize(
    ("classes", "size"), [(2, 1), (2, 9), (3, 2), (6, 5), (4, 2), (5, 3), (7, 5), (10, 5), (10, 2), (23, 2)]
)
def test_the_smallest_angle_is_the_bound_where_the_bound_is_known(classes: int, size: int) -> None:
    found = angles(init.spread(classes, size, seed=3))
    assert found.min() == pytest.approx(margin_room(classes, size), abs=1e-3)  # float32 near 180°
    if classes <= size + 1:
        assert found.max() == pytest.approx(found.min(), abs=1e-3)  # a simplex: all angles are equal


@pytest.mark.parametrize(("classes", "size", "share"), [(12, 3, 0.93), (20, 3, 0.88), (60, 8, 0.7)])
def test_more_classes_come_close_to_the_bound_by_repulsion(classes: int, size: int, share: float) -> None:
    """12 points in space have 63.4° at best (the icosahedron), 0.945 of the bound; 20 points 47.4°, 0.917."""
    torch.manual_seed(0)
    for seed in range(3):
        smallest = angles(init.spread(classes, size, seed)).min()
        assert share * margin_room(classes, size) < smallest < margin_room(classes, size)
        assert smallest > 1.5 * angles(torch.randn(classes, size)).min()


def test_a_push_is_the_softmax_of_the_others_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.nn.functional.normalize(torch.randn(7, 3, generator=torch.Generator().manual_seed(0)))
    monkeypatch.setattr(init, "BLOCK", 3)
    found = init._push(weight, 4.0).double().numpy()
    rows = weight.double().numpy()
    for i in range(7):
        others = [j for j in range(7) if j != i]
        shares = np.array([math.exp(4 * (rows[i] @ rows[j])) for j in others])
        expected = sum(share * rows[j] for share, j in zip(shares / shares.sum(), others, strict=True))
        assert found[i] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("classes", "size"), [(1, 4), (4, 4), (7, 4), (9, 2), (20, 4)])
def test_weights_are_unit_rows_by_the_seed_alone(classes: int, size: int) -> None:
    first = init.spread(classes, size, 5)
    assert first.shape == (classes, size) and first.dtype == torch.float32
    assert torch.allclose(first.norm(dim=1), torch.ones(classes), atol=1e-6)
    torch.rand(3)
    assert torch.equal(init.spread(classes, size, 5), first)
    assert not torch.allclose(init.spread(classes, size, 6), first, atol=0.1)


def test_both_heads_start_from_the_same_weights_and_draw_on_alike() -> None:
    torch.manual_seed(2)
    dense = DenseHead(3, 5, losses.softmax(bias=True), init="spread")
    after = torch.rand(1)
    torch.manual_seed(2)
    sharded = ShardedHead(3, 5, losses.softmax(bias=True), init="spread")
    assert torch.equal(sharded.weight, dense.weight) and torch.equal(torch.rand(1), after)
    assert angles(dense.weight.detach()).min() == pytest.approx(math.pi / 2, abs=1e-3)
    assert not dense.bias.any() and not sharded.bias.any()
    before = dense.weight.clone()
    dense.reset_parameters()
    assert angles(dense.weight.detach()).min() == pytest.approx(math.pi / 2, abs=1e-3)
    assert not torch.allclose(dense.weight, before, atol=0.1)


@pytest.mark.parametrize(
    ("classes", "size", "objective", "said"),
    [
        (10_001, 16, losses.arcface(), "at most 10,000 or 2 d of them; got 10,001"),
        (3, 1, losses.arcface(), "no room for 3 classes in one dimension"),
        (4, 8, losses.subcenter_arcface(), "needs one weight per class; this objective has sub-centres"),
    ],
)
def test_what_cannot_be_spread_is_refused(classes: int, size: int, objective: losses.Objective, said: str) -> None:
    for head in (DenseHead, ShardedHead):
        with pytest.raises(InputError, match=said):
            head(size, classes, objective, init="spread")
        with pytest.raises(InputError, match="init must be one of 'normal', 'spread'; got 'wide'"):
            head(size, classes, objective, init="wide")


def test_a_recipe_asks_for_it() -> None:
    found = []
    for sharded in ("false", "true"):
        asked = tiny.validated("head.init=spread", f"head.sharded={sharded}", "backbone.embedding_size=5")
        found.append(build.job(asked, tiny.splits()).head.weight.detach())
    assert torch.equal(*found) and found[0].shape == (10, 5)
    assert angles(found[0]).min() == pytest.approx(math.pi / 2, abs=1e-3)
    with pytest.raises(InputError, match=r"head.init must be 'normal' or 'spread'"):
        tiny.validated("head.init=wide")
