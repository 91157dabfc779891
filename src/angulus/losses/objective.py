"""Objective: a loss as a frozen, printable choice of pieces; BoundObjective: the same with C, d and state."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from angulus.core import checks
from angulus.core.checks import InputError
from angulus.losses import describe, roles
from angulus.losses.center import CenterLoss
from angulus.losses.classifiers import Softmax
from angulus.losses.memory import CrossBatchMemory
from angulus.losses.negatives import Keep
from angulus.losses.penalties import TABLE as PENALTIES
from angulus.losses.ramp import Ramp
from angulus.losses.running import Batch, Statistics, merge_statistics
from angulus.losses.theory import margin_room

ROLES: dict[str, type] = {
    "radius": roles.Radius,
    "margin": roles.Margin,
    "negatives": roles.Negatives,
    "weighting": roles.Weighting,
    "classifier": roles.Classifier,
    "subcenters": roles.Subcenters,
}
# terms that compare features with those of earlier steps
FEATURE_TERMS: dict[str, type] = {"center_loss": CenterLoss, "cross_batch_memory": CrossBatchMemory}


class Term(NamedTuple):
    """A penalty and the factor before it."""

    weight: float
    penalty: roles.Penalty


@dataclass(frozen=True)
class Objective:
    """A loss of the softmax or sigmoid family with penalties, as a spec that knows neither C nor d.

    With the softmax, loss_i = −log(e^{t_i} / (e^{t_i} + Σ_{j≠y} e^{z_ij})); with sigmoids, log(1 + e^{−t_i}) +
    Σ_{j≠y} log(1 + e^{z_ij}). z_ij = radius_i · negatives(cos θ_ij) and t_i = radius_i · margin(θ_i); raw weights
    multiply both by their lengths, a bias adds b_j. Plus the penalties.

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
        cross_batch_memory: a contrastive loss with the features of the last steps, or None.
        ramp: brings margin or negatives in during the training, or None.
        classifier: how t and z become a loss: a softmax (with label smoothing), or one sigmoid per class.
        subcenters: K weight rows per class, [C, K, d], and how their cosines become cos θ_j; None (and K = 1): one row.
        nested: sizes k < d, ascending. The loss is then the sum of this loss over the first k numbers of features and
            class weights, for each k, and over all d. Each has learned scales and running figures of its own; a bias is
            shared. Empty: all d only. Source: Kusupati et al. 2022, Matryoshka Representation Learning, Eq. 1 with all
            c_m = 1, and their MRL-E, which shares the class weights.

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
    cross_batch_memory: CrossBatchMemory | None = None
    ramp: Ramp | None = None
    classifier: roles.Classifier = Softmax()  # noqa: RUF009  # frozen
    subcenters: roles.Subcenters | None = None
    nested: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "nested", _ascending(self.nested))
        for slot, role in ROLES.items():
            chosen = getattr(self, slot)
            if chosen is not None or slot in ("negatives", "classifier"):
                roles.check(role, slot, chosen)
        if self.subcenters is not None and self.subcenters.rows == 1:
            object.__setattr__(self, "subcenters", None)  # so that K = 1 is the plain loss, its shapes and files too
        if self.subcenters is not None and self.weights == "raw":
            raise InputError(
                "sub-centres are compared by their cosines, so weights must be 'unit'; got weights = 'raw'"
            )
        for name, kind in FEATURE_TERMS.items():
            if not (getattr(self, name) is None or isinstance(getattr(self, name), kind)):
                raise InputError(f"{name} must be a {kind.__name__} or None; got {getattr(self, name)!r}")
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
            raise InputError(
                f"C-contrastive, C-triplet and Proxy-Anchor need exact unit vectors; got eps = {self.eps:g}; use 0"
            )
        if self.remaps and (self.weights == "raw" or self.bias):
            raise InputError(
                f"{self.negatives.kind} negatives change cosines, so weights must be 'unit' and bias false; "
                f"got weights = {self.weights!r}, bias = {self.bias}"
            )
        if self.radius is None and (self.margin is not None or self.remaps or self.weighting is not None or self.bias):
            raise InputError("margin, negatives, weighting and bias belong to a cross-entropy; give it a radius")
        if self.radius is None and self.classifier != Softmax():
            raise InputError(f"a {self.classifier.kind} classifier needs logits; give the objective a radius")
        self._check_ramp()
        names = [term.penalty.name for term in self.penalties]
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"{name} is given twice; use replace({name}=...) to change it")
        if self.radius is not None:
            self._check_scale(self.radius.has_scale)
            self._check_spread()

    @property
    def remaps(self) -> bool:
        """Whether some non-target cosines are changed."""
        return self.negatives.remaps

    @property
    def compares(self) -> bool:
        """Whether the negatives are compared with the margined target."""
        return self.remaps and self.negatives.threshold is None and self.negatives.power is None

    @property
    def rows_per_class(self) -> int:
        """K, the weight rows of each class."""
        return 1 if self.subcenters is None else self.subcenters.rows

    @property
    def softness(self) -> float | None:
        """γ of the softmax over a class's sub-centres; None takes the nearest, or there is one row per class."""
        return None if self.subcenters is None else self.subcenters.softness

    def weight_shape(self, num_classes: int, embedding_size: int) -> tuple[int, ...]:
        """The shape of the class weights: (C, d), or (C, K, d) with sub-centres."""
        if self.subcenters is None:
            return (num_classes, embedding_size)
        return (num_classes, self.subcenters.rows, embedding_size)

    @property
    def asks_of_target(self) -> bool:
        """Whether the reduction over the classes depends on the target's geometry, which is then computed before it."""
        return self.compares or any(
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
    def reduces_batch(self) -> bool:
        """Whether a penalty reduces over the batch for each class."""
        return any(term.penalty.asks is roles.ClassSums for term in self.penalties)

    @property
    def pieces(self) -> list[roles.Piece]:
        """All pieces."""
        slots = [getattr(self, slot) for slot in ROLES]
        return [piece for piece in slots if piece is not None] + [term.penalty for term in self.penalties]

    @property
    def feature_terms(self) -> list[CenterLoss | CrossBatchMemory]:
        """Center loss and cross-batch memory, if it has them."""
        return [term for name in FEATURE_TERMS if (term := getattr(self, name)) is not None]

    @property
    def stateful(self) -> bool:
        """Whether it learns, counts or keeps a running figure, so that it must be bound before use."""
        return bool(self.feature_terms or self.ramp) or any(piece.stateful for piece in self.pieces)

    @property
    def reads_norms(self) -> list[str]:
        """The parts that read the feature norm, in words; they have no effect on unit features."""
        radius = [self.radius.words()] if self.radius is not None and not self.radius.has_scale else []
        if self.margin is not None and self.margin.reads_norms:
            radius.append(f"target {self.margin.formula()}")
        return radius + [term.penalty.words() for term in self.penalties if term.penalty.reads_norms]

    def _check_ramp(self) -> None:
        if not (self.ramp is None or isinstance(self.ramp, Ramp)):
            raise InputError(f"ramp must be a losses.Ramp or None; got {self.ramp!r}")
        if self.ramp is None or self.radius is None:  # without a radius it waits for a loss to be added to
            return
        if self.ramp.margin is not None and self.margin is None:
            raise InputError("ramp.margin brings in a margin, and this objective has none; leave it out")
        if self.ramp.negatives is not None and not self.compares:
            raise InputError(
                "ramp.negatives brings in what MV-Softmax or CurricularFace add to hard negatives, and this objective "
                "adds nothing to them; leave it out"
            )
        if self.ramp.margin is not None and self.remaps and not self.compares:
            raise InputError(
                f"ramp.margin would blend the target with its plain cosine, but {self.negatives.kind} maps the other "
                "cosines from the start; leave it out"
            )
        if self.ramp.margin is not None and getattr(self.margin, "annealing", None) is not None:
            raise InputError("the margin has an annealing of its own; give it that, or ramp.margin")

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

    @property
    def needs_counts(self) -> bool:
        """Whether a piece waits for the number of training images of each class; see `with_counts`."""
        return any(getattr(piece, "counts", None) == "auto" for piece in self.pieces)

    def with_counts(self, counts: Sequence[int] | Tensor) -> Objective:
        """A copy whose pieces know the number of training images of each class, as `counts="auto"` needs.

        >>> from angulus import losses
        >>> losses.dynamic_margin().with_counts([500, 20, 1]).margin.counts
        (500, 20, 1)
        """
        pieces: list[tuple[str, Any]] = [(slot, getattr(self, slot)) for slot in ROLES]
        waiting = {slot: piece for slot, piece in pieces if getattr(piece, "counts", None) == "auto"}
        return self.replace(**{slot: dataclasses.replace(piece, counts=counts) for slot, piece in waiting.items()})

    def _check_spread(self) -> None:
        for term in self.penalties:
            if term.penalty.asks is roles.Spread and self.subcenters is None:
                raise InputError(
                    f"{term.penalty.name} draws the sub-centres of a class together, but there is one weight row per "
                    "class; give subcenters with k >= 2"
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
        for name in FEATURE_TERMS:
            new = changes.get(name)
            if isinstance(new, Objective):
                changes[name] = getattr(new, name)
                if changes[name] is None or new != Objective(**{name: changes[name]}):
                    raise InputError(f"{name} must be {name}(...) alone, or None; got {new}")
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
        for name in (*FEATURE_TERMS, "ramp"):
            if getattr(self, name) is not None and getattr(other, name) is not None:
                raise InputError(f"{name} is given twice; use replace({name}=...) to change it")
        base, extra = (self, other) if self.radius is not None or other.radius is None else (other, self)
        return dataclasses.replace(
            base,
            penalties=self.penalties + other.penalties,
            center_loss=base.center_loss or extra.center_loss,
            cross_batch_memory=base.cross_batch_memory or extra.cross_batch_memory,
            ramp=base.ramp or extra.ramp,
            subcenters=base.subcenters or extra.subcenters,
            eps=base.eps or extra.eps,
            nested=base.nested or extra.nested,
        )

    def __mul__(self, factor: object) -> Objective:
        if isinstance(factor, bool) or not isinstance(factor, int | float):
            return NotImplemented
        factor, memory = checks.number("the factor before an objective", factor, low=0), self.cross_batch_memory
        return dataclasses.replace(
            self,
            cross_entropy=self.cross_entropy * factor if self.radius is not None else self.cross_entropy,
            penalties=tuple(Term(factor * weight, penalty) for weight, penalty in self.penalties),
            center_loss=self.center_loss and dataclasses.replace(self.center_loss, lam=factor * self.center_loss.lam),
            cross_batch_memory=memory and dataclasses.replace(memory, weight=factor * memory.weight),
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

    `state_dict` holds learned s and R, centres, a memory, running means and step counts, if the objective has any. A
    head owns one, and `angulus.class_loss` takes one. As with BatchNorm, a loss in training mode updates the figures
    after it has read them, or before for a piece with `prepare`; under `eval()` or `torch.no_grad()` they stay.

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
            spec._check_spread()
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
        self._warn_of_room()
        self.weighting: Any = spec.weighting and spec.weighting.bind(embedding_size, num_classes)
        self.classifier: Any = spec.classifier.bind(embedding_size, num_classes)
        if hasattr(self.classifier, "balance"):
            self.classifier.balance(*self._right_angles())
        self.center_loss: Any = spec.center_loss and spec.center_loss.bind(embedding_size, num_classes)
        memory = spec.cross_batch_memory
        self.cross_batch_memory: Any = memory and memory.bind(embedding_size, num_classes)
        self.ramp: Any = spec.ramp and spec.ramp.bind(embedding_size, num_classes)
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
        if spec.nested and spec.nested[-1] >= embedding_size:
            raise InputError(
                f"objective.nested must be sizes below {embedding_size}, the features' own, which is always trained "
                f"too; got {spec.nested[-1]}: leave it out"
            )
        # the same loss of the first k numbers of features and class weights
        self.prefixes = nn.ModuleList(dataclasses.replace(spec, nested=()).bind(k, num_classes) for k in spec.nested)
        self.accumulating = False  # whether the current optimiser step has more micro-batches to come

    def _warn_of_room(self) -> None:
        """Warn of a margin that no feature can meet, because so many classes lie too close in so few dimensions."""
        margin, softmax = self.spec.margin, not self.spec.classifier.softplus
        if margin is None or margin.stateful or margin.reads_labels or self.num_classes < 2 or not softmax:
            return
        if self.spec.remaps and not self.spec.compares:  # the classes' cosines are mapped too
            return
        one = torch.ones(1)
        value = self.margin(0 * one, one)  # of a feature along its own class weight
        if not isinstance(value, Tensor) or value.shape != one.shape:
            return  # a loss refuses it in a sentence
        at_best = float(value)
        room = math.cos(margin_room(self.num_classes, self.embedding_size))
        if 0 <= at_best < room:  # a negative one is warned of by the margin itself
            checks.warn(
                f"no feature can meet the margin {margin.formula()}: along its own class weight the target "
                f"is {at_best:.2f}, and with {self.num_classes} classes in {self.embedding_size} dimensions the cosine "
                f"of the nearest class is at least {room:.2f}; lower the margin, or raise embedding_size"
            )

    @property
    def summands(self) -> list[BoundObjective]:
        """The losses whose sum this is, by falling size of the feature: this one, and those of its prefixes."""
        return [self, *reversed(list(self.prefixes))]  # type: ignore[list-item]  # of a ModuleList

    @property
    def bound_pieces(self) -> list[Any]:
        """The pieces that learn, count or keep a figure, without those of prefixes."""
        return [piece for piece in self.children() if piece is not self.prefixes]

    @property
    def scale(self) -> float | Tensor | None:
        """The radius if it is one number for all samples, else None."""
        return getattr(self.radius, "scale", None)

    @property
    def moves(self) -> bool:
        """Whether a loss computed now updates the figures."""
        return self.training and torch.is_grad_enabled()

    @torch.no_grad()
    def _right_angles(self) -> tuple[float, float]:
        """The target's logit and the others' at angles of 90°, for a feature of length 1."""
        one = torch.ones(1, dtype=torch.float64)
        radius = float(self.radius(one))
        margin = self.spec.margin
        labels = (one.long(),) if margin is not None and margin.reads_labels else ()
        target = 0.0 if self.margin is None else float(self.margin(math.pi / 2 * one, one, *labels))
        return radius * target, radius * self.spec.negatives.at_right_angle

    @property
    def in_parts(self) -> bool:
        """Whether the current optimiser step has several micro-batches."""
        return self.accumulating or bool(self._parts)

    @property
    def keeps_figures(self) -> bool:
        """Whether any piece has figures that training updates."""
        return any(hasattr(piece, "observe") for piece in self.bound_pieces)

    @property
    def prepares(self) -> bool:
        """Whether a loss computed now shows its rows to pieces first."""
        return self.moves and any(hasattr(piece, "prepare") for piece in self.bound_pieces)

    @contextmanager
    def prepared(self, batch: Batch | None) -> Iterator[None]:
        """A context in which pieces use the figures that this batch gives; None changes nothing."""
        if batch is None:
            yield
            return
        pieces = [piece for piece in self.bound_pieces if hasattr(piece, "prepare")]
        batch = dataclasses.replace(batch, earlier=sum(part.rows for part in self._parts))
        try:
            for piece in pieces:
                piece.prepare(batch)
            yield
        finally:
            for piece in pieces:
                piece.prepare(None)

    @contextmanager
    def accumulate(self, more: bool = True) -> Iterator[None]:
        """Wrap all but the last micro-batch of an optimiser step, so that the figures are updated once, by all of them.

        Args:
            more: whether more micro-batches of the step come. False: this is the last one.

        An error within ends the step: its micro-batches so far are forgotten.

        >>> from angulus import losses
        >>> bound = losses.sphereface(4, annealing=losses.margins.Annealing()).bind(8, 10)
        >>> with bound.accumulate():
        ...     pass  # class_loss(...).backward() of the first micro-batches
        """
        before = self.accumulating
        for part in self.summands:
            part.accumulating = before or more
        try:
            yield
        except BaseException:
            for part in self.summands:
                part._parts.clear()
            raise
        finally:
            for part in self.summands:
                part.accumulating = before

    def take(self, stats: Statistics) -> None:
        """Store the statistics of a micro-batch; the last one of a step updates the figures. Losses call it."""
        self._parts.append(stats)
        if not self.accumulating:
            step = merge_statistics(self._parts) if len(self._parts) > 1 else stats
            self._parts = []
            self.seen = step.values
            self._observe_if_good(step)

    @torch.no_grad()
    def _observe_if_good(self, step: Statistics) -> None:
        """Update the figures, and restore them if it turns out on the GPU that the step was not good."""
        good = step.good
        if good is None:
            return self.observe(step)
        # centres [C, d] and a memory [M, d] are too large to copy, and do not move without labels
        step = dataclasses.replace(step, labels=torch.where(good, step.labels, checks.IGNORE_INDEX))
        large = tuple(f"{name}." for name in FEATURE_TERMS)
        small = [figure for name, figure in self.named_buffers() if not name.startswith(large)]
        before = [figure.clone() for figure in small]
        self.observe(step)
        for figure, old in zip(small, before, strict=True):
            figure.copy_(torch.where(good, figure, old))

    def observe(self, stats: Statistics) -> None:
        """Update the running figures with the statistics of one optimiser step."""
        for piece in self.bound_pieces:
            observe = getattr(piece, "observe", None)
            if observe is not None:
                observe(stats)

    def extra_repr(self) -> str:
        return f"{self.spec}, embedding_size={self.embedding_size}, num_classes={self.num_classes}"


def _ascending(sizes: object) -> tuple[int, ...]:
    """The sizes of prefixes, checked."""
    if not isinstance(sizes, list | tuple):
        raise InputError(f"objective.nested must be a list of sizes, such as [64, 128, 256]; got {checks.shown(sizes)}")
    checked = tuple(checks.integer("objective.nested", size, low=1) for size in sizes)
    if list(checked) != sorted(set(checked)):
        raise InputError(f"objective.nested must be ascending sizes, each once; got {list(checked)}")
    return checked


def _single_term(name: str, new: object) -> Term:
    if isinstance(new, Objective) and len(new.penalties) == 1 and new.radius is None:
        new = new.penalties[0]
    term = new if isinstance(new, Term) else Term(1.0, new)  # type: ignore[arg-type]
    if getattr(term.penalty, "name", None) != name:
        raise InputError(f"{name} must be a {name} penalty or None; got {new!r}")
    return term
