"""class_loss: the loss of features, class weights and labels under an objective, as a pure function."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from angulus import checks
from angulus.kernels.reduction import Reduced, Request
from angulus.kernels.reference import lengths
from angulus.kernels.select import kernel
from angulus.losses.objective import BoundObjective, Objective
from angulus.losses.penalties import Hinge, Plain, Rows

REDUCTIONS = ("mean", "sum", "none")


def class_loss(
    features: Tensor,
    weight: Tensor,
    labels: Tensor,
    objective: Objective | BoundObjective,
    *,
    bias: Tensor | None = None,
    impl: str = "auto",
    reduction: str = "mean",
) -> Tensor:
    """The loss of a batch under an objective.

    loss_i = weighting_i · −log(e^{t_i} / (e^{t_i} + Σ_{j≠y} e^{z_ij})) + penalties_i; see `Objective`.

    Args:
        features: [B, d], floating point, finite. float16 and bfloat16 are computed in float32.
        weight: class weights [C, d].
        labels: integers [B] in [0, C); rows with −100 are dropped first.
        objective: a spec that keeps no state, or a bound objective. It is not changed.
        bias: [C], where the objective has one.
        impl: the kernel: "reference", plain autograd of any order; "chunked", which holds no B × C matrix and has first
            derivatives; or "auto", which takes chunked where B × C is large.
        reduction: "mean" over the rows (hard mining by its own divisor), "sum", or "none": [B], 0 for dropped rows.

    Returns:
        A scalar, or [B] with `reduction="none"`, in float32 or wider.

    Raises:
        checks.InputError: a shape, dtype, label or value that breaks a rule, an empty batch, or a spec that must be
            bound because it learns or keeps a figure.

    >>> import torch, angulus
    >>> x = w = torch.eye(3)
    >>> loss = angulus.class_loss(x, w, torch.arange(3), angulus.losses.arcface(s=4.0, m=0.5))
    >>> round(loss.item(), 4)
    0.0581
    """
    checks.choice("reduction", reduction, REDUCTIONS)
    total = len(features) if isinstance(features, Tensor) else 0
    features, labels, kept = counted(features, weight, labels, bias)
    bound = resolve(objective, weight)
    if bound.spec.bias != (bias is not None):
        wanted = "needs bias [num_classes]" if bound.spec.bias else "has no bias"
        raise checks.InputError(f"this objective {wanted}; got bias = {None if bias is None else list(bias.shape)}")
    with torch.autocast(features.device.type, enabled=False):
        loss, divisor, extra = _rows_loss(features, weight, labels, bound, bias, impl)
    rows = loss + extra
    if not bool(torch.isfinite(rows).all()):
        checks.finite(weight, "weight")  # looked at only now: it is large
        row = int((~torch.isfinite(rows)).nonzero()[0, 0])
        raise checks.InputError(
            f"the loss is not finite at row {row}, though features and weight are: a logit or penalty leaves the range "
            f"of {rows.dtype}; scale features or weight down, or give them in float64"
        )
    if reduction == "none":
        return rows if len(rows) == total else rows.new_zeros(total).masked_scatter(kept, rows)
    return rows.sum() if reduction == "sum" else loss.sum() / divisor + extra.mean()


def counted(
    features: Tensor, weight: Tensor, labels: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The checked features and labels of the rows that are not ignored, and which those are, [B] of bool."""
    checks.batch(features, weight, labels, bias)
    labels = labels.long()  # before any comparison: −100 as uint8 is 156
    kept = labels != checks.IGNORE_INDEX
    if not bool(kept.any()):
        raise checks.InputError(f"every label is {checks.IGNORE_INDEX} (ignored); a batch needs one row that counts")
    checks.label_range(labels, weight.shape[0])
    if not bool(kept.all()):
        features, labels = features[kept], labels[kept]
    return features, labels, kept


def resolve(objective: Objective | BoundObjective, weight: Tensor) -> BoundObjective:
    """The objective bound to the C and d of `weight`, or the reason why it cannot be used with it."""
    num_classes, embedding_size = weight.shape
    if isinstance(objective, BoundObjective):
        if (objective.num_classes, objective.embedding_size) != (num_classes, embedding_size):
            raise checks.InputError(
                f"the objective is bound to {objective.num_classes} classes of size {objective.embedding_size}; "
                f"weight has shape {list(weight.shape)}"
            )
        return objective
    if not isinstance(objective, Objective):
        raise checks.InputError(f"objective must be an angulus.losses.Objective, bound or not; got {objective!r}")
    if objective.stateful:
        raise checks.InputError(
            f"this objective learns or keeps figures ({objective}); bind it once, "
            "`bound = objective.bind(num_classes, embedding_size)`, and pass `bound`, or use angulus.DenseHead"
        )
    return _bind(objective, num_classes, embedding_size)


@functools.lru_cache(maxsize=64)
def _bind(objective: Objective, num_classes: int, embedding_size: int) -> BoundObjective:
    return objective.bind(num_classes, embedding_size)


@dataclass(frozen=True)
class Geometry:
    """What of a batch costs O(B · d): norms, unit features, and the target's cosine and angle."""

    norms: Tensor  # [B]
    unit: Tensor  # [B, d]
    dot: Tensor  # [B], x̂·w_y
    cos: Tensor  # [B]
    theta: Tensor  # [B], radians
    length: Tensor  # [B], ‖w_y‖


def normalize(features: Tensor, eps: float = 0.0) -> tuple[Tensor, Tensor]:
    """(norms ‖x‖ [B], x / sqrt(‖x‖² + eps) [B, d]) in float32 or wider; a zero feature stays zero."""
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    norms = torch.linalg.vector_norm(features, dim=1)
    limit = torch.finfo(features.dtype).max ** 0.5
    if bool(((norms > limit / 16) | (norms < 16 / limit)).any()):  # the squares over- or underflow
        largest = features.detach().abs().amax(dim=1)
        scale = torch.where(largest > 0, largest, torch.ones_like(largest))
        norms = scale * torch.linalg.vector_norm(features / scale[:, None], dim=1)
        if eps == 0:
            return norms, features / torch.where(norms > 0, norms, torch.ones_like(norms))[:, None]
    return norms, features / lengths(features, eps)[:, None]


def geometry(norms: Tensor, unit: Tensor, rows: Tensor, eps: float) -> Geometry:
    """The target's angle from x̂ and its class weights, without acos: θ = 2·atan2(‖x̂ − ŵ‖, ‖x̂ + ŵ‖)."""
    rows = rows.to(unit.dtype)
    divisor = lengths(rows, eps)
    direction = rows / divisor[:, None]
    apart = torch.linalg.vector_norm(unit - direction, dim=1)
    along = torch.linalg.vector_norm(unit + direction, dim=1)
    nowhere = (apart == 0) & (along == 0)  # a zero feature and a zero weight: at right angles, like either alone
    one = torch.ones_like(apart)
    theta = 2 * torch.atan2(torch.where(nowhere, one, apart), torch.where(nowhere, one, along))
    dot = (unit * rows).sum(dim=1)
    return Geometry(norms, unit, dot, dot / divisor, theta, torch.linalg.vector_norm(rows, dim=1))


def _rows_loss(
    features: Tensor, weight: Tensor, labels: Tensor, bound: BoundObjective, bias: Tensor | None, impl: str
) -> tuple[Tensor, int, Tensor]:
    """(weighted cross-entropy [B], its divisor, penalties [B])."""
    spec = bound.spec
    # cast once: what the norms, the angles and the centres send back is summed before it is rounded to 16 bits
    features = features.to(torch.promote_types(torch.promote_types(features.dtype, weight.dtype), torch.float32))
    norms, unit = normalize(features, spec.eps)
    radius = None if bound.radius is None else bound.radius(norms)
    # threshold and hinge offsets are constants of the reduction: taken from detached target weights beforehand
    with torch.no_grad():
        before = geometry(norms, unit, weight[labels], spec.eps)
        threshold = margined(bound, before)
    constant = Rows(norms, before.cos, threshold, bound.scale)
    asks = [(weight_, penalty, penalty.ask(constant)) for weight_, penalty in bound.terms]
    plain_focal = _needs_plain_focal(spec)
    request = Request(
        radius=radius,
        threshold=threshold if spec.remaps else None,
        coefficients=spec.negatives.coefficients,
        unit_weight=spec.weights == "unit",
        eps=spec.eps,
        plain_scales=tuple(ask.scale for _, _, ask in asks if isinstance(ask, Plain))
        + ((radius,) if plain_focal and radius is not None else ()),
        hinge_offsets=tuple(ask.offset.detach() for _, _, ask in asks if isinstance(ask, Hinge)),
    )
    reduced = kernel(impl, len(unit), len(weight))(unit, weight, bias, labels, request)
    target = geometry(norms, unit, reduced.rows, spec.eps)
    value = margined(bound, target)

    loss, divisor = torch.zeros_like(norms), norms.shape[0]
    if radius is not None:
        loss, divisor = _cross_entropy(spec, target, value, radius, None if bias is None else bias[labels], reduced)
    rows = Rows(norms, target.cos, value, bound.scale)
    extra = torch.zeros_like(norms)
    plain, hinges = iter(reduced.plain), iter(reduced.hinges)
    for factor, penalty, ask in asks:
        extra = extra + factor * penalty(rows, _answer(ask, penalty, rows, plain, hinges))
    if bound.center is not None:
        extra = extra + bound.center(features, labels)
    return loss, divisor, extra


def margined(bound: BoundObjective, target: Geometry) -> Tensor:
    """What stands for the target's cosine, [B]."""
    return target.cos if bound.margin is None else bound.margin(target.theta, target.norms)


def _needs_plain_focal(spec: Objective) -> bool:
    """Where every negative is kept, the loss's own reduction is the plain one already."""
    return spec.remaps and getattr(spec.weighting, "probability", "margin") == "plain"


def _cross_entropy(
    spec: Objective, target: Geometry, value: Tensor, radius: Tensor, bias: Tensor | None, reduced: Reduced
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
    if spec.weighting is not None:
        log_not_p = F.logsigmoid(-advantage)
        if getattr(spec.weighting, "probability", "margin") == "plain":
            log_sum = reduced.plain[-1] if spec.remaps else reduced.log_sum
            log_not_p = F.logsigmoid(log_sum - logit(target.cos))
        weight, divisor = spec.weighting(loss, log_p, log_not_p)
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
