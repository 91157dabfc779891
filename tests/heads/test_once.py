"""A step computes norms, geometry, radius and margin once, unless the reduction over the classes reads the target."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import angulus
from angulus import DenseHead, ShardedHead, losses
from angulus.heads import class_loss as dense_room
from angulus.heads import sharded as sharded_room
from angulus.losses import Objective

SIZE, CLASSES, ROWS = 4, 7, 6
ONCE = {
    "arcface": losses.arcface(),
    "sphereface": losses.sphereface(annealing=losses.margins.Annealing()),
    "cosface + iam": losses.cosface() + losses.iam(0.1),
    "cm_m_softmax": losses.cm_m_softmax(gamma="auto", lower=3, upper=9) + losses.ring_loss(),
    "c_contrastive": losses.c_contrastive() + losses.softmax(),
}
TWICE = {"mv_softmax": losses.mv_softmax(), "c_triplet": losses.c_triplet() + losses.arcface()}
every_kernel = pytest.mark.parametrize("impl", ["reference", "chunked"])


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the heads call what costs time."""
    counter: Counter[str] = Counter()

    def counted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*args: Any, **options: Any) -> Any:
            counter[name] += 1
            return call(*args, **options)

        return counting

    for room in (dense_room, sharded_room):
        for name in ("geometry", "normalize"):
            monkeypatch.setattr(room, name, counted(name, getattr(room, name)))
    return counter


class Counting(nn.Module):
    """A bound margin or radius that counts its calls."""

    def __init__(self, piece: Any, name: str, calls: Counter[str]) -> None:
        super().__init__()
        self.__dict__.update(piece=piece, name=name, calls=calls)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["piece"], name)

    def forward(self, *args: Tensor) -> Tensor:
        self.calls[self.name] += 1
        value: Tensor = self.piece(*args)
        return value


def step(head: DenseHead | ShardedHead, calls: Counter[str]) -> dict[str, int]:
    for name in ("margin", "radius"):
        piece = getattr(head.objective, name)
        if piece is not None:
            head.objective.__dict__.pop(name, None)
            head.objective._modules.pop(name, None)
            setattr(head.objective, name, Counting(piece, name, calls))
    torch.manual_seed(0)
    features = torch.randn(ROWS, SIZE, requires_grad=True)
    head(features, torch.arange(ROWS)).backward()
    assert head.seen  # the statistics of the step are part of it
    return dict(calls)


@every_kernel
@pytest.mark.parametrize("kind", [DenseHead, ShardedHead])
@pytest.mark.parametrize("objective", ONCE.values(), ids=ONCE.keys())
def test_a_step_computes_everything_once(
    objective: Objective, kind: type[DenseHead] | type[ShardedHead], impl: str, calls: Counter[str]
) -> None:
    head = kind(SIZE, CLASSES, objective, impl=impl)
    expected = {"geometry": 1, "normalize": 1, "radius": 1} | ({"margin": 1} if objective.margin else {})
    assert step(head, calls) == expected


@every_kernel
@pytest.mark.parametrize("kind", [DenseHead, ShardedHead])
@pytest.mark.parametrize("objective", TWICE.values(), ids=TWICE.keys())
def test_a_threshold_or_offset_needs_the_target_before_the_reduction(
    objective: Objective, kind: type[DenseHead] | type[ShardedHead], impl: str, calls: Counter[str]
) -> None:
    head = kind(SIZE, CLASSES, objective, impl=impl)
    assert step(head, calls) == {"geometry": 2, "normalize": 1, "radius": 1, "margin": 2}


def test_class_loss_computes_everything_once(calls: Counter[str]) -> None:
    features, weight = torch.randn(ROWS, SIZE), torch.randn(CLASSES, SIZE)
    angulus.class_loss(features, weight, torch.arange(ROWS), losses.arcface())
    assert calls == {"geometry": 1, "normalize": 1}


def test_a_penalty_that_says_it_asks_nothing_of_the_target_cannot_read_it() -> None:
    class Wrong(losses.penalties.CTriplet):
        asks_of_target = False

    with pytest.raises(angulus.InputError, match="the loss is not finite"):
        angulus.class_loss(
            torch.randn(ROWS, SIZE), torch.randn(CLASSES, SIZE), torch.arange(ROWS), losses.arcface() + Wrong()
        )
