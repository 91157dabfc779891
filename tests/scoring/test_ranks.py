"""Work shared among processes gives what one process gives, and an error reaches all of them."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from angulus.core.checks import InputError
from angulus.distributed.launch import end_process
from angulus.distributed.runtime import Ranks
from angulus.evaluation.scoring import (
    ScoringOptions,
    above,
    best_per_probe,
    brackets,
    rows_ahead,
    thresholds,
    thresholds_at,
    tiles,
    top_k,
)
from scoring.cases import cloud, lattice

IDS = np.arange(40) % 7


@dataclass(frozen=True)
class Thread(Ranks):
    """A rank that is a thread of this process, which exchanges by `gather`."""

    gather: Callable[[Any], list[Any]] = lambda value: [value]

    def gather_objects(self, value: Any) -> list[Any]:
        return self.gather(value)


def together(size: int, work: Callable[[Ranks], Any]) -> list[Any]:
    """Run `work` as so many ranks, in threads that meet at every exchange."""
    slots: list[Any] = [None] * size
    results: list[Any] = [None] * size
    barrier = threading.Barrier(size, timeout=20)

    def run(rank: int) -> None:
        def gather(part: Any) -> list[Any]:
            slots[rank] = pickle.dumps(part)
            barrier.wait()
            parts = [pickle.loads(each) for each in slots]
            barrier.wait()
            return parts

        try:
            results[rank] = work(Thread(rank, size, gather=gather))
        except InputError as error:
            results[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def everything(ranks: Ranks) -> list[Any]:
    """Results of all functions that combine, as plain values."""
    found: list[Any] = []
    options = ScoringOptions(precision="bfloat16", ranks=ranks)
    for make in (lattice, cloud):
        probes, gallery = make(40, 0), make(30, 1)
        scores, rows = top_k(probes, gallery, 3, options=options)
        found += [scores.tolist(), rows.tolist(), best_per_probe(probes, gallery, options=options).tolist()]
        found.append(rows_ahead(probes, gallery, [0.25] * 40, sizes=[10, 30], options=options).tolist())
        found.append(thresholds_at(probes, gallery, [0.01, 0.5], ids=(IDS, IDS[:30]), options=options))
        found.append(thresholds_at(probes, None, [0.01, 0.2, 0.9], ids=IDS, options=options))
    return found


def mine(ranks: Ranks) -> list[tuple[int, int, float]]:
    parts = above(cloud(40, 0), None, 0.1, options=ScoringOptions(ranks=ranks))
    return [
        pair for each in parts for pair in zip(each.probes.tolist(), each.gallery.tolist(), each.scores, strict=True)
    ]


@pytest.mark.parametrize("size", [2, 3, 7])
def test_shares_of_the_work_give_the_whole(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "TILE", {"cpu": (7, 11)})
    monkeypatch.setattr(thresholds, "SAMPLE", (1, 200))
    alone = everything(Ranks())
    assert all(result == alone for result in together(size, everything))
    shares = together(size, mine)
    assert sorted(pair for share in shares for pair in share) == sorted(mine(Ranks()))
    assert sum(map(bool, shares)) > 1


def test_more_ranks_than_probes() -> None:
    def work(ranks: Ranks) -> list[Any]:
        scores, rows = top_k(cloud(2, 0), cloud(9, 1), 2, options=ScoringOptions(ranks=ranks))
        return [
            scores.tolist(),
            rows.tolist(),
            thresholds_at(cloud(2, 0), None, [0.5], zero_ok=True, options=ScoringOptions(ranks=ranks)),
        ]

    assert all(result == work(Ranks()) for result in together(4, work))


def test_shares_that_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "TILE", {"cpu": (7, 11)})
    monkeypatch.setattr(brackets, "BINS", 50)
    monkeypatch.setattr(brackets, "SETTLE", 10)
    plain = everything(Ranks())
    join = brackets.merge_overlaps
    monkeypatch.setattr(thresholds, "merge_overlaps", lambda wanted, _: join(wanted, 60))

    def points(ranks: Ranks) -> list[Any]:
        return [
            [(point.threshold, point.accepted) for point in each]
            for each in everything(ranks)
            if isinstance(each[0], thresholds.ThresholdAtFmr)
        ]

    expected = [
        [(point.threshold, point.accepted) for point in each]
        for each in plain
        if isinstance(each[0], thresholds.ThresholdAtFmr)
    ]
    assert all(result == expected for result in together(3, points))


def test_what_one_rank_refuses_is_raised_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "TILE", {"cpu": (7, 11)})
    probes = cloud(40, 0)
    probes[8] = float("nan")  # in the second rank's share
    results = together(2, lambda ranks: top_k(probes, cloud(30, 1), 1, options=ScoringOptions(ranks=ranks)))
    assert all("at row 8" in str(result) for result in results)
    assert str(results[0]).startswith("rank 1 failed: ")


def test_what_one_rank_cannot_do_leaves_none_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only what is refused: a product that broke its bound, memory that ran out."""
    monkeypatch.setattr(tiles, "TILE", {"cpu": (7, 11)})

    def work(ranks: Ranks) -> Any:
        def seen(done: int, _: int) -> None:
            if ranks.rank == 1 and done == 2:
                raise MemoryError("no memory")

        try:
            return top_k(cloud(40, 0), cloud(30, 1), 1, options=ScoringOptions(ranks=ranks, on_block=seen))
        except MemoryError:
            return "out of memory"

    assert [str(result) for result in together(2, work)] == ["rank 1 failed: no memory", "out of memory"]


def process(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    tiles.TILE["cpu"] = (7, 11)
    ranks = Ranks.here()
    assert (ranks.rank, ranks.count) == (rank, 2)
    torch.save(everything(ranks), f"{folder}/{rank}.pt")
    dist.destroy_process_group()
    end_process(0)


def test_two_processes(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "TILE", {"cpu": (7, 11)})
    mp.spawn(process, (str(tmp_path),), nprocs=2)  # type: ignore[no-untyped-call]
    alone = everything(Ranks.here())
    for rank in range(2):
        assert torch.load(tmp_path / f"{rank}.pt", weights_only=False) == alone
