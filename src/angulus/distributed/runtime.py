"""Who the processes are that share a head or the scoring of pairs, and what they must agree on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch.distributed as dist
from torch.nn import Parameter
from torch.nn.parallel import DistributedDataParallel

from angulus.core import checks

T = TypeVar("T")


class SharedError(checks.InputError):
    """What every rank refuses at the same place, so that one of them needs to tell it."""


class RemoteError(checks.InputError):
    """What another rank refused, whose own sentence says why."""


@dataclass(frozen=True)
class Ranks:
    """The processes of a group, seen from one of them; a single process needs no process group.

    Args:
        rank: of this process within the group.
        count: how many there are.
        group: theirs, or None for the default group (or none at all, for one process).
    """

    rank: int = 0
    count: int = 1
    group: Any = None

    @staticmethod
    def here(group: Any = None) -> Ranks:
        """The ranks of `group`, of the default group, or one where `torch.distributed` is not initialised.

        Raises:
            checks.InputError: a group without initialisation, or one that this process is not in.
        """
        if not (dist.is_available() and dist.is_initialized()):
            if group is not None:
                raise checks.InputError("a process group needs torch.distributed.init_process_group() first")
            return Ranks()
        rank = dist.get_rank(group)
        if rank < 0:
            raise checks.InputError("this process is not in the given process group; make the head on its members only")
        return Ranks(rank, dist.get_world_size(group), group)

    def __deepcopy__(self, memo: dict[int, Any]) -> Ranks:
        return self  # the processes of a copied head are the same

    def gather_objects(self, value: Any) -> list[Any]:
        """The values that every rank gives, by rank; for set-up, not for every step."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value, group=self.group)
        return values

    def run_on_all(self, call: Callable[[], T]) -> T:
        """What `call` gives here; where it fails on one rank it fails on all, and none is left waiting."""
        error: Exception | None = None
        try:
            value = call()
        except Exception as caught:  # whatever it is: the others wait for this rank's word
            error = caught
        said = self.gather_objects(None if error is None else str(error))
        if error is not None:
            if self.count > 1 and isinstance(error, checks.InputError):
                raise SharedError(str(error)) from error
            raise error
        for rank, sentence in enumerate(said):
            if sentence is not None:
                raise SharedError(f"rank {rank} failed: {sentence}")
        return value

    def run_on_first(self, call: Callable[[], object]) -> None:
        """Let rank 0 alone do something, while the others wait; where it fails, it fails on all."""
        self.run_on_all(lambda: call() if self.rank == 0 else None)

    def broadcast(self, call: Callable[[], T]) -> T:
        """What `call` gives on rank 0, who alone calls it, told to all; where it fails, it fails on all."""
        return cast(T, self.gather_from_all(lambda: call() if self.rank == 0 else None)[0])

    @contextmanager
    def raise_on_all(self) -> Iterator[None]:
        """What is refused within is refused by every rank: all tell one sentence, that of the rank which knows most."""
        try:
            yield
        except checks.InputError as error:
            if self.count == 1:
                raise
            known = [
                sentence
                for far, sentence in self.gather_objects((isinstance(error, RemoteError), str(error)))
                if not far
            ]
            raise SharedError(known[0] if known else str(error)) from error

    def gather_from_all(self, call: Callable[[], T]) -> list[T]:
        """What `call` gives on each rank, by rank; where it fails on one it fails on all."""
        return self.gather_objects(self.run_on_all(call))

    def agree(self, **facts: Any) -> None:
        """Refuse, on every rank alike, where one gives another value than rank 0."""
        everywhere = self.gather_objects(facts)
        for rank, given in enumerate(everywhere):
            for name, value in given.items():
                if value != everywhere[0].get(name):
                    raise SharedError(
                        f"all ranks must give the same {name}; rank 0 gave {everywhere[0].get(name)!r}, "
                        f"rank {rank} gave {value!r}"
                    )


def ddp_ranks(parameter: Parameter) -> Ranks | None:
    """The ranks of the `DistributedDataParallel` that is in its forward now and averages this parameter's gradient.

    The one sign of it is private: DDP tells nothing to the modules that it holds.
    """
    running = getattr(DistributedDataParallel, "_active_ddp_module", None)
    if running is None:
        return None
    found = (name for name, each in running.module.named_parameters() if each is parameter)
    averaged = any(name not in running.parameters_to_ignore for name in found)
    return Ranks.here(running.process_group) if averaged else None


def class_counts(num_classes: int, ranks: int, counts: Sequence[int] | None = None) -> list[int]:
    """How many classes each rank holds: as even as can be, the first ranks one more; or `counts`, checked.

    >>> class_counts(10, 3)
    [4, 3, 3]
    """
    if num_classes < ranks:
        raise checks.InputError(
            f"each rank needs a class of its own: {ranks} ranks cannot share num_classes = {num_classes}; start "
            "no more processes than classes, or use angulus.DenseHead on each"
        )
    if counts is None:
        return [num_classes // ranks + (rank < num_classes % ranks) for rank in range(ranks)]
    counts = [checks.integer("class_counts", count, low=1) for count in counts]
    if len(counts) != ranks or sum(counts) != num_classes:
        raise checks.InputError(
            f"class_counts must be {ranks} numbers, one per rank, that sum to num_classes = {num_classes}; got {counts}"
        )
    return counts
