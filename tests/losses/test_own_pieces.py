"""Pieces of one's own, as the page on them has them: on every kernel and head, against plain PyTorch."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from angulus import DenseHead, InputError, ShardedHead, losses
from angulus.losses import Objective, penalties, roles
from angulus.losses.serialize import to_mapping
from losses import own

ROWS, CLASSES, SIZE = 6, 9, 8
OWN = own.objectives()


def by_hand(role: str, x: Tensor, w: Tensor, y: Tensor, t: float = 0.0) -> Tensor:
    """Every loss of the page, over the full matrix of cosines, by torch's own functions."""
    cos = F.normalize(x) @ F.normalize(w).T
    target = cos.gather(1, y[:, None]).squeeze(1)
    theta, others = torch.arccos(target), F.one_hot(y, CLASSES).bool().logical_not()
    arc = torch.where(theta + 0.5 > math.pi, target - 0.5 * math.sin(math.pi - 0.5), torch.cos(theta + 0.5))
    s, margined, negatives = torch.tensor(16.0).double(), arc, cos
    if role == "margin":
        margined = 1 - 2 * (theta + 0.2) / math.pi
    elif role == "radius":
        s, margined = 4 * x.norm(dim=1).sqrt()[:, None], target
    elif role in ("negatives", "kept figure"):
        raised = cos + 0.3 * cos**2 if role == "negatives" else cos * (t + cos)
        negatives = torch.where(cos > arc.detach()[:, None], raised, cos)
    if role == "kept figure":
        s = torch.tensor(64.0).double()
    logits = s * torch.where(others, negatives, margined[:, None])
    loss = F.cross_entropy(logits, y, reduction="none")
    if role == "weighting":
        loss = (1 - torch.exp(-loss)).sqrt() * loss
    if role == "classifier":
        loss = loss.square()
    if role == "margin":
        lse = torch.logsumexp((16 * cos).masked_fill(~others, -torch.inf), 1)
        loss = loss + 0.1 * (lse - math.log(CLASSES - 1) - torch.logsumexp(16 * cos, 1))
    if role == "penalty":
        loss = loss + 0.1 * (torch.logsumexp((8 * cos).masked_fill(~others, -torch.inf), 1) - math.log(CLASSES - 1))
    return loss.mean()


def batch() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    x, w = (torch.randn(n, SIZE, generator=generator, dtype=torch.float64) for n in (ROWS, CLASSES))
    return x, w, torch.randint(CLASSES, (ROWS,), generator=generator)


@pytest.mark.parametrize("impl", ["reference", "chunked", "fused", "blocked"])
@pytest.mark.parametrize("kind", [DenseHead, ShardedHead])
@pytest.mark.parametrize("role", OWN)
def test_on_every_kernel_and_head(role: str, kind: type[DenseHead] | type[ShardedHead], impl: str) -> None:
    if impl == "fused":
        pytest.importorskip("triton")
    x, w, y = batch()
    head = kind(SIZE, CLASSES, OWN[role], impl=impl).double()
    with torch.no_grad():
        head.weight.copy_(w)
    t = 0.0
    for _ in range(3):
        truth = x.clone().requires_grad_(), w.clone().requires_grad_()
        expected = by_hand(role, *truth, y, t)
        features = x.clone().requires_grad_()
        found = head(features, y)
        torch.testing.assert_close(found, expected)
        for got, right in zip(
            torch.autograd.grad(found, (features, head.weight)), torch.autograd.grad(expected, truth), strict=True
        ):
            torch.testing.assert_close(got, right)
        t += 0.01 * (float(F.cosine_similarity(x, w[y]).mean()) - t)
    if role == "kept figure":
        assert t != 0 and float(head.state_dict()["objective.negatives.t"]) == pytest.approx(t)


@pytest.mark.parametrize("objective", OWN.values(), ids=OWN.keys())
def test_they_print_and_are_written(objective: Objective) -> None:
    assert str(objective) and "object at" not in objective.formula()
    assert to_mapping(objective)
    assert objective == dataclasses.replace(objective) and hash(objective)


@dataclasses.dataclass(frozen=True)
class Half:
    """A weighting that inherits nothing."""

    kind: ClassVar[str] = "half"
    probability: ClassVar[str] = "margin"
    scope: ClassVar[str] = "rank"
    reads_labels: ClassVar[bool] = False
    stateful: ClassVar[bool] = False
    reads_batch: ClassVar[bool] = False

    def bind(self, embedding_size: int, num_classes: int) -> Half:
        return self

    def __call__(self, loss: Tensor, log_p: Tensor, log_not_p: Tensor) -> tuple[Tensor, int]:
        return torch.full_like(loss, 0.5), len(loss)

    def formula(self) -> str:
        return "½"

    def words(self) -> str:
        return "half of each"


def test_nothing_need_be_inherited() -> None:
    x, _, y = batch()
    objective = losses.arcface().replace(weighting=Half())
    head = DenseHead(SIZE, CLASSES, objective).double()
    plain = DenseHead(SIZE, CLASSES, losses.arcface()).double()
    plain.load_state_dict(head.state_dict())
    torch.testing.assert_close(2 * head(x, y), plain(x, y))
    assert "half of each" in str(objective)


class Loose(roles.Weighting):
    kind: ClassVar[str] = "loose"


def without(name: str, frozen: bool = True) -> Any:
    """Like `Half`, less one member."""
    kept = {key: each for key, each in vars(Half).items() if key == "__call__" or not key.startswith("_")}
    return dataclasses.dataclass(frozen=frozen)(type("Less", (), {k: v for k, v in kept.items() if k != name}))()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: without("scope"), "with all of losses.roles.Weighting; Less lacks scope"),
        (lambda: without("reads_batch"), "Less lacks reads_batch"),
        (lambda: Half, "weighting must be a weighting piece or None; got"),
        (lambda: torch.nn.Linear(2, 2), "weighting must be a weighting piece or None; got"),
        (Loose, "weighting must be a frozen dataclass, to be compared"),
        (lambda: without("", frozen=False), "weighting must be a frozen dataclass"),
    ],
)
def test_what_is_no_piece_is_told_what_it_lacks(make: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(InputError, match=re.escape(sentence)):
        losses.arcface().replace(weighting=make())


def test_a_penalty_with_the_name_of_another_thing_is_refused() -> None:
    @dataclasses.dataclass(frozen=True)
    class Named(penalties.Ring):
        name: ClassVar[str] = "seen"

    with pytest.raises(InputError, match="a penalty that keeps figures cannot be named 'seen'"):
        DenseHead(SIZE, CLASSES, losses.arcface() + Named(0.1))


@dataclasses.dataclass(frozen=True)
class Misshapen(roles.Margin):
    """A margin that returns what its function makes of the angles."""

    shape: Callable[[Tensor], Any]
    kind: ClassVar[str] = "misshapen"

    def __call__(self, theta: Tensor, norms: Tensor) -> Any:
        return self.shape(theta.cos())

    def formula(self) -> str:
        return "?"


@pytest.mark.parametrize(
    ("shape", "returned"),
    [
        (lambda v: v[:, None], "torch.float64 [6, 1]"),
        (lambda v: v.sum(), "torch.float64 []"),
        (lambda v: v > 0, "torch.bool [6]"),
        (lambda v: 0.3, "0.3"),
        (lambda v: None, "None"),
    ],
)
def test_a_piece_that_does_not_return_one_number_per_row_is_refused(
    shape: Callable[[Tensor], Any], returned: str
) -> None:
    x, _, y = batch()
    head = DenseHead(SIZE, CLASSES, losses.arcface(s=16).replace(margin=Misshapen(shape))).double()
    sentence = f"the margin must return one number per row, float [6]; it returned {returned}"
    with pytest.raises(InputError, match=re.escape(sentence)):
        head(x, y)


def test_a_weighting_that_would_broadcast_is_refused() -> None:
    class Column(Half):
        def __call__(self, loss: Tensor, log_p: Tensor, log_not_p: Tensor) -> tuple[Tensor, int]:
            return torch.full_like(loss, 0.5)[:, None], len(loss)

    x, _, y = batch()
    with pytest.raises(InputError, match=r"the weighting must return one number per row, float \[6\]"):
        DenseHead(SIZE, CLASSES, losses.arcface().replace(weighting=Column())).double()(x, y)
