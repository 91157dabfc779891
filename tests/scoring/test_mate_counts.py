"""Rows above each mate of a probe, and tied with it, against a count over all scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from angulus.core.checks import InputError
from angulus.evaluation.scoring import PairBatch, ScoringOptions, ahead_and_tied, genuine, mate_counts
from scoring.cases import cloud, every_score, lattice

SETS = [(lattice(23, 0), lattice(61, 1)), (cloud(23, 2), cloud(61, 3))]


@pytest.fixture(params=["few", "many", "dense", "padded"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """By comparing, by sorting, in float64 at once, and one probe at a time."""
    changed = {"many": ("FEW", 0), "dense": ("DENSE", -1.0), "padded": ("PADDED", 1)}
    if request.param in changed:
        monkeypatch.setattr(mate_counts, *changed[request.param])


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("sides", SETS, ids=["lattice", "cloud"])
def test_counts_of_every_mate(sides: tuple[torch.Tensor, torch.Tensor], options: ScoringOptions) -> None:
    random = np.random.default_rng(0)
    ids = random.integers(6, size=23), random.integers(5, size=61)  # the probes of one identity have no mate
    pairs = PairBatch.concatenate(genuine(*sides, ids=ids))
    shuffled = random.permutation(len(pairs.scores))
    rows, scores = pairs.probes[shuffled], pairs.scores[shuffled]
    every = every_score(*sides)
    exact = {(i, j): s for i, j, s in zip(pairs.probes.tolist(), pairs.gallery.tolist(), pairs.scores, strict=True)}
    assert max(abs(every[pair] - score) for pair, score in exact.items()) < 1e-15
    every = np.round(every, 12)  # sums that lose nothing differ from the definition's by rounding, also where rows tie
    for left_out in (None, ids):
        ahead, tied = ahead_and_tied(*sides, (rows, scores), ids=left_out, options=options)
        for row, score, above, same in zip(rows.tolist(), np.round(scores, 12), ahead, tied, strict=True):
            others = every[row] if left_out is None else every[row][ids[1] != ids[0][row]]
            assert (above, same) == ((others > score).sum(), (others == score).sum())


def test_all_scores_equal() -> None:
    rows = torch.ones(40, 3)
    ahead, tied = ahead_and_tied(rows[:7], rows, (np.repeat(np.arange(7), 3), np.ones(21)))
    assert not ahead.any()
    assert (tied == 40).all()


def test_no_mates() -> None:
    ahead, tied = ahead_and_tied(torch.eye(3), torch.eye(3), (np.empty(0, dtype=np.int64), np.empty(0)))
    assert len(ahead) == len(tied) == 0


def test_refusals() -> None:
    with pytest.raises(InputError, match=r"rows of mates must be \[M\] of whole numbers in \[0, 3\)"):
        ahead_and_tied(torch.eye(3), torch.eye(3), ([3], [0.5]))
    with pytest.raises(InputError, match=r"scores of mates must be \[1\] of finite numbers"):
        ahead_and_tied(torch.eye(3), torch.eye(3), ([0], [np.nan]))
