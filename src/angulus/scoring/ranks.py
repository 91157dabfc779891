"""A share of the probes for each of several processes, and how their small results come together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch.distributed as dist

from angulus import checks

Part = TypeVar("Part")


@dataclass(frozen=True)
class Ranks:
    """Which of `size` processes this one is, and how parts of a result are exchanged.

    Attributes:
        rank: this process, in [0, size).
        size: how many processes share the work; all are given the same probes, gallery and arguments.
        gather: takes this process's part and returns the parts of all, in the order of their ranks, on every process.
    """

    rank: int = 0
    size: int = 1
    gather: Callable[[Any], list[Any]] = lambda part: [part]

    def __post_init__(self) -> None:
        checks.integer("size", self.size, low=1)
        checks.integer("rank", self.rank, low=0, high=self.size - 1)


def ranks_of(group: Any = None) -> Ranks:
    """The processes of a torch.distributed group (None: all), or this one alone where none was initialised."""
    if not dist.is_available() or not dist.is_initialized():
        return Ranks()

    def gather(part: Any) -> list[Any]:
        parts: list[Any] = [None] * dist.get_world_size(group)
        dist.all_gather_object(parts, part, group=group)
        return parts

    return Ranks(dist.get_rank(group), dist.get_world_size(group), gather)


def shared(ranks: Ranks, compute: Callable[[], Part]) -> list[Part]:
    """The parts of all ranks; what one rank refuses is raised on all, so that none waits for ever."""
    part, error = None, None
    try:
        part = compute()
    except checks.InputError as refused:
        error = refused
    parts = ranks.gather((part, error))
    for _, other in parts:
        if other is not None:
            raise other
    return [each for each, _ in parts]
