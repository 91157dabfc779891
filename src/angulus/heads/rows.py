"""From rows to a loss: what they ask of the classes, and how the answers are finished, for dense and sharded heads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from angulus.heads.geometry import Geometry
from angulus.kernels.reduction import Reduced, Request
from angulus.losses.asks import Hinge, Plain, Rows
from angulus.losses.bound import BoundObjective
from angulus.losses.objective import Objective


@dataclass(frozen=True)
class Asked:
    """What the rows ask of the classes under a bound objective."""

    asks: tuple[tuple[float, Any, Any], ...]  # (factor, penalty, what it asked), in the objective's order
    threshold: Tensor  # [B], the margined target, detached
    plain_scales: tuple[Tensor, ...]  # [B] each; the last is focal's, where it reads the plain cosines
    hinge_offsets: tuple[Tensor, ...]  # [B] each, detached


def radius_of(bound: BoundObjective, norms: Tensor) -> Tensor | None:
    """What multiplies the cosines, [B]; None without a cross-entropy.

    At a zero feature x̂ stands for x itself. So where the radius is k‖x‖ it is k there, and the logits k·w_j·x keep
    their gradient; their value is zero either way.
    """
    if bound.radius is None:
        return None
    radius: Tensor = bound.radius(norms)
    if not _linear(bound.spec):
        return radius
    return torch.where(norms > 0, radius, bound.radius(torch.ones_like(norms)))


def _linear(spec: Objective) -> bool:
    """Whether logits without margin are linear in the feature."""
    return spec.radius is not None and spec.radius.linear and spec.eps == 0


def ask(bound: BoundObjective, before: Geometry, radius: Tensor | None) -> Asked:
    """The constants of the reduction, from the geometry of detached class weights."""
    spec = bound.spec
    with torch.no_grad():
        threshold = margined(bound, before)
    constant = Rows(before.norms, before.cos, threshold, bound.scale)
    if _linear(spec):  # a zero feature has no angle: no negative is changed
        threshold = torch.where(before.norms > 0, threshold, torch.inf)
    asks = tuple((factor, penalty, penalty.ask(constant)) for factor, penalty in bound.terms)
    plain = [asked.scale for _, _, asked in asks if isinstance(asked, Plain)]
    if _needs_plain_focal(spec) and radius is not None:
        plain.append(radius)
    offsets = tuple(asked.offset.detach() for _, _, asked in asks if isinstance(asked, Hinge))
    return Asked(asks, threshold, tuple(plain), offsets)


def request(bound: BoundObjective, radius: Tensor | None, asked: Asked) -> Request:
    """The reduction that answers the rows."""
    spec = bound.spec
    return Request(
        radius=radius,
        threshold=asked.threshold if spec.remaps else None,
        coefficients=bound.negatives.coefficients,
        unit_weight=spec.weights == "unit",
        eps=spec.eps,
        plain_scales=asked.plain_scales,
        hinge_offsets=asked.hinge_offsets,
    )


@dataclass(frozen=True)
class Finished:
    """The loss of each row, apart in what weighting divides and what it does not."""

    loss: Tensor  # weighted cross-entropy, [B]
    divisor: int  # of its mean
    extra: Tensor  # penalties, [B]


Weigh = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, int]]


def finish(
    bound: BoundObjective,
    target: Geometry,
    radius: Tensor | None,
    bias: Tensor | None,
    asked: Asked,
    reduced: Reduced,
    weigh: Weigh | None = None,
) -> Finished:
    """The loss of each row from its target and the reductions.

    Args:
        bound: the objective.
        target: the geometry of the rows and their own classes.
        radius: [B], or None.
        bias: that of the row's own class, [B], or None.
        asked: what `ask` gave.
        reduced: the answers.
        weigh: stands in for the objective's weighting, where that must see the rows of other ranks.
    """
    weigh = weigh or bound.weighting
    value = margined(bound, target)
    loss, divisor = torch.zeros_like(target.norms), target.norms.shape[0]
    if radius is not None:
        # a zero feature has no angle for a margin to act on
        own = torch.where(target.norms > 0, value, target.cos) if _linear(bound.spec) else value
        loss, divisor = _cross_entropy(bound.spec, weigh, target, own, radius, bias, reduced)
    rows = Rows(target.norms, target.cos, value, bound.scale)
    extra = torch.zeros_like(target.norms)
    plain, hinges = iter(reduced.plain), iter(reduced.hinges)
    for factor, penalty, asked_for in asked.asks:
        extra = extra + factor * penalty(rows, _answer(asked_for, penalty, rows, plain, hinges))
    return Finished(loss, divisor, extra)


def margined(bound: BoundObjective, target: Geometry) -> Tensor:
    """What stands for the target's cosine, [B]."""
    return target.cos if bound.margin is None else bound.margin(target.theta, target.norms)


def measures(bound: BoundObjective, target: Geometry) -> dict[str, Tensor]:
    """What training watches of each row, [B] each: see `DenseHead.statistics`, which gives their means."""
    values = {"norm": target.norms, "target_cos": target.cos, "agent_distortion": 2 - 2 * target.cos}
    if bound.radius is not None:
        values["radius"] = bound.radius(target.norms)
        if hasattr(bound.radius, "saturation"):
            values["radius_saturation"] = bound.radius.saturation(target.norms)
    past_pi = getattr(bound.spec.margin, "past_pi", None)
    if past_pi is not None:
        values["beyond_pi_minus_m"] = past_pi(target.theta).to(target.norms.dtype)
    return values


def _needs_plain_focal(spec: Objective) -> bool:
    """Where every negative is kept, the loss's own reduction is the plain one already."""
    return spec.remaps and spec.plain_probability


def _cross_entropy(
    spec: Objective,
    weigh: Weigh | None,
    target: Geometry,
    value: Tensor,
    radius: Tensor,
    bias: Tensor | None,
    reduced: Reduced,
) -> tuple[Tensor, int]:
    def logit(cosine: Tensor) -> Tensor:
        # ‖w_y‖ · cosine is written as x̂·w_y and what a margin adds to it, so that a zero weight keeps its gradient
        own = cosine if spec.weights == "unit" else target.dot + target.length * (cosine - target.cos)
        scaled = radius * own
        return scaled if bias is None else scaled + bias.to(scaled.dtype)

    assert reduced.log_sum is not None
    advantage = logit(value) - reduced.log_sum
    log_p = F.logsigmoid(advantage)
    loss, divisor = -log_p, log_p.shape[0]
    if weigh is not None:
        log_not_p = F.logsigmoid(-advantage)
        if spec.plain_probability:
            log_sum = reduced.plain[-1] if spec.remaps else reduced.log_sum
            log_not_p = F.logsigmoid(log_sum - logit(target.cos))
        weight, divisor = weigh(loss, log_p, log_not_p)
        loss = weight * loss
    return spec.cross_entropy * loss, divisor


def _answer(ask: Any, penalty: Any, rows: Rows, plain: Any, hinges: Any) -> Any:
    if isinstance(ask, Plain):
        return next(plain)
    if isinstance(ask, Hinge):
        hinge, active = next(hinges)
        offset = penalty.ask(rows).offset
        return hinge + active * (offset - offset.detach()), active
    return None
