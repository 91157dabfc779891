"""BoundObjective: an objective that knows d and C, with what it learns and keeps, and when that moves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from angulus.core import checks
from angulus.losses.running import Statistics, merged

if TYPE_CHECKING:
    from angulus.losses.objective import Objective


class BoundObjective(nn.Module):
    """An `Objective` that knows C and d: its pieces ready to be called, and what they learn and keep, in one module.

    `state_dict` holds learned s and R, centres, running means and step counts, or nothing where nothing is learned or
    kept. A head owns one, and `angulus.class_loss` takes one. As with BatchNorm, a loss in training mode moves the
    figures that it keeps, after it has read them; under `eval()` or `torch.no_grad()` they stay.

    Attributes:
        seen: means over the rows of the last training step, by name; see `DenseHead.statistics`.
    """

    def __init__(self, spec: Objective, embedding_size: int, num_classes: int) -> None:
        super().__init__()
        self.num_classes = checks.integer("num_classes", num_classes, low=1)
        self.embedding_size = checks.integer("embedding_size", embedding_size, low=1)
        if spec.radius is None:
            spec._check_scale(False)
            if not any(term.penalty.trains_classes for term in spec.penalties):
                raise checks.InputError(
                    f"nothing here trains the class weights ({spec}); add a base loss such as softmax() or normface(), "
                    "or a proxy loss such as c_contrastive()"
                )
        self.spec = spec
        self.seen: dict[str, Tensor] = {}
        # a bound piece is its spec, or a module where it keeps state; either is called as the spec's slot says
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
                    raise checks.InputError(
                        f"a penalty that keeps figures cannot be named {penalty.name!r}, which a bound objective has "
                        "already; give it another name"
                    )
                self.add_module(penalty.name, bound)
        self._parts: list[Statistics] = []  # of a step whose last micro-batch is still to come
        self._accumulating = False

    @property
    def scale(self) -> float | Tensor | None:
        """The radius where it is one number for all samples, else None."""
        return getattr(self.radius, "scale", None)

    @property
    def moves(self) -> bool:
        """Whether a loss moves the figures now."""
        return self.training and torch.is_grad_enabled()

    @property
    def keeps_figures(self) -> bool:
        """Whether any piece has figures that losses move."""
        return any(hasattr(piece, "observe") for piece in self.children())

    @contextmanager
    def accumulate(self) -> Iterator[None]:
        """Around every micro-batch of an optimiser step but the last, whose figures then move by all of them together.

        >>> from angulus import losses
        >>> bound = losses.sphereface(4, annealing=losses.margins.Annealing()).bind(8, 10)
        >>> with bound.accumulate():
        ...     pass  # class_loss(...).backward() of the first micro-batches
        """
        before, self._accumulating = self._accumulating, True
        try:
            yield
        except BaseException:
            self._parts.clear()  # of a step that will not be
            raise
        finally:
            self._accumulating = before

    @property
    def accumulating(self) -> bool:
        """Whether an optimiser step has more micro-batches to come."""
        return self._accumulating

    def take(self, stats: Statistics) -> None:
        """Keep what a micro-batch saw, and with the last one of a step move by all; losses call it."""
        self._parts.append(stats)
        if not self._accumulating:
            whole = merged(self._parts)
            self._parts = []
            self.seen = whole.values
            self.observe(whole)

    def observe(self, stats: Statistics) -> None:
        """Move the running figures by what an optimiser step saw."""
        for piece in self.children():
            observe = getattr(piece, "observe", None)
            if observe is not None:
                observe(stats)

    def extra_repr(self) -> str:
        return f"{self.spec}, num_classes={self.num_classes}, embedding_size={self.embedding_size}"
