"""Sub-centres: how the cosines of a class's K weight rows become the one cosine of the class.

Target and other classes alike, before margin and negatives. The head's weight is then [C, K, d].
"""

from dataclasses import dataclass
from typing import ClassVar

from angulus.core import checks
from angulus.losses.roles import Subcenters


@dataclass(frozen=True)
class Nearest(Subcenters):
    """cos θ_j = max_k cos θ_jk. Sub-center ArcFace. Only the nearest row gets a gradient; of equals, the first.

    Args:
        k: weight rows per class, ≥ 1; the paper's K = 3. With 1 the loss is the one without sub-centres.

    Source: Deng et al. 2020, Sec. 3.2.
    """

    k: int = 3
    kind: ClassVar[str] = "nearest"

    def __post_init__(self) -> None:
        checks.integer("k", self.k, low=1, hint="it is the number of weight rows per class")

    @property
    def rows(self) -> int:
        return self.k

    def formula(self) -> str:
        return f"cos θ_j = max_k cos θ_jk, k = 1..{self.k}"

    def words(self) -> str:
        return f"{self.k} sub-centres per class, of which the nearest counts"


@dataclass(frozen=True)
class Weighted(Subcenters):
    """cos θ_j = Σ_k softmax_k(cos θ_jk / γ) · cos θ_jk. SoftTriple. Every row gets a gradient, the weights' included.

    Args:
        k: weight rows per class, ≥ 1; the paper's K = 10. With 1 the loss is the one without sub-centres.
        gamma: γ > 0; 0.1 in the paper. For small γ it is `Nearest`.

    Source: Qian et al. 2019, Eq. 8. Differs: the authors' code multiplies by its `gamma` = 1 / γ = 10.
    """

    k: int = 10
    gamma: float = 0.1
    kind: ClassVar[str] = "weighted"

    def __post_init__(self) -> None:
        checks.integer("k", self.k, low=1, hint="it is the number of weight rows per class")
        checks.number("gamma", self.gamma, low=0, open_low=True)

    @property
    def rows(self) -> int:
        return self.k

    @property
    def softness(self) -> float | None:
        return self.gamma

    def formula(self) -> str:
        return f"cos θ_j = Σ_k softmax_k(cos θ_jk/{self.gamma:g})·cos θ_jk, k = 1..{self.k}"

    def words(self) -> str:
        return f"{self.k} sub-centres per class, weighted by a softmax with γ = {self.gamma:g}"


TABLE: dict[str, type[Subcenters]] = {piece.kind: piece for piece in (Nearest, Weighted)}
