"""Ramps: how much of a margin and of emphasised negatives applies, by the share of the training."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

import angulus
import tiny
from angulus import InputError, losses
from angulus.experiments import build
from angulus.losses import Ramp
from angulus.losses.serialize import from_mapping, to_mapping

MV = losses.mv_softmax(8.0, losses.margins.AdditiveAngle(0.4), 0.3)
SHARES = [0.0, 0.0, 0.0, 0.25, 0.5, 0.75, 1.0, 1.0]  # of the span 0.2 to 0.6 in ten steps


def head(objective: losses.Objective, **options: Any) -> angulus.DenseHead:
    torch.manual_seed(0)
    return angulus.DenseHead(4, 6, objective, **options).double()


def rows() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(5, 4, dtype=torch.float64, generator=generator), torch.tensor([0, 1, 2, 3, 0])


def by_hand(x: Tensor, w: Tensor, labels: Tensor, margin: float, negatives: float) -> float:
    """MV-ArcFace, adaptive, with shares of the margin and of the negatives, by scalar loops."""
    total = 0.0
    for row, label in zip(x.tolist(), labels.tolist(), strict=True):
        cosines = [
            sum(a * b for a, b in zip(row, other, strict=True)) / math.hypot(*row) / math.hypot(*other)
            for other in w.tolist()
        ]
        own = (1 - margin) * cosines[label] + margin * math.cos(math.acos(cosines[label]) + 0.4)
        raised = [
            (1 - negatives) * c + negatives * (1.3 * c + 0.3) if c > own else c
            for place, c in enumerate(cosines)
            if place != label
        ]
        total += math.log(sum(math.exp(8 * c) for c in [own, *raised])) - 8 * own
    return total / len(labels)


def test_the_shares_rise_within_the_span_and_the_loss_is_that_of_the_equation() -> None:
    ramped = head(MV.replace(ramp=Ramp(margin=(0.2, 0.6), negatives=(0.0, 0.4), steps=10)))
    x, labels = rows()
    for step, share in enumerate(SHARES):
        expected = by_hand(x, ramped.weight, labels, share, min(1.0, step / 4))
        assert ramped(x, labels).item() == pytest.approx(expected, abs=1e-12)


def test_before_and_after_the_span_the_loss_is_that_without_a_ramp() -> None:
    ramped, full = head(MV.replace(ramp=Ramp(margin=(0, 0.1), negatives=(0, 0.1), steps=10))), head(MV)
    plain = head(losses.normface(8.0, learn=False))
    x, labels = rows()
    assert ramped(x, labels) == plain(x, labels)
    assert ramped(x, labels) == full(x, labels)


def test_it_starts_from_its_start() -> None:
    ramped = head(MV.replace(ramp=Ramp(margin=(0.5, 1.0), start=0.4, steps=4)))
    x, labels = rows()
    for share in (0.4, 0.4, 0.4, 0.7, 1.0):
        assert float(ramped.objective.ramp.margin_share()) == pytest.approx(share, abs=1e-12)
        ramped(x, labels)


def test_auto_follows_the_running_target_cosine() -> None:
    ramped = head(MV.replace(ramp=Ramp(negatives="auto", steps=1)))
    assert ramped.objective.ramp.negatives_share() == 0.0
    _, labels = rows()
    near = ramped.weight.detach()[labels]
    ramped(near, labels)  # target cosine 1
    assert ramped.objective.ramp.negatives_share() == pytest.approx(1.0)
    ramped(-near, labels)  # and −1: the first two values count alike
    assert ramped.objective.ramp.negatives_share() == pytest.approx(0.0, abs=1e-12)
    ramped(-near, labels)
    assert ramped.objective.ramp.negatives_share() == 0.0


@pytest.mark.parametrize("impl", ["reference", "chunked"])
def test_kernels_agree_on_the_way(impl: str) -> None:
    ramp = Ramp(margin=(0, 1), negatives=(0, 1), steps=2)
    found = []
    for kernel in ("reference", impl):
        ramped = head(MV.replace(ramp=ramp), impl=kernel)
        x, labels = rows()
        ramped(x, labels)  # half-way
        found.append(torch.autograd.grad(ramped(x.requires_grad_(), labels), [x, ramped.weight]))
    for expected, got in zip(*found, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_only_training_steps_count_and_a_copy_goes_on_from_there() -> None:
    ramped = head(MV.replace(ramp=Ramp(margin=(0, 1), negatives="auto", steps=8)))
    x, labels = rows()
    with ramped.accumulate():
        ramped(x, labels)
    ramped(x, labels)
    with torch.no_grad():
        ramped(x, labels)
    ramped.eval()(x, labels)
    ramped.train()
    assert float(ramped.objective.ramp.margin_share()) == 1 / 8
    loaded = head(MV.replace(ramp=Ramp(margin=(0, 1), negatives="auto", steps=8)))
    loaded.load_state_dict(ramped.state_dict())
    copies = [copy.deepcopy(ramped), pickle.loads(pickle.dumps(ramped)), loaded]
    assert len({each(x, labels).item() for each in [ramped, *copies]}) == 1


def test_plain_values_bring_it_back() -> None:
    for ramp in (Ramp(margin=(0.0, 0.3), steps=7), Ramp(negatives="auto"), Ramp(negatives=(0.1, 1.0), start=0.2)):
        objective = MV.replace(ramp=ramp)
        assert from_mapping(to_mapping(objective)) == objective
        assert "ramp: " in str(objective)
        assert "ramp: " in objective.formula()


def test_a_recipe_counts_the_steps() -> None:
    recipe = tiny.validated("objective={kind: cm_m_softmax, ramp: {margin: [0.3, 0.7]}}", "training.epochs=3")
    bound = build.job(recipe, tiny.splits()).head.objective
    per_epoch = -(-len(tiny.splits().train) // recipe.training.batch_size)
    assert bound.spec.ramp is not None
    assert bound.spec.ramp.steps == 3 * per_epoch


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({}, r"a ramp needs margin or negatives, a span such as \[0, 0.3\]"),
        ({"margin": (0.5, 0.2)}, r"ramp.margin must rise from the first share to the second; got \[0.5, 0.2\]"),
        ({"margin": (0, 1.5)}, r"ramp.margin must be a finite number in \[0, 1\]; got 1.5"),
        ({"negatives": (-0.1, 0.5)}, r"ramp.negatives must be a finite number in \[0, 1\]; got -0.1"),
        ({"margin": 0.3}, r"ramp.margin must be two shares of the training, such as \[0, 0.3\], or null; got 0.3"),
        ({"negatives": "slow"}, "ramp.negatives must be auto, two shares .*; got 'slow'"),
        ({"margin": (0, 0.3), "start": 1}, r"ramp.start must be .* in \[0, 1\)"),
        ({"margin": (0, 0.3), "steps": 0}, "ramp.steps must be a whole number >= 1"),
    ],
)
def test_bad_values_get_a_sentence(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Ramp(**values)


@pytest.mark.parametrize(
    ("objective", "ramp", "sentence"),
    [
        (losses.normface(), Ramp(margin=(0, 1)), "this objective has none; leave it out"),
        (losses.arcface(), Ramp(negatives=(0, 1)), "this objective adds nothing to them; leave it out"),
        (
            losses.sphereface(annealing=losses.margins.Annealing()),
            Ramp(margin=(0, 1)),
            "the margin has an annealing of its own",
        ),
        (losses.arcface(), 0.3, "ramp must be a losses.Ramp or None"),
    ],
)
def test_a_ramp_of_what_is_not_there_gets_a_sentence(objective: Any, ramp: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        objective.replace(ramp=ramp)


def test_it_needs_the_number_of_steps_and_must_be_bound() -> None:
    with pytest.raises(InputError, match=r"needs the number of optimiser steps of the training: Ramp\(\.\.\., steps="):
        losses.arcface().replace(ramp=Ramp(margin=(0, 1))).bind(4, 6)
    x, labels = rows()
    with pytest.raises(InputError, match="bind it once"):
        angulus.class_loss(x, x[:4], labels.clamp(max=3), losses.arcface().replace(ramp=Ramp(margin=(0, 1), steps=3)))
