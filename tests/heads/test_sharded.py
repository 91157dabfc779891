"""The sharded head against the dense one, on one, two and three processes, over every case of the algebra."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from angulus import InputError, losses
from angulus.distributed.runtime import Ranks, class_counts
from angulus.heads.sharded import ShardedHead
from processes import run_ranks

WORKER = Path(__file__).with_name("ranks.py")
TOLERANCE = 1e-12


@pytest.mark.parametrize("count", [1, 2, 3])
def test_equals_the_dense_head(count: int, tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    run_ranks(WORKER, count, str(tmp_path / "rendezvous"), str(results))
    found = json.loads(results.read_text())
    assert len(found) > 150
    worst = {name: value for name, value in found.items() if not value <= TOLERANCE}
    assert not worst


def test_ranges_are_even_and_in_order() -> None:
    assert class_counts(10, 4) == [3, 3, 2, 2]
    assert class_counts(3, 3) == [1, 1, 1]


@pytest.mark.parametrize(
    ("counts", "said"), [([5, 5], "sum to num_classes = 11"), ([11], "2 numbers"), ([0, 11], ">= 1")]
)
def test_wrong_counts_are_refused(counts: list[int], said: str) -> None:
    with pytest.raises(InputError, match=said):
        class_counts(11, 2, counts)


def test_more_ranks_than_classes_is_refused() -> None:
    with pytest.raises(InputError, match="3 ranks cannot share num_classes = 2;"):
        class_counts(2, 3)


def test_a_group_without_initialisation_is_refused() -> None:
    with pytest.raises(InputError, match="init_process_group"):
        Ranks.here(group=object())


def test_one_process_needs_no_group_and_says_what_it_holds() -> None:
    head = ShardedHead(4, 3, losses.normface())
    assert "classes=0..2 of rank 0 of 1" in repr(head)
    with pytest.raises(InputError, match="unbound"):
        ShardedHead(4, 3, losses.normface().bind(4, 3))  # type: ignore[arg-type]
