"""class_loss: the loss of features, class weights and labels under an objective, as a pure function."""

import dataclasses
import functools
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, ParamSpec, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from angulus.core import checks
from angulus.distributed.collectives import gather, total
from angulus.distributed.runtime import Ranks, ddp_ranks, keep_buffers
from angulus.heads import deferred, nested
from angulus.heads.row_loss import (
    Finished,
    Geometry,
    apply_radius,
    ask,
    finish,
    geometry,
    measures,
    radius_of,
    request,
)
from angulus.heads.sampling import ClassSampling, ClassSubset, sample
from angulus.kernels.dispatch import Kernel
from angulus.kernels.reduction import Request, combine, lengths
from angulus.losses.angles import normalize
from angulus.losses.objective import BoundObjective, Objective
from angulus.losses.running import Batch, Statistics, whole_batch

REDUCTIONS = ("mean", "sum", "none")
Update = Callable[[slice, Tensor], None]
P = ParamSpec("P")
R = TypeVar("R")

# By weight and not in the head: a copy of a head, or one with another weight, is an ordinary head.
UPDATES: Any = WeakTensorKeyDictionary()  # weights whose blocks of classes backward updates, and by which `Update`


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
        weight: class weights [C, d], or [C, K, d] for an objective with K sub-centres per class.
        labels: integers [B] in [0, C); rows with −100 are dropped first.
        objective: an objective without state, such as `losses.arcface()`, or one that was bound by
            `objective.bind(embedding_size, num_classes)` once; its figures are updated while it is in training mode.
        bias: [C], if the objective has one.
        impl: the kernel: "reference", plain autograd of any order; "chunked", "fused" or "blocked" (both Triton), which
            hold no B × C matrix and have first derivatives; or "auto", which picks "chunked" if B × C is large.
        products: torch.bfloat16 rounds the operands of the products with the class weights, for speed; None keeps the
            dtype of features and weight, at least float32. Angles, margins and sums never go below float32.
        reduction: "mean" over the rows (hard mining has its own divisor), "sum", or "none": [B], 0 for dropped rows.

    Returns:
        A scalar, or [B] with `reduction="none"`, in float32 or wider.

    Raises:
        checks.InputError: a wrong shape, dtype, label or value, an empty batch, or an objective that must be bound
            because it learns or keeps a figure. On CUDA, where a step does not wait for the GPU, a wrong label or value
            gives NaN, and a later call with the same weight raises; see `heads.deferred`.

    >>> import torch, angulus
    >>> x = w = torch.eye(3)
    >>> loss = angulus.class_loss(x, w, torch.arange(3), angulus.losses.arcface(s=4.0, m=0.5))
    >>> round(loss.item(), 4)
    0.0581
    """
    checks.matrices(features, weight, sub_centers=True)
    bound, ranks = resolve(objective, weight), Ranks()
    if bound.moves and bound.stateful:
        ranks = training_ranks(
            weight,
            bound,
            "put weight and bound objective into a module that DistributedDataParallel wraps, or use angulus.DenseHead",
        )
    with bound.accumulate(False):
        return batch_loss(
            features, weight, labels, bound, bias=bias, kernel=Kernel(impl, products), ranks=ranks, reduction=reduction
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
    """The loss of this process's rows, for `class_loss` and `DenseHead`; the rows of all ranks update the figures."""
    checks.choice("reduction", reduction, REDUCTIONS)
    refuse_recomputation(bound)
    lenient = may_overflow(features)
    checks.layout(features, weight, labels, bias)
    joint = ranks if bound.moves and bound.stateful else Ranks()
    later = deferred.defers(features, weight, bound)
    if not later:
        features, labels, kept = check_rows(features, weight, labels, bias)
    if bound.spec.bias != (bias is not None):
        wanted = "needs bias [num_classes]" if bound.spec.bias else "has no bias"
        raise checks.InputError(f"this objective {wanted}; got bias = {None if bias is None else list(bias.shape)}")
    if ranks.count > 1 and bound.spec.mines_globally:
        raise checks.InputError(
            "hard mining with scope='global' ranks the rows of all processes, which DenseHead does not see; use "
            "angulus.ShardedHead, or scope='rank'"
        )
    if ranks.count > 1 and bound.spec.reduces_batch:
        raise checks.InputError(
            "proxy_anchor reduces over the rows of all processes for each class, which DenseHead does not see; use "
            "angulus.ShardedHead"
        )
    if later:
        return _deferred_loss(
            features, weight, labels, bound, bias, kernel, joint, sampling, update, reduction, lenient
        )
    with torch.autocast(features.device.type, enabled=False):
        wide = widen(features, weight)
        norms, unit = normalize(wide, bound.spec.eps)
        sizes, mean_norm, sound = _gather_facts(wide, norms, joint, lenient, bound.accumulating)
        if not sound:
            learned = [weight, *([] if bias is None else [bias]), *bound.parameters()]
            return nan_loss(features, kept, reduction, learned)
        subset = ClassSubset(weight, bias, labels, bias) if sampling is None else sample(sampling, weight, bias, labels)
        losses, taken = [], []
        for part in nested.split(bound, wide, subset, update):
            if part.bound is not bound:
                norms, unit = normalize(part.features, bound.spec.eps)
                sizes, mean_norm, _ = _gather_facts(part.features, norms, joint, lenient, bound.accumulating)
            one, seen = _part_loss(part, norms, unit, labels, kernel, joint, sizes, mean_norm)
            losses.append(one)
            taken.append((part.bound, seen))
        rows = nested.add([one.loss + one.extra for one in losses])
        if not bool(torch.isfinite(rows).all()):
            raise not_finite(rows, weight)
        for part_bound, seen in taken:
            if seen is not None:
                part_bound.take(seen)
    if reduction == "none":
        return rows if len(rows) == len(kept) else rows.new_zeros(len(kept)).masked_scatter(kept, rows)
    if reduction == "sum":
        return rows.sum()
    return nested.add([one.loss.sum() / one.divisor + one.extra.mean() for one in losses])


def _part_loss(
    part: nested.Part,
    norms: Tensor,
    unit: Tensor,
    labels: Tensor,
    kernel: Kernel,
    ranks: Ranks,
    sizes: list[int],
    mean_norm: Tensor | None,
) -> tuple[Finished, Statistics | None]:
    """The loss of checked rows under one bound objective, and what updates its figures, if they move."""
    bound, subset = part.bound, part.subset
    with nullcontext() if mean_norm is None else whole_batch(mean_norm):
        batch = _prepare(norms, unit, subset, bound, kernel, ranks, sizes) if bound.prepares else None
        with bound.prepared(batch):
            finished, target, radius = _rows_loss(norms, unit, subset, labels, bound, kernel, part.update)
        more = feature_terms(bound, part.features, labels, ranks, sizes)
        finished = dataclasses.replace(finished, extra=finished.extra + more)
        if not bound.moves:
            return finished, None
        seen = summarize(bound, target, part.features, labels, ranks, sizes, radius)
        return finished, dataclasses.replace(seen, batch=batch)


def _deferred_loss(
    features: Tensor,
    weight: Tensor,
    labels: Tensor,
    bound: BoundObjective,
    bias: Tensor | None,
    kernel: Kernel,
    ranks: Ranks,
    sampling: ClassSampling | None,
    update: Update | None,
    reduction: str,
    lenient: bool,
) -> Tensor:
    """The loss of a batch on a GPU, without waiting for it; see `deferred`."""
    refusal: Exception | None = None
    try:
        deferred.raise_arrived(weight)
    except Exception as error:  # of any kind, as a warning that is an error: the other ranks wait for this rank
        refusal = error
    table = deferred.agree(weight, [len(features), int(bound.accumulating), int(lenient)], ranks, refusal)
    _same_accumulate([more for _, more, _ in table])
    sizes = [size for size, *_ in table]
    batch = deferred.examine(features, weight, labels, bias, lenient)
    kept, count = batch.kept, batch.kept_rows
    rows_of_all = total(count, ranks)
    with torch.autocast(features.device.type, enabled=False):
        wide = widen(batch.features, weight, functools.partial(deferred.remember_gradient, weight))
        subset = ClassSubset(weight, bias, batch.labels, bias)
        if sampling is not None:
            subset = sample(sampling, weight, bias, torch.where(kept, batch.labels, -1))
        losses, taken = [], []
        for part in nested.split(bound, wide, subset, update):
            norms, unit = normalize(part.features, bound.spec.eps)
            mean_norm = total(torch.where(kept, norms, 0.0).sum(), ranks) / rows_of_all
            with whole_batch(mean_norm):
                before = None
                if part.bound.prepares:
                    before = _prepare(norms, unit, part.subset, part.bound, kernel, ranks, sizes)
                    before = dataclasses.replace(before, kept=gather(kept, sizes, ranks))
                with part.bound.prepared(before):
                    finished, target, radius = _rows_loss(
                        norms, unit, part.subset, batch.labels, part.bound, kernel, part.update, kept
                    )
                if bound.moves:
                    seen = summarize(
                        part.bound, target, part.features, batch.labels, ranks, sizes, radius, kept, rows_of_all
                    )
                    taken.append((part.bound, dataclasses.replace(seen, batch=before)))
            more = feature_terms(part.bound, part.features, batch.labels, ranks, sizes, kept)
            extra = finished.extra + more
            loss, extra = torch.where(kept, finished.loss, 0.0), torch.where(kept, extra, 0.0)
            # the divisor of a weighting that masks is of the rows that count; any other is of all rows
            masks = getattr(part.bound.spec.weighting, "masks", False)
            losses.append(Finished(loss, finished.divisor if masks else count * (finished.divisor / len(kept)), extra))
        rows = nested.add([one.loss + one.extra for one in losses])
        good, sound = deferred.remember(weight, batch, rows, ranks, len(weight))
        for part_bound, seen in taken:
            part_bound.take(dataclasses.replace(seen, good=good & sound))
    if reduction == "mean":
        value = nested.add([one.loss.sum() / one.divisor + one.extra.sum() / count for one in losses])
    else:
        value = rows.sum() if reduction == "sum" else rows
    return nan_unless_good(value, features, good, sound, any(scaled for *_, scaled in table))


def nan_unless_good(value: Tensor, features: Tensor, good: Tensor, sound: Tensor, lenient: bool) -> Tensor:
    """The value, or NaN without gradients if the step is not good.

    Features that are not sound give NaN gradients of features and head if `lenient`, so that the gradient scaler of
    each optimiser skips the step.
    """
    value = torch.where(good, value, torch.nan)
    if lenient:
        bad = torch.where(sound, 0.0, torch.nan)
        value = value * (1 + bad) + bad * features.float().sum()
    return value


def _rows_loss(
    norms: Tensor,
    unit: Tensor,
    subset: ClassSubset,
    global_labels: Tensor,
    bound: BoundObjective,
    kernel: Kernel,
    update: Update | None,
    kept: Tensor | None = None,
) -> tuple[Finished, Geometry, Tensor | None]:
    """The loss of checked rows, the geometry of their targets, and their radius; `global_labels` count all C.

    `kept` [B] names the rows that count, for what reads the batch; None: all do.
    """
    weight, labels = subset.weight, subset.labels
    radius = radius_of(bound, norms)
    before = None
    if bound.spec.asks_of_target:  # else the geometry is computed once, below
        with torch.no_grad():
            before = dataclasses.replace(_target(bound, norms, unit, weight[labels]), labels=global_labels)
    asked = ask(bound, norms, before, radius)
    wanted = dataclasses.replace(request(bound, radius, asked), update=update, kept=kept)
    reduced = kernel(unit, weight, subset.biases, labels, wanted)
    # of the kernel's own rows: their gradient goes into the kernel's, and no second [C, d] is made
    target = dataclasses.replace(_target(bound, norms, unit, reduced.rows), labels=global_labels)
    own = None if subset.bias is None else subset.bias[labels]
    weigh = bound.weighting
    if kept is not None and getattr(bound.spec.weighting, "masks", False):
        weigh = functools.partial(weigh, kept=kept)
    return finish(bound, target, radius, own, asked, reduced, weigh), target, radius


def feature_terms(
    bound: BoundObjective,
    features: Tensor,
    labels: Tensor,
    ranks: Ranks,
    sizes: list[int],
    kept: Tensor | None = None,
) -> Tensor | float:
    """Center loss and cross-batch memory of this rank's rows, [B], or 0.0; all of these ranks call it.

    `kept` [B] names the rows that count; None: all do.
    """
    extra: Tensor | float = 0.0
    if bound.center_loss is not None:
        extra = extra + bound.center_loss(features, labels)
    if bound.cross_batch_memory is not None:
        labels = labels if kept is None else torch.where(kept, labels, checks.IGNORE_INDEX)
        everyone, theirs = gather(features.detach(), sizes, ranks), gather(labels, sizes, ranks)
        first, add = sum(sizes[: ranks.rank]), functools.partial(total, ranks=ranks)
        extra = extra + bound.cross_batch_memory(features, labels, everyone, theirs, first, add)
    return extra


def _target(bound: BoundObjective, norms: Tensor, unit: Tensor, rows: Tensor) -> Geometry:
    """The geometry of rows and their own class weights."""
    return geometry(norms, unit, rows, bound.spec.eps, bound.spec.softness)


@torch.no_grad()
def _prepare(
    norms: Tensor,
    unit: Tensor,
    subset: ClassSubset,
    bound: BoundObjective,
    kernel: Kernel,
    ranks: Ranks,
    sizes: list[int],
) -> Batch:
    """The rows of all ranks, as pieces see them before the loss."""
    target = _target(bound, norms, unit, subset.weight[subset.labels])
    log_sums = None
    if getattr(bound.spec.radius, "asks_log_sums", False):
        log_sums = kernel(unit, subset.weight, None, subset.labels, log_sum_request(bound, unit)).plain[0]
    return gather_batch(target, log_sums, ranks, sizes)


def log_sum_request(bound: BoundObjective, unit: Tensor) -> Request:
    """The reduction to log Σ_{j≠y} e^{s cos_j} at the radius's current s, for the radius of the step."""
    scale = bound.scale
    assert scale is not None  # a radius that asks for it has one
    scales = (unit.new_zeros(len(unit)) + scale,)
    spec = bound.spec
    return Request(None, unit_weight=spec.weights == "unit", eps=spec.eps, plain_scales=scales, softness=spec.softness)


@torch.no_grad()
def gather_batch(target: Geometry, log_sums: Tensor | None, ranks: Ranks, sizes: list[int]) -> Batch:
    """The `Batch` of all ranks from this rank's rows."""
    columns = [target.norms, target.cos, target.theta, *([] if log_sums is None else [log_sums])]
    table = torch.stack([column.detach() for column in columns], dim=1)
    if ranks.count > 1:
        table = gather(table, sizes, ranks)
    start = sum(sizes[: ranks.rank])
    norms, cos, theta, *sums = table.unbind(dim=1)
    return Batch(norms, cos, theta, sums[0] if sums else None, slice(start, start + sizes[ranks.rank]))


@torch.no_grad()
def _gather_facts(
    features: Tensor, norms: Tensor, ranks: Ranks, lenient: bool, accumulating: bool
) -> tuple[list[int], Tensor | None, bool]:
    """(rows of each rank, mean norm over all ranks or None for a single rank, whether all features are finite)."""
    if ranks.count == 1:
        return [len(features)], None, not lenient or bool(torch.isfinite(features).all())
    known = torch.tensor([len(features), accumulating], dtype=torch.float64, device=features.device)
    own = torch.cat([known, torch.stack([norms.double().sum(), torch.isfinite(features).all().double()])])
    table = gather(own[None], [1] * ranks.count, ranks)
    counts, more, sums, sound = table.unbind(dim=1)
    _same_accumulate(more.int().tolist())
    return [int(count) for count in counts], sums.sum() / counts.sum(), bool(sound.all())


def _same_accumulate(more: list[int]) -> None:
    if len(set(more)) > 1:
        raise checks.InputError(f"all ranks must give the same head.accumulate(); got {more}, by rank")


def resolve(objective: Objective | BoundObjective, weight: Tensor) -> BoundObjective:
    """The objective, bound to the C and d of `weight`, or an error that says why it cannot be."""
    num_classes, embedding_size = weight.shape[0], weight.shape[-1]
    spec = objective.spec if isinstance(objective, BoundObjective) else objective
    if isinstance(spec, Objective) and weight.shape != spec.weight_shape(num_classes, embedding_size):
        count = spec.rows_per_class
        rows, wanted = ("1 weight row", "") if count == 1 else (f"{count} weight rows", f"{count}, ")
        raise checks.InputError(
            f"this objective has {rows} per class, so weight must have shape "
            f"[num_classes, {wanted}embedding_size]; got {list(weight.shape)}"
        )
    if isinstance(objective, BoundObjective):
        if (objective.num_classes, objective.embedding_size) != (num_classes, embedding_size):
            raise checks.InputError(
                f"the objective is bound to {objective.num_classes} classes of size {objective.embedding_size}; "
                f"weight has shape {list(weight.shape)}"
            )
        return objective
    if not isinstance(objective, Objective):
        raise checks.InputError(
            f"objective must be an angulus.losses.Objective, bound or not, such as losses.arcface(); got {objective!r}"
        )
    if objective.stateful:
        raise checks.InputError(
            f"this objective learns or keeps figures ({objective}); bind it once, "
            "`bound = objective.bind(embedding_size, num_classes)`, and pass `bound`, or use angulus.DenseHead"
        )
    return _bind(objective, embedding_size, num_classes)


@functools.lru_cache(maxsize=64)
def _bind(objective: Objective, embedding_size: int, num_classes: int) -> BoundObjective:
    return objective.bind(embedding_size, num_classes).eval()  # shared by all callers, so it must not keep anything


def uncompiled(function: Callable[P, R]) -> Callable[P, R]:
    """`torch.compiler.disable` from the first call on: as a decorator it imports torch._dynamo, which takes 1 s."""
    disabled: list[Callable[P, R]] = []

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if not disabled:
            disabled.append(torch.compiler.disable(function))  # type: ignore[no-untyped-call]
        return disabled[0](*args, **kwargs)

    return call


def widen(features: Tensor, weight: Tensor, warn: Callable[[Tensor], None] | None = None) -> Tensor:
    """The features in the dtype of the loss: float32, or wider if they or the weight are.

    `warn` is called in backward with the gradient, if that may leave the range of float16; None warns at once.

    The gradient is rounded back to 16 bits only here. Near a zero feature it grows as 1/‖x‖, beyond float16's range.
    """
    wide = features.to(torch.promote_types(torch.promote_types(features.dtype, weight.dtype), torch.float32))
    if features.dtype == torch.float16 and wide.requires_grad:
        wide.register_hook(warn or _warn_of_overflow)  # type: ignore[no-untyped-call]
    return wide


def _warn_of_overflow(gradient: Tensor) -> None:
    overflow = (gradient.abs() > torch.finfo(torch.float16).max).any(dim=1)
    if bool(overflow.any()):
        warnings.warn(checks.gradient_overflow(int(overflow.nonzero()[0, 0])), stacklevel=2)


def plain_logits(unit: Tensor, weight: Tensor, spec: Objective) -> Tensor:
    """Logits without margin and radius, [B, C]: cosines, or w_j·x̂ for raw weights."""
    flat = weight.to(unit.dtype).flatten(0, -2)
    products = unit @ flat.T
    logits = products / lengths(flat, spec.eps) if spec.weights == "unit" else products
    return combine(logits.view(-1, *weight.shape[:2]), spec.softness, dim=2) if weight.ndim == 3 else logits


def class_logits(features: Tensor, weight: Tensor, bias: Tensor | None, spec: Objective, radius: Any) -> Tensor:
    """Logits without margin, [B, C]: radius · cosθ_j, or radius · w_j·x̂ (+ b_j) for raw weights; can be exported.

    Args:
        features: [B, d].
        weight, bias: [C, d], or [C, K, d] with sub-centres, and [C] or None.
        spec: its weights, eps, radius and sub-centres count.
        radius: the bound one; None: the logits are the cosines.
    """
    norms, unit = normalize(features.to(torch.promote_types(features.dtype, weight.dtype)), spec.eps)
    logits, factors = plain_logits(unit, weight, spec), apply_radius(spec, radius, norms)
    if factors is not None:
        logits = factors[:, None] * logits
    return logits if bias is None else logits + bias.to(logits.dtype)


def not_finite(rows: Tensor, weight: Tensor) -> checks.InputError:
    """The error that says why the loss of a row is not finite."""
    checks.finite(weight, "weight")  # checked only now, since it is large
    row = int((~torch.isfinite(rows)).nonzero()[0, 0])
    return checks.InputError(checks.loss_not_finite(row, rows.dtype))


def check_rows(
    features: Tensor, weight: Tensor, labels: Tensor, bias: Tensor | None = None, *, num_classes: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The checked features and labels of the rows that are not ignored, and a mask of those rows, [B] of bool.

    `num_classes` is C if `weight` holds only some of the classes; then other ranks may have the rows that count.
    """
    checks.batch(features, weight, labels, bias, finite_features=not may_overflow(features))
    labels = labels.long()  # before any comparison: −100 as uint8 is 156
    kept = labels != checks.IGNORE_INDEX
    if num_classes is None and not bool(kept.any()):
        raise checks.InputError(checks.ALL_IGNORED)
    checks.label_range(labels, weight.shape[0] if num_classes is None else num_classes)
    if not bool(kept.all()):
        features, labels = features[kept], labels[kept]
    return features, labels, kept


def training_ranks(weight: Tensor, bound: BoundObjective, way_out: str) -> Ranks:
    """The ranks that train this weight together: those of the calling DistributedDataParallel, or this one only.

    The rows of all of them move the figures, so DDP need not send these.

    Raises:
        checks.InputError: several processes run, and nothing keeps their copies of the weight equal.
    """
    ranks = ddp_ranks(weight) if isinstance(weight, nn.Parameter) else None
    if ranks is None and Ranks.here().count > 1:
        raise checks.InputError(
            f"torch.distributed runs {Ranks.here().count} processes, and each would train class weights and running "
            f"figures of its own; {way_out}"
        )
    if ranks is not None and ranks.count > 1:
        keep_buffers(cast(nn.Parameter, weight), bound)
    return ranks or Ranks()


def refuse_recomputation(bound: BoundObjective) -> None:
    """Refuse a forward within backward (activation checkpointing), since the figures have changed since the first one.

    Its gradients would not be those of the loss that the first forward returned.
    """
    if bound.moves and bound.keeps_figures and torch._C._current_graph_task_id() != -1:
        raise checks.InputError(
            "this objective moves its figures in forward, and checkpointing runs forward again after they have moved; "
            "checkpoint the backbone alone, and call the head outside"
        )


def may_overflow(features: Tensor) -> bool:
    """Whether features may overflow for a gradient scaler to see: float16 or its autocast, with gradients on."""
    if not (isinstance(features, Tensor) and torch.is_grad_enabled()):
        return False
    device = features.device.type
    autocast = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.float16
    return autocast or features.dtype == torch.float16


def nan_loss(features: Tensor, kept: Tensor, reduction: str, parameters: list[Tensor]) -> Tensor:
    """The loss of features that are not finite: NaN with NaN gradients, so that a gradient scaler skips the step."""
    leaves = [features, *(parameter for parameter in parameters if parameter.requires_grad)]
    value = torch.stack([leaf.float().sum() for leaf in leaves]).sum() * torch.nan
    return torch.where(kept, value, 0.0) if reduction == "none" else value


@torch.no_grad()
def summarize(
    bound: BoundObjective,
    target: Geometry,
    features: Tensor,
    labels: Tensor,
    ranks: Ranks,
    sizes: list[int],
    radius: Tensor | None = None,
    kept: Tensor | None = None,
    count: Tensor | None = None,
) -> Statistics:
    """The statistics of the rows of these ranks; features and labels only if the objective keeps them.

    `kept` [B] names the rows that count, and `count` is their number on all ranks; None: all do.
    """
    values, rows = measures(bound, target, radius), sum(sizes) if count is None else count
    sums = torch.stack([(value if kept is None else torch.where(kept, value, 0.0)).sum() for value in values.values()])
    means = dict(zip(values, (total(sums, ranks) / rows).unbind(), strict=True))
    if not bound.spec.feature_terms:
        return Statistics(means, rows, features[:0].detach(), labels[:0])
    labels = labels if kept is None else torch.where(kept, labels, checks.IGNORE_INDEX)
    return Statistics(means, rows, gather(features.detach(), sizes, ranks), gather(labels, sizes, ranks))
