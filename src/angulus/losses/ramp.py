"""A ramp: the margin, or what negatives add to a cosine, grows from nothing to its full size during the training."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from angulus.core import checks
from angulus.losses.roles import Piece
from angulus.losses.running import RunningMean, Statistics, StepCount, exact_dtype

Span = tuple[float, float]


@dataclass(frozen=True)
class Ramp(Piece):
    """The share r of the margin and the negatives that applies, by how much of the training is done.

    The target becomes (1 − r) cosθ + r · margin(θ), and a non-target cosine c above it (1 − r) c + r · negatives(c).
    r is `start` before the span, rises linearly within it and is 1 after it. With `negatives="auto"`, r is the running
    mean of the target cosine, cut to [0, 1]: hard negatives count as far as classes are learned, as CurricularFace's
    t does.

    A full margin at the start can lock classes whose weights begin close together, and emphasised negatives can gather
    all features in one direction. A ramp avoids both.

    Args:
        margin: the span (from, to) in shares of the training, 0 ≤ from < to ≤ 1, or None: the whole margin at once.
        negatives: the span of the negatives, "auto", or None.
        start: r before the span, in [0, 1).
        steps: the optimiser steps of the training. A recipe fills it in.

    Source: ours; the blend of the target is that of SphereFace's annealing, λ = (1 − r)/r.
    """

    margin: Span | None = None
    negatives: Span | Literal["auto"] | None = None
    start: float = 0.0
    steps: int | None = None
    name: ClassVar[str] = "ramp"
    stateful: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "margin", _span("ramp.margin", self.margin))
        if self.negatives != "auto":
            object.__setattr__(self, "negatives", _span("ramp.negatives", self.negatives, "auto, "))
        if self.margin is None and self.negatives is None:
            raise checks.InputError("a ramp needs margin or negatives, a span such as [0, 0.3] of the training")
        checks.number("ramp.start", self.start, low=0, high=1, open_high=True)
        if self.steps is not None:
            checks.integer("ramp.steps", self.steps, low=1)

    def bind(self, embedding_size: int, num_classes: int) -> "RampState":
        return RampState(self)

    def formula(self) -> str:
        return self.words()

    def words(self) -> str:
        spans = [
            f"the {what} {_words(span)}"
            for what, span in (("margin", self.margin), ("negatives", self.negatives))
            if span
        ]
        return f"ramp: {' and '.join(spans)}" + (f", from {self.start:g}" if self.start else "")


class RampState(nn.Module):
    """`Ramp`, bound: counts the steps, and keeps the running target cosine for "auto"."""

    def __init__(self, spec: Ramp) -> None:
        super().__init__()
        if spec.steps is None:
            raise checks.InputError(
                "a ramp needs the number of optimiser steps of the training: Ramp(..., steps=...), as in "
                "epochs * len(loader)"
            )
        self.spec = spec
        self.counter = StepCount()
        self.target_cos = RunningMean() if spec.negatives == "auto" else None

    def margin_share(self) -> Tensor | None:
        """The share of the margin, or None if it has no ramp."""
        return None if self.spec.margin is None else self._share(self.spec.margin)

    def negatives_share(self) -> Tensor | None:
        """The share of the negatives, or None if they have no ramp."""
        if self.target_cos is not None:
            return self.target_cos.value.clamp(0, 1)
        assert not isinstance(self.spec.negatives, str)
        return None if self.spec.negatives is None else self._share(self.spec.negatives)

    def _share(self, span: Span) -> Tensor:
        assert self.spec.steps is not None  # checked by __init__
        begin, end = span
        step = self.counter.step
        done = step.to(exact_dtype(step.device)) / self.spec.steps
        return 1 - (1 - self.spec.start) * (1 - ((done - begin) / (end - begin)).clamp(0, 1))

    def observe(self, stats: Statistics) -> None:
        self.counter.observe(stats)
        if self.target_cos is not None:
            self.target_cos.update(stats.values["target_cos"])


def _span(name: str, value: object, or_else: str = "") -> Span | None:
    if value is None:
        return None
    if not (isinstance(value, list | tuple) and len(value) == 2):
        raise checks.InputError(
            f"{name} must be {or_else}two shares of the training, such as [0, 0.3], or null; got {value!r}"
        )
    begin, end = (checks.number(name, number, low=0, high=1) for number in value)
    if not begin < end:
        raise checks.InputError(f"{name} must rise from the first share to the second; got [{begin:g}, {end:g}]")
    return begin, end


def _words(span: Span | str) -> str:
    if isinstance(span, str):
        return "by the running target cosine"
    return f"over {100 * span[0]:g} to {100 * span[1]:g} % of the training"
