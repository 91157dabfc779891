"""What impl="auto" takes, and what is said where a GPU has too little memory."""

from __future__ import annotations

import logging

import pytest
import torch

from angulus import class_loss, losses
from angulus.kernels import dispatch, fused, memory, tuned
from angulus.kernels.reduction import Request

CUDA = torch.device("cuda", 0)
MEASURED = tuned.Tuned(fastest=((1024, 1_000_000, "blocked"),))


@pytest.mark.parametrize(
    ("device", "table", "problem", "expected", "why"),
    [
        (torch.device("cpu"), {"a card": MEASURED}, None, "chunked", "B x C is above"),
        (CUDA, {}, None, "chunked", "no kernel was timed on this GPU yet"),
        (CUDA, {"a card": MEASURED}, None, "blocked", "the fastest on this GPU"),
        (CUDA, {"a card": MEASURED}, "impl='blocked' needs the package triton", "chunked", "needs the package triton"),
    ],
    ids=["cpu", "not measured", "measured", "no triton"],
)
def test_auto_takes_what_was_measured(
    monkeypatch: pytest.MonkeyPatch,
    device: torch.device,
    table: dict[str, tuned.Tuned],
    problem: str | None,
    expected: str,
    why: str,
) -> None:
    monkeypatch.setattr(tuned, "TABLE", table)
    monkeypatch.setattr(tuned, "_name", lambda index: "a card")
    monkeypatch.setattr(fused, "unavailable", lambda *of: problem)
    large, plain = torch.empty(1_000_000, 4, device="meta"), Request(torch.ones(1))
    assert dispatch.choose(device, 8, large[:8], plain)[0] == "reference"
    name, reason = dispatch.choose(device, 1024, large, plain)
    assert name == expected
    assert why in reason
    subcenters = large.view(-1, 4, 4)
    assert dispatch.choose(device, 1024, subcenters, plain)[0] == "chunked"
    assert dispatch.choose(device, 1024, large, Request(torch.ones(1), sums_logits=True))[0] == "chunked"


def test_a_choice_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    dispatch._log_choice.cache_clear()
    with caplog.at_level(logging.INFO, "angulus"):
        for _ in range(2):
            class_loss(torch.randn(2, 3), torch.randn(4, 3), torch.tensor([0, 1]), losses.arcface(16, 0.5))
    assert [record.message for record in caplog.records] == [
        "impl='auto' takes 'reference': B x C is within 16777216 elements"
    ]


@pytest.mark.parametrize("impl", ["reference", "chunked", "blocked"])
def test_out_of_memory_names_the_buffer_and_the_way_out(monkeypatch: pytest.MonkeyPatch, impl: str) -> None:
    def full(*inputs: object) -> None:
        raise torch.OutOfMemoryError("Tried to allocate 8.00 GiB.")

    monkeypatch.setitem(dispatch.TABLE, impl, full)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        class_loss(torch.randn(64, 8), torch.randn(1024, 8), torch.zeros(64).long(), losses.arcface(16, 0.5), impl=impl)
    said = str(caught.value)
    assert ("4 matrices of batch x classes, 64 x 1,024" in said) == (impl == "reference")
    assert ("impl='chunked' holds none" in said) == (impl == "reference")
    assert ("the gradient of the class weights, 1,024 x 8" in said) == (impl != "reference")
    assert said.endswith("PyTorch says: Tried to allocate 8.00 GiB.")


def test_the_sentence_gives_sizes() -> None:
    unit, weight = (torch.empty(rows, 512, device="meta") for rows in (4096, 10_000_000))
    assert "10,000,000 x 512: 19.07 GiB; angulus.BackwardSGD never holds it" in memory.describe(
        "fused", unit, weight, False
    )
    assert "the momentum of the class weights" in memory.describe("fused", unit, weight, True)
    assert ": 610.35 GiB; impl='chunked'" in memory.describe("reference", unit, weight, False)


@pytest.mark.parametrize("impl", ["fused", "blocked"])
def test_out_of_memory_in_backward_is_explained_too(monkeypatch: pytest.MonkeyPatch, impl: str) -> None:
    pytest.importorskip("triton")
    features, weight = torch.randn(3, 4).requires_grad_(), torch.randn(5, 4).requires_grad_()
    loss = class_loss(features, weight, torch.tensor([0, 1, 2]), losses.arcface(16, 0.5), impl=impl)

    def full(*inputs: object) -> None:
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(fused, "refuse_again", full)
    with pytest.raises(torch.OutOfMemoryError, match="the gradient of the class weights, 5 x 4"):
        loss.backward()
