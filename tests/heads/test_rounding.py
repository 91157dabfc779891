"""Rounding of bfloat16 class weights: small updates arrive, draws repeat, and the default is as before."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from angulus import BackwardSGD, DenseHead, InputError, losses
from angulus.core.seeds import mixed
from angulus.heads.optimizers import _round_stochastically
from angulus.heads.saving import load_head, save_head

TINY = torch.linspace(-1.0, 1.0, 24).reshape(4, 6) * 2e-4  # below 2^-9 of a weight of 1


def attached(rounding: str = "stochastic", seed: int = 0, momentum: float = 0.0) -> tuple[DenseHead, BackwardSGD]:
    head = DenseHead(6, 4, losses.arcface(16), impl="chunked").bfloat16()
    with torch.no_grad():
        head.weight.fill_(1.0)
    return head, BackwardSGD(head, 1.0, momentum, rounding=rounding, seed=seed)


def after(updates: int, rounding: str, momentum: float = 0.0, seed: int = 0) -> Tensor:
    head, optimizer = attached(rounding, seed, momentum)
    for _ in range(updates):
        optimizer.update(slice(0, 4), TINY.clone())
        optimizer.step()
    return head.weight.detach().float()


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_two_thousand_tiny_updates_arrive(momentum: float) -> None:
    exact = 1.0 - 2000 * TINY / (1 - momentum)
    assert torch.equal(after(2000, "nearest"), torch.ones(4, 6))
    error = after(2000, "stochastic", momentum) - exact
    # a step of 2^-8 is taken or not: the variance of 2,000 is at most their sum times the step
    deviation = (2000 * TINY.abs() / (1 - momentum) * 2**-7).sqrt() + 2**-7
    assert bool((error.abs() <= 4 * deviation).all()) and abs(float(error.mean())) < 0.03


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_kahan_keeps_what_the_weights_cannot_hold(momentum: float) -> None:
    head, optimizer = attached("kahan", momentum=momentum)
    exact, velocity = torch.ones(4, 6, dtype=torch.float64), torch.zeros(4, 6, dtype=torch.bfloat16)
    for _ in range(2000):
        optimizer.update(slice(0, 4), TINY.clone())
        optimizer.step()
        velocity.mul_(momentum).add_(TINY)
        exact -= velocity.double() if momentum else TINY.double()
    compensation = optimizer.state[head.weight]["compensation"]
    assert compensation.dtype == torch.bfloat16 and compensation.shape == head.weight.shape
    assert bool((compensation.abs() <= 2**-8).all())
    lost = 2000 * 2**-17  # each update rounds a compensation below 2^-8, whose last place is 2^-16
    held = head.weight.detach().double() + compensation.double()
    assert float((held - exact).abs().max()) < lost
    assert float((head.weight.detach().double() - exact).abs().max()) < 2**-8 + lost


def test_loss_curves_follow_float32_where_the_nearest_lags() -> None:
    """How far the loss of one batch has fallen after 50, 100 and 150 small updates."""
    features, labels = torch.randn(32, 8, generator=torch.Generator().manual_seed(0)), torch.arange(32) % 20
    curves = {}
    for rounding in ("float32", "nearest", "stochastic", "kahan"):
        torch.manual_seed(0)
        head = DenseHead(8, 20, losses.normface(8), impl="chunked").bfloat16()
        if rounding == "float32":
            head.float()
        optimizer = BackwardSGD(head, 0.002, rounding="nearest" if rounding == "float32" else rounding)
        values = []
        for _ in range(151):
            loss = head(features, labels)
            loss.backward()
            optimizer.step()
            values.append(loss.detach())
        curves[rounding] = values[0] - torch.stack(values)[[50, 100, 150]]
    assert bool((curves["nearest"] < 0.7 * curves["float32"]).all())
    torch.testing.assert_close(curves["kahan"], curves["float32"], rtol=0.005, atol=0)
    torch.testing.assert_close(curves["stochastic"], curves["float32"], rtol=0.05, atol=0)


@pytest.mark.parametrize("way", ["save_head", "state_dict"])
def test_kahan_resumes_to_the_bit(tmp_path: Path, way: str) -> None:
    ends = []
    for stop in (None, 20):
        head, optimizer = attached("kahan", momentum=0.5)
        for step in range(50):
            if step == stop:
                other, its = attached("kahan", momentum=0.5)
                if way == "save_head":
                    save_head(head, tmp_path / "saved", optimizer)
                    load_head(other, tmp_path / "saved", its)
                else:
                    other.load_state_dict(head.state_dict())
                    its.load_state_dict(optimizer.state_dict())
                head, optimizer = other, its
            optimizer.update(slice(0, 4), TINY.clone())
            optimizer.step()
        ends.append(head.weight.float() + optimizer.state[head.weight]["compensation"].float())
    assert torch.equal(*ends)


def kahan_ends(change: Callable[[DenseHead, BackwardSGD], tuple[DenseHead, BackwardSGD]]) -> list[Tensor]:
    """Weights and compensation after 50 updates, without and with a change after 20."""
    ends = []
    for stop in (None, 20):
        head, optimizer = attached("kahan", momentum=0.5)
        for step in range(50):
            if step == stop:
                head, optimizer = change(head, optimizer)
            optimizer.update(slice(0, 4), TINY.clone())
            optimizer.step()
        ends.append(torch.stack([head.weight.detach(), optimizer.state[head.weight]["compensation"]]))
    return ends


@pytest.mark.parametrize(
    "move",
    [
        lambda head: head.to("cpu"),
        lambda head: head.to(torch.bfloat16),
        lambda head: head.float().bfloat16(),
        lambda head: head.double().to(torch.bfloat16),
        lambda head: head.share_memory(),
    ],
    ids=["device", "dtype", "float32 and back", "float64 and back", "shared memory"],
)
def test_kahan_survives_moves_of_the_head(move: Callable[[DenseHead], Any]) -> None:
    """None of them loses what bfloat16 weights hold, or what rounding has dropped."""
    assert torch.equal(*kahan_ends(lambda head, optimizer: (move(head), optimizer)))


def test_kahan_of_a_copied_head_goes_on_alone() -> None:
    originals = []

    def copied(head: DenseHead, optimizer: BackwardSGD) -> tuple[DenseHead, BackwardSGD]:
        before = copy.deepcopy((head.state_dict(), optimizer.state_dict()["state"]))
        originals.append((head, optimizer, before))
        other = copy.deepcopy(head)
        its = BackwardSGD(other, 1.0, 0.5, rounding="kahan")
        its.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        return other, its

    assert torch.equal(*kahan_ends(copied))
    ((head, optimizer, (weights, state)),) = originals
    assert torch.equal(head.weight, weights["weight"])
    assert all(torch.equal(value, state[0][name]) for name, value in optimizer.state[head.weight].items())


@pytest.mark.parametrize("duplicate", [copy.deepcopy, pickle.dumps])
def test_a_copy_of_the_optimiser_is_refused(duplicate: Callable[[BackwardSGD], Any]) -> None:
    """It would belong to no head, and its steps would change nothing."""
    _, optimizer = attached("kahan")
    with pytest.raises(InputError, match=r"cannot be copied or pickled; make one for the copied head"):
        duplicate(optimizer)


def test_rounding_is_exact_in_the_mean_and_exact_for_what_bfloat16_holds() -> None:
    values = torch.tensor([1 + 2**-10, -(1 + 2**-10), 3.0, -0.5, 0.0, float("inf")])
    drawn = torch.stack([_round_stochastically(values[None], seed)[0].float() for seed in range(2000)])
    assert torch.equal(drawn[:, 2:], values[2:].expand(2000, -1))
    up = (drawn[:, 0] > 1).float().mean()
    assert abs(float(up) - 2**-10 / 2**-7) < 0.03
    assert set(drawn[:, 1].tolist()) == {-1.0, -(1 + 2**-7)}


@pytest.mark.parametrize("bits", [0x7FFFFFFF, 0xFFFFFFFF - 2**32, 0x7F800001, 0x7FC00000])
def test_nan_stays_nan(bits: int) -> None:
    values = torch.full((1, 64), bits, dtype=torch.int32).view(torch.float32)
    assert bool(_round_stochastically(values, 0).isnan().all())


@pytest.mark.parametrize("rounding", ["stochastic", "kahan"])
def test_weights_that_have_become_float32_are_not_rounded(rounding: str) -> None:
    head, optimizer = attached(rounding)
    head.float()
    with pytest.raises(InputError, match=r"these have become torch\.float32; call detach\(\) and make a BackwardSGD"):
        optimizer.update(slice(0, 4), TINY.clone())
    assert bool((head.weight == 1).all())


def test_draws_are_the_same_in_every_version() -> None:
    """numpy promises the numbers of SeedSequence; these are of numpy 2."""
    assert mixed(0, 0, 0) == 7896617691693857887 and mixed(3, 50, 4096) == 5399032660791579046


def test_draws_depend_on_the_seed_and_a_resumed_run_repeats_them(tmp_path: Path) -> None:
    assert torch.equal(after(50, "stochastic"), after(50, "stochastic"))
    assert not torch.equal(after(50, "stochastic"), after(50, "stochastic", seed=1))
    head, optimizer = attached(momentum=0.5)
    for step in range(50):
        if step == 20:
            save_head(head, tmp_path / "saved", optimizer)
            head, optimizer = attached(momentum=0.5)
            load_head(head, tmp_path / "saved", optimizer)
        optimizer.update(slice(0, 4), TINY.clone())
        optimizer.step()
    assert torch.equal(head.weight.float(), after(50, "stochastic", 0.5))


def test_bad_input() -> None:
    head = DenseHead(6, 4, losses.arcface(16), impl="chunked")
    for rounding in ("stochastic", "kahan"):
        sentence = rf"rounding='{rounding}' is for bfloat16 weights, and these are torch\.float32; call head\.bfloat16"
        with pytest.raises(InputError, match=sentence):
            BackwardSGD(head, 0.1, rounding=rounding)
    with pytest.raises(InputError, match="rounding must be one of 'nearest', 'stochastic', 'kahan'; got 'up'"):
        BackwardSGD(head, 0.1, rounding="up")
    with pytest.raises(InputError, match="seed"):
        BackwardSGD(head, 0.1, seed=-1)
