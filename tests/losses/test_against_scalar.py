"""Every loss and its gradient against the scalar oracles, in float64 and float32."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from angulus import DenseHead
from angulus.losses import ALIASES
from losses.aliases import CASES, TABLE, am, arc
from losses.oracles import ANGLES, CLASSES, SIZE, Case, Point, batch, point
from scalar.geometry import angle, norm
from scalar.gradients import central_difference

POINT = point()
COEFFICIENTS = (0.7, -1.1, 0.4, 1.3, 0.9)  # of the samples in the sum whose gradient is compared
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def test_the_table_holds_every_alias_under_names_of_its_own() -> None:
    assert len(CASES) == len(TABLE)
    assert {name.split("-")[0] for name in CASES} == set(ALIASES)


def test_the_point_lies_away_from_every_kink() -> None:
    own = [angle(x, POINT.weight[y]) for x, y in zip(POINT.features, POINT.labels, strict=True)]
    assert own == pytest.approx(list(ANGLES))
    breaks = [k * math.pi / m for m in (2, 3, 4) for k in range(m + 1)] + [math.pi - 0.5]
    breaks += [(k * math.pi - 0.4) / 2.5 for k in (1, 2)] + [(k * math.pi - 0.3) / 2 for k in (1, 2)]
    assert min(abs(theta - at) for theta in own for at in breaks) > 0.02
    gaps, wins = [], []
    for x, y, theta in zip(POINT.features, POINT.labels, own, strict=True):
        others = [math.cos(angle(x, w)) for j, w in enumerate(POINT.weight) if j != y]
        thresholds = [math.cos(theta), arc(theta), am(theta), 1 - 1 / 2, 1 - 1.3 / 2]  # MV, C-contrastive
        thresholds += [math.cos(theta) - m / 2 for m in (0.6, 0.8)]  # C-triplet
        gaps += [abs(other - threshold) for other in others for threshold in thresholds]
        wins += [other > threshold for other in others for threshold in thresholds]
    assert min(gaps) > 0.1
    assert {True, False} == set(wins)
    bounds = (1.5, 2.0, 2.414 * 1.5, 2.414 * 1.62, 2.414 * 0.8)  # of feature incay
    assert min(abs(norm(x) - bound) for x in POINT.features for bound in bounds) > 0.05


def test_the_point_lies_away_from_ties_of_subcenters_and_of_their_thresholds() -> None:
    gaps = []
    for name in ("subcenter_arcface", "subcenter_cosface"):
        p = CASES[name].at(POINT)
        for x, y in zip(p.features, p.labels, strict=True):
            cosines = [sorted((math.cos(angle(x, w)) for w in rows), reverse=True) for rows in p.weight]
            gaps += [best - second for best, second, *_ in cosines]
            own = math.acos(cosines[y][0])
            gaps.append(abs(own - (math.pi - 0.5)))
            others = [best for j, (best, *_) in enumerate(cosines) if j != y]
            gaps += [abs(best - value) for best in others for value in (arc(own), cosines[y][0] - 0.4)]
    assert min(gaps) > 0.01


@every_case
def test_losses_in_float64(case: Case) -> None:
    expected = torch.tensor(case.losses(POINT)(POINT), dtype=torch.float64)
    bound, data = case.bind_at(POINT), batch(POINT, case)
    actual = data.loss(bound)
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(data.loss(bound, "sum"), expected.sum(), rtol=1e-9, atol=1e-12)
    mean = torch.tensor(case.mean(POINT), dtype=torch.float64)
    torch.testing.assert_close(data.loss(bound, "mean"), mean, rtol=1e-9, atol=1e-12)
    if not case.objective.stateful:
        assert torch.equal(data.loss(case.objective_for(CLASSES)), actual)


@every_case
def test_losses_in_float32(case: Case) -> None:
    expected = torch.tensor(case.losses(POINT)(POINT))
    actual = batch(POINT, case, torch.float32).loss(case.bind_at(POINT, torch.float32))
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual, expected, rtol=2e-4, atol=1e-6)


@every_case
def test_gradients(case: Case) -> None:
    names = ("features", "weight", *case.learns)
    expected = {name: torch.tensor(differences(case, name), dtype=torch.float64) for name in names}
    assert all(bool((gradient != 0).any()) for gradient in expected.values())
    for dtype, tolerance in ((torch.float64, 1e-8), (torch.float32, 2e-4)):
        for name, actual in gradients(case, dtype).items():
            largest = float(expected[name].abs().max())
            torch.testing.assert_close(
                actual.double(),
                expected[name],
                rtol=0,
                atol=tolerance * largest,
                msg=lambda text, at=name: f"{at}: {text}",
            )


def differences(case: Case, name: str) -> Any:
    """The oracle's gradient with respect to one field of the point."""
    losses = case.losses(POINT)

    def total(values: list[Any]) -> float:
        changed: Point = dataclasses.replace(case.at(POINT), **{name: values[0]})
        return math.fsum(a * loss for a, loss in zip(COEFFICIENTS, losses(changed), strict=True))

    return central_difference(total, [getattr(case.at(POINT), name)])[0]


def gradients(case: Case, dtype: torch.dtype) -> dict[str, Tensor]:
    """The package's gradient with respect to features, weight and what the case learns."""
    bound, data = case.bind_at(POINT, dtype), batch(POINT, case, dtype)
    leaves = {"features": data.features, "weight": data.weight}
    for name in case.learns:
        learned = {"bias": data.bias, "s": getattr(bound.radius, "s", None), "b": getattr(bound.classifier, "b", None)}
        leaves[name] = learned.get(name)
        if name == "R":
            leaves[name] = bound.get_submodule("ring_loss").R
    assert sum(1 for _ in bound.parameters()) == len({"s", "b", "R"} & set(case.learns))
    total = (torch.tensor(COEFFICIENTS, dtype=dtype) * data.loss(bound)).sum()
    return dict(zip(leaves, torch.autograd.grad(total, list(leaves.values())), strict=True))


@every_case
def test_a_head_gives_the_same_loss(case: Case) -> None:
    head = DenseHead(SIZE, CLASSES, case.objective_for(CLASSES)).double()
    bound = case.bind_at(POINT)
    head.objective.load_state_dict(bound.state_dict())
    head.eval()  # or the first of the three would move what the others read
    data = batch(POINT, case)
    with torch.no_grad():
        head.weight.copy_(data.weight)
        if data.bias is not None:
            head.bias.copy_(data.bias)
    for reduction in ("none", "mean", "sum"):
        assert torch.equal(head(data.features, data.labels, reduction), data.loss(bound, reduction))
