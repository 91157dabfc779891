"""One rank of test_scaling.py: counts the bytes that steps of a ShardedHead really send. Run by run_ranks."""

from __future__ import annotations

import sys
from typing import Any

import torch
import torch.distributed as dist

import angulus
from angulus import losses
from angulus.core import capacity
from angulus.distributed.runtime import Ranks
from angulus.heads import deferred

ROWS, SIZE = 5, 7
FIXED = losses.arcface(16, 0.5)
MV = losses.mv_softmax(16, losses.margins.AdditiveAngle(0.5), 0.3, "adaptive") + losses.iam(0.1)
LEARNED = FIXED.replace(radius=losses.radius.Contraction(gamma="auto"))
CASES = [
    (FIXED, capacity.ARCFACE),
    (MV, capacity.Loss(columns=3, sums=2, asks_of_target=True, measures=5, radius_learns=False)),
    (LEARNED, capacity.Loss(columns=1, sums=1, asks_of_target=False, measures=6, radius_learns=True)),
    (losses.c_triplet(), capacity.Loss(columns=1, sums=2, asks_of_target=True, measures=3, radius_learns=False)),
]


def main(rank: int, count: int, rendezvous: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=count)
    sent = 0.0
    all_to_all, all_reduce, gather_numbers = dist.all_to_all_single, dist.all_reduce, deferred.gather_numbers

    def exchanged(out: Any, rows: Any, receive: Any, send: list[int], group: Any = None) -> Any:
        nonlocal sent
        sent += rows[0].nbytes * (sum(send) - send[rank])
        return all_to_all(out, rows, receive, send, group=group)

    def reduced(value: Any, group: Any = None) -> Any:
        nonlocal sent
        sent += 2 * value.nbytes * (count - 1) / count
        return all_reduce(value, group=group)

    def gathered(numbers: list[int], ranks: Ranks) -> list[list[int]]:
        nonlocal sent
        sent += 8 * len(numbers) * (count - 1)
        return gather_numbers(numbers, ranks)

    dist.all_to_all_single, dist.all_reduce, deferred.gather_numbers = exchanged, reduced, gathered
    for objective, loss in CASES:
        head = angulus.ShardedHead(SIZE, 12, objective)
        features = torch.randn(ROWS, SIZE, requires_grad=True)
        sent = 0.0
        head(features, torch.arange(ROWS)).backward()
        expected = sum(capacity.sent_bytes(count, ROWS, SIZE, loss).values())
        assert abs(sent - expected) <= 1, f"{objective}: {sent} bytes, {expected} by the formula"
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
