"""Class sampling (Partial FC): a step sees the classes of its rows and a random share of the other classes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from angulus.core import checks
from angulus.losses.objective import Objective
from angulus.losses.roles import Hinge, LogSumExp
from angulus.losses.running import exact_dtype


@dataclass(frozen=True)
class ClassSampling:
    """Each step sees ⌈rate · C⌉ of the C classes of a rank: always those of its rows, and others drawn uniformly.

    The class weights then get a sparse gradient, of the sampled rows only: train them with `angulus.SparseSGD`, which
    leaves all other rows and their momentum unchanged.

    Args:
        rate: share of the classes, in (0, 1].
        corrected: False sums over the sampled classes, as the paper does, which makes the sum of the negatives smaller.
            True weights each class by the inverse of its probability to be drawn, so that Σ_{j≠y} e^{z_j} is unbiased
            (its logarithm is not); not for IAM or C-triplet of the hardest class, whose
            own sums would stay uncorrected.

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
    """weight[index], with a sparse gradient of these rows; `index` rises, so that no optimiser must sort it."""

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
    """Draw the classes of this step.

    Without more rows than classes to draw, their number is known beforehand, and no host waits for a GPU.
    """
    classes = len(weight)
    present = torch.zeros(classes + 1, dtype=torch.bool, device=labels.device)
    present = present.index_fill(0, torch.where(labels >= 0, labels, classes), True)[:-1]
    wanted, number = math.ceil(sampling.rate * classes - 1e-9), present.sum()
    if min(len(labels), classes) + sampling.corrected > wanted:
        known = int(number)
        wanted = max(wanted, known + min(int(sampling.corrected), classes - known))  # a chance of 0 has no inverse
    drawn = torch.rand(classes, device=labels.device).masked_fill(present, 2.0)
    index = torch.topk(drawn, wanted, sorted=False).indices.sort().values
    places = torch.where(labels >= 0, torch.searchsorted(index, labels), -1)
    rows: Tensor = _Rows.apply(weight, index)  # type: ignore[no-untyped-call]
    bias = None if bias is None else _Rows.apply(bias, index)  # type: ignore[no-untyped-call]
    if not sampling.corrected:
        return ClassSubset(rows, bias, places, bias)
    chance = (wanted - number).to(exact_dtype(labels.device)) / (classes - number)
    offset = torch.where(present[index], 0.0, -torch.log(chance))
    offset = offset.to(torch.promote_types(weight.dtype, torch.float32))
    return ClassSubset(rows, bias, places, offset if bias is None else bias + offset)
