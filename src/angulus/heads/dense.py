"""DenseHead: class weights on one device, an objective bound to them, and the loss, logits and statistics they give."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from angulus import checks
from angulus.distributed.runtime import in_running_ddp
from angulus.heads.functional import batch_loss, counted, plain_logits
from angulus.heads.geometry import Geometry, geometry, normalize
from angulus.heads.rows import margined, measures, radius_of
from angulus.heads.sampling import ClassSampling, checked
from angulus.heads.updates import attached
from angulus.kernels.reference import lengths
from angulus.kernels.select import Kernel
from angulus.losses.objective import Objective
from angulus.losses.running import Statistics


class DenseHead(nn.Module):
    """Class weights and an objective: `head(features, labels)` is the loss.

    In a training loop of your own, call `head.observe(head.statistics(features, labels))` once an optimiser step:
    centres, running means (`gamma="auto"`, the incay bound) and annealing move there, and only there.

    Args:
        embedding_size: d.
        num_classes: C.
        objective: an `Objective`; the head binds it to C and d, and holds what it learns.
        impl, products: the kernel and the dtype of its products, as in `angulus.class_loss`.
        sampling: a `ClassSampling`, for training mode only, or None: every step sees all classes.

    Attributes:
        weight: class weights [C, d], rows drawn from N(0, 1/d) per entry, so of length about 1.
        bias: [C], zero at first, or None.
        objective: the bound objective.
        num_classes, embedding_size: C and d.

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
    ) -> None:
        super().__init__()
        if not isinstance(objective, Objective):
            raise checks.InputError(f"objective must be an unbound angulus.losses.Objective; got {objective!r}")
        self.kernel = Kernel(impl, products)
        self.sampling = checked(sampling, objective)
        self.objective = objective.bind(num_classes, embedding_size)
        self.weight = nn.Parameter(torch.empty(num_classes, embedding_size))
        self.bias = nn.Parameter(torch.empty(num_classes)) if objective.bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the class weights anew."""
        nn.init.normal_(self.weight, std=1 / math.sqrt(self.weight.shape[1]))
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, features: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
        """The loss of the batch; see `angulus.class_loss`."""
        update = attached(self.weight)
        if update is not None and in_running_ddp(self.weight):
            raise checks.InputError(
                "DistributedDataParallel cannot average what BackwardSGD updates within backward, so its copies of the "
                "head would part; use another optimiser, or angulus.ShardedHead beside the wrapped backbone"
            )
        return batch_loss(
            features,
            self.weight,
            labels,
            self.objective,
            bias=self.bias,
            kernel=self.kernel,
            sampling=self.sampling if self.training else None,
            update=update,
            reduction=reduction,
        )

    def logits(self, features: Tensor) -> Tensor:
        """Logits without margin, [B, C]: radius · cosθ_j, or radius · w_j·x̂ (+ b_j) for raw weights.

        An objective without cross-entropy has no radius; its logits are the cosines.
        """
        checks.matrices(features, self.weight)
        spec = self.objective.spec
        with torch.autocast(features.device.type, enabled=False):
            norms, unit = normalize(features.to(torch.promote_types(features.dtype, self.weight.dtype)), spec.eps)
            logits = plain_logits(unit, self.weight, spec)
            radius = radius_of(self.objective, norms)
            if radius is not None:
                logits = radius[:, None] * logits
            return logits if self.bias is None else logits + self.bias.to(logits.dtype)

    @torch.no_grad()
    def statistics(self, features: Tensor, labels: Tensor, step: int | None = None) -> Statistics:
        """What this batch looks like, at O(B · d): mean norm, radius, target cosine, and what `observe` reads.

        Values: `norm`; `target_cos`; `agent_distortion`, the mean of ‖x̂ − ŵ_y‖² (NF Prop. 3); `radius` and, for a
        contraction, `radius_saturation` in [0, 1); `beyond_pi_minus_m`, the share of samples whose
        margined angle exceeds π.
        """
        features, labels, _ = counted(features, self.weight, labels)
        values = measures(self.objective, self._target(features, labels))
        means = {name: value.mean() for name, value in values.items()}
        return Statistics(means, features.detach(), labels, step)

    @torch.no_grad()
    def diagnose(self, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """What takes one more pass over the classes: for a logging step, not for every one.

        `misclassified_vectors`: share of non-target cosines above the margined target (MV's I); `accuracy`;
        `norm_right` and `norm_wrong`: mean norms of rightly and wrongly classified samples (NaN where there are none).
        """
        features, labels, _ = counted(features, self.weight, labels)
        target = self._target(features, labels)
        norms, weight = target.norms, self.weight.to(target.unit.dtype)
        with torch.autocast(features.device.type, enabled=False):
            cosines = target.unit @ weight.T / lengths(weight, self.objective.spec.eps)
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
        return geometry(norms, unit, self.weight[labels], eps)

    def observe(self, stats: Statistics) -> None:
        """Move the running figures of the objective; the loop calls it once an optimiser step."""
        self.objective.observe(stats)

    @property
    def num_classes(self) -> int:
        """Of the head: C."""
        return self.objective.num_classes

    @property
    def embedding_size(self) -> int:
        """Of the features: d."""
        return self.objective.embedding_size

    def extra_repr(self) -> str:
        return f"embedding_size={self.embedding_size}, num_classes={self.num_classes}, impl={self.kernel.impl!r}"
