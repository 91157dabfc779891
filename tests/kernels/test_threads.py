"""Segments of the classes on several threads: the same bits, every number once, errors and settings."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

import angulus
from angulus import InputError, class_loss, losses
from angulus.kernels import blocks, threads

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", 1)
    monkeypatch.setattr(blocks, "LEAST_BLOCK", 4)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def gradients(objective: losses.Objective, subcenters: int | None = None) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (150, 16) if subcenters is None else (150, subcenters, 16)
    features, weight = torch.randn(12, 16, generator=generator), torch.randn(shape, generator=generator)
    leaves = [features.requires_grad_(), weight.requires_grad_()]
    bias = [torch.linspace(-1, 1, 150).requires_grad_()] if objective.bias else []
    bound = objective.bind(16, 150).eval()
    learned = [*leaves, *bias, *bound.parameters()]
    labels = torch.randint(150, (12,), generator=generator)
    loss = class_loss(*leaves, labels, bound, bias=bias[0] if bias else None, impl="chunked")
    return [loss.detach(), *torch.autograd.grad(loss, learned)]


OBJECTIVES = {
    "arcface": losses.arcface(),
    "beyond the range of exp": losses.mv_softmax(200.0) + losses.iam(0.1) + losses.c_triplet(),
    "raw": losses.softmax(bias=True),
    "learned": losses.normface(20.0),
    "sigmoids": losses.sphereface2(),
    "sum of logits": losses.label_smoothing(16.0, 0.2),
    "class sums": losses.proxy_anchor(8.0),
    "sub-centres": losses.soft_triple(),
}


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES.keys())
def test_the_bits_do_not_depend_on_the_threads(objective: losses.Objective) -> None:
    subcenters = objective.rows_per_class if objective.rows_per_class > 1 else None
    several = [gradients(objective, subcenters) for _ in range(3)]
    torch.set_num_threads(1)
    alone = gradients(objective, subcenters)
    for found in several:
        assert all(torch.equal(one, two) for one, two in zip(found, alone, strict=True))
    assert torch.get_num_threads() == 1


def test_every_number_is_taken_once_on_threads_with_one_intra_op_thread() -> None:
    taken: list[tuple[int, int, int, bool]] = []
    meeting = threading.Barrier(2, timeout=30)  # broken unless two threads walk at the same time

    def work(numbers: Iterator[int]) -> None:
        meeting.wait()
        for number in numbers:
            taken.append((number, threading.get_ident(), torch.get_num_threads(), torch.is_grad_enabled()))

    threads.walk(work, range(2, 40), CPU)
    assert sorted(number for number, *_ in taken) == list(range(2, 40))
    assert {(count, grad) for *_, count, grad in taken} == {(1, False)}
    assert threading.get_ident() not in {thread for _, thread, *_ in taken}
    assert torch.get_num_threads() == 2
    counts: list[int] = []
    new = threading.Thread(target=lambda: counts.append(torch.get_num_threads()))
    new.start()
    new.join()
    assert counts == [2]


def test_an_error_on_a_thread_stops_all_and_is_raised() -> None:
    taken: list[int] = []

    def work(numbers: Iterator[int]) -> None:
        for number in numbers:
            taken.append(number)
            if number == 3:
                raise InputError("the third is refused")

    with pytest.raises(InputError, match="the third"):
        threads.walk(work, range(100_000), CPU)
    assert len(taken) < 100_000
    assert torch.get_num_threads() == 2


def test_inference_mode_is_that_of_the_caller() -> None:
    features, weight, labels = torch.randn(5, 8), torch.randn(40, 8), torch.arange(5)
    with torch.inference_mode():
        found = class_loss(features, weight, labels, losses.arcface(16), impl="chunked")
    torch.testing.assert_close(found, class_loss(features, weight, labels, losses.arcface(16), impl="reference"))


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2), (2, 3, 1, 0)])
def test_parts_are_added_in_order(order: tuple[int, ...]) -> None:
    parts = [torch.tensor(each, dtype=torch.float32) for each in (1e8, 1.0, -1e8, 0.25)]
    total = threads.InOrder(torch.zeros(()))
    for number in order:
        total.add(number, parts[number])
    assert total.total == ((parts[0] + parts[1]) + parts[2]) + parts[3]


@pytest.mark.parametrize("blocks_", [1, 7, 32, 33, 1953])
def test_segments_cover_the_blocks(blocks_: int) -> None:
    found = threads.segments(blocks_, CPU)
    assert [number for segment in found for number in segment] == list(range(blocks_))
    assert len(found) == min(blocks_, threads.MOST_SEGMENTS) and min(map(len, found)) >= 1
    assert threads.segments(blocks_, torch.device("cuda")) == [range(blocks_)]


def test_an_update_within_backward_equals_sgd_and_refuses_a_second_backward_before_any_change() -> None:
    def head() -> angulus.DenseHead:
        torch.manual_seed(0)
        return angulus.DenseHead(16, 150, losses.arcface(16), impl="chunked")

    features, labels = torch.randn(12, 16), torch.arange(12) * 12
    one, other = head(), head()
    backward, sgd = angulus.BackwardSGD(one, 0.5, 0.9), torch.optim.SGD(other.parameters(), 0.5, 0.9)
    for _ in range(2):
        for model, optimizer in ((one, backward), (other, sgd)):
            optimizer.zero_grad()
            model(features, labels).backward()
            optimizer.step()
    torch.testing.assert_close(one.weight, other.weight)
    one(features, labels).backward()
    loss, before = one(features, labels), one.weight.detach().clone()
    with pytest.raises(InputError, match="second one before step"):
        loss.backward()
    assert torch.equal(one.weight, before)


def test_a_fork_gets_threads_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    real: Callable[[int], object] = threads._pool.__wrapped__
    monkeypatch.setattr(threads, "_pool", lambda process: (made.append(process), real(process))[1])
    for process in (1, 2):
        monkeypatch.setattr(threads.os, "getpid", lambda process=process: process)
        threads.walk(lambda numbers: [*numbers].clear(), range(4), CPU)
    assert set(made) == {1, 2}
