"""The laws of sampling: P identities with K images in each step, all images before one comes again."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from angulus.core.checks import InputError
from angulus.data.sampler import Balanced


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 9), min_size=8, max_size=60),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(0, 2),
)
def test_balanced_shows_p_identities_with_k_images(labels: list[int], p: int, k: int, epoch: int) -> None:
    there = Counter(labels)
    if len(there) < p:
        return
    batches = Balanced(np.array(labels), p, k, 3).batches(epoch)
    shown: Counter[int] = Counter()
    identities: Counter[int] = Counter()
    assert len(batches) == -(-len(labels) // (p * k))
    for rows in batches:
        own = Counter(labels[row] for row in rows.tolist())
        assert set(own.values()) == {k} and len(own) == p
        for row, times in Counter(rows.tolist()).items():
            assert times <= -(-k // there[labels[row]])  # twice in a step only where the identity has too few
        shown.update(rows.tolist())
        identities.update(own.keys())
    for label, times in there.items():  # all images of an identity come before one comes again
        of_label = [shown[row] for row in range(len(labels)) if labels[row] == label]
        assert len(of_label) == times and max(of_label) - min(of_label) <= 1
    rounds = -(-len(batches) // (len(there) // p))
    assert max(identities.values()) <= rounds


def test_epochs_and_seeds_differ_and_repeat() -> None:
    first, again, epoch, seed = (
        np.concatenate(Balanced(np.arange(100) % 10, 5, 2, seed).batches(epoch))
        for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0))
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, epoch) and not np.array_equal(first, seed)


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
        ({"identities": 4}, r"identities must be a whole number in \[1, 3\]; got 4; there are 3 identities"),
        ({"seed": -1}, "seed"),
        ({"images": 0}, "images"),
        ({"labels": np.array([-1, 0])}, "labels must be"),
        ({"labels": np.array([])}, "labels must be"),
        ({"labels": np.array([0.5])}, "labels must be"),
    ],
)
def test_balanced_refuses(values: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Balanced(**({"labels": np.array([0, 1, 2]), "identities": 2, "images": 2} | values))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="epoch"):
        Balanced(np.array([0, 1, 2]), 2, 2).batches(-1)
