"""The roles that a piece can take in an objective, as protocols: any class with these members is a piece.

A piece is a frozen spec that knows neither C nor d. `bind(embedding_size, num_classes)` returns what is called: the
piece itself, or an `nn.Module` if it learns or keeps a figure; `observe(stats)` then updates it once per optimiser
step. A module whose loss needs this step's figure has `prepare(batch)` too: it is called with the step's
`running.Batch` before the loss, and with None after it. With `masks = True` it leaves out the rows that `Batch.kept`
leaves out, and then a step on a GPU does not wait. A class that inherits its role gets the usual answers; inheriting
is optional.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

from torch import Tensor

from angulus.core import checks

Coefficients = tuple[float | Tensor, float | Tensor, float | Tensor]  # (a2, a1, a0), 0-d tensors if they move


class Piece(Protocol):
    """What every piece offers: by default it has no state, and its formula describes it.

    Attributes:
        stateful: it learns, counts or keeps a figure, so `bind` returns a module.
        reads_batch: a row's loss depends on the other rows, so micro-batches give another loss than the whole batch.
    """

    @property
    def stateful(self) -> bool:
        return False

    @property
    def reads_batch(self) -> bool:
        return False

    def bind(self, embedding_size: int, num_classes: int) -> Any:
        return self

    def formula(self) -> str: ...

    def words(self) -> str:
        return self.formula()


class SlotPiece(Piece, Protocol):
    """A piece that fills a slot of an objective; `kind` is its name in recipes and by default its formula."""

    kind: ClassVar[str]

    def formula(self) -> str:
        return self.kind


class Radius(SlotPiece, Protocol):
    """Maps the norm of a feature to the factor of its cosines; bound, `radius(norms[B]) -> [B]`.

    Attributes:
        has_scale: it is one number for all rows; the bound form has it as `scale`, else None.
        linear: it is a multiple of the norm, so that logits without margin are linear in the feature, at zero too.
        where: the definition of a symbol in its formula, or "".
    """

    has_scale: ClassVar[bool] = False
    linear: ClassVar[bool] = False
    where: ClassVar[str] = ""

    @property
    def scale(self) -> float | None:
        return None


class Margin(SlotPiece, Protocol):
    """Replaces cosθ of the target class; bound, `margin(theta[B], norms[B]) -> [B]`.

    Attributes:
        options: settings that its formula does not show, or "".
        reads_labels: the bound form takes the labels [B] as a third argument.
        reads_norms: it has no effect of its own on features that all have the same length.
    """

    reads_labels: ClassVar[bool] = False
    reads_norms: ClassVar[bool] = False

    @property
    def options(self) -> str:
        return ""

    def formula(self) -> str:
        return f"{self.kind}(θ)"


class Negatives(SlotPiece, Protocol):
    """Maps a non-target cosine c above a threshold to a2·c² + a1·c + a0; the others keep their cosine by default.

    Attributes:
        remaps: it changes some cosines.
        coefficients: (a2, a1, a0), read from the bound form at every step.
        threshold: None, the sample's margined target, or one number for all samples.
        below: what replaces the cosines that are not above the threshold; None keeps them.
        slope: (d1, d0), if the gradient of a changed cosine is d1·c + d0 by name and not the derivative of its map.
        power: (t, m), to map every cosine to 2((c + 1)/2)^t − 1 + m; it then needs no threshold and no coefficients.
        at_right_angle: what replaces a cosine of 0.
    """

    remaps: ClassVar[bool] = True
    below: ClassVar[float | None] = None

    @property
    def threshold(self) -> float | None:
        return None

    @property
    def slope(self) -> tuple[float, float] | None:
        return None

    @property
    def power(self) -> tuple[float, float] | None:
        return None

    @property
    def at_right_angle(self) -> float:
        return 0.0

    @property
    def coefficients(self) -> Coefficients: ...


class Subcenters(SlotPiece, Protocol):
    """How the cosines of a class's weight rows become the cosine of the class.

    Attributes:
        rows: K, the weight rows per class.
        softness: γ of the softmax that weights the rows' cosines; None takes the largest.
    """

    @property
    def rows(self) -> int: ...

    @property
    def softness(self) -> float | None:
        return None


class Weighting(SlotPiece, Protocol):
    """The weight of each row; bound, `weighting(loss[B], log_p[B], log_not_p[B]) -> (weight[B], divisor)`.

    Attributes:
        reads_labels: the bound form takes the labels [B] as `labels=`.
        probability: p of the target class from the logits of the loss, "margin", or from the plain cosines, "plain".
        scope: the rows that it sees when several processes train: each one's own, "rank", or all of them, "global".

    If it reads the batch, a step on a GPU waits until only the rows that count are left; unless it has `masks = True`
    and takes `kept=` [B] too, which names these rows (None: all count).
    """

    reads_labels: ClassVar[bool] = False

    @property
    def probability(self) -> str:
        return "margin"

    @property
    def scope(self) -> str:
        return "rank"


class Classifier(SlotPiece, Protocol):
    """Makes a loss of the target's logit and of what the kernel sums over the other classes.

    Bound: `classifier(own[B], others[B], total[B] | None) -> loss[B]`, with `others` the log-sum-exp of the other
    logits or the sum of their softplus, and `total` the sum of these logits.

    Attributes:
        softplus: `others` is Σ_{j≠y} log(1 + e^{z_j}) instead of log Σ_{j≠y} e^{z_j}.
        sums_logits: it needs `total`.
        name: how descriptions call its loss.
        loss_formula: the loss as a formula of t and z_j.

    The bound form's `shift(norms[B])` is added to every logit, [B], or None.
    """

    softplus: ClassVar[bool] = False
    name: ClassVar[str]

    @property
    def sums_logits(self) -> bool:
        return False

    def loss_formula(self) -> str: ...


@dataclass(frozen=True)
class Rows:
    """What a penalty sees of the samples; every tensor is [B].

    Args:
        norms: ‖x‖ of the raw features.
        cos: cosine with the own class, without margin.
        target: the margined cosine that the loss uses instead.
        scale: s of the base loss if it is one number (fixed or learned), else None.
    """

    norms: Tensor
    cos: Tensor
    target: Tensor
    scale: float | Tensor | None


class LogSumExp(NamedTuple):
    """Asks for log Σ_{j≠y} e^{scale · cos_j}."""

    scale: Tensor  # [B]


class Hinge(NamedTuple):
    """Asks for Σ_{j≠y} max(0, offset + 2 cos_j), the sum of hinges on squared distances of unit vectors."""

    offset: Tensor  # [B]


class ClassSums(NamedTuple):
    """Asks for sums over the batch for each class p.

    These are Σ_p log(1 + Σ_{x of p} e^{−alpha (cos − delta)}), Σ_p log(1 + Σ_{x not of p} e^{alpha (cos + delta)}), and
    the number of classes with a row, at least 1; each repeated for every row of the batch, [B].
    """

    alpha: float
    delta: float


class Spread(NamedTuple):
    """Asks for the mean distance √(‖ŵ_jk − ŵ_jl‖² + eps) between two sub-centres of a class, k < l."""

    eps: float


Ask = LogSumExp | Hinge | ClassSums | Spread | None


class Penalty(Piece, Protocol):
    """A term added to the loss; bound, `penalty(rows, answer) -> [B]` and `ask(rows)`.

    `answer` is the reduction over the classes that `ask` requested: for a `LogSumExp` the log-sum-exp [B], for a
    `Hinge` the pair (sum of hinges [B], number of active ones [B]), for `ClassSums` its three numbers, [B] each, for a
    `Spread` the pair (sum over the classes [B], number of classes [B]), the same for all rows, for None nothing.

    Attributes:
        name: its name in recipes and in `state_dict`.
        asks: `LogSumExp`, `Hinge`, `ClassSums` or `Spread`, the type that `ask` returns, or None.
        asks_of_target: `ask` reads `rows.cos` or `rows.target`, so both are computed before the reduction. If False,
            `ask` gets NaN for them, and a step computes the target's geometry once.
        needs_scale: it takes its scale from a base loss with one s.
        needs_margin: it reads the base's margined cosine.
        trains_classes: it trains class weights without a cross-entropy.
        reads_norms: it has no effect on features that all have the same length.
    """

    name: ClassVar[str]
    trains_classes: ClassVar[bool] = False
    reads_norms: ClassVar[bool] = False

    @property
    def asks(self) -> type[LogSumExp] | type[Hinge] | type[ClassSums] | type[Spread] | None:
        return None

    @property
    def asks_of_target(self) -> bool:
        return True

    @property
    def needs_scale(self) -> bool:
        return False

    @property
    def needs_margin(self) -> bool:
        return False

    def at_scale(self, s: float) -> "Penalty":
        """This penalty with the base loss's scale written in, for its formula."""
        return self

    def ask(self, rows: Rows) -> Ask:
        return None

    def formula(self) -> str:
        return self.name


def check(role: type, slot: str, value: object) -> None:
    """Refuse a value that cannot take the role in this slot, naming the members that it lacks."""
    own = [name for base in role.__mro__ for name in (*vars(base).get("__annotations__", ()), *vars(base))]
    members = sorted({name for name in own if not name.startswith("_")})
    lacking = [name for name in members if not hasattr(value, name)]
    if isinstance(value, type) or len(lacking) == len(members):
        or_none = " or None" if slot not in ("negatives", "penalty", "classifier") else ""
        raise checks.InputError(f"{slot} must be a {slot} piece{or_none}; got {value!r}")
    if lacking:
        raise checks.InputError(
            f"{slot} must be a {slot} piece, with all of losses.roles.{role.__name__}; {type(value).__name__} lacks "
            f"{', '.join(lacking)}"
        )
    if not dataclasses.is_dataclass(value) or type(value).__hash__ is None:
        raise checks.InputError(
            f"{slot} must be a frozen dataclass, to be compared and written to a recipe; {type(value).__name__} is none"
        )
