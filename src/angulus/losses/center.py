"""Center loss: a term of the loss that needs labels and keeps one centre per class."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from angulus.core import checks
from angulus.losses.angles import normalize
from angulus.losses.roles import Piece
from angulus.losses.running import Statistics, Wide, wide_dtype


@dataclass(frozen=True)
class CenterLoss(Piece):
    """Center loss: λ/2 · ‖x − c_y‖²; the centres c follow their own update rule, not the optimiser.

    After an optimiser step: c_j ← c_j − α Σ_{y_i=j}(c_j − x_i) / (1 + n_j), n_j the samples of class j in the batch.

    Args:
        lam: λ ≥ 0.
        alpha: α in [0, 1], the rate of the centres; 0.5 in the paper.
        normalize: True uses unit features x̂ instead of x (center loss next to NormFace, NF Table 2).

    Source: Wen et al. 2016, Eq. 2 to 4.
    """

    lam: float
    alpha: float = 0.5
    normalize: bool = False
    name: ClassVar[str] = "center_loss"
    stateful: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.number("lam", self.lam, low=0)
        checks.number("alpha", self.alpha, low=0, high=1)
        checks.flag("normalize", self.normalize)

    def bind(self, embedding_size: int, num_classes: int) -> "Centers":
        return Centers(self, embedding_size, num_classes)

    def formula(self) -> str:
        return f"{self.lam / 2:g}·‖{'x̂' if self.normalize else 'x'} − c_y‖²"

    def words(self) -> str:
        features = "unit" if self.normalize else "raw"
        return f"center loss on {features} features with λ = {self.lam:g}, α = {self.alpha:g}"


class Centers(Wide):
    """`CenterLoss`, bound: holds `centers` [C, d] in float32 or wider, initially zero; `observe` updates them."""

    centers: Tensor

    def __init__(self, spec: CenterLoss, embedding_size: int, num_classes: int) -> None:
        super().__init__()
        self.spec = spec
        self.register_buffer("centers", torch.zeros(num_classes, embedding_size, dtype=wide_dtype()))

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        points = self._points(features)
        return self.spec.lam / 2 * (points - self.centers[labels].to(points.dtype)).square().sum(dim=1)

    def _points(self, features: Tensor) -> Tensor:
        return normalize(features)[1] if self.spec.normalize else features

    @torch.no_grad()
    def observe(self, stats: Statistics) -> None:
        # no shape depends on the labels, which would wait for a GPU
        kept = stats.labels != checks.IGNORE_INDEX
        labels = torch.where(kept, stats.labels.long(), 0)
        points = self._points(stats.features.to(self.centers.dtype))
        counts = points.new_zeros(len(self.centers)).index_add_(0, labels, kept.to(points.dtype))
        difference = torch.where(kept[:, None], self.centers[labels] - points, 0.0)
        self.centers.index_add_(0, labels, difference / (1 + counts[labels, None]), alpha=-self.spec.alpha)
