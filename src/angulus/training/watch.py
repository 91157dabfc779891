"""Watch a training for two known failures while they happen: a collapse, and classes that are locked together.

It reads what a logging step has computed already, the features of its batch and, rarely, the class weights.
"""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from angulus.heads.row_loss import Geometry, margined, ramped_coefficients
from angulus.heads.saving import Head
from angulus.heads.sharded import ShardedHead
from angulus.losses.classifiers import Softmax
from angulus.losses.objective import BoundObjective
from angulus.losses.running import exact_dtype
from angulus.losses.theory import margin_room

GATHERED = 0.5  # the length of the mean unit feature; 0 if features point everywhere, 1 if all point one way
CONFUSED, LEAST_ROWS = 0.25, 8  # of the rows of two close classes, how many take the other; how many rows it takes
LOCKED = 0.15  # radians between two class weights, and this share of the room:
LOCKED_SHARE = 0.25
LEAST_STEPS = 100  # that they must stay close: a short training has not separated them yet
SETTLED = 0.25  # the share of the training that class weights have to separate, and a loss to start to fall
NEAR = 0.02  # of a loss: the same
STALLED = 10  # logs whose mean loss is compared with that of the ten before
FALLEN = 0.1  # of the loss at the report: a training whose loss has fallen by more has recovered
# looks in a row until a sign counts, and steps from the first to the last of them; "locked" looks back by itself
STAYS = {"collapse": (5, 40), "stuck": (2, 0), "locked": (1, 0), "recovered": (2, 0)}
MOST_ROWS = 20_000  # of class weights whose angles are computed
LEAST_COST = 0.01  # of the steps' products with the class weights


class Finding(NamedTuple):
    """What the watch saw."""

    step: int
    sign: str  # "collapse", "stuck", "locked", or "recovered" from one of the first two
    sentence: str  # with the cause and the way out


class Watch:
    """Looks at every logging step, and reports each sign once.

    With several processes it looks at this process's share of the batch and of the classes.

    Args:
        head: the head in training.
        steps: of the whole training.
        log_every: steps between two looks.
        names: of the classes.
        state: what `state()` of a watch before gave, to go on from there.
    """

    def __init__(
        self, head: Head, steps: int, log_every: int, names: tuple[str, ...], state: Mapping[str, Any] | None = None
    ) -> None:
        self.head, self.steps, self.log_every, self.names = head, steps, log_every, names
        state = state or {}
        self.reported: set[str] = set(state.get("reported", ()))
        self.stayed = Counter[str](state.get("stayed", {}))  # looks in a row that showed a sign
        self.since: dict[str, int] = dict(state.get("since", {}))  # the step of the first of them
        self.losses: list[float] = list(state.get("losses", ()))  # of the last looks
        self.failed: list[float] | None = state.get("failed")  # step and loss of the first collapse or stuck
        self.close_since: int | None = state.get("close_since")  # the step since which two class weights are close
        self.confused: list[int] = list(state.get("confused", (0, 0)))  # rows of theirs since then: wrong, and all
        self.looks: int = state.get("looks", 0)

    def state(self) -> dict[str, Any]:
        """What a watch needs to go on after an interruption, in plain values."""
        return {
            "reported": sorted(self.reported),
            "stayed": dict(self.stayed),
            "since": self.since,
            "losses": self.losses,
            "failed": self.failed,
            "close_since": self.close_since,
            "confused": self.confused,
            "looks": self.looks,
        }

    def look(self, step: int, values: Mapping[str, float], features: Tensor, labels: Tensor) -> list[Finding]:
        """What is wrong now and was not reported yet.

        Args:
            step: optimiser steps done.
            values: loss, target_cos and radius of this step.
            features: of this step, [B, d].
            labels: theirs, [B].
        """
        self.looks += 1
        self.losses = [*self.losses, values["loss"]][-2 * STALLED :]
        found = {
            "collapse": self._collapse(values, features),
            "stuck": self._stuck(step, values),
            "recovered": self._recovered(values),
        }
        if self.looks % self._stride(len(features)) == 0 and "collapse" not in self.reported:  # which brings it about
            found["locked"] = self._locked(step, features, labels)
        for sign, sentence in found.items():
            self.stayed[sign] = self.stayed[sign] + 1 if sentence else 0
            if self.stayed[sign] <= 1:
                self.since[sign] = step
        findings = [
            Finding(step, sign, f"step {step}: {sentence}")
            for sign, sentence in found.items()
            if sentence and self._stays(sign, step) and sign not in self.reported
        ]
        self.reported |= {finding.sign for finding in findings}
        if self.failed is None and any(finding.sign in ("collapse", "stuck") for finding in findings):
            self.failed = [step, _mean(self.losses[-STALLED:])]
        return findings

    def _stays(self, sign: str, step: int) -> bool:
        looks, steps = STAYS[sign]
        return self.stayed[sign] >= looks and step - self.since[sign] >= steps

    def _collapse(self, values: Mapping[str, float], features: Tensor) -> str | None:
        if not values["target_cos"] < 0:
            return None
        gathered = float(F.normalize(features.detach().float()).mean(0).norm())
        if not gathered > GATHERED:
            return None
        return (
            f"the features gather in one direction (their mean unit vector has length {gathered:.2f}), away from their "
            f"own class weights (mean cosine {values['target_cos']:.2f}). {_cause(self.head.objective)}"
        )

    def _stuck(self, step: int, values: Mapping[str, float]) -> str | None:
        """A loss that no longer falls and is that of a collapsed model."""
        recent, earlier = self.losses[-STALLED:], self.losses[-2 * STALLED : -STALLED]
        if len(earlier) < STALLED or step < SETTLED * self.steps:
            return None
        now, then = _mean(recent), _mean(earlier)
        if abs(now - then) > NEAR * abs(then):
            return None
        for cos, where in ((-1.0, "opposite to all class weights"), (0.0, "at right angles to all class weights")):
            loss = collapsed_loss(self.head.objective, self.head.num_classes, values.get("radius"), cos)
            if loss is not None and abs(now - loss) <= NEAR * abs(loss):
                return (
                    f"the loss stays at {now:.3g}, that of features which all lie {where} ({loss:.3g}): nothing is "
                    f"learned so far. {_cause(self.head.objective)}"
                )
        return None

    def _recovered(self, values: Mapping[str, float]) -> str | None:
        """A loss that falls after all, with features near their own class weights."""
        if self.failed is None or not values["target_cos"] > 0:
            return None
        step, then = self.failed
        now = _mean(self.losses[-STALLED:])
        if now > then - FALLEN * abs(then):
            return None
        return (
            f"the training recovers: its loss has fallen from {then:.3g} to {now:.3g} since the report of step {step:g}"
        )

    def _locked(self, step: int, features: Tensor, labels: Tensor) -> str | None:
        """Two class weights that stay close for a quarter of the training, under the whole margin, and confuse rows.

        Without a margin they usually separate later, so the first half does not count.
        """
        weight, bound = self.head.weight.detach(), self.head.objective
        share = None if bound.ramp is None else bound.ramp.margin_share()
        whole = bound.margin is None or share is None or float(share) >= 1
        earliest = (SETTLED if bound.margin is not None else 2 * SETTLED) * self.steps
        if step < earliest or not whole or not len(weight) >= 2 or weight.shape[:-1].numel() > MOST_ROWS:
            return None
        room = margin_room(max(2, self.head.num_classes), weight.shape[-1])
        angle, first, second = closest(weight)
        if angle >= min(LOCKED, LOCKED_SHARE * room):
            self.close_since, self.confused = None, [0, 0]
            return None
        self.close_since = step if self.close_since is None else self.close_since
        self._count_confused(weight, first, second, features, labels)
        wrong, rows = self.confused
        long = step - self.close_since >= max(SETTLED * self.steps, LEAST_STEPS)
        if not (long and rows >= LEAST_ROWS and wrong >= CONFUSED * rows):
            return None
        names = f"{self.names[self._class(first)]!r} and {self.names[self._class(second)]!r}"
        way = "use a smaller margin, or spread the classes in more dimensions (backbone.embedding_size)"
        if bound.margin is not None and (bound.spec.compares or not bound.spec.remaps):
            way = f"bring the margin in slowly, 'objective.ramp={{margin: [0.3, 0.7]}}', or {way}"
        return (
            f"the weights of {names} are {math.degrees(angle):.1f}° apart, where {math.degrees(room):.0f}° would be "
            "possible: the two classes are locked together, or are one class under two names. A margin that is larger "
            f"than the angle between them keeps them so: {way}."
        )

    def _class(self, row: int) -> int:
        """The class of a row of the class weights, of which a process holds its share."""
        return row + (self.head.classes.start if isinstance(self.head, ShardedHead) else 0)

    def _count_confused(self, weight: Tensor, first: int, second: int, features: Tensor, labels: Tensor) -> None:
        """Add this step's rows of the two classes, and how many of them are nearer to the other's weights."""
        theirs = (labels == self._class(first)) | (labels == self._class(second))
        unit = F.normalize(weight[[first, second]].float().view(2, -1, weight.shape[-1]), dim=-1)
        cosines = torch.einsum("bd,ckd->bck", features[theirs].detach().float(), unit).amax(dim=2)
        wrong = cosines.argmax(dim=1) != (labels[theirs] == self._class(second)).long()
        self.confused = [self.confused[0] + int(wrong.sum()), self.confused[1] + len(wrong)]

    def _stride(self, rows: int) -> int:
        """Looks between two at all angles of the class weights, C² · d products, so that they cost 1 % of the steps."""
        return max(1, math.ceil(self.head.weight.shape[:-1].numel() / (LEAST_COST * 3 * rows * self.log_every)))


def _mean(losses: list[float]) -> float:
    return sum(losses) / len(losses)


@torch.no_grad()
def closest(weight: Tensor) -> tuple[float, int, int]:
    """(the smallest angle in radians between the weights [C, d] or [C, K, d] of two classes, the classes)."""
    count = 1 if weight.ndim == 2 else weight.shape[1]
    unit = F.normalize(weight.float().flatten(0, -2))
    classes = torch.arange(len(unit), device=unit.device) // count
    best = (math.pi, 0, 1)
    for start in range(0, len(unit), 1024):
        block, own = unit[start : start + 1024], classes[start : start + 1024]
        cosines = (block @ unit.T).masked_fill_(own[:, None] == classes, -2)
        row, other = divmod(int(cosines.argmax()), len(unit))
        angle = 2 * math.asin(min(1.0, float((block[row] - unit[other]).norm()) / 2))
        best = min(best, (angle, int(own[row]), int(classes[other])))
    return best


@torch.no_grad()
def collapsed_loss(bound: BoundObjective, num_classes: int, radius: float | None, cos: float) -> float | None:
    """The cross-entropy of features that have this cosine with every class weight; None if it has no such form.

    log(1 + (C − 1) e^{r (negatives(c) − margin(c))}), r the radius.
    """
    spec = bound.spec
    reads = spec.margin is not None and (spec.margin.reads_labels or spec.margin.reads_norms)
    more = spec.weighting is not None or bool(spec.penalties) or bool(spec.feature_terms)
    plain = spec.classifier == Softmax() and (spec.compares or not spec.remaps) and not reads and not more
    if radius is None or num_classes < 2 or spec.weights != "unit" or spec.bias or not plain:
        return None
    device = next(bound.buffers(), torch.empty(0)).device
    one = torch.ones(1, dtype=exact_dtype(device), device=device)
    value = torch.full_like(one, cos)
    target = Geometry(one, one[:, None], value, value, value.acos(), one)
    own = margined(bound, target)
    a2, a1, a0 = ramped_coefficients(bound)
    other = torch.where(value > own, a2 * value**2 + a1 * value + a0, value)
    loss = F.softplus(math.log(num_classes - 1) + radius * (other - own))
    return spec.cross_entropy * float(loss)


def _cause(bound: BoundObjective) -> str:
    spec, later = bound.spec, "let objective.ramp end later" if bound.ramp is not None else ""
    if spec.compares:
        return (
            "Negatives that are emphasised pull harder than the target as long as nearly all are misclassified: "
            + (
                later
                or "bring them in slowly, 'objective.ramp={negatives: [0, 0.3]}' or 'objective.ramp={negatives: auto}'"
            )
            + (", lower t" if hasattr(spec.negatives, "t") else "")
            + ", or lower training.optimizer.lr."
        )
    if spec.margin is not None and not spec.remaps:
        return (
            "The margin or the learning rate is too large for the start: "
            + (later or "bring the margin in slowly, 'objective.ramp={margin: [0, 0.3]}'")
            + ", lower the margin, or lower training.optimizer.lr."
        )
    margin = " or the margin too large" if spec.margin is not None else ""
    return f"The learning rate is probably too high{margin}: lower training.optimizer.lr."
