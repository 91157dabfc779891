"""Collectives with true adjoints: those that gradients pass through are exchanges of rows, or made of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Parameter
from torch.utils.weak import WeakTensorKeyDictionary

from angulus.distributed.runtime import Ranks

_SUMMED: Any = WeakTensorKeyDictionary()  # parameters whose gradients are summed over ranks
_HOSTS: Any = WeakKeyDictionary()  # process groups without a CPU backend -> one with gloo, of the same processes


def exchange(rows: Tensor, send: list[int], receive: list[int], ranks: Ranks) -> Tensor:
    """Send the first `send[0]` rows to rank 0, the next `send[1]` to rank 1, ...; returns what came, by rank.

    Its adjoint is the exchange back. Rows keep their other dimensions, [Σ send, ...] -> [Σ receive, ...].
    """
    if ranks.count == 1:
        return rows
    moved: Tensor = _Exchange.apply(rows, send, receive, ranks)  # type: ignore[no-untyped-call]
    return moved


class _Exchange(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, send: list[int], receive: list[int], ranks: Ranks) -> Tensor:
        ctx.send, ctx.receive, ctx.ranks = send, receive, ranks
        moved = rows.new_empty(sum(receive), *rows.shape[1:])
        dist.all_to_all_single(moved, rows.contiguous(), receive, send, group=ranks.group)
        return moved

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        # an exchange again, so that second derivatives pass through it too
        return exchange(gradient, ctx.receive, ctx.send, ctx.ranks), None, None, None


def gather(rows: Tensor, sizes: list[int], ranks: Ranks) -> Tensor:
    """The rows of every rank on every rank, [Σ sizes, ...], in the order of the ranks.

    Its adjoint sums the gradients of all ranks for a row on the rank that the row came from.
    """
    if ranks.count == 1:
        return rows
    own = sizes[ranks.rank]
    copies = rows.expand(ranks.count, *rows.shape).reshape(ranks.count * own, *rows.shape[1:])
    return exchange(copies, [own] * ranks.count, sizes, ranks)


def to_owners(partials: Tensor, sizes: list[int], ranks: Ranks) -> Tensor:
    """Send each rank this one's partial results for its rows: [Σ sizes, k] -> [ranks, own rows, k]."""
    own = sizes[ranks.rank]
    moved = exchange(partials, sizes, [own] * ranks.count, ranks)
    return moved.reshape(ranks.count, own, *partials.shape[1:])


def total(value: Tensor, ranks: Ranks) -> Tensor:
    """The sum over the ranks, the same on each; without gradient."""
    value = value.detach().clone()
    if ranks.count > 1:
        dist.all_reduce(value, group=ranks.group)
    return value


def gather_numbers(numbers: list[int], ranks: Ranks) -> list[list[int]]:
    """The whole numbers of every rank, by rank, from host to host: no host waits for a GPU."""
    if ranks.count == 1:
        return [numbers]
    own = torch.tensor(numbers, device="cpu")  # whatever the default device is
    parts = [torch.empty_like(own) for _ in range(ranks.count)]
    _host_group(ranks).allgather([parts], [own]).wait()
    found: list[list[int]] = torch.stack(parts).tolist()
    return found


def _host_group(ranks: Ranks) -> Any:
    """The group of these ranks for tensors on the CPU; made at the first call if theirs is for GPUs alone.

    `new_group` would name it by how many groups this process is in, which may differ between ranks, and sort the ranks.
    """
    group: Any = ranks.group or dist.group.WORLD
    if "cpu" in dist.get_backend_config(group):
        return group
    if group not in _HOSTS:
        from torch.distributed import distributed_c10d as c10d  # not in every build

        store = c10d.PrefixStore("angulus hosts", c10d._get_process_group_store(group))
        _HOSTS[group] = dist.ProcessGroupGloo(store, ranks.rank, ranks.count, c10d.default_pg_timeout)
    return _HOSTS[group]


def broadcast(values: Iterable[Tensor], ranks: Ranks) -> None:
    """Overwrite the values of every rank with those of rank 0."""
    if ranks.count > 1:
        first = 0 if ranks.group is None else dist.get_global_rank(ranks.group, 0)
        for value in values:
            dist.broadcast(value, first, group=ranks.group)


def sum_gradients(parameters: Iterable[Parameter], ranks: Ranks, factor: float = 1.0) -> None:
    """Make backward sum the gradients of these parameters over the ranks, times a factor.

    Call it at every step: a copy of a parameter has no hook, and a parameter that has one gets no second.
    """

    def summed(gradient: Tensor) -> Tensor:
        value = factor * gradient.detach()  # before the sum, which could overflow in 16 bits
        dist.all_reduce(value, group=ranks.group)
        return value

    for parameter in parameters:
        if ranks.count > 1 and parameter.requires_grad and parameter not in _SUMMED:
            parameter.register_hook(summed)  # type: ignore[no-untyped-call]
            _SUMMED[parameter] = True


def scale_gradient(value: Tensor, factor: float) -> Tensor:
    """The same value, with its gradient times `factor`."""
    if factor == 1:
        return value
    scaled: Tensor = _ScaleGradient.apply(value, factor)  # type: ignore[no-untyped-call]
    return scaled


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None
