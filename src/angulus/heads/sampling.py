"""Class sampling (Partial FC): a step sees the classes of its rows and a random share of the other classes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from angulus.core import checks
from angulus.losses.objective import Objective
from angulus.losses.roles import Hinge, LogSumExp


@dataclass(frozen=True)
class ClassSampling:
    """Each step sees ⌈rate · C⌉ of the C classes of a rank: always those of its rows, and others drawn uniformly.

    The class weights then get a sparse gradient, of the sampled rows only: train them with `angulus.SparseSGD`, which
    leaves all other rows and their momentum unchanged.

    Args:
        rate: share of the classes, in (0, 1].
        corrected: False sums over the sampled classes, as the paper does, which makes the sum of the negatives smaller.
            True weights each class by the inverse of its probability to be drawn, so that Σ_{j≠y} e^{z_j} is unbiased
            (its logarithm is not); not for IAM, whose own sums would stay uncorrected.

    Source: An et al. 2021, Partial FC, Sec. 3.3; the correction is Horvitz and Thompson's (1952).
    """

    rate: float
    corrected: bool = False
    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "strict": True}

    def __post_init__(self) -> None:
        checks.number("sampling rate", self.rate, low=0, high=1, open_low=True)
        checks.flag("corrected", self.corrected)


def check_sampling(sampling: ClassSampling | None, objective: Objective) -> ClassSampling | None:
    """The sampling, or an error that says why it cannot be used with the objective."""
    if sampling is None:
        return None
    if not isinstance(sampling, ClassSampling):
        raise checks.InputError(f"sampling must be an angulus.ClassSampling or None; got {sampling!r}")
    hinges = [term.penalty.name for term in objective.penalties if term.penalty.asks is Hinge]
    if hinges:
        raise checks.InputError(
            f"class sampling is not defined with {', '.join(hinges)}, which counts all classes: leave one of them out"
        )
    if getattr(objective.radius, "asks_log_sums", False):
        raise checks.InputError(
            "class sampling is not defined with a dynamic AdaCos, whose scale follows the sum over all classes: use "
            "adacos('fixed'), or leave the sampling out"
        )
    if objective.reduces_batch:
        raise checks.InputError(
            "class sampling is not defined with proxy_anchor, whose second mean is over all classes: leave one of them "
            "out"
        )
    if objective.radius is not None and objective.classifier.sums_logits:
        raise checks.InputError(
            "class sampling is not defined with label smoothing, which spreads over all classes: use smoothing = 0, or "
            "leave sampling out"
        )
    if sampling.corrected and objective.classifier.softplus:
        raise checks.InputError(
            "corrected sampling shifts the logits of a softmax's sum of exponentials, which does not correct a sum of "
            "sigmoid losses; give corrected=False"
        )
    plain = [term.penalty.name for term in objective.penalties if term.penalty.asks is LogSumExp]
    if sampling.corrected and (plain or (objective.remaps and objective.plain_probability)):
        what = ", ".join(plain) or "a weighting with probability='plain' over changed negatives"
        raise checks.InputError(
            f"corrected sampling is for the sum of a cross-entropy alone; leave {what} out, or give corrected=False"
        )
    return sampling


class ClassSubset(NamedTuple):
    """The classes that a step sees."""

    weight: Tensor  # [n, d], or [n, K, d] with sub-centres
    bias: Tensor | None  # [n], of the model
    labels: Tensor  # the rows' classes among these, [B]; −1 if another rank holds the row's class
    biases: Tensor | None  # [n], added to the logits of the negatives: the bias, and the correction of sampling


class _Rows(torch.autograd.Function):
    """weight[index], with a sparse gradient as `F.embedding` has for matrices: all sub-centres of the classes."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.shape = weight.shape
        return weight[index]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        sparse = torch.sparse_coo_tensor(index[None], gradient, ctx.shape, is_coalesced=True, check_invariants=False)
        return sparse, None


def sample(sampling: ClassSampling, weight: Tensor, bias: Tensor | None, labels: Tensor) -> ClassSubset:
    """Draw the classes of this step."""
    classes = len(weight)
    present = torch.unique(labels[labels >= 0])
    others = min(int(sampling.corrected), classes - len(present))  # a chance of 0 has no inverse
    wanted = max(math.ceil(sampling.rate * classes - 1e-9), len(present) + others)
    drawn = torch.rand(classes, device=labels.device).index_fill(0, present, 2.0)
    index = torch.topk(drawn, wanted, sorted=False).indices.sort().values
    places = torch.where(labels >= 0, torch.searchsorted(index, labels), -1)
    rows: Tensor = F.embedding(index, weight, sparse=True) if weight.ndim == 2 else _Rows.apply(weight, index)  # type: ignore[no-untyped-call]
    bias = None if bias is None else torch.gather(bias, 0, index, sparse_grad=True)
    if not sampling.corrected or wanted == len(present):
        return ClassSubset(rows, bias, places, bias)
    chance = (wanted - len(present)) / (classes - len(present))
    offset = torch.where(torch.isin(index, present), 0.0, -math.log(chance))
    offset = offset.to(torch.promote_types(weight.dtype, torch.float32))
    return ClassSubset(rows, bias, places, offset if bias is None else bias + offset)
