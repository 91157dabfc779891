"""Which images the steps of an epoch take: the section `training.sampler` of a recipe."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

STRICT = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Balanced:
    """Every class has the same share of an epoch, however many images it has."""

    kind: Literal["balanced"] = "balanced"

    def shares(self, counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """p_c ∝ 1 for classes with n_c > 0 images; [C], summing to 1."""
        return _normalized((counts > 0).astype(np.float64))


@dataclass(frozen=True, config=STRICT, kw_only=True)
class SquareRoot:
    """A class's share of an epoch grows with the square root of its number of images.

    Source: B. Kang et al., Decoupling Representation and Classifier for Long-Tailed Recognition, arXiv:1910.09217,
    Eq. 1 with q = 1/2; q = 1 is the plain shuffle and q = 0 is `balanced`.
    """

    kind: Literal["square_root"] = "square_root"

    def shares(self, counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """p_c ∝ √n_c; [C], summing to 1."""
        return _normalized(np.sqrt(counts))


@dataclass(frozen=True, config=STRICT, kw_only=True)
class EffectiveNumber:
    """An image is drawn with a weight of 1 / E(n), where n is the number of images of its class.

    E(n) = (1 − βⁿ) / (1 − β) is the effective number of n images: 1 for β → 0, which gives the plain shuffle, and n for
    β → 1, which gives `balanced`.

    Source: Y. Cui et al., Class-Balanced Loss Based on Effective Number of Samples, arXiv:1901.05555, Proposition 1.
    Differs: the paper weighs the loss by 1 / E(n); here it weighs how often an image is drawn.
    """

    kind: Literal["effective_number"] = "effective_number"
    beta: Annotated[float, Field(gt=0, lt=1)] = 0.999
    """How much images of a class overlap: the effective number of a class is at most 1 / (1 − beta)."""

    def shares(self, counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """p_c ∝ n_c / E(n_c); [C], summing to 1."""
        effective = -np.expm1(counts * np.log(self.beta)) / (1 - self.beta)
        return _normalized(counts / np.where(counts > 0, effective, 1))


@dataclass(frozen=True, config=STRICT, kw_only=True)
class ClassesTimesImages:
    """Every step takes P classes with K images of each; P is batch_size / K. No class is twice in a step.

    Source: A. Hermans et al., In Defense of the Triplet Loss for Person Re-Identification, arXiv:1703.07737, Sec. 2.
    """

    kind: Literal["p_k"] = "p_k"
    images_per_class: Annotated[int, Field(ge=1)] = 4
    """K, a divisor of batch_size."""


Sampler = Annotated[Balanced | SquareRoot | EffectiveNumber | ClassesTimesImages, Field(discriminator="kind")]


def _normalized(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(weights / weights.sum())
