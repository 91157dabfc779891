"""Class sampling (Partial FC): a step sees the classes of its rows and a random share of the others."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from angulus.core import checks
from angulus.losses.asks import Hinge, Plain
from angulus.losses.objective import Objective


@dataclass(frozen=True)
class ClassSampling:
    """Of the C classes that a rank holds a step sees ⌈rate · C⌉: those of the rows, always, and others drawn uniformly.

    The class weights then get a sparse gradient, of the sampled rows alone: train them with `angulus.SparseSGD`, which
    leaves every other row, its momentum included, as it was.

    Args:
        rate: share of the classes, in (0, 1].
        corrected: False sums over the sampled classes, as the paper does, which makes the sum of the negatives smaller.
            True weighs each class by the inverse of its chance to be drawn, so that Σ_{j≠y} e^{z_j} is unbiased (its
            logarithm is not); for a cross-entropy without IAM, whose own sums would stay uncorrected.

    Source: An et al. 2021, Partial FC, Sec. 3.3; the correction is Horvitz and Thompson's (1952).
    """

    rate: float
    corrected: bool = False
    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "strict": True}

    def __post_init__(self) -> None:
        checks.number("sampling rate", self.rate, low=0, high=1, open_low=True)
        checks.flag("corrected", self.corrected)


def checked(sampling: ClassSampling | None, objective: Objective) -> ClassSampling | None:
    """The sampling, or why it does not go with the objective."""
    if sampling is None:
        return None
    if not isinstance(sampling, ClassSampling):
        raise checks.InputError(f"sampling must be an angulus.ClassSampling or None; got {sampling!r}")
    hinges = [term.penalty.name for term in objective.penalties if term.penalty.asks is Hinge]
    if hinges:
        raise checks.InputError(
            f"class sampling is not defined with {', '.join(hinges)}, which counts all classes: leave one of them out"
        )
    plain = [term.penalty.name for term in objective.penalties if term.penalty.asks is Plain]
    if sampling.corrected and (plain or (objective.remaps and objective.plain_probability)):
        what = ", ".join(plain) or "a weighting with probability='plain' over changed negatives"
        raise checks.InputError(
            f"corrected sampling is defined for the sum of a cross-entropy alone; leave {what} out, "
            "or give corrected=False"
        )
    return sampling


@dataclass(frozen=True)
class Sample:
    """The classes that a step sees.

    Args:
        weight: theirs, [n, d].
        bias: [n], or None.
        labels: the rows' classes among them, [B], −1 where a row's class is held elsewhere.
        offset: what is added to a class's logit among the negatives, [n], or None for nothing.
    """

    weight: Tensor
    bias: Tensor | None
    labels: Tensor
    offset: Tensor | None = None

    @property
    def biases(self) -> Tensor | None:
        """What is added to the logit of each class among the negatives, [n]."""
        if self.bias is None or self.offset is None:
            return self.bias if self.offset is None else self.offset
        return self.bias + self.offset


def sample(sampling: ClassSampling | None, weight: Tensor, bias: Tensor | None, labels: Tensor) -> Sample:
    """The classes of this step: all of them without sampling."""
    if sampling is None:
        return Sample(weight, bias, labels)
    classes = len(weight)
    present = torch.unique(labels[labels >= 0])
    others = min(int(sampling.corrected), classes - len(present))  # a chance of 0 has no inverse
    wanted = max(math.ceil(sampling.rate * classes - 1e-9), len(present) + others)
    drawn = torch.rand(classes, device=labels.device).index_fill(0, present, 2.0)
    index = torch.topk(drawn, wanted, sorted=False).indices.sort().values
    places = torch.where(labels >= 0, torch.searchsorted(index, labels), -1)
    offset = None
    if sampling.corrected and wanted > len(present):
        chance = (wanted - len(present)) / (classes - len(present))
        offset = torch.where(torch.isin(index, present), 0.0, -math.log(chance)).to(
            torch.promote_types(weight.dtype, torch.float32)
        )
    return Sample(
        F.embedding(index, weight, sparse=True),
        None if bias is None else torch.gather(bias, 0, index, sparse_grad=True),
        places,
        offset,
    )
