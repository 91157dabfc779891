"""DenseHead: class weights on one device and an objective, which give loss, logits and statistics."""

import math
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from angulus.core import checks
from angulus.distributed.collectives import broadcast, sum_gradients
from angulus.distributed.runtime import Ranks, ddp_accumulates
from angulus.heads import class_loss, deferred
from angulus.heads.class_loss import UPDATES, check_rows, class_logits, plain_logits, summarize, uncompiled
from angulus.heads.init import check_init, spread
from angulus.heads.row_loss import Geometry, geometry, margined
from angulus.heads.sampling import ClassSampling, check_sampling
from angulus.kernels.dispatch import Kernel
from angulus.losses.angles import normalize
from angulus.losses.objective import BoundObjective, Objective


class BaseHead(nn.Module):
    """What the heads share: the bound objective, its sizes and its running figures."""

    objective: BoundObjective

    @property
    def num_classes(self) -> int:
        """The number of classes C, over all ranks."""
        return self.objective.num_classes

    def prefix_of(self, features: Tensor) -> tuple[BoundObjective, Tensor]:
        """The objective and class weights for features of that size: of a nested prefix, or of the whole."""
        size = features.shape[-1] if isinstance(features, Tensor) and features.ndim else 0
        bound = next((part for part in self.objective.summands if part.embedding_size == size), self.objective)
        return bound, self.weight[..., : bound.embedding_size]

    @property
    def embedding_size(self) -> int:
        """The size of a feature, d."""
        return self.objective.embedding_size

    def accumulate(self, more: bool = True) -> AbstractContextManager[None]:
        """Wrap all but the last micro-batch of an optimiser step: the figures are updated once, by all of them.

        Args:
            more: whether more micro-batches of the step come. False: this is the last one, so that a loop can wrap
                every micro-batch, such as in `head.accumulate(not accelerator.sync_gradients)`.
        """
        return self.objective.accumulate(checks.flag("more", more))

    def check(self) -> None:
        """Wait for the checks of all batches so far, and raise the error of a bad one.

        On a GPU a step does not wait for its checks: the loss of a bad batch is NaN without gradients, and one of the
        next calls raises the error. Before what must not follow a bad batch, such as a checkpoint, call this. With
        several ranks, every one of them calls it, and all raise.
        """
        deferred.check(self.weight)

    weight: nn.Parameter

    @property
    def seen(self) -> dict[str, Tensor]:
        """The `statistics` of the last training step; those of all ranks if the objective has running figures."""
        return self.objective.seen


class DenseHead(BaseHead):
    """Class weights and an objective: `head(features, labels)` is the loss.

    In training mode a call also updates the objective's state, as BatchNorm does: centres, running means
    (`gamma="auto"`, the incay bound) and the step of annealing, after the loss has read them; the figures of AdaFace,
    CurricularFace and AdaCos before. Under `eval()` or `torch.no_grad()` nothing changes. If an optimiser step has
    several micro-batches, run all but the last in `with head.accumulate():`; a forward under the `no_sync()` of a
    `DistributedDataParallel` that holds the head is one of those by itself.

    With several processes, wrap the head in `DistributedDataParallel`, or call `head.synchronize()` and keep it next to
    a wrapped backbone; anything else is an error.

    Args:
        embedding_size: d.
        num_classes: C.
        objective: an `Objective`, such as `losses.arcface()`; the head binds it to d and C and holds its state.
        impl, products: the kernel and the dtype of its products, as in `angulus.class_loss`.
        sampling: a `ClassSampling`, for training mode only, or None: every step sees all classes.
        alone: True if several processes run but this one trains the head by itself, or your own code averages its
            gradients.
        init: the first class weights. "normal": entries drawn from N(0, 1/d), so rows of length about 1; "spread":
            unit rows pushed apart, see `heads.init.spread`; for at most 2 d or 10,000 classes, without sub-centres.

    Attributes:
        weight: class weights [C, d]; [C, K, d] for an objective with K sub-centres per class.
        bias: [C], zero at first, or None.
        objective: the bound objective.
        embedding_size, num_classes: d and C.
        seen: the statistics of the last training step, by name; see `statistics`.

    >>> import torch, angulus
    >>> head = angulus.DenseHead(8, 10, angulus.losses.normface())
    >>> head(torch.randn(4, 8), torch.tensor([1, 2, 3, 4])).shape, head.logits(torch.randn(4, 8)).shape
    (torch.Size([]), torch.Size([4, 10]))
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
        alone: bool = False,
        init: str = "normal",
    ) -> None:
        super().__init__()
        self.alone, self.ranks = checks.flag("alone", alone), Ranks()
        if not isinstance(objective, Objective):
            raise checks.InputError(
                f"objective must be an unbound angulus.losses.Objective, such as losses.arcface(); got {objective!r}"
            )
        self.kernel = Kernel(impl, products)
        self.sampling = check_sampling(sampling, objective)
        self.objective = objective.bind(embedding_size, num_classes)
        self.init = check_init(init, num_classes, embedding_size, objective.subcenters is not None)
        self.weight = nn.Parameter(torch.empty(objective.weight_shape(num_classes, embedding_size)))
        self.bias = nn.Parameter(torch.empty(num_classes)) if objective.bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new class weights, by `init`."""
        if self.init == "spread":
            with torch.no_grad():
                self.weight.copy_(spread(self.num_classes, self.embedding_size, int(torch.randint(2**62, ()))))
        else:
            nn.init.normal_(self.weight, std=1 / math.sqrt(self.weight.shape[-1]))
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    @uncompiled
    def forward(self, features: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
        """The loss of the batch; see `angulus.class_loss`."""
        if self.training and getattr(self, "_is_replica", False):
            raise checks.InputError(
                "torch.nn.DataParallel gives each GPU a copy of the head whose figures are lost after the step; start "
                "one process per GPU with torchrun, or show this process one GPU by CUDA_VISIBLE_DEVICES=0"
            )
        ranks, update = self._partners(), UPDATES.get(self.weight)
        if update is not None and ranks.count > 1:
            raise checks.InputError(
                "the updates of BackwardSGD within backward cannot be averaged over processes, so their copies of the "
                "head would diverge; use another optimiser, or angulus.ShardedHead next to the wrapped backbone"
            )
        if self.ranks.count > 1:
            sum_gradients(self.parameters(), self.ranks, 1 / self.ranks.count)
        with self.objective.accumulate(ddp_accumulates(self.weight)):
            return class_loss.batch_loss(
                features,
                self.weight,
                labels,
                self.objective,
                bias=self.bias,
                kernel=self.kernel,
                ranks=ranks,
                sampling=self.sampling if self.training else None,
                update=update,
                reduction=reduction,
            )

    def _partners(self) -> Ranks:
        """The ranks that train this head together."""
        if self.alone or not (self.training and torch.is_grad_enabled()):
            return Ranks()
        if self.ranks.count > 1:
            return self.ranks
        return class_loss.training_ranks(
            self.weight,
            self.objective,
            "wrap the head, or a module that holds it, in DistributedDataParallel; or call head.synchronize() once and "
            "keep it next to the wrapped backbone; or use angulus.ShardedHead; or pass DenseHead(..., alone=True)",
        )

    def synchronize(self, group: Any = None) -> "DenseHead":
        """Keep this head equal on all ranks: every rank calls it once, before training.

        Weights and running figures are copied from rank 0. Every later backward averages the head's gradients over the
        ranks, as DistributedDataParallel does for the backbone, and the rows of all ranks update the figures.

        Args:
            group: the process group, or None for the default one.
        """
        if self.sampling is not None:
            raise checks.InputError(
                "each rank would draw other classes, and their sparse gradients cannot be averaged; use "
                "angulus.ShardedHead for class sampling, or sampling=None"
            )
        self.ranks = Ranks.here(group)
        broadcast([*(parameter.detach() for parameter in self.parameters()), *self.buffers()], self.ranks)
        return self

    def logits(self, features: Tensor) -> Tensor:
        """Logits without margin, [B, C]: radius · cosθ_j, or radius · w_j·x̂ (+ b_j) for raw weights.

        An objective without cross-entropy has no radius; its logits are the cosines. Features of a size of
        `objective.nested` get the logits of that prefix.
        """
        bound, weight = self.prefix_of(features)
        checks.matrices(features, weight, sub_centers=True)
        with torch.autocast(features.device.type, enabled=False):
            return class_logits(features, weight, self.bias, bound.spec, bound.radius)

    @torch.no_grad()
    def statistics(self, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Means over the rows of this batch, by name, at O(B · d); no state changes.

        `norm`; `target_cos`; `agent_distortion`, the mean of ‖x̂ − ŵ_y‖² (NF Prop. 3); `radius` and, for a contraction,
        `radius_saturation` in [0, 1); `beyond_pi_minus_m`, the share of samples whose margined angle exceeds π.
        """
        features, labels, _ = check_rows(features, self.weight, labels)
        target = self._target(features, labels)
        return summarize(self.objective, target, features, labels, Ranks(), [len(labels)]).values

    @torch.no_grad()
    def diagnose(self, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Figures that need another pass over the classes: for logging steps, not for every step.

        `misclassified_vectors`: share of non-target cosines above the margined target (MV's I); `accuracy`;
        `norm_right` and `norm_wrong`: mean norms of correctly and wrongly classified samples (NaN if there are none).
        """
        features, labels, _ = check_rows(features, self.weight, labels)
        target = self._target(features, labels)
        norms, cosines_only = target.norms, self.objective.spec.replace(weights="unit")
        with torch.autocast(features.device.type, enabled=False):
            cosines = plain_logits(target.unit, self.weight, cosines_only)
        above = (cosines > margined(self.objective, target)[:, None]).scatter(1, labels[:, None], False)
        right = self.logits(features).argmax(dim=1) == labels
        return {
            "misclassified_vectors": above.sum() / max(1, above.numel() - above.shape[0]),
            "accuracy": right.float().mean(),
            "norm_right": norms[right].mean(),
            "norm_wrong": norms[~right].mean(),
        }

    def _target(self, features: Tensor, labels: Tensor) -> Geometry:
        eps = self.objective.spec.eps
        norms, unit = normalize(features.to(torch.promote_types(features.dtype, self.weight.dtype)), eps)
        return replace(geometry(norms, unit, self.weight[labels], eps, self.objective.spec.softness), labels=labels)

    def extra_repr(self) -> str:
        return f"embedding_size={self.embedding_size}, num_classes={self.num_classes}, impl={self.kernel.impl!r}"
