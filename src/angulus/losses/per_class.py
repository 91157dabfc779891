"""Numbers that pieces keep for each class: counts of training images, and what follows from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from angulus.core import checks

if TYPE_CHECKING:
    from angulus.losses.objective import Objective


class PerClass:
    """One number per class; called with labels [B], it gives those of their classes."""

    def __init__(self, values: Sequence[float]) -> None:
        self.values = tuple(values)
        self._tensors: dict[tuple[torch.device, torch.dtype], Tensor] = {}  # made once per device and dtype

    def __call__(self, labels: Tensor, dtype: torch.dtype) -> Tensor:
        place = (labels.device, dtype)
        if place not in self._tensors:
            self._tensors[place] = torch.tensor(self.values, dtype=dtype, device=labels.device)
        return self._tensors[place][labels]

    @staticmethod
    def check(kind: str, values: Any, num_classes: int) -> tuple[Any, ...]:
        """The values if there is one for each of the C classes; otherwise an error."""
        if isinstance(values, str):
            raise checks.InputError(
                f"{kind} needs the number of training images of each class: objective.with_counts([...]) takes them, "
                "and a training of a recipe counts its own"
            )
        if len(values) != num_classes:
            raise checks.InputError(
                f"{kind} has {len(values)} numbers for {num_classes} classes; give one per class, in the order of the "
                "labels"
            )
        return tuple(values)


def check_counts(counts: Any) -> tuple[int, ...] | Literal["auto"]:
    """The counts as a tuple of whole numbers ≥ 1, or "auto"; otherwise an error that names the first wrong class."""
    if isinstance(counts, str):
        checks.choice("counts", counts, ("auto",), hint="or the number of images of each class")
        return "auto"
    hint = "a class without training images has no row; leave it out, or count it as 1"
    return tuple(
        checks.integer(f"counts[{i}]", n, low=1, high=2**53, hint=hint) for i, n in enumerate(as_list("counts", counts))
    )


def as_list(name: str, values: Any) -> list[Any]:
    """Numbers given as a list, tuple, array or tensor of one dimension, as a list."""
    plain = values.tolist() if hasattr(values, "tolist") else values
    if not isinstance(plain, list | tuple | range) or not plain:
        raise checks.InputError(f"{name} must be a list of numbers, one per class; got {checks.shown(values)}")
    return list(plain)


NUMBERS = ("counts", "weights")  # attributes of a piece with one number per class


def _holders(objective: Objective) -> Iterator[tuple[str, Any, str]]:
    """The pieces with numbers per class: (slot, piece, its attribute)."""
    for slot in ("margin", "weighting"):
        piece = getattr(objective, slot)
        yield from ((slot, piece, name) for name in NUMBERS if isinstance(getattr(piece, name, None), tuple))


def in_use(objective: Objective) -> bool:
    """Whether a piece has one number per class."""
    return any(True for _ in _holders(objective))


def keep(objective: Objective, classes: Sequence[int]) -> Objective:
    """The objective of these classes, in this order."""
    for slot, piece, name in _holders(objective):
        numbers = [getattr(piece, name)[number] for number in classes]
        objective = objective.replace(**{slot: dataclasses.replace(piece, **{name: tuple(numbers)})})
    return objective


def recount(objective: Objective, counts: Sequence[int]) -> Objective:
    """The objective with other counts of training images; given weights per class cannot be counted again."""
    for slot, piece, name in _holders(objective):
        if name == "weights":
            raise checks.InputError(
                "class weights that were given as numbers do not follow from counts; make a new head"
            )
        objective = objective.replace(**{slot: dataclasses.replace(piece, counts=tuple(counts))})
    return objective
