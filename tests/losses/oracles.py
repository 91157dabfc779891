"""A case: an objective and its scalar oracle, the point they are compared at, and combinators.

An oracle takes the base point, at which whatever the
package detaches is evaluated once and held, and returns the per-sample losses as a function of a point: so central
differences of it see the gradient that the package should give.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from angulus import class_loss
from angulus.losses import BoundObjective, Objective, Statistics, running
from scalar import penalties
from scalar import softmax_family as family
from scalar.geometry import Matrix, Vector, angle, cosine, dot, norm, unit


@dataclass(frozen=True)
class Point:
    """All that a loss can depend on, as nested lists."""

    features: Matrix
    weight: Any  # a matrix, or with sub-centres one matrix per class
    labels: list[int]
    bias: Vector
    s: float
    R: float
    centers: Matrix
    b: float = -2.5


Losses = Callable[[Point], Vector]
Oracle = Callable[[Point], Losses]

ANGLES = (0.25, 0.85, 1.3, 1.85, 2.85)  # to the own class: below and above 90°, and beyond π − 0.5
NORMS = (0.6, 2.2, 1.4, 3.0, 0.9)
CLASSES, SIZE = 4, 3
SEEN_NORM, SEEN_STEP = 1.5, 7  # what the running figures are fed with
SEEN_NORMS, SEEN_ANGLES, SEEN_LOG_SUMS = (1.0, 2.0), (1.1, 0.7), (3.0, 4.0)  # and its rows


def point(seed: int = 16, angles: Sequence[float] = ANGLES) -> Point:
    """Samples at these angles to their class weights, with NORMS; with ANGLES, away from every kink in the table."""
    source = random.Random(seed)

    def gauss(rows: int, columns: int) -> Matrix:
        return [[source.gauss(0, 1) for _ in range(columns)] for _ in range(rows)]

    weight = gauss(CLASSES, SIZE)
    labels = [0, 1, 2, 3, 1]
    features = []
    for label, theta, length, noise in zip(labels, angles, NORMS, gauss(len(labels), SIZE), strict=True):
        along = unit(weight[label])
        across = unit([a - dot(noise, along) * b for a, b in zip(noise, along, strict=True)])
        features.append(
            [length * (math.cos(theta) * a + math.sin(theta) * b) for a, b in zip(along, across, strict=True)]
        )
    return Point(features, weight, labels, gauss(1, CLASSES)[0], 11.0, 1.75, gauss(CLASSES, SIZE))


@dataclass(frozen=True)
class Case:
    """An objective and its oracle: the cross-entropy's `oracle` and the penalties' `extra`, each or both.

    Args:
        learns: which of bias, s, b and R its loss depends on.
        divisor: what the mean of the cross-entropy divides by, of the batch size.
        held: a gradient is stopped somewhere, so that the loss's own differences are not its gradient.
        seen: feed SEEN_NORM and SEEN_STEP to the running figures first.
        least: the fewest classes it allows.
    """

    name: str
    objective: Objective
    oracle: Oracle | None = None
    extra: Oracle | None = None
    learns: tuple[str, ...] = ()
    divisor: Callable[[int], int] = field(default=lambda n: n)
    held: bool = False
    seen: bool = False
    least: int = 2

    def objective_for(self, num_classes: int) -> Objective:
        """The objective, with `image_counts` if it needs counts."""
        spec = self.objective
        return spec.with_counts(image_counts(num_classes)) if spec.needs_counts else spec

    def losses(self, base: Point) -> Losses:
        """Per-sample losses by the oracles."""
        parts = [oracle(self.at(base)) for oracle in (self.oracle, self.extra) if oracle is not None]
        return lambda p: [math.fsum(values) for values in zip(*(part(self.at(p)) for part in parts), strict=True)]

    def widen(self, weight: Tensor) -> Tensor:
        """Weights [C, d] as the objective has them: [C, K, d] if it has sub-centres."""
        return add_subcenters(weight, self.objective.rows_per_class)

    def at(self, p: Point) -> Point:
        """The point with sub-centres if the objective has them, and if it has none yet."""
        if self.objective.rows_per_class == 1 or isinstance(p.weight[0][0], list):
            return p
        return replace(p, weight=self.widen(torch.tensor(p.weight, dtype=torch.float64)).tolist())

    def mean(self, p: Point) -> float:
        """The batch loss by the oracles."""
        p = self.at(p)
        n = len(p.labels)
        own = 0.0 if self.oracle is None else math.fsum(self.oracle(p)(p)) / self.divisor(n)
        return own + (0.0 if self.extra is None else math.fsum(self.extra(p)(p)) / n)

    def bind(self, num_classes: int, size: int, dtype: torch.dtype = torch.float64) -> BoundObjective:
        """The bound objective, its running figures fed where the case says so."""
        bound = self.objective_for(num_classes).bind(size, num_classes).to(dtype)
        for _ in range(SEEN_STEP if self.seen else 0):
            bound.observe(seen(size))
        return bound.eval()  # a loss leaves it as it is

    def bind_at(self, p: Point, dtype: torch.dtype = torch.float64) -> BoundObjective:
        """The bound objective with the point's s, R, centres and memory."""
        bound = self.bind(len(p.weight), len(p.features[0]), dtype)
        with torch.no_grad():
            if "s" in self.learns:
                bound.radius.s.fill_(p.s)
            if "b" in self.learns:
                bound.classifier.b.fill_(p.b)
            if "R" in self.learns:
                bound.get_submodule("ring_loss").R.fill_(p.R)
            if bound.center_loss is not None:
                bound.center_loss.centers.copy_(torch.tensor(p.centers, dtype=dtype))
            if bound.cross_batch_memory is not None:
                rows, labels = torch.tensor(p.centers, dtype=dtype), torch.arange(len(p.centers))
                bound.cross_batch_memory.observe(Statistics({}, len(rows), rows, labels))
        return bound


def add_subcenters(weight: Tensor, count: int) -> Tensor:
    """[C, d] -> [C, count, d], other directions for the further rows; unchanged for a count of 1."""
    if count == 1:
        return weight
    rows = [weight.roll(k, 1) * (-0.7) ** k for k in range(count)]
    return torch.stack(rows, dim=1)


def seen(size: int) -> Statistics:
    """What one step saw, without samples: centres stay."""
    columns = [SEEN_NORMS, [math.cos(theta) for theta in SEEN_ANGLES], SEEN_ANGLES, SEEN_LOG_SUMS]
    rows = torch.tensor(columns, dtype=torch.float64)
    nothing = torch.zeros(0, size), torch.zeros(0, dtype=torch.long)
    return Statistics({"norm": torch.tensor(SEEN_NORM)}, 2, *nothing, running.Batch(*rows))


def image_counts(num_classes: int) -> list[int]:
    """The number of training images of each class, for the losses that read it."""
    return [(j + 1) ** 3 for j in range(num_classes)]


@dataclass(frozen=True)
class Batch:
    """What class_loss takes, as leaves."""

    features: Tensor
    weight: Tensor
    labels: Tensor
    bias: Tensor | None

    def loss(self, bound: BoundObjective | Objective, reduction: str = "none", **more: Any) -> Tensor:
        return class_loss(self.features, self.weight, self.labels, bound, bias=self.bias, reduction=reduction, **more)


def batch(p: Point, case: Case, dtype: torch.dtype = torch.float64) -> Batch:
    """The point as tensors that ask for gradients."""

    def leaf(values: Any) -> Tensor:
        return torch.tensor(values, dtype=dtype, requires_grad=True)

    bias = leaf(p.bias) if case.objective.bias else None
    return Batch(leaf(p.features), leaf(case.at(p).weight), torch.tensor(p.labels), bias)


def of(function: Callable[..., Vector], *arguments: Any, **named: Any) -> Oracle:
    """An oracle of features, weight, labels and constants."""
    return lambda base: lambda p: function(p.features, p.weight, p.labels, *arguments, **named)


def at(function: Losses) -> Oracle:
    """An oracle that holds nothing."""
    return lambda base: function


def plus(*oracles: Oracle) -> Oracle:
    """Sum, sample by sample."""

    def total(base: Point) -> Losses:
        parts = [oracle(base) for oracle in oracles]
        return lambda p: [math.fsum(values) for values in zip(*(part(p) for part in parts), strict=True)]

    return total


def times(factor: float, oracle: Oracle) -> Oracle:
    """Every loss times a factor."""

    def scaled(base: Point) -> Losses:
        values = oracle(base)
        return lambda p: [factor * value for value in values(p)]

    return scaled


def rowwise(function: Callable[[Point, int, Point], float]) -> Oracle:
    """An oracle of one sample at a time: function(p, i, base)."""
    return lambda base: lambda p: [function(p, i, base) for i in range(len(p.labels))]


def nearest(oracle: Oracle, eps: float = 0.0) -> Oracle:
    """The loss with the nearest sub-centre of each class as its only weight, sample by sample."""

    def one(p: Point, i: int, base: Point) -> float:
        x = p.features[i]
        rows = [max(centers, key=lambda w: cosine(x, w, eps)) for centers in p.weight]
        alone = replace(p, features=[x], labels=[p.labels[i]], weight=rows)
        return oracle(alone)(alone)[0]

    return rowwise(one)


def contracted(loss: Callable[[Matrix, Matrix, list[int], float], Vector]) -> Oracle:
    """A loss of one scale, with f(‖x‖), p = 0.9 and γ = 1, in the scale's place."""

    def one(p: Point, i: int, base: Point) -> float:
        scale = family.f_contraction(norm(p.features[i]), *family.bounds(len(p.weight)))
        return loss([p.features[i]], p.weight, [p.labels[i]], scale)[0]

    return rowwise(one)


def straight_through(s: float, margin: Callable[[float], float]) -> Oracle:
    """The margin's value with the gradient of cosθ: what it takes off the cosine is held."""

    def one(p: Point, i: int, base: Point) -> float:
        theta = angle(base.features[i], base.weight[base.labels[i]])
        taken = math.cos(theta) - margin(theta)
        return family.cosface([p.features[i]], p.weight, [p.labels[i]], s, taken)[0]

    return rowwise(one)


def focal(loss: Oracle, source: Oracle, gamma: float) -> Oracle:
    """(1 − p)^γ · loss, with p = e^{−source}."""

    def weighted(base: Point) -> Losses:
        values, sources = loss(base), source(base)
        return lambda p: [
            (-math.expm1(-own)) ** gamma * value for own, value in zip(sources(p), values(p), strict=True)
        ]

    return weighted


def mean_norm(p: Point) -> float:
    return math.fsum(norm(x) for x in p.features) / len(p.features)


def unstarted_ring(lam: float) -> Oracle:
    """R's value is the batch's mean norm, its gradient R's own."""
    return lambda base: lambda p: penalties.ring(p.features, p.weight, p.labels, lam, mean_norm(base) + p.R - base.R)


def center(lam: float, normalize: bool = False) -> Oracle:
    return at(lambda p: penalties.center_loss(p.features, p.labels, p.centers, lam, normalize))


def memory(size: int, margin: float, weight: float = 1.0) -> Oracle:
    """The point's centres, of classes 0, 1, ..., are what the memory holds before."""

    def held(base: Point) -> Losses:
        before = [(x, y) for y, x in enumerate(base.centers)]
        return lambda p: penalties.cross_batch_memory(p.features, p.labels, base.features, before, size, margin, weight)

    return held
