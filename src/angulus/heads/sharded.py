"""ShardedHead: a contiguous range of classes on each rank, with the loss of a DenseHead for the whole batch.

Each rank computes the loss of its own rows only, so nothing is computed twice. Unit features and the requests of the
rows are gathered; the rank that holds a row's class computes its angle, every rank reduces the row over its own
classes, and both results go to the row's rank. Every collective that gradients pass through is an exchange of rows,
whose adjoint is the exchange back.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from angulus.core import checks
from angulus.distributed.collectives import (
    exchange,
    gather,
    scale_gradient,
    sum_gradients,
    to_owners,
    total,
)
from angulus.distributed.runtime import Ranks, RemoteError, ddp_ranks
from angulus.distributed.runtime import class_counts as split_classes
from angulus.heads import class_loss, deferred, nested
from angulus.heads.class_loss import REDUCTIONS, UPDATES, check_rows, uncompiled
from angulus.heads.dense import BaseHead
from angulus.heads.init import check_init, spread
from angulus.heads.row_loss import Finished, Geometry, ask, finish, geometry, radius_of, request
from angulus.heads.sampling import ClassSampling, ClassSubset, check_sampling, sample
from angulus.kernels.dispatch import Kernel
from angulus.kernels.reduction import Reduced, Request
from angulus.losses.angles import normalize
from angulus.losses.objective import BoundObjective, Objective
from angulus.losses.running import Batch, Statistics, exact_dtype, whole_batch
from angulus.losses.serialize import to_mapping

_FACTS = (  # on which all ranks must agree, in the order of `_agree`
    "bytes of precision",
    "features.requires_grad",
    "torch.is_grad_enabled()",
    "requires_grad of the head's parameters (as bits)",
    "mode (train or eval)",
    "head.accumulate()",
    f"reduction (a place in {REDUCTIONS})",
    "device (1: a GPU, whose checks are read later)",
)
UNSOUND, LENIENT = 1, 2  # what a rank says of its own batch, as bits


class _Rows(NamedTuple):
    """The checked rows of this rank, and what the ranks have agreed on."""

    features: Tensor  # [own rows, d]; without ignored rows, unless the checks are read later
    labels: Tensor  # [own rows], in [0, C)
    kept: Tensor  # bool: which of the given rows are not ignored
    sizes: list[int]  # rows of each rank
    sound: bool  # whether the features of all ranks are finite; true if the checks are read later
    lenient: bool  # whether a rank leaves that to a gradient scaler
    total: int | Tensor  # the rows that count, of all ranks
    examined: deferred.Examined | None  # if the checks are read later

    @property
    def known_labels(self) -> Tensor:
        """The labels, with ignored ones."""
        return self.labels if self.examined is None else torch.where(self.kept, self.labels, checks.IGNORE_INDEX)

    def keep(self, values: Tensor) -> Tensor:
        """Values [own rows], 0 in ignored rows."""
        return values if self.examined is None else torch.where(self.kept, values, 0.0)


CLASSES = "classes"  # in `state_dict` of one of several ranks: the range that it holds
INITIAL_BLOCK = 4096  # classes whose first weights are drawn from one seed, whichever rank holds them


class ShardedHead(BaseHead):
    """Class weights spread over ranks and an objective: `head(features, labels)` is the loss of all ranks' rows.

    Every rank calls it with its own features and labels (global class numbers; batches may differ in size) and gets the
    same loss. Wrap the backbone in `DistributedDataParallel`, but not the head: its shards get the gradient of the
    global mean, and so do s and R, which every rank holds; the features get it times the number of ranks, which DDP's
    average divides out. For float16, use `torch.distributed.fsdp.sharded_grad_scaler.ShardedGradScaler`, which skips
    the step on all ranks if one overflows.

    Args:
        embedding_size: d.
        num_classes: C over all ranks.
        objective: an `Objective`, such as `losses.arcface()`; the head binds it to d and the global C.
        impl, products: as in `angulus.class_loss`.
        sampling: a `ClassSampling` of each rank's classes, for training mode only, or None.
        class_counts: the number of classes of each rank, or None for an even split.
        group: the process group, or None for the default one; a single process needs none.
        init: "normal" or "spread", as in `DenseHead`; rank 0 spreads the class weights of all ranks.

    Attributes:
        weight: this rank's class weights [C of this rank, d], or [C of this rank, K, d] with sub-centres; the initial
            values do not depend on the number of ranks.
        bias: [C of this rank], or None.
        classes: the range of classes that this rank holds.
        objective: the bound objective, the same on all ranks.
        embedding_size, num_classes: d, and C over all ranks.

    `state_dict` of one of several ranks holds its own classes and their range, and no other rank loads it. Use
    `heads.saving.save_head` for a checkpoint of all ranks.

    Raises:
        checks.InputError: on every rank, even if only one of them breaks a rule. On CUDA, where a step does not wait
            for the GPU, a wrong label or value gives NaN on all ranks, and a later call raises; see `heads.deferred`.
    """

    def __init__(
        self,
        embedding_size: int,
        num_classes: int,
        objective: Objective,
        *,
        impl: str = "auto",
        products: torch.dtype | None = None,
        sampling: ClassSampling | None = None,
        class_counts: Sequence[int] | None = None,
        group: Any = None,
        init: str = "normal",
    ) -> None:
        super().__init__()
        self.ranks = Ranks.here(group)

        def own() -> tuple[Kernel, ClassSampling | None, list[int] | None]:
            if not isinstance(objective, Objective):
                raise checks.InputError(
                    "objective must be an unbound angulus.losses.Objective, such as losses.arcface(); "
                    f"got {objective!r}"
                )
            checks.integer("num_classes", num_classes, low=1)
            checks.integer("embedding_size", embedding_size, low=1)
            check_init(init, num_classes, embedding_size, objective.subcenters is not None)
            counts = None if class_counts is None else [checks.integer("class_counts", count) for count in class_counts]
            return Kernel(impl, products), check_sampling(sampling, objective), counts

        self.kernel, self.sampling, counts = self.ranks.run_on_all(own)
        self.ranks.agree(
            embedding_size=embedding_size,
            num_classes=num_classes,
            objective=to_mapping(objective),
            class_counts=counts,
            kernel=str(self.kernel),
            sampling=self.sampling,
            init=init,
        )
        self.init = init
        self.counts = split_classes(num_classes, self.ranks.count, counts)
        start = sum(self.counts[: self.ranks.rank])
        self.classes = range(start, start + self.counts[self.ranks.rank])
        self.objective = objective.bind(embedding_size, num_classes)
        self.weight = nn.Parameter(torch.empty(objective.weight_shape(len(self.classes), embedding_size)))
        self.bias = nn.Parameter(torch.zeros(len(self.classes))) if objective.bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new class weights from a seed of rank 0, so that the number of ranks has no effect.

        By `init`: normal ones block by block; spread ones by rank 0 for all.
        """
        seed = self.ranks.gather_objects(int(torch.randint(2**62, ())))[0]
        shape = self.weight.shape[1:]
        if self.init == "spread":
            rows = self.ranks.broadcast(lambda: spread(self.num_classes, self.embedding_size, seed))
            with torch.no_grad():
                self.weight.copy_(rows[self.classes.start : self.classes.stop])
                if self.bias is not None:
                    nn.init.zeros_(self.bias)
            return
        with torch.no_grad():
            for block in range(self.classes.start // INITIAL_BLOCK, -(-self.classes.stop // INITIAL_BLOCK)):
                drawn = torch.randn(INITIAL_BLOCK, *shape, generator=torch.Generator().manual_seed(seed + block))
                first = block * INITIAL_BLOCK
                here = range(max(first, self.classes.start), min(first + INITIAL_BLOCK, self.classes.stop))
                rows = drawn[here.start - first : here.stop - first] / math.sqrt(shape[-1])
                self.weight[here.start - self.classes.start : here.stop - self.classes.start] = rows.to(self.weight)
            if self.bias is not None:
                nn.init.zeros_(self.bias)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.ranks.count > 1:
            destination[f"{prefix}{CLASSES}"] = torch.tensor([self.classes.start, self.classes.stop])

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        stored = state_dict.pop(f"{prefix}{CLASSES}", None)
        if stored is not None and stored.tolist() != [self.classes.start, self.classes.stop]:
            first, stop = stored.tolist()
            raise checks.InputError(
                f"these are the class weights of classes {first} to {stop - 1}, and this rank holds "
                f"{self.classes.start} to {self.classes.stop - 1}: a checkpoint that one process wrote, or that keeps "
                "one copy of each name, lacks the other ranks' classes; save and load the head with "
                "angulus.heads.saving.save_head and load_head"
            )
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    @uncompiled
    def forward(self, features: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
        """The loss of the batch of all ranks: "mean" or "sum" of all rows, or "none" for this rank's, [own rows]."""
        with self.objective.accumulate(False):
            return self._batch_loss(features, labels, reduction)

    def _batch_loss(self, features: Tensor, labels: Tensor, reduction: str) -> Tensor:
        given, batch = features, self._agree(features, labels, reduction)
        later, kept = batch.examined, batch.kept
        # s and R are on all ranks: each rank's gradient is that of its own rows
        sum_gradients(self.objective.parameters(), self.ranks)
        if not batch.sound:
            return class_loss.nan_loss(batch.features, kept, reduction, list(self.parameters()))
        with torch.autocast(features.device.type, enabled=False):
            warn = None if later is None else functools.partial(deferred.remember_gradient, self.weight)
            # DDP averages where a sum is needed
            wide = scale_gradient(class_loss.widen(batch.features, self.weight, warn), self.ranks.count)
            everyone = gather(batch.known_labels, batch.sizes, self.ranks)
            subset = self._subset(self._local(everyone), self.sampling if self.training else None)
            refusal: checks.InputError | None = None
            losses, figures = [], []
            for part in nested.split(self.objective, wide, subset, UPDATES.get(self.weight)):
                finished, seen, error = self._loss(part, batch, everyone)
                refusal = refusal or error
                figures.append((part.bound, seen))
                losses.append(finished)
            rows = nested.add([one.loss + one.extra for one in losses])
            exact = exact_dtype(rows.device)
            sums = [value.detach().sum() for one in losses for value in (one.loss, one.extra)]
            sums += [
                one.divisor if isinstance(one.divisor, Tensor) else rows.new_full((), one.divisor) for one in losses
            ]
            if later is not None:
                said = None if refusal is None else str(refusal)
                good, sound = deferred.remember(self.weight, later, rows, self.ranks, self.num_classes, said)
            else:
                bad = (~torch.isfinite(rows.detach())).sum() + (refusal is not None)
                sums.append(bad)
            of_all = total(torch.stack([value.to(exact) for value in sums]), self.ranks).unbind()
            loss, extra = of_all[: 2 * len(losses) : 2], of_all[1 : 2 * len(losses) : 2]
            divisor = [torch.where(by > 0, by, 1.0) for by in of_all[2 * len(losses) : 3 * len(losses)]]
        if later is None:
            if refusal is not None:
                raise refusal
            if float(of_all[-1]) > 0:
                if not int(bad):
                    raise RemoteError("the loss is not finite on another rank; its own message says why")
                raise class_loss.not_finite(rows, self.weight)
        if self.objective.moves:
            for bound, seen in figures:
                bound.take(seen() if later is None else replace(seen(), good=good & sound))
        if reduction == "none":
            if later is not None:
                return class_loss.nan_unless_good(rows, given, good, sound, batch.lenient)
            return rows.new_zeros(len(kept)).masked_scatter(kept, rows)
        if reduction == "mean":
            means = [
                one.loss.sum() / by.to(rows.dtype) + one.extra.sum() / batch.total
                for one, by in zip(losses, divisor, strict=True)
            ]
            own = nested.add(means)
            whole = nested.add([a / by + b / batch.total for a, b, by in zip(loss, extra, divisor, strict=True)])
        else:
            own, whole = rows.sum(), nested.add([*loss, *extra])
        value = own + (whole.to(own) - own.detach())  # all ranks return the whole loss and differentiate their own rows
        if later is None:
            return value
        return class_loss.nan_unless_good(value, given, good, sound, batch.lenient)

    def _agree(self, features: Tensor, labels: Tensor, reduction: str = "mean") -> _Rows:
        """The checked rows without ignored ones, or all of them if the checks are read later.

        If one rank's batch is refused, all ranks raise; if the checks are read later, at a later call.
        """
        refusal: Exception | None = None
        later, lenient = False, class_loss.may_overflow(features)
        try:
            if self.ranks.count == 1 and self.ranks.group is None and Ranks.here().count > 1:
                raise checks.InputError(
                    "this head was made before torch.distributed.init_process_group(), so it holds all classes for "
                    "itself; make it after"
                )
            if ddp_ranks(self.weight) is not None:
                raise checks.InputError(
                    "a ShardedHead must not be within DistributedDataParallel, which writes one rank's shard over the "
                    "others' and averages their gradients; wrap the backbone alone, and call the head on its output"
                )
            checks.choice("reduction", reduction, REDUCTIONS)
            class_loss.refuse_recomputation(self.objective)
            checks.layout(features, self.weight, labels, None)
            later, sound = deferred.defers(features, self.weight, self.objective), True
            if later:
                deferred.raise_arrived(self.weight)
            else:
                features, labels, kept = check_rows(features, self.weight, labels, num_classes=self.num_classes)
                sound = bool(torch.isfinite(features).all())
            width = torch.promote_types(torch.promote_types(features.dtype, self.weight.dtype), torch.float32).itemsize
            learning = sum(parameter.requires_grad << place for place, parameter in enumerate(self.parameters()))
            mode = int(self.training) + 2 * int(self.objective.training)
            same = [width, int(features.requires_grad), int(torch.is_grad_enabled()), learning, mode]
            same += [int(self.objective.accumulating), REDUCTIONS.index(reduction), int(later)]
            facts = [UNSOUND * (not sound) + LENIENT * lenient, len(features), *same]
        except Exception as error:  # of any kind: the other ranks wait for this rank
            refusal, facts = error, [0] * (len(_FACTS) + 2)
        table = deferred.agree(self.weight, facts, self.ranks, refusal)
        for place, name in enumerate(_FACTS, start=2):
            if len({row[place] for row in table}) > 1:
                values = [row[place] for row in table]
                raise checks.InputError(f"all ranks must give the same {name}; got {values}, by rank")
        sizes, scaled = [row[1] for row in table], any(row[0] & LENIENT for row in table)
        if later:
            examined = deferred.examine(features, self.weight, labels, None, lenient, self.num_classes)
            count = total(examined.kept.sum(), self.ranks)
            examined = examined._replace(found=(*examined.found[:-1], count))
            count, examined = count.clamp(min=1), examined._replace(good=examined.good & (count > 0))
            return _Rows(examined.features, examined.labels, examined.kept, sizes, True, scaled, count, examined)
        if sum(sizes) == 0:
            raise checks.InputError(f"every label of every rank is {checks.IGNORE_INDEX} (ignored)")
        sound = not any(row[0] & UNSOUND for row in table)
        return _Rows(features, labels, kept, sizes, sound, scaled, sum(sizes), None)

    def _loss(
        self, part: nested.Part, rows: _Rows, labels_of_all: Tensor
    ) -> tuple[Finished, Callable[[], Statistics], checks.InputError | None]:
        """The loss of this rank's rows, what gives the statistics of all ranks' rows, and what a penalty refused."""
        bound, features, subset, update = part
        ranks, labels, sizes = self.ranks, rows.labels, rows.sizes
        kept, kept_of_all = None, None
        if rows.examined is not None:
            kept, kept_of_all = rows.kept, labels_of_all != checks.IGNORE_INDEX
        norms, unit = normalize(features, bound.spec.eps)
        mean_norm = total(rows.keep(norms).sum(), ranks) / rows.total
        # before `finish`, where a penalty may refuse the rows of one rank: other ranks would wait here
        more = class_loss.feature_terms(bound, features, labels, ranks, sizes, kept)
        refusal = None
        with whole_batch(mean_norm):
            everyone = gather(unit, sizes, ranks)
            batch = self._prepare(bound, norms, everyone, subset, rows, kept_of_all) if bound.prepares else None
            with bound.prepared(batch):
                before = None
                if bound.spec.asks_of_target:  # else the geometry is computed and exchanged once, below
                    with torch.no_grad():
                        before = replace(self._targets(bound, norms, everyone, subset, rows)[0], labels=labels)
                radius = radius_of(bound, norms)
                asked = ask(bound, norms, before, radius)
                wanted = replace(self._shared(request(bound, radius, asked), sizes), update=update, kept=kept_of_all)
                reduced = self.kernel(everyone, subset.weight, subset.biases, subset.labels, wanted)
                target, bias = self._targets(bound, norms, everyone, subset, rows, reduced.rows)
                target = replace(target, labels=labels)
                merged = self._merged(reduced, sizes)
                weigh = self._weigh(bound, sizes, kept, kept_of_all)
                try:
                    finished = finish(bound, target, radius, bias, asked, merged, weigh)
                except checks.InputError as error:  # this rank still takes part in the exchanges of backward
                    refusal, nothing = error, 0.0 * (target.cos + merged.first)
                    finished = Finished(nothing, 0, nothing)
        loss, extra, divisor = rows.keep(finished.loss), rows.keep(finished.extra + more), finished.divisor
        if kept is not None and not bound.spec.mines_globally:
            # of all rows, unless the weighting masks; and at least 1, also if no row of this rank counts
            masks, own = getattr(bound.spec.weighting, "masks", False), kept.sum()
            divisor = torch.where(own > 0, divisor, 0) if masks else own * (divisor / len(kept))
        seen = functools.partial(self._seen, bound, target, features, rows, mean_norm, radius, kept)
        return Finished(loss, divisor, extra), lambda: replace(seen(), batch=batch), refusal

    @torch.no_grad()
    def _prepare(
        self,
        bound: BoundObjective,
        norms: Tensor,
        everyone: Tensor,
        subset: ClassSubset,
        rows: _Rows,
        kept_of_all: Tensor | None,
    ) -> Batch:
        """The rows of all ranks, as pieces see them before the loss."""
        target, _ = self._targets(bound, norms, everyone, subset, rows)
        log_sums = None
        if getattr(bound.spec.radius, "asks_log_sums", False):
            wanted = class_loss.log_sum_request(bound, everyone)
            reduced = self.kernel(everyone, subset.weight, None, subset.labels, wanted)
            log_sums = self._merged(reduced, rows.sizes).plain[0]
        return replace(class_loss.gather_batch(target, log_sums, self.ranks, rows.sizes), kept=kept_of_all)

    def _seen(
        self,
        bound: BoundObjective,
        target: Geometry,
        features: Tensor,
        rows: _Rows,
        mean_norm: Tensor,
        radius: Tensor | None = None,
        kept: Tensor | None = None,
    ) -> Statistics:
        count = rows.total if isinstance(rows.total, Tensor) else None
        with whole_batch(mean_norm):
            return class_loss.summarize(
                bound, target, features, rows.labels, self.ranks, rows.sizes, radius, kept, count
            )

    def _subset(self, local: Tensor, sampling: ClassSampling | None) -> ClassSubset:
        if sampling is None:
            return ClassSubset(self.weight, self.bias, local, self.bias)
        return sample(sampling, self.weight, self.bias, local)

    def _local(self, everyone: Tensor) -> Tensor:
        """The labels of all ranks' rows as classes of this rank, −1 for others, [B of all]."""
        here = (everyone >= self.classes.start) & (everyone < self.classes.stop)
        return torch.where(here, everyone - self.classes.start, -1)

    def _targets(
        self,
        bound: BoundObjective,
        norms: Tensor,
        everyone: Tensor,
        subset: ClassSubset,
        batch: _Rows,
        rows: Tensor | None = None,
    ) -> tuple[Geometry, Tensor | None]:
        """The geometry of this rank's rows and the bias of their classes, computed by the ranks that hold the classes.

        `rows` are the kernel's weight[labels], which carry the gradient.
        """
        held, labels, spec = subset.labels >= 0, subset.labels.clamp(min=0), bound.spec
        if batch.examined is None:
            places = held.nonzero().squeeze(1)
            labels, everyone, rows = labels[places], everyone[places], None if rows is None else rows[places]
        weight = subset.weight[labels] if rows is None else rows
        if batch.examined is not None:  # a GPU would have to be waited for to know how many rows are held
            weight = torch.where(held.view(-1, *[1] * (weight.ndim - 1)), weight, 1.0)
        own = geometry(norms.new_zeros(len(labels)), everyone, weight, spec.eps, spec.softness)
        columns = [own.dot, own.cos, own.theta, own.length]
        if subset.bias is not None:
            columns.append(subset.bias[labels].to(own.dot.dtype))
        table = torch.stack(columns, dim=1)
        if batch.examined is None:
            table = table.new_zeros(len(held), len(columns)).index_put((places,), table)
        else:
            table = torch.where(held[:, None], table, 0.0)
        dot, cos, theta, length, *bias = to_owners(table, batch.sizes, self.ranks).sum(dim=0).unbind(dim=1)
        return Geometry(norms, everyone.new_empty(0), dot, cos, theta, length), bias[0] if bias else None

    def _shared(self, own: Request, sizes: list[int]) -> Request:
        """The request of all ranks' rows; gradients of radius and plain scales go back to the rows' ranks."""
        columns = [own.radius, own.threshold, *own.plain_scales, *own.hinge_offsets, own.shift]
        present = [column for column in columns if column is not None]
        gathered = iter(gather(torch.stack(present, dim=1), sizes, self.ranks).unbind(dim=1) if present else ())
        radius = None if own.radius is None else next(gathered)
        threshold = None if own.threshold is None else next(gathered).detach()
        plain = tuple(next(gathered) for _ in own.plain_scales)
        offsets = tuple(next(gathered).detach() for _ in own.hinge_offsets)
        shift = None if own.shift is None else next(gathered)
        return replace(own, radius=radius, threshold=threshold, plain_scales=plain, hinge_offsets=offsets, shift=shift)

    def _merged(self, reduced: Reduced, sizes: list[int]) -> Reduced:
        """The reductions of this rank's rows over the classes of all ranks."""
        softplus = self.objective.spec.classifier.softplus
        first = [] if reduced.log_sum is None else [reduced.log_sum]
        sums = [*([] if softplus else first), *reduced.plain]
        hinges = [number.to(pair[0].dtype) for pair in [*reduced.hinges, *reduced.spreads] for number in pair]
        summed = [number.expand(len(reduced.rows)) for number in reduced.summed]
        rest = [*hinges, *summed, *(first if softplus else []), *([] if reduced.total is None else [reduced.total])]
        moved = to_owners(torch.stack([*sums, *rest], dim=1), sizes, self.ranks)
        log_sums = list(_log_sum_exp(moved[:, :, : len(sums)]).unbind(dim=1))
        added = list(moved[:, :, len(sums) :].sum(dim=0).unbind(dim=1))
        total = None if reduced.total is None else added.pop()
        log_sum = None if reduced.log_sum is None else added.pop() if softplus else log_sums.pop(0)
        pairs = tuple((added[place], added[place + 1].detach()) for place in range(0, len(hinges), 2))
        of_batch = iter(added[len(hinges) :])
        class_sums = tuple((next(of_batch), next(of_batch), next(of_batch).detach()) for _ in reduced.class_sums)
        hinged, spreads = pairs[: len(reduced.hinges)], pairs[len(reduced.hinges) :]
        return Reduced(log_sum, tuple(log_sums), hinged, reduced.rows[:0], total, class_sums, spreads)

    def _weigh(self, bound: BoundObjective, sizes: list[int], kept: Tensor | None, kept_of_all: Tensor | None) -> Any:
        """The objective's weighting; if its scope is global, it sees the rows of all ranks."""
        weighting = bound.weighting
        if kept is not None and getattr(bound.spec.weighting, "masks", False):
            weighting = functools.partial(weighting, kept=kept_of_all if bound.spec.mines_globally else kept)
        if not bound.spec.mines_globally:
            return weighting
        start = sum(sizes[: self.ranks.rank])
        own = slice(start, start + sizes[self.ranks.rank])

        def weigh(loss: Tensor, log_p: Tensor, log_not_p: Tensor, **of_rows: Tensor) -> tuple[Tensor, Any]:
            table = torch.stack([loss, log_p, log_not_p], dim=1).detach()
            of_all = {name: gather(values, sizes, self.ranks) for name, values in of_rows.items()}
            weight, divisor = weighting(*gather(table, sizes, self.ranks).unbind(dim=1), **of_all)
            # the divisor is summed over the ranks, so only rank 0 contributes it
            return weight[own], divisor if self.ranks.rank == 0 else 0

        return weigh

    @torch.no_grad()
    def logits(self, features: Tensor) -> Tensor:
        """Logits of this rank's rows over all classes, [own rows, C], without margin; every rank must call it.

        Features of a size of `objective.nested` get the logits of that prefix.
        """
        bound, weight = self.prefix_of(features)
        spec, ranks = bound.spec, self.ranks
        ranks.run_on_all(lambda: checks.matrices(features, weight, sub_centers=True))
        facts = ranks.gather_objects((len(features), torch.promote_types(features.dtype, weight.dtype)))
        sizes = [size for size, _ in facts]
        dtype = functools.reduce(torch.promote_types, (dtype for _, dtype in facts))
        with torch.autocast(features.device.type, enabled=False):
            norms, unit = normalize(features.to(dtype), spec.eps)
            logits = class_loss.plain_logits(gather(unit, sizes, ranks), weight, spec)
            with whole_batch(total(norms.sum(), ranks) / sum(sizes)):
                radius = radius_of(bound, norms)
            if radius is not None:
                logits = gather(radius[:, None], sizes, ranks) * logits
            if self.bias is not None:
                logits = logits + self.bias.to(logits.dtype)
            own = sizes[ranks.rank]
            send = [size * len(self.classes) for size in sizes]
            moved = exchange(logits.flatten(), send, [own * count for count in self.counts], ranks)
        parts = torch.split(moved, [own * count for count in self.counts])
        return torch.cat([part.view(own, count) for part, count in zip(parts, self.counts, strict=True)], dim=1)

    @torch.no_grad()
    def statistics(self, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Means over the rows of all ranks, the same on each; see `DenseHead.statistics`."""
        rows = self._agree(features, labels)
        features, sizes = rows.features, rows.sizes
        features = features.to(torch.promote_types(features.dtype, self.weight.dtype))
        norms, unit = normalize(features, self.objective.spec.eps)
        everyone = gather(unit, sizes, self.ranks)
        subset = self._subset(self._local(gather(rows.labels, sizes, self.ranks)), None)
        target, _ = self._targets(self.objective, norms, everyone, subset, rows)
        mean_norm = total(norms.sum(), self.ranks) / sum(sizes)
        return self._seen(self.objective, target, features, rows, mean_norm).values

    def extra_repr(self) -> str:
        return (
            f"embedding_size={self.embedding_size}, num_classes={self.num_classes}, "
            f"classes={self.classes.start}..{self.classes.stop - 1} of rank {self.ranks.rank} of {self.ranks.count}"
        )


def _log_sum_exp(parts: Tensor) -> Tensor:
    """The log-sum-exp over the ranks, [ranks, B, k] -> [B, k]; −inf with zero gradient where all are −inf."""
    empty = (parts == -torch.inf).all(dim=0)
    safe = torch.where(empty, 0.0, parts)
    return torch.where(empty, -torch.inf, torch.logsumexp(safe, dim=0))
