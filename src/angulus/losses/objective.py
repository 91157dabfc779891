"""Objective: a loss as a frozen, printable choice of pieces; BoundObjective: the same with C, d and state."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from angulus.core import checks
from angulus.core.checks import InputError
from angulus.losses import describe, roles
from angulus.losses.center import CenterLoss
from angulus.losses.negatives import Keep
from angulus.losses.penalties import TABLE as PENALTIES
from angulus.losses.running import Statistics, merge_statistics

ROLES: dict[str, type] = {
    "radius": roles.Radius,
    "margin": roles.Margin,
    "negatives": roles.Negatives,
    "weighting": roles.Weighting,
}


class Term(NamedTuple):
    """A penalty and the factor before it."""

    weight: float
    penalty: roles.Penalty


@dataclass(frozen=True)
class Objective:
    """A loss of the softmax family with penalties, as a spec that knows neither C nor d.

    loss_i = −log(e^{t_i} / (e^{t_i} + Σ_{j≠y} e^{z_ij})), with z_ij = radius_i · negatives(cos θ_ij) and
    t_i = radius_i · margin(θ_i); raw weights multiply both by their lengths, a bias adds b_j. Plus the penalties.

    Args:
        radius: maps the feature norm to the factor of the cosines; None leaves the cross-entropy out (a proxy loss or a
            penalty alone).
        margin: maps the target's angle to what replaces its cosine; None keeps the cosine.
        negatives: maps the non-target cosines above the margined target.
        weighting: the weight of each sample, or None.
        weights: `"unit"`, class weights enter by direction only, or `"raw"`.
        bias: whether there is one bias per class.
        eps: unit vectors divide by sqrt(‖·‖² + eps) (NF Sec. 3.2); 0 divides by the norm.
        cross_entropy: the factor before the cross-entropy.
        penalties: factors and penalties, at most one of each name.
        center_loss: center loss, or None.

    `a + b` joins a loss and penalties, `0.1 * a` scales, `a.replace(margin=...)` changes a piece.

    >>> from angulus import losses
    >>> print(losses.arcface(s=64, m=0.5))
    softmax cross-entropy on unit weights; radius fixed at s = 64; target cos(θ + 0.5)
    """

    radius: roles.Radius | None = None
    margin: roles.Margin | None = None
    negatives: roles.Negatives = Keep()  # noqa: RUF009  # frozen
    weighting: roles.Weighting | None = None
    weights: str = "unit"
    bias: bool = False
    eps: float = 0.0
    cross_entropy: float = 1.0
    penalties: tuple[Term, ...] = ()
    center_loss: CenterLoss | None = None

    def __post_init__(self) -> None:
        for slot, role in ROLES.items():
            chosen = getattr(self, slot)
            if chosen is not None or slot == "negatives":
                roles.check(role, slot, chosen)
        if not (self.center_loss is None or isinstance(self.center_loss, CenterLoss)):
            raise InputError(f"center_loss must be a CenterLoss or None; got {self.center_loss!r}")
        if not isinstance(self.penalties, tuple):
            raise InputError(f"penalties must be a tuple of Terms; got {self.penalties!r}; or add one with +")
        for term in self.penalties:
            if not isinstance(term, Term):
                raise InputError(f"penalties must be Terms (factor, penalty); got {term!r}; or add one with +")
            roles.check(roles.Penalty, "penalty", term.penalty)
        # sorted, so that objectives are equal in whatever order their penalties were added
        object.__setattr__(self, "penalties", tuple(sorted(self.penalties, key=lambda term: term.penalty.name)))
        checks.choice("weights", self.weights, ("unit", "raw"))
        checks.flag("bias", self.bias)
        checks.number("eps", self.eps, low=0)
        checks.number("cross_entropy", self.cross_entropy, low=0)
        if self.margin is not None and self.eps > 0:
            raise InputError(f"a margin acts on the exact angle, which has no eps; got eps = {self.eps:g}; use 0")
        if self.eps > 0 and any(term.penalty.trains_classes for term in self.penalties):
            raise InputError(f"C-contrastive and C-triplet need exact unit vectors; got eps = {self.eps:g}; use 0")
        if self.remaps and (self.weights == "raw" or self.bias):
            raise InputError(
                "MV negatives compare cosines with the target's, so weights must be 'unit' and bias false; "
                f"got weights = {self.weights!r}, bias = {self.bias}"
            )
        if self.radius is None and (self.margin is not None or self.remaps or self.weighting is not None or self.bias):
            raise InputError("margin, negatives, weighting and bias belong to a cross-entropy; give it a radius")
        names = [term.penalty.name for term in self.penalties]
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"{name} is given twice; use replace({name}=...) to change it")
        if self.radius is not None:
            self._check_scale(self.radius.has_scale)

    @property
    def remaps(self) -> bool:
        """Whether some non-target cosines are changed."""
        return self.negatives.remaps

    @property
    def asks_of_target(self) -> bool:
        """Whether the reduction over the classes depends on the target's geometry, which is then computed before it."""
        return self.remaps or any(
            term.penalty.asks is not None and term.penalty.asks_of_target for term in self.penalties
        )

    @property
    def plain_probability(self) -> bool:
        """Whether the weighting reads p without margin."""
        return self.weighting is not None and self.weighting.probability == "plain"

    @property
    def mines_globally(self) -> bool:
        """Whether the weighting sees the rows of all ranks."""
        return self.weighting is not None and self.weighting.scope == "global"

    @property
    def pieces(self) -> list[roles.Piece]:
        """All pieces."""
        slots = [getattr(self, slot) for slot in ROLES]
        return [piece for piece in slots if piece is not None] + [term.penalty for term in self.penalties]

    @property
    def stateful(self) -> bool:
        """Whether it learns, counts or keeps a running figure, so that it must be bound before use."""
        return self.center_loss is not None or any(piece.stateful for piece in self.pieces)

    @property
    def reads_norms(self) -> list[str]:
        """The parts that read the feature norm, in words; they have no effect on unit features."""
        radius = [self.radius.words()] if self.radius is not None and not self.radius.has_scale else []
        return radius + [term.penalty.words() for term in self.penalties if term.penalty.reads_norms]

    def _check_scale(self, has_scale: bool) -> None:
        for term in self.penalties:
            if term.penalty.needs_scale and not has_scale:
                base = "here is no base loss" if self.radius is None else f"the base has radius {self.radius.formula()}"
                raise InputError(
                    f"{term.penalty.name} takes its scale from a base with one s, but {base}; give "
                    f"{term.penalty.name}(..., s=...)"
                )
            if term.penalty.needs_margin and self.margin is None:
                raise InputError(
                    f"this {term.penalty.name} takes the base's margined cosine (logits='margin'), but the base has "
                    "no margin"
                )

    def bind(self, embedding_size: int, num_classes: int) -> BoundObjective:
        """This objective for d and C, with its parameters and running figures; warns once about bounds.

        Args:
            embedding_size: d.
            num_classes: C over all ranks.
        """
        return BoundObjective(self, embedding_size, num_classes)

    def replace(self, **changes: Any) -> Objective:
        """A copy with pieces changed; a penalty's name takes an objective that holds it, a penalty spec, or None.

        >>> from angulus import losses
        >>> losses.arcface(64, 0.5).replace(radius=losses.radius.Contraction(gamma="auto")).radius.gamma
        'auto'
        """
        fields = {field.name for field in dataclasses.fields(self)}
        terms = {term.penalty.name: term for term in self.penalties}
        for name in [name for name in changes if name not in fields]:
            if name not in PENALTIES:
                raise InputError(f"an objective has no piece {name!r}{checks.nearest(name, [*fields, *PENALTIES])}")
            new = changes.pop(name)
            terms.pop(name, None)
            if new is not None:
                terms[name] = _single_term(name, new)
        center = changes.get("center_loss")
        if isinstance(center, Objective):
            if center != Objective(center_loss=center.center_loss) or center.center_loss is None:
                raise InputError(f"center_loss must be center_loss(...) alone, or None; got {center}")
            changes["center_loss"] = center.center_loss
        changes.setdefault("penalties", tuple(terms.values()))
        return dataclasses.replace(self, **changes)

    def __add__(self, other: object) -> Objective:
        if isinstance(getattr(other, "name", None), str) and hasattr(other, "ask"):
            other = Objective(penalties=(Term(1.0, other),))  # type: ignore[arg-type]  # checked there
        if not isinstance(other, Objective):
            return NotImplemented
        if self.radius is not None and other.radius is not None:
            raise InputError(
                "two cross-entropies, each with a radius, cannot be one objective: a sample has one radius; "
                "add penalties or proxy losses to one of them, or change a piece with replace()"
            )
        if self.center_loss is not None and other.center_loss is not None:
            raise InputError("center_loss is given twice; use replace(center_loss=...) to change it")
        base, extra = (self, other) if self.radius is not None or other.radius is None else (other, self)
        return dataclasses.replace(
            base,
            penalties=self.penalties + other.penalties,
            center_loss=base.center_loss or extra.center_loss,
            eps=base.eps or extra.eps,
        )

    def __mul__(self, factor: object) -> Objective:
        if isinstance(factor, bool) or not isinstance(factor, int | float):
            return NotImplemented
        factor = checks.number("the factor before an objective", factor, low=0)
        return dataclasses.replace(
            self,
            cross_entropy=self.cross_entropy * factor if self.radius is not None else self.cross_entropy,
            penalties=tuple(Term(factor * weight, penalty) for weight, penalty in self.penalties),
            center_loss=self.center_loss and dataclasses.replace(self.center_loss, lam=factor * self.center_loss.lam),
        )

    __rmul__ = __mul__

    def __str__(self) -> str:
        return "; ".join(describe.words(self))

    def formula(self) -> str:
        """The loss of one sample as a formula.

        >>> from angulus import losses
        >>> print(losses.cosface(64, 0.35).formula())
        −log(e^t / (e^t + Σ_{j≠y} e^{z_j})), t = 64·(cos θ − 0.35), z_j = 64·cos θ_j
        """
        return describe.formula(self)


class BoundObjective(nn.Module):
    """An `Objective` with C and d: its pieces, ready to be called, with their parameters and running figures.

    `state_dict` holds learned s and R, centres, running means and step counts, if the objective has any. A head owns
    one, and `angulus.class_loss` takes one. As with BatchNorm, a loss in training mode updates the figures after it has
    read them; under `eval()` or `torch.no_grad()` they stay.

    Attributes:
        stateful: whether it learns, counts or keeps a running figure.
        seen: means over the rows of the last training step, by name; see `DenseHead.statistics`.
    """

    def __init__(self, spec: Objective, embedding_size: int, num_classes: int) -> None:
        super().__init__()
        self.num_classes = checks.integer("num_classes", num_classes, low=1)
        self.embedding_size = checks.integer("embedding_size", embedding_size, low=1)
        if spec.radius is None:
            spec._check_scale(False)
            if not any(term.penalty.trains_classes for term in spec.penalties):
                raise InputError(
                    f"nothing here trains the class weights ({spec}); add a base loss such as softmax() or normface(), "
                    "or a proxy loss such as c_contrastive()"
                )
        self.spec = spec
        self.stateful = spec.stateful
        self.seen: dict[str, Tensor] = {}
        # a bound piece is its spec, or a module if it keeps state; both are called as the role says
        self.radius: Any = spec.radius and spec.radius.bind(embedding_size, num_classes)
        self.margin: Any = spec.margin and spec.margin.bind(embedding_size, num_classes)
        self.negatives: Any = spec.negatives.bind(embedding_size, num_classes)
        self.weighting: Any = spec.weighting and spec.weighting.bind(embedding_size, num_classes)
        self.center_loss: Any = spec.center_loss and spec.center_loss.bind(embedding_size, num_classes)
        self.terms: list[tuple[float, Any]] = []
        for weight, penalty in spec.penalties:
            bound = penalty.bind(embedding_size, num_classes)
            self.terms.append((weight, bound))
            if isinstance(bound, nn.Module):
                if hasattr(self, penalty.name):
                    raise InputError(
                        f"a penalty that keeps figures cannot be named {penalty.name!r}, which a bound objective has "
                        "already; give it another name"
                    )
                self.add_module(penalty.name, bound)
        self._parts: list[Statistics] = []  # the micro-batches of the current optimiser step so far
        self.accumulating = False  # whether the current optimiser step has more micro-batches to come

    @property
    def scale(self) -> float | Tensor | None:
        """The radius if it is one number for all samples, else None."""
        return getattr(self.radius, "scale", None)

    @property
    def moves(self) -> bool:
        """Whether a loss computed now updates the figures."""
        return self.training and torch.is_grad_enabled()

    @property
    def in_parts(self) -> bool:
        """Whether the current optimiser step has several micro-batches."""
        return self.accumulating or bool(self._parts)

    @property
    def keeps_figures(self) -> bool:
        """Whether any piece has figures that training updates."""
        return any(hasattr(piece, "observe") for piece in self.children())

    @contextmanager
    def accumulate(self) -> Iterator[None]:
        """Wrap all but the last micro-batch of an optimiser step, so that the figures are updated once, by all of them.

        >>> from angulus import losses
        >>> bound = losses.sphereface(4, annealing=losses.margins.Annealing()).bind(8, 10)
        >>> with bound.accumulate():
        ...     pass  # class_loss(...).backward() of the first micro-batches
        """
        before, self.accumulating = self.accumulating, True
        try:
            yield
        except BaseException:
            self._parts.clear()  # the step failed
            raise
        finally:
            self.accumulating = before

    def take(self, stats: Statistics) -> None:
        """Store the statistics of a micro-batch; the last one of a step updates the figures. Losses call it."""
        self._parts.append(stats)
        if not self.accumulating:
            step = merge_statistics(self._parts) if len(self._parts) > 1 else stats
            self._parts = []
            self.seen = step.values
            self.observe(step)

    def observe(self, stats: Statistics) -> None:
        """Update the running figures with the statistics of one optimiser step."""
        for piece in self.children():
            observe = getattr(piece, "observe", None)
            if observe is not None:
                observe(stats)

    def extra_repr(self) -> str:
        return f"{self.spec}, embedding_size={self.embedding_size}, num_classes={self.num_classes}"


def _single_term(name: str, new: object) -> Term:
    if isinstance(new, Objective) and len(new.penalties) == 1 and new.radius is None:
        new = new.penalties[0]
    term = new if isinstance(new, Term) else Term(1.0, new)  # type: ignore[arg-type]
    if getattr(term.penalty, "name", None) != name:
        raise InputError(f"{name} must be a {name} penalty or None; got {new!r}")
    return term
