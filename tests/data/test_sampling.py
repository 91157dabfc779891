"""The laws of sampling: each image once, no image on two ranks, a resumed run as an uninterrupted one."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from angulus.core.checks import InputError
from angulus.data.sampler import Balanced, Shuffled


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 4), st.integers(1, 9), st.integers(0, 3))
def test_plain_shows_each_image_once_on_one_rank(data: st.DataObject, ranks: int, batch_size: int, epoch: int) -> None:
    count = data.draw(st.integers(ranks, 60))
    count -= count % ranks if batch_size == 1 else 0
    samplers = [Shuffled(count, batch_size, 5, rank, ranks) for rank in range(ranks)]
    batches = [sampler.batches(epoch) for sampler in samplers]
    assert {len(of_rank) for of_rank in batches} == {samplers[0].steps} == {-(-count // (batch_size * ranks))}
    shown = [row for of_rank in batches for rows in of_rank for row in rows.tolist()]
    assert sorted(shown) == list(range(count))
    sizes = [len(rows) for of_rank in batches for rows in of_rank]
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 9), min_size=8, max_size=60),
    st.integers(1, 2),
    st.integers(1, 4),
    st.integers(1, 2),
    st.integers(0, 2),
)
def test_balanced_shows_p_identities_with_k_images(labels: list[int], p: int, k: int, ranks: int, epoch: int) -> None:
    there = Counter(labels)
    if len(there) < p * ranks:
        return
    batches = [Balanced(np.array(labels), p, k, 3, rank, ranks).batches(epoch) for rank in range(ranks)]
    shown: Counter[int] = Counter()
    identities: Counter[int] = Counter()
    assert {len(of_rank) for of_rank in batches} == {-(-len(labels) // (p * k * ranks))}
    for step in zip(*batches, strict=True):
        own = Counter(labels[row] for rows in step for row in rows.tolist())
        assert set(own.values()) == {k} and len(own) == p * ranks
        for rows in step:
            assert len({labels[row] for row in rows.tolist()}) == p
            for row, times in Counter(rows.tolist()).items():
                assert times <= -(-k // there[labels[row]])  # twice in a step only where the identity has too few
        shown.update(row for rows in step for row in rows.tolist())
        identities.update(own.keys())
    for label, times in there.items():  # all images of an identity come before one comes again
        of_label = [shown[row] for row in range(len(labels)) if labels[row] == label]
        assert len(of_label) == times and max(of_label) - min(of_label) <= 1
    rounds = -(-len(batches[0]) // (len(there) // (p * ranks)))
    assert max(identities.values()) <= rounds


@pytest.mark.parametrize("start", [0, 1, 4, 6])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_resumed_epoch_is_the_rest_of_the_whole_one(start: int, rank: int) -> None:
    labels = np.arange(60) % 7
    for sampler in (Shuffled(60, 5, 9, rank, 2), Balanced(labels, 2, 2, 9, rank, 2)):
        whole, rest = sampler.batches(3), sampler.batches(3, start)
        assert [rows.tolist() for rows in rest] == [rows.tolist() for rows in whole[start:]]


def test_epochs_and_seeds_differ_and_repeat() -> None:
    for make in (lambda seed: Shuffled(100, 10, seed), lambda seed: Balanced(np.arange(100) % 10, 5, 2, seed)):
        first = np.concatenate(make(0).batches(0))
        assert np.array_equal(first, np.concatenate(make(0).batches(0)))
        assert not np.array_equal(first, np.concatenate(make(0).batches(1)))
        assert not np.array_equal(first, np.concatenate(make(1).batches(0)))


def test_every_identity_comes_within_a_round() -> None:
    labels = np.repeat(np.arange(8), 4)
    batches = Balanced(labels, identities=4, images=2).batches(0)
    assert [sorted(set(labels[np.concatenate(batches[step : step + 2])])) for step in (0, 2)] == [list(range(8))] * 2


def test_labels_need_not_be_dense() -> None:
    labels = np.array([5, 5, 1000, 1000, 7])
    rows = Balanced(labels, identities=3, images=1).batches(0)
    assert [sorted(labels[step].tolist()) for step in rows] == [[5, 7, 1000]] * 2


def test_an_identity_with_one_image_is_shown_k_times() -> None:
    (rows, *_) = Balanced(np.array([0, 1, 1]), identities=2, images=2).batches(0)
    assert sorted(rows.tolist()) == [0, 0, 1, 2]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"count": 0}, "count must be a whole number >= 1"),
        ({"count": 2, "ranks": 3}, "count must be a whole number >= 3; got 2; each rank needs an image per step"),
        ({"batch_size": 0}, "batch_size"),
        ({"count": 11, "batch_size": 1, "ranks": 2}, "at least 2 if 2 ranks share 11 images"),
        ({"seed": -1}, "seed"),
        ({"ranks": 0}, "ranks"),
        ({"rank": 1}, r"rank must be a whole number in \[0, 0\]"),
    ],
)
def test_plain_refuses(values: dict[str, int], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Shuffled(**({"count": 10, "batch_size": 2} | values))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"identities": 4}, r"identities must be a whole number in \[1, 3\]; got 4; there are 3 identities for 1 rank"),
        ({"identities": 2, "ranks": 2}, "3 identities for 2 rank"),
        ({"images": 0}, "images"),
        ({"labels": np.array([-1, 0])}, "labels must be"),
        ({"labels": np.array([])}, "labels must be"),
        ({"labels": np.array([0.5])}, "labels must be"),
    ],
)
def test_balanced_refuses(values: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Balanced(**({"labels": np.array([0, 1, 2]), "identities": 2, "images": 2} | values))  # type: ignore[arg-type]


def test_steps_that_are_not_there() -> None:
    sampler = Shuffled(10, 2)
    assert sampler.batches(0, 5) == []
    with pytest.raises(InputError, match=r"start must be a whole number in \[0, 5\]"):
        sampler.batches(0, 6)
    with pytest.raises(InputError, match="epoch"):
        sampler.batches(-1)
