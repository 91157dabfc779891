"""The roles that a piece can take in an objective, as protocols: a class of anyone's with these members is a piece.

A piece is a frozen spec that knows neither C nor d. `bind(embedding_size, num_classes)` returns what is called: the
piece itself, or an `nn.Module` where it learns or keeps a figure; that is then moved by `observe(stats)` once an
optimiser step. The `Stateless` of each role's module has the usual answers, to be inherited or not.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Protocol

from angulus.core import checks


class Piece(Protocol):
    """What every piece offers.

    Attributes:
        stateful: it learns, counts or keeps a figure, so `bind` returns a module.
        reads_batch: a row's loss depends on the other rows, so micro-batches give another loss than their whole.
    """

    @property
    def stateful(self) -> bool: ...
    @property
    def reads_batch(self) -> bool: ...
    def bind(self, embedding_size: int, num_classes: int) -> Any: ...
    def formula(self) -> str: ...
    def words(self) -> str: ...


class Radius(Piece, Protocol):
    """What the norm of a feature becomes before it multiplies the cosines; bound, `radius(norms[B]) -> [B]`.

    Attributes:
        kind: its name in recipes.
        has_scale: it is one number for all rows, which the bound form gives as `scale`.
        linear: it is a multiple of the norm, so that logits without margin are linear in the feature, at zero too.
        where: what its formula leaves to be said, or "".
    """

    kind: ClassVar[str]

    @property
    def has_scale(self) -> bool: ...
    @property
    def linear(self) -> bool: ...
    @property
    def where(self) -> str: ...


class Margin(Piece, Protocol):
    """What stands for cosθ of the target class; bound, `margin(theta[B], norms[B]) -> [B]`."""

    kind: ClassVar[str]


class Negatives(Piece, Protocol):
    """What becomes of a non-target cosine c above the margined target: a2·c² + a1·c + a0; bound, it has these three.

    Attributes:
        coefficients: (a2, a1, a0).
    """

    kind: ClassVar[str]

    @property
    def coefficients(self) -> tuple[float, float, float]: ...


class Weighting(Piece, Protocol):
    """How much each row counts; bound, `weighting(loss[B], log_p[B], log_not_p[B]) -> (weight[B], divisor)`.

    Attributes:
        probability: p of the target class from the logits of the loss, "margin", or from the plain cosines, "plain".
        scope: the rows that it sees where several processes train: each one's own, "rank", or those of all, "global".
    """

    kind: ClassVar[str]

    @property
    def probability(self) -> str: ...
    @property
    def scope(self) -> str: ...


class Penalty(Piece, Protocol):
    """A term added to the loss; bound, `penalty(rows, answer) -> [B]`, and `ask(rows)`: see `losses.asks`.

    Attributes:
        name: in recipes and state.
        asks: `Plain` or `Hinge`, what `ask` returns, or None.
        needs_scale: it takes its scale from a base loss with one s.
        needs_margin: it reads the base's margined cosine.
        trains_classes: it trains class weights without a cross-entropy.
        reads_norms: it has no effect on features of one length.
    """

    name: ClassVar[str]

    @property
    def asks(self) -> Any: ...
    @property
    def needs_scale(self) -> bool: ...
    @property
    def needs_margin(self) -> bool: ...
    @property
    def trains_classes(self) -> bool: ...
    @property
    def reads_norms(self) -> bool: ...
    def at_scale(self, s: float) -> Penalty: ...


class Stateless:
    """The usual answers of a piece: nothing kept, named by its kind. A piece overrides what differs."""

    kind: ClassVar[str]

    @property
    def stateful(self) -> bool:
        return False

    @property
    def reads_batch(self) -> bool:
        return False

    def bind(self, embedding_size: int, num_classes: int):  # type: ignore[no-untyped-def]  # returns Self
        return self

    def formula(self) -> str:
        return self.kind

    def words(self) -> str:
        return self.formula()


def check(role: type, slot: str, value: object) -> None:
    """Refuse what cannot take the role in this slot, naming what it lacks."""
    own = [name for base in role.__mro__ for name in (*vars(base).get("__annotations__", ()), *vars(base))]
    members = sorted({name for name in own if not name.startswith("_")})
    lacking = [name for name in members if not hasattr(value, name)]
    if isinstance(value, type) or len(lacking) == len(members):
        or_none = " or None" if slot not in ("negatives", "penalty") else ""
        raise checks.InputError(f"{slot} must be a {slot} piece{or_none}; got {value!r}")
    if lacking:
        raise checks.InputError(
            f"{slot} must be a {slot} piece, with all of losses.roles.{role.__name__}; {type(value).__name__} lacks "
            f"{', '.join(lacking)}"
        )
    if not dataclasses.is_dataclass(value) or type(value).__hash__ is None:
        raise checks.InputError(
            f"{slot} must be a frozen dataclass, so that it can be compared and written to a recipe; "
            f"{type(value).__name__} is none"
        )
