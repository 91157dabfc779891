"""The processes that share a head or the scoring of pairs, and how they agree and fail together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch.distributed as dist
from torch import nn
from torch.nn import Parameter
from torch.nn.parallel import DistributedDataParallel

from angulus.core import checks

T = TypeVar("T")


class SharedError(checks.InputError):
    """An error that every rank raises at the same place, so only one of them needs to report it."""


class RemoteError(checks.InputError):
    """An error of another rank, whose own message says why."""


@dataclass(frozen=True)
class Ranks:
    """The processes of a group, seen from one of them; a single process needs no process group.

    Args:
        rank: the number of this process in the group.
        count: the number of processes.
        group: their process group, or None for the default group or a single process.
    """

    rank: int = 0
    count: int = 1
    group: Any = None

    @staticmethod
    def here(group: Any = None) -> Ranks:
        """The ranks of `group` or of the default group; a single one if `torch.distributed` is not initialised.

        Raises:
            checks.InputError: a group without initialisation, or one without this process.
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
        return self  # a copied head has the same processes

    def gather_objects(self, value: Any) -> list[Any]:
        """The values of all ranks, by rank; for set-up, not for every step."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value, group=self.group)
        return values

    def run_on_all(self, call: Callable[[], T]) -> T:
        """The result of `call` on this rank; if it fails on one rank it fails on all, so that none waits forever."""
        error: Exception | None = None
        try:
            value = call()
        except Exception as caught:  # of any kind: the other ranks wait for this one
            error = caught
        messages = self.gather_objects(None if error is None else str(error))
        if error is not None:
            if self.count > 1 and isinstance(error, checks.InputError):
                raise SharedError(str(error)) from error
            raise error
        for rank, message in enumerate(messages):
            if message is not None:
                raise SharedError(f"rank {rank} failed: {message}")
        return value

    def run_on_first(self, call: Callable[[], object]) -> None:
        """Run `call` on rank 0 only, while the others wait; if it fails, it fails on all."""
        self.run_on_all(lambda: call() if self.rank == 0 else None)

    def broadcast(self, call: Callable[[], T]) -> T:
        """The result of `call`, which runs on rank 0 only, on every rank; if it fails, it fails on all."""
        return cast(T, self.gather_from_all(lambda: call() if self.rank == 0 else None)[0])

    @contextmanager
    def raise_on_all(self) -> Iterator[None]:
        """A context whose errors every rank raises, with one message: that of a rank where the error began."""
        try:
            yield
        except checks.InputError as error:
            if self.count == 1:
                raise
            messages = self.gather_objects((isinstance(error, RemoteError), str(error)))
            original = [message for remote, message in messages if not remote]
            raise SharedError(original[0] if original else str(error)) from error

    def gather_from_all(self, call: Callable[[], T]) -> list[T]:
        """The results of `call` on all ranks, by rank; if it fails on one, it fails on all."""
        return self.gather_objects(self.run_on_all(call))

    def agree(self, **facts: Any) -> None:
        """Raise on every rank if one of them has another value than rank 0."""
        by_rank = self.gather_objects(facts)
        for rank, own in enumerate(by_rank):
            for name, value in own.items():
                if value != by_rank[0].get(name):
                    raise SharedError(
                        f"all ranks must give the same {name}; rank 0 gave {by_rank[0].get(name)!r}, "
                        f"rank {rank} gave {value!r}"
                    )


def ddp_ranks(parameter: Parameter) -> Ranks | None:
    """The ranks of the `DistributedDataParallel` that runs its forward now and averages this parameter's gradient.

    Only a private attribute shows it: DDP does not inform the modules that it holds.
    """
    running = _running_ddp(parameter)
    return None if running is None else Ranks.here(running.process_group)


def keep_buffers(parameter: Parameter, module: nn.Module) -> None:
    """Let the `DistributedDataParallel` of `ddp_ranks` no longer send the buffers of a module that it holds.

    It would send them from rank 0 before every forward. Call it where all ranks move them alike: they were sent at
    this forward, so they are equal from then on.
    """
    running, own = _running_ddp(parameter), {id(buffer) for buffer in module.buffers()}
    if running is not None and own:
        running.parameters_to_ignore |= {name for name, each in running.module.named_buffers() if id(each) in own}
        running.modules_buffers = [each for each in running.modules_buffers if id(each) not in own]  # perhaps none


def ddp_accumulates(parameter: Parameter) -> bool:
    """Whether the `DistributedDataParallel` of `ddp_ranks` is under `no_sync()`: more micro-batches of a step come."""
    running = _running_ddp(parameter)
    return running is not None and not running.require_backward_grad_sync


def _running_ddp(parameter: Parameter) -> DistributedDataParallel | None:
    running: DistributedDataParallel | None = getattr(DistributedDataParallel, "_active_ddp_module", None)
    if running is None:
        return None
    names = (name for name, other in running.module.named_parameters() if other is parameter)
    return running if any(name not in running.parameters_to_ignore for name in names) else None


def class_counts(num_classes: int, ranks: int, counts: Sequence[int] | None = None) -> list[int]:
    """The number of classes of each rank: an even split, the first ranks with one more; or `counts`, checked.

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
