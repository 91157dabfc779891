"""The loss of each row: its geometry, what it asks of the classes, and its loss from the answers; for every head."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from angulus.core import checks
from angulus.kernels.reduction import Reduced, Request, lengths
from angulus.losses.objective import BoundObjective, Objective
from angulus.losses.roles import ClassSums, Coefficients, Hinge, LogSumExp, Rows, Spread


@dataclass(frozen=True)
class Geometry:
    """Norms, unit features, and the target's cosine and angle: what costs O(B · d)."""

    norms: Tensor  # [B]
    unit: Tensor  # [B, d]
    dot: Tensor  # [B], x̂·w_y
    cos: Tensor  # [B]
    theta: Tensor  # [B], radians
    length: Tensor  # [B], ‖w_y‖
    labels: Tensor | None = None  # [B], among all C classes; only for pieces that read them


def geometry(norms: Tensor, unit: Tensor, rows: Tensor, eps: float, softness: float | None = None) -> Geometry:
    """The target's angle from x̂ and its class weights, without acos: θ = 2·atan2(‖x̂ − ŵ‖, ‖x̂ + ŵ‖).

    With sub-centres, rows [B, K, d], it is the angle to the nearest, or with `softness` as in `Request` of the weighted
    cosine.
    """
    rows = rows.to(unit.dtype)
    if rows.ndim == 3:
        if softness is not None:
            return _weighted_geometry(norms, unit, rows, eps, softness)
        rows = rows[torch.arange(len(rows), device=rows.device), nearest_subcenters(unit, rows, eps)]
    length = torch.linalg.vector_norm(rows, dim=1)
    divisor = lengths(rows, eps) if eps > 0 else torch.where(length > 0, length, torch.ones_like(length))
    direction = rows / divisor[:, None]
    apart = torch.linalg.vector_norm(unit - direction, dim=1)
    along = torch.linalg.vector_norm(unit + direction, dim=1)
    nowhere = (apart == 0) & (along == 0)  # zero feature and zero weight: a right angle, as for either alone
    one = torch.ones_like(apart)
    theta = 2 * torch.atan2(torch.where(nowhere, one, apart), torch.where(nowhere, one, along))
    dot = (unit * rows).sum(dim=1)
    return Geometry(norms, unit, dot, dot / divisor, theta, length)


@torch.no_grad()
def nearest_subcenters(unit: Tensor, rows: Tensor, eps: float) -> Tensor:
    """The place of the nearest of each row's own sub-centres [B, K, d], [B]; of equal ones the first."""
    return _cosines(unit, rows, eps).argmax(dim=1)


def _cosines(unit: Tensor, rows: Tensor, eps: float) -> Tensor:
    """Of each row with its own K sub-centres, [B, K]."""
    return (rows @ unit[:, :, None]).squeeze(2) / lengths(rows.flatten(0, 1), eps).view(rows.shape[:2])


def _weighted_geometry(norms: Tensor, unit: Tensor, rows: Tensor, eps: float, softness: float) -> Geometry:
    """Σ_k p_k cos θ_k and its angle: Σ_k p_k ‖x̂ ∓ ŵ_k‖² are 2 ∓ 2 cos θ, so nothing cancels near θ = 0 and π."""
    length = lengths(rows.flatten(0, 1), eps).view(rows.shape[:2])
    direction, cosines = rows / length[:, :, None], _cosines(unit, rows, eps)
    logs = torch.log_softmax(cosines / softness, dim=1)
    roots = torch.exp(logs / 2)[:, :, None]  # not √p, whose gradient is infinite at 0
    apart = torch.linalg.vector_norm((roots * (unit[:, None] - direction)).flatten(1), dim=1)
    along = torch.linalg.vector_norm((roots * (unit[:, None] + direction)).flatten(1), dim=1)
    nowhere = (apart == 0) & (along == 0)
    one = torch.ones_like(apart)
    theta = 2 * torch.atan2(torch.where(nowhere, one, apart), torch.where(nowhere, one, along))
    shares = torch.exp(logs)
    dot, cos = (shares * cosines * length).sum(dim=1), (shares * cosines).sum(dim=1)
    return Geometry(norms, unit, dot, cos, theta, (shares * length).sum(dim=1))


@dataclass(frozen=True)
class Asked:
    """What the rows ask of the classes under a bound objective."""

    asks: tuple[tuple[float, Any, Any], ...]  # (factor, penalty, what it asked), in the objective's order
    threshold: Tensor | None  # [B], the margined target, detached; None if nothing reads it
    plain_scales: tuple[Tensor, ...]  # [B] each; the last is focal's, if it reads the plain cosines
    hinge_offsets: tuple[Tensor, ...]  # [B] each, detached
    shift: Tensor | None = None  # [B], of the sigmoids' logits
    spreads: tuple[float, ...] = ()


def radius_of(bound: BoundObjective, norms: Tensor) -> Tensor | None:
    """The factor of the cosines, [B]; None without a cross-entropy.

    At a zero feature x̂ stands for x itself. So if the radius is k‖x‖, it is k there, and the logits k·w_j·x keep their
    gradient; their value is zero either way.
    """
    return apply_radius(bound.spec, bound.radius, norms)


def apply_radius(spec: Objective, radius: Any, norms: Tensor) -> Tensor | None:
    """`radius_of` by a bound radius alone, which stored classes have without the rest of the objective."""
    if radius is None:
        return None
    if _linear(spec):
        norms = torch.where(norms > 0, norms, torch.ones_like(norms))
    factors: Tensor = radius(norms)
    return factors


def _linear(spec: Objective) -> bool:
    """Whether logits without margin are linear in the feature."""
    mapped = spec.remaps and not spec.compares  # of every cosine, zero too
    return spec.radius is not None and spec.radius.linear and spec.eps == 0 and not mapped


def ask(bound: BoundObjective, norms: Tensor, before: Geometry | None, radius: Tensor | None) -> Asked:
    """The constants of the reduction; `before`, of detached class weights, only if the objective asks of the target."""
    spec, threshold = bound.spec, None
    unknown = norms.new_full(norms.shape, torch.nan)
    constant = Rows(norms, unknown, unknown, bound.scale)
    if before is not None:
        with torch.no_grad():
            threshold = margined(bound, before)
        constant = Rows(norms, before.cos, threshold, bound.scale)
        if _linear(spec):  # a zero feature has no angle: no negative is changed
            threshold = torch.where(norms > 0, threshold, torch.inf)
    asks = tuple((factor, penalty, penalty.ask(constant)) for factor, penalty in bound.terms)
    plain = [asked.scale for _, _, asked in asks if isinstance(asked, LogSumExp)]
    if spec.remaps and spec.plain_probability and radius is not None and not spec.classifier.softplus:
        plain.append(radius)
    offsets = tuple(asked.offset.detach() for _, _, asked in asks if isinstance(asked, Hinge))
    spreads = tuple(asked.eps for _, _, asked in asks if isinstance(asked, Spread))
    shift = None if radius is None or not spec.classifier.softplus else bound.classifier.shift(norms)
    return Asked(asks, threshold, tuple(plain), offsets, shift, spreads)


def request(bound: BoundObjective, radius: Tensor | None, asked: Asked) -> Request:
    """The reduction that the rows ask for."""
    spec = bound.spec
    threshold = asked.threshold if spec.compares else None
    if spec.remaps and spec.negatives.threshold is not None and radius is not None:
        threshold = torch.full_like(radius, spec.negatives.threshold)
    return Request(
        radius=radius,
        threshold=threshold,
        coefficients=ramped_coefficients(bound),
        below=spec.negatives.below,
        slope=spec.negatives.slope,
        power=spec.negatives.power,
        shift=asked.shift,
        class_sums=tuple((each.alpha, each.delta) for _, _, each in asked.asks if isinstance(each, ClassSums)),
        sums_logits=radius is not None and spec.classifier.sums_logits,
        unit_weight=spec.weights == "unit",
        eps=spec.eps,
        plain_scales=asked.plain_scales,
        hinge_offsets=asked.hinge_offsets,
        softness=spec.softness,
        spreads=asked.spreads,
    )


@dataclass(frozen=True)
class Finished:
    """The loss of each row in two parts: what weighting divides, and the penalties, which it does not."""

    loss: Tensor  # weighted cross-entropy, [B]
    divisor: int | float | Tensor  # of its mean
    extra: Tensor  # penalties, [B]


Weigh = Callable[..., tuple[Tensor, int | float | Tensor]]


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
        bias: of the row's own class, [B], or None.
        asked: what `ask` returned.
        reduced: the answers.
        weigh: replaces the objective's weighting if that must see the rows of other ranks.
    """
    weigh = weigh or bound.weighting
    if weigh is not None and bound.spec.weighting is not None and bound.spec.weighting.reads_labels:
        weigh = functools.partial(weigh, labels=target.labels)
    value = margined(bound, target)
    loss, divisor = torch.zeros_like(target.norms), target.norms.shape[0]  # type: Tensor, int | float | Tensor
    if radius is not None:
        # a zero feature has no angle that a margin could act on
        own = torch.where(target.norms > 0, value, target.cos) if _linear(bound.spec) else value
        loss, divisor = _cross_entropy(bound, weigh, target, own, radius, bias, asked.shift, reduced)
    rows = Rows(target.norms, target.cos, value, bound.scale)
    extra = torch.zeros_like(target.norms)
    plain, hinges, class_sums = iter(reduced.plain), iter(reduced.hinges), iter(reduced.class_sums)
    spreads = iter(reduced.spreads)
    for factor, penalty, asked_for in asked.asks:
        term = penalty(rows, _answer(asked_for, penalty, rows, plain, hinges, class_sums, spreads))
        extra = extra + factor * _per_row(term, extra, "a penalty")
    return Finished(loss, divisor, extra)


def margined(bound: BoundObjective, target: Geometry) -> Tensor:
    """What replaces the target's cosine, [B]."""
    if bound.margin is None:
        return target.cos
    reads_labels = bound.spec.margin is not None and bound.spec.margin.reads_labels
    labels = (target.labels,) if reads_labels else ()
    value = _per_row(bound.margin(target.theta, target.norms, *labels), target.cos, "the margin")
    share = None if bound.ramp is None else bound.ramp.margin_share()
    return value if share is None else torch.lerp(target.cos, value, share.to(value.dtype))


def ramped_coefficients(bound: BoundObjective) -> Coefficients:
    """(a2, a1, a0) of the negatives, as far as the ramp has brought them in."""
    if not bound.spec.remaps:
        return 0.0, 1.0, 0.0
    a2, a1, a0 = bound.negatives.coefficients
    share = None if bound.ramp is None else bound.ramp.negatives_share()
    if share is None:
        return a2, a1, a0
    return share * a2, 1 + share * (a1 - 1), share * a0


def _per_row(value: Any, like: Tensor, what: str) -> Tensor:
    """What a piece returned for the rows; anything but one number per row is refused, since it would broadcast."""
    if isinstance(value, Tensor) and value.is_floating_point() and value.shape == like.shape:
        return value
    got = f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else repr(value)
    raise checks.InputError(f"{what} must return one number per row, float {list(like.shape)}; it returned {got}")


def measures(bound: BoundObjective, target: Geometry, radius: Tensor | None = None) -> dict[str, Tensor]:
    """What training logs of each row, [B] each; `DenseHead.statistics` gives their means.

    `radius` is that of `radius_of`, if the step has computed it.
    """
    values = {"norm": target.norms, "target_cos": target.cos, "agent_distortion": 2 - 2 * target.cos}
    radius = radius_of(bound, target.norms) if radius is None else radius
    if radius is not None:
        values["radius"] = torch.where(target.norms > 0, radius, 0.0) if _linear(bound.spec) else radius
        if hasattr(bound.radius, "saturation"):
            values["radius_saturation"] = bound.radius.saturation(target.norms)
    past_pi = getattr(bound.spec.margin, "past_pi", None)
    if past_pi is not None:
        values["beyond_pi_minus_m"] = past_pi(target.theta).to(target.norms.dtype)
    return values


def _cross_entropy(
    bound: BoundObjective,
    weigh: Weigh | None,
    target: Geometry,
    value: Tensor,
    radius: Tensor,
    bias: Tensor | None,
    shift: Tensor | None,
    reduced: Reduced,
) -> tuple[Tensor, int | float | Tensor]:
    spec = bound.spec

    def logit(cosine: Tensor) -> Tensor:
        # ‖w_y‖ · cosine as x̂·w_y plus what the margin adds, so that a zero weight keeps its gradient
        own = cosine if spec.weights == "unit" else target.dot + target.length * (cosine - target.cos)
        scaled = radius * own if shift is None else radius * own + shift
        return scaled if bias is None else scaled + bias.to(scaled.dtype)

    assert reduced.log_sum is not None
    own, others = logit(value), reduced.log_sum
    loss = _per_row(bound.classifier(own, others, reduced.total), own, "the classifier")
    divisor: int | float | Tensor = loss.shape[0]
    if weigh is not None:
        # p of a sigmoid is the own classifier's; of a softmax it is the sigmoid of what the target is ahead of N
        ahead = own if spec.classifier.softplus else own - others
        log_p, log_not_p = F.logsigmoid(ahead), F.logsigmoid(-ahead)
        if spec.plain_probability:
            plain = logit(target.cos)
            if not spec.classifier.softplus:
                plain = plain - (reduced.plain[-1] if spec.remaps else others)
            log_not_p = F.logsigmoid(-plain)
        weight, divisor = weigh(loss, log_p, log_not_p)
        weight = _per_row(weight, loss, "the weighting")
        loss = weight * loss
    return spec.cross_entropy * loss, divisor


def _answer(ask: Any, penalty: Any, rows: Rows, plain: Any, hinges: Any, class_sums: Any, spreads: Any) -> Any:
    if isinstance(ask, ClassSums):
        own, others, classes = (number.expand_as(rows.norms) for number in next(class_sums))
        return own, others, classes.clamp(min=1)  # none has a row if every label is ignored
    if isinstance(ask, LogSumExp):
        return next(plain)
    if isinstance(ask, Hinge):
        hinge, active = next(hinges)
        offset = penalty.ask(rows).offset
        return hinge + active * (offset - offset.detach()), active
    if isinstance(ask, Spread):
        return next(spreads)
    return None
