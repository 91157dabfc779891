"""One of several processes whose CPU poses as a GPU; `test_later.py` starts them.

    python later.py RANK COUNT RENDEZVOUS RESULTS

Rank 0 writes the worst difference of every comparison to RESULTS, as JSON.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import json
import math
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from angulus import DenseHead, InputError, ShardedHead, losses
from angulus.distributed.collectives import gather_numbers
from angulus.distributed.runtime import Ranks
from angulus.heads import deferred
from angulus.losses import Objective
from angulus.losses.roles import Penalty
from angulus.losses.weighting import HardMining
from heads import ranks
from heads.waits import NoRead, NoWait
from losses.aliases import CASES

SIZE, CLASSES = ranks.SIZE, ranks.CLASSES
MOVING = losses.cm_softmax(gamma="auto", lower=3, upper=9) + losses.center_loss(0.1)


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Fail where a GPU would be waited for; what the hosts tell each other is on the hosts."""

    def on_hosts(numbers: list[int], of: Ranks) -> list[list[int]]:
        with torch._C.DisableTorchFunction(), torch.utils._python_dispatch._disable_current_modes():
            return gather_numbers(numbers, of)

    deferred.gather_numbers = on_hosts
    with NoRead(), NoWait():
        yield


def main(rank: int, count: int, rendezvous: str, results: str) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=count)
    found = {}
    objectives = {name: ranks._global(case.objective_for(CLASSES)) for name, case in CASES.items()} | ranks.OTHERS
    objectives["mining within each rank"] = losses.normface(8.0).replace(weighting=HardMining(0.6))
    for name, objective in objectives.items():
        if not name.startswith("own "):
            found[name] = compare(objective, rank, count)
    deferred.POSING = True
    for check in CHECKS:
        found[check.__name__] = check(rank, count)
    everywhere: list[Any] = [None] * count
    dist.all_gather_object(everywhere, found)
    if rank == 0:
        Path(results).write_text(json.dumps({name: max(each[name] for each in everywhere) for name in found}))


def compare(objective: Objective, rank: int, count: int) -> float:
    """The worst difference over three steps, some rows ignored, from the same head with its checks at once."""
    inputs, labels, owned = ranks.batch(count)
    labels[0] = -100
    torch.manual_seed(2)
    at_once = ShardedHead(SIZE, CLASSES, objective, impl="reference")
    later = copy.deepcopy(at_once)
    worst = 0.0
    for step in range(3):
        if step == 2:
            labels[owned[-1]] = -100
        values = []
        for head, posing in ((at_once, False), (later, True)):
            deferred.POSING = posing
            head.zero_grad()
            features = ((1 + step) * inputs[owned[rank], :SIZE]).requires_grad_()
            mine = labels[owned[rank]]
            if posing and step:  # before, numbers per class come to the device once
                with watched():
                    loss = head(features, mine)
                    loss.backward()
            else:
                loss = head(features, mine)
                loss.backward()
            head.check()
            given = [ranks._or_zero(leaf) for leaf in (features, *head.parameters())]
            values.append([loss, *given, *head.buffers(), *head.seen.values()])
        deferred.POSING = False
        worst = max([worst, *(ranks.difference(a, b) for a, b in zip(*values, strict=True))])
    return worst


@dataclass(frozen=True)
class Picky(Penalty):
    """Refuses, on the host, a row that is too long."""

    name: ClassVar[str] = "picky"
    kind: ClassVar[str] = "picky"

    def __call__(self, rows: Any, answer: Any) -> Tensor:
        if float(rows.norms.max()) > 100:
            raise InputError("a row is too long")
        return 0.0 * rows.norms


def bad_batches(rank: int, count: int) -> float:
    """What breaks a rule on one rank moves nothing on any, and all ranks raise at the next call: its rank says why."""
    inputs, labels, owned = ranks.batch(count)
    features, mine = inputs[owned[rank], :SIZE], labels[owned[rank]]
    last = rank == count - 1

    def outside(x: Tensor, y: Tensor) -> None:
        y[1:] = CLASSES

    def infinite(x: Tensor, y: Tensor) -> None:
        x[2] = math.inf

    def too_long(x: Tensor, y: Tensor) -> None:
        x[0] *= 1e4

    def huge(x: Tensor, y: Tensor) -> None:
        x[1] = 1e300

    raw = losses.softmax() + losses.feature_incay(0.1, form="linear", bound="auto")
    worst = 0.0
    for spoil, objective, sentence in (
        (outside, losses.proxy_anchor(), "labels must be in [0, 7) or -100 (ignored); got 7 at row 1"),
        (outside, MOVING, "labels must be in [0, 7) or -100 (ignored); got 7 at row 1"),
        (infinite, MOVING, "features must be finite; got NaN or Inf at row 2"),
        (too_long, MOVING + Picky(), "a row is too long"),
        (huge, raw, "the loss is not finite at row 1"),
    ):
        torch.manual_seed(5)
        for head in (ShardedHead(SIZE, CLASSES, objective), DenseHead(SIZE, CLASSES, objective).synchronize()):
            if isinstance(head, DenseHead) and (spoil is too_long or objective.reduces_batch):
                continue  # which raises at once, as nothing is exchanged
            if spoil is huge:
                with torch.no_grad():
                    head.weight *= 1e10
            head(features, mine).backward()
            before = [buffer.clone() for buffer in head.buffers()]
            x, y = features.clone(), mine.clone()
            if last:
                spoil(x, y)
            head.zero_grad()
            loss = head(x.requires_grad_(), y)
            loss.backward()
            zero = [x.grad, *(ranks._or_zero(parameter) for parameter in head.parameters())]
            moved = not all(torch.equal(*pair) for pair in zip(before, head.buffers(), strict=True))
            if moved or not bool(loss.isnan()) or (spoil is not huge and any(bool(each.any()) for each in zero)):
                return 3.0
            said = sentence if last else f"rank {count - 1} refused its batch or its loss"
            worst = max(worst, ranks.refused(lambda head=head: head(features, mine), said))
            worst = max(worst, 0.0 if bool(head(features, mine).isfinite()) else 4.0)
            head.check()
    for objective in (MOVING, losses.proxy_anchor()):
        head = ShardedHead(SIZE, CLASSES, objective)
        head(features, torch.full_like(mine, -100)).backward()
        worst = max(worst, 5.0 if head.weight.grad is None or bool(head.weight.grad.any()) else 0.0)
        worst = max(worst, ranks.refused(head.check, "every label is -100"))
    return worst


def findings_that_arrive_on_one_rank_first(rank: int, count: int) -> float:
    """All ranks raise at the same call, though only one of them has read that an earlier batch was bad."""

    class Event:
        here = False

        def query(self) -> bool:
            return self.here

        def synchronize(self) -> None:
            self.here = True

    inputs, labels, owned = ranks.batch(count)
    features, mine = inputs[owned[rank], :SIZE], labels[owned[rank]]
    worst = 0.0
    for first in range(count):
        for head in (ShardedHead(SIZE, CLASSES, MOVING), DenseHead(SIZE, CLASSES, MOVING).synchronize()):
            wrong = mine.clone()
            wrong[:1] = CLASSES if rank == count - 1 else 0
            head(features, wrong)
            queue = deferred._PENDING[head.weight]
            if rank != first:
                queue[0] = queue[0]._replace(arrived=Event())
            said = "got 7 at row 0" if rank == count - 1 else f"rank {count - 1} refused its batch"
            worst = max(worst, ranks.refused(lambda head=head: head(features, mine), said))
            worst = max(worst, 0.0 if bool(head(features, mine).isfinite()) else 4.0)
    return worst


def what_hosts_know_is_refused_at_once(rank: int, count: int) -> float:
    """Shapes, modes and reductions, on all ranks at this call."""
    inputs, labels, owned = ranks.batch(count)
    features, mine = inputs[owned[rank], :SIZE], labels[owned[rank]]
    head = ShardedHead(SIZE, CLASSES, losses.normface())
    wide = features[:, 1:] if rank else features
    worst = ranks.refused(lambda: head(wide, mine), "agree on embedding_size|rank 1 refused its batch")
    worst = max(worst, ranks.refused(lambda: head(features, mine, "sum" if rank else "mean"), "the same reduction"))
    mixed = features.clone().requires_grad_(rank == 0)
    worst = max(worst, ranks.refused(lambda: head(mixed, mine), "features.requires_grad"))
    deferred.POSING = rank == 0
    worst = max(worst, ranks.refused(lambda: head(features, mine), "the same device"))
    deferred.POSING = True
    return max(worst, 0.0 if bool(head(features, mine).isfinite()) else 1.0)


def findings_of_one_rank_alone(rank: int, count: int) -> float:
    """A bad batch in eval mode, where a dense head's ranks are on their own, and a warning that is an error."""
    inputs, labels, owned = ranks.batch(count)
    features, mine = inputs[owned[rank], :SIZE], labels[owned[rank]]
    head = DenseHead(SIZE, CLASSES, MOVING).synchronize()
    head.eval()
    head(features, torch.full_like(mine, CLASSES) if rank == 0 else mine)
    head.train()
    said = "got 7 at row 0" if rank == 0 else "rank 0 refused its batch or an earlier one"
    worst = ranks.refused(lambda: head(features, mine), said)
    if rank == 0:
        deferred.remember_gradient(head.weight, torch.full((1, SIZE), 1e6))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with contextlib.suppress(UserWarning if rank == 0 else InputError):
            head(features, mine)
            worst = 1.0
    return max(worst, 0.0 if bool(head(features, mine).isfinite()) else 1.0)


def hosts_have_a_group_of_their_own(rank: int, count: int) -> float:
    """Where the process group is for GPUs alone, another is made, once, in the order of its ranks."""
    dist.new_group([0])  # so that the ranks know of different numbers of groups
    other_order = {"sort_ranks": False} if "sort_ranks" in inspect.signature(dist.new_group).parameters else {}
    for_gpus = dist.new_group(list(range(count))[::-1], backend="cuda:gloo", **other_order)
    here = Ranks.here(for_gpus)
    with torch.device("meta"):  # hosts talk by the CPU whatever the default device is
        found = [gather_numbers([here.rank, 7], here) for _ in range(2)]
    return 0.0 if found == [[[other, 7] for other in range(count)]] * 2 else 1.0


CHECKS: tuple[Callable[[int, int], float], ...] = (
    bad_batches,
    findings_that_arrive_on_one_rank_first,
    findings_of_one_rank_alone,
    what_hosts_know_is_refused_at_once,
    hosts_have_a_group_of_their_own,
    ranks.sum_and_none,
    ranks.copies,
    ranks.sampling_of_all_classes,
    ranks.updates_within_backward,
    ranks.second_derivatives,
    ranks.dense_heads_on_several_ranks,
    ranks.figures_before_the_loss_of_dense_heads,
    ranks.accumulation,
    ranks.ignored_rows,
    ranks.hard_mining_within_each_rank,
)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
