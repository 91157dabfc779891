"""Laws that hold for any data: finite losses, reductions that agree, permutations, and lengths that do not count."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from angulus import class_loss
from angulus.losses.weighting import HardMining
from losses.aliases import CASES
from losses.oracles import Case, image_counts

pytestmark = pytest.mark.filterwarnings("ignore:contraction bounds assume:UserWarning")

every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
few = settings(max_examples=6, deadline=None, derandomize=True, database=None)
UNIT = {name: case for name, case in CASES.items() if case.objective.weights == "unit" and case.objective.eps == 0}
SCALED_RADII = {"fixed", "learned", "coco", "adacos"}


def reads_norms(case: Case) -> bool:
    objective = case.objective
    names = {term.penalty.name for term in objective.penalties}
    return (
        objective.eps > 0
        or (objective.radius is not None and objective.radius.kind not in SCALED_RADII)
        or bool({"feature_incay", "ring_loss", "magnitude"} & names)
        or (objective.margin is not None and objective.margin.reads_norms)
        or (objective.center_loss is not None and not objective.center_loss.normalize)
    )


DIRECTIONAL = {name: case for name, case in CASES.items() if not reads_norms(case)}


@dataclass(frozen=True)
class Draw:
    """A random problem: sizes, the decimal logarithm of the features' scale, and a seed for the rest."""

    rows: int
    more_classes: int
    size: int
    magnitude: float
    seed: int


draws = st.builds(
    Draw,
    rows=st.integers(1, 7),
    more_classes=st.integers(0, 5),
    size=st.integers(1, 6),
    magnitude=st.floats(-3, 3),
    seed=st.integers(0, 10**6),
)


class Problem:
    """What a draw stands for, in float64, under one case's objective."""

    def __init__(self, case: Case, draw: Draw) -> None:
        self.generator = torch.Generator().manual_seed(draw.seed)
        classes = case.least + draw.more_classes
        self.features = 10**draw.magnitude * self.normal(draw.rows, draw.size)
        self.weight = self.normal(*case.objective.weight_shape(classes, draw.size))
        self.labels = torch.randint(classes, (draw.rows,), generator=self.generator)
        self.bias = self.normal(classes) if case.objective.bias else None
        self.bound = case.bind(classes, draw.size)
        if self.bound.center_loss is not None:
            self.bound.center_loss.centers.copy_(self.normal(classes, draw.size))

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def permutation(self, n: int) -> Tensor:
        return torch.randperm(n, generator=self.generator)

    def loss(self, reduction: str = "none") -> Tensor:
        return class_loss(self.features, self.weight, self.labels, self.bound, bias=self.bias, reduction=reduction)


@every_case
def test_losses_are_finite_and_reductions_agree(case: Case) -> None:
    @few
    @given(draws)
    def law(draw: Draw) -> None:
        problem = Problem(case, draw)
        rows = problem.loss()
        assert rows.shape == (draw.rows,) and bool(torch.isfinite(rows).all())
        torch.testing.assert_close(problem.loss("sum"), rows.sum(), rtol=1e-12, atol=1e-12)
        if case.divisor(draw.rows) == draw.rows:
            torch.testing.assert_close(problem.loss("mean"), rows.mean(), rtol=1e-12, atol=1e-12)
        if case.objective.radius is not None and not case.objective.penalties and case.objective.center_loss is None:
            assert float(rows.detach().min()) >= 0

    law()


@every_case
def test_permuted_samples_permute_their_losses(case: Case) -> None:
    @few
    @given(draws)
    def law(draw: Draw) -> None:
        # in one dimension every cosine is 1 or -1: losses tie, and hard mining keeps the first of equals
        assume(draw.size > 1 or not isinstance(case.objective.weighting, HardMining))
        problem = Problem(case, draw)
        before, mean, order = problem.loss(), problem.loss("mean"), problem.permutation(draw.rows)
        problem.features, problem.labels = problem.features[order], problem.labels[order]
        torch.testing.assert_close(problem.loss(), before[order], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(problem.loss("mean"), mean, rtol=1e-9, atol=1e-9)

    law()


@every_case
def test_permuted_classes_change_nothing(case: Case) -> None:
    @few
    @given(draws)
    def law(draw: Draw) -> None:
        problem = Problem(case, draw)
        before, order = problem.loss(), problem.permutation(len(problem.weight))
        problem.weight, problem.labels = problem.weight[order], torch.argsort(order)[problem.labels]
        if problem.bias is not None:
            problem.bias = problem.bias[order]
        if problem.bound.center_loss is not None:
            problem.bound.center_loss.centers.copy_(problem.bound.center_loss.centers[order])
        if case.objective.needs_counts:
            counts = image_counts(len(order))
            spec = case.objective.with_counts([counts[j] for j in order.tolist()])
            problem.bound = spec.bind(draw.size, len(order)).double()
        torch.testing.assert_close(problem.loss(), before, rtol=1e-9, atol=1e-9)

    law()


@pytest.mark.parametrize("case", UNIT.values(), ids=UNIT.keys())
def test_lengths_of_unit_weights_do_not_count(case: Case) -> None:
    @few
    @given(draws)
    def law(draw: Draw) -> None:
        problem = Problem(case, draw)
        before = problem.loss()
        problem.weight = problem.weight * 10 ** (2 * problem.normal(*problem.weight.shape[:-1], 1)).clamp(-6, 6)
        torch.testing.assert_close(problem.loss(), before, rtol=1e-9, atol=1e-9)

    law()


@pytest.mark.parametrize("case", DIRECTIONAL.values(), ids=DIRECTIONAL.keys())
def test_lengths_of_normalised_features_do_not_count(case: Case) -> None:
    @few
    @given(draws)
    def law(draw: Draw) -> None:
        problem = Problem(case, draw)
        before = problem.loss()
        problem.features = problem.features * 10 ** (2 * problem.normal(draw.rows, 1)).clamp(-6, 6)
        torch.testing.assert_close(problem.loss(), before, rtol=1e-9, atol=1e-9)

    law()


def test_the_other_lengths_do_count() -> None:
    """The sets above leave out only what depends on lengths."""
    draw = Draw(5, 3, 3, 0.0, 0)
    for left_out, name in ((UNIT, "weight"), (DIRECTIONAL, "features")):
        for case in (case for case in CASES.values() if case.name not in left_out):
            problem = Problem(case, draw)
            before = problem.loss()
            rows = getattr(problem, name)
            factors = torch.linspace(0.5, 2, rows.shape[:-1].numel(), dtype=rows.dtype).view(*rows.shape[:-1], 1)
            setattr(problem, name, factors * rows)
            assert not torch.allclose(problem.loss(), before, rtol=1e-6), f"{name} of {case.name}"
