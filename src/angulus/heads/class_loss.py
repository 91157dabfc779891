"""class_loss: the loss of features, class weights and labels under an objective, as a pure function."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from contextlib import nullcontext

import torch
from torch import Tensor

from angulus.core import checks
from angulus.distributed.collectives import gather
from angulus.distributed.runtime import Ranks
from angulus.heads.geometry import Geometry, geometry, normalize
from angulus.heads.rows import Finished, ask, finish, radius_of, request
from angulus.heads.sampling import ClassSampling, Sample, sample
from angulus.heads.train_mode import may_overflow, overflowed, partners, refuse_recomputation, seen
from angulus.heads.updates import Update
from angulus.kernels.dispatch import Kernel
from angulus.kernels.reference import lengths
from angulus.losses.bound import BoundObjective
from angulus.losses.objective import Objective
from angulus.losses.running import whole_batch

REDUCTIONS = ("mean", "sum", "none")


def class_loss(
    features: Tensor,
    weight: Tensor,
    labels: Tensor,
    objective: Objective | BoundObjective,
    *,
    bias: Tensor | None = None,
    impl: str = "auto",
    products: torch.dtype | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The loss of a batch under an objective.

    loss_i = weighting_i · −log(e^{t_i} / (e^{t_i} + Σ_{j≠y} e^{z_ij})) + penalties_i; see `Objective`.

    Args:
        features: [B, d], floating point, finite. float16 and bfloat16 are computed in float32.
        weight: class weights [C, d].
        labels: integers [B] in [0, C); rows with −100 are dropped first.
        objective: a spec that keeps no state, or a bound objective, whose figures move while it is in training mode.
        bias: [C], where the objective has one.
        impl: the kernel: "reference", plain autograd of any order; "chunked" and "fused" (Triton), which hold no B × C
            matrix and have first derivatives; or "auto", which takes one of those where B × C is large.
        products: torch.bfloat16 rounds the operands of the products with the class weights, for speed; None keeps the
            dtype of features and weight, float32 at least. Angles, margins and sums never go below float32.
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
    checks.matrices(features, weight)
    bound, ranks = resolve(objective, weight), Ranks()
    if bound.moves and bound.spec.stateful:
        ranks = partners(
            weight,
            "put weight and bound objective into a module that DistributedDataParallel wraps, or use angulus.DenseHead",
        )
    return batch_loss(
        features,
        weight,
        labels,
        bound,
        bias=bias,
        kernel=Kernel(impl, products),
        ranks=ranks,
        reduction=reduction,
    )


def batch_loss(
    features: Tensor,
    weight: Tensor,
    labels: Tensor,
    bound: BoundObjective,
    *,
    bias: Tensor | None,
    kernel: Kernel,
    ranks: Ranks,
    sampling: ClassSampling | None = None,
    update: Update | None = None,
    reduction: str = "mean",
) -> Tensor:
    """What `class_loss` and `DenseHead` share: the loss of this process's rows; figures move by those of all ranks."""
    checks.choice("reduction", reduction, REDUCTIONS)
    refuse_recomputation(bound)
    lenient = may_overflow(features)
    features, labels, kept = counted(features, weight, labels, bias)
    if bound.spec.bias != (bias is not None):
        wanted = "needs bias [num_classes]" if bound.spec.bias else "has no bias"
        raise checks.InputError(f"this objective {wanted}; got bias = {None if bias is None else list(bias.shape)}")
    if ranks.count > 1 and bound.spec.mines_globally:
        raise checks.InputError(
            "hard mining with scope='global' ranks the rows of all processes, which DenseHead does not see; use "
            "angulus.ShardedHead, or scope='rank'"
        )
    joint = ranks if bound.moves and bound.spec.stateful else Ranks()
    with torch.autocast(features.device.type, enabled=False):
        wide = widened(features, weight)
        sizes, mean_norm, sound = _of_all(wide, joint, lenient, bound.accumulating)
        if not sound:
            learned = [weight, *([] if bias is None else [bias]), *bound.parameters()]
            return overflowed(features, kept, reduction, learned)
        with nullcontext() if mean_norm is None else whole_batch(mean_norm):
            finished, target = _rows_loss(wide, sample(sampling, weight, bias, labels), labels, bound, kernel, update)
            rows = finished.loss + finished.extra
            if not bool(torch.isfinite(rows).all()):
                raise not_finite(rows, weight)
            if bound.moves:
                bound.take(seen(bound, target, wide, labels, joint, sizes))
    if reduction == "none":
        return rows if len(rows) == len(kept) else rows.new_zeros(len(kept)).masked_scatter(kept, rows)
    return rows.sum() if reduction == "sum" else finished.loss.sum() / finished.divisor + finished.extra.mean()


@torch.no_grad()
def _of_all(features: Tensor, ranks: Ranks, lenient: bool, accumulating: bool) -> tuple[list[int], Tensor | None, bool]:
    """(how many rows each rank has, the mean norm of all where there are several ranks, whether all are finite)."""
    if ranks.count == 1:
        return [len(features)], None, not lenient or bool(torch.isfinite(features).all())
    finite = torch.isfinite(features).all()
    known = torch.tensor([len(features), accumulating], dtype=torch.float64, device=features.device)
    found = torch.stack([normalize(features)[0].double().sum(), finite.double()])
    table = gather(torch.cat([known, found])[None], [1] * ranks.count, ranks)
    counts, more, norms, sound = table.unbind(dim=1)
    if bool((more != more[0]).any()):
        raise checks.InputError(f"all ranks must give the same head.accumulate(); got {more.int().tolist()}, by rank")
    return [int(count) for count in counts], norms.sum() / counts.sum(), bool(sound.all())


def widened(features: Tensor, weight: Tensor) -> Tensor:
    """The features in the dtype of the loss: float32, or wider where they or the weight are.

    The gradient is rounded back to 16 bits once, here. Near a zero feature it grows as 1/‖x‖, beyond float16's range.
    """
    wide = features.to(torch.promote_types(torch.promote_types(features.dtype, weight.dtype), torch.float32))
    if features.dtype == torch.float16 and wide.requires_grad:
        wide.register_hook(_warn_of_overflow)  # type: ignore[no-untyped-call]
    return wide


def _warn_of_overflow(gradient: Tensor) -> None:
    overflow = (gradient.abs() > torch.finfo(torch.float16).max).any(dim=1)
    if bool(overflow.any()):
        row = int(overflow.nonzero()[0, 0])
        warnings.warn(
            f"the gradient of features row {row} exceeds float16's 65504 and becomes infinite, as it does near a zero "
            "feature; a torch.amp.GradScaler skips such a step, without one give the head features in float32",
            stacklevel=2,
        )


def plain_logits(unit: Tensor, weight: Tensor, spec: Objective) -> Tensor:
    """What the radius multiplies, without margin, [B, C]: cosines, or w_j·x̂ for raw weights."""
    weight = weight.to(unit.dtype)
    products = unit @ weight.T
    return products / lengths(weight, spec.eps) if spec.weights == "unit" else products


def not_finite(rows: Tensor, weight: Tensor) -> checks.InputError:
    """Why the loss of some row is not finite."""
    checks.finite(weight, "weight")  # looked at only now: it is large
    row = int((~torch.isfinite(rows)).nonzero()[0, 0])
    return checks.InputError(
        f"the loss is not finite at row {row}, though features and weight are: a logit or penalty leaves the range "
        f"of {rows.dtype}; scale features or weight down, or give them in float64"
    )


def counted(
    features: Tensor, weight: Tensor, labels: Tensor, bias: Tensor | None = None, *, num_classes: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The checked features and labels of the rows that are not ignored, and which those are, [B] of bool.

    `num_classes` is C where `weight` holds a part of the classes; then another rank may have the rows that count.
    """
    checks.batch(features, weight, labels, bias, finite_features=not may_overflow(features))
    labels = labels.long()  # before any comparison: −100 as uint8 is 156
    kept = labels != checks.IGNORE_INDEX
    if num_classes is None and not bool(kept.any()):
        raise checks.InputError(f"every label is {checks.IGNORE_INDEX} (ignored); a batch needs one row that counts")
    checks.label_range(labels, weight.shape[0] if num_classes is None else num_classes)
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
            "`bound = objective.bind(embedding_size, num_classes)`, and pass `bound`, or use angulus.DenseHead"
        )
    return _bind(objective, num_classes, embedding_size)


@functools.lru_cache(maxsize=64)
def _bind(objective: Objective, num_classes: int, embedding_size: int) -> BoundObjective:
    return objective.bind(embedding_size, num_classes).eval()  # shared by all callers, so it keeps nothing of any


def _rows_loss(
    features: Tensor, chosen: Sample, labels: Tensor, bound: BoundObjective, kernel: Kernel, update: Update | None
) -> tuple[Finished, Geometry]:
    """The loss of rows that are known to be sound, and their target's geometry."""
    eps, weight = bound.spec.eps, chosen.weight
    norms, unit = normalize(features, eps)
    radius = radius_of(bound, norms)
    with torch.no_grad():
        before = geometry(norms, unit, weight[chosen.labels], eps)
    asked = ask(bound, before, radius)
    wanted = dataclasses.replace(request(bound, radius, asked), update=update)
    reduced = kernel(unit, weight, chosen.biases, chosen.labels, wanted)
    target = geometry(norms, unit, reduced.rows, eps)
    own = None if chosen.bias is None else chosen.bias[chosen.labels]
    finished = finish(bound, target, radius, own, asked, reduced)
    if bound.center_loss is not None:
        finished = dataclasses.replace(finished, extra=finished.extra + bound.center_loss(features, labels))
    return finished, target
