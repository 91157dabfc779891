"""Drawn lists of pairs keep what a list to verify on must: folds of different people, no pair twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from angulus.cli.main import app
from angulus.core.checks import InputError
from angulus.data.records import Row, write_records
from angulus.evaluation.lists.pair_list import PairList, pairs_text, read_pairs
from angulus.evaluation.lists.sample_pairs import draw_folds
from data.pictures import png

PEOPLE = np.repeat([f"p{number:02d}" for number in range(12)], 5)
IDS = np.array([f"{person}/{place}.png" for place, person in enumerate(PEOPLE)])
WHO = dict(zip(IDS.tolist(), PEOPLE.tolist(), strict=True))


@pytest.mark.parametrize(("folds", "per"), [(3, 9), (2, 60), (6, 20)])
def test_folds_of_different_people(folds: int, per: int) -> None:
    pairs = draw_folds(IDS, PEOPLE, folds=folds, per=per, seed=1)
    assert len({frozenset(pair) for pair in zip(pairs.left, pairs.right, strict=True)}) == len(pairs) == 2 * folds * per
    people: list[set[str]] = []
    for fold in range(folds):
        left, right, same = (column[pairs.folds == fold].tolist() for column in (pairs.left, pairs.right, pairs.same))
        assert [WHO[a] == WHO[b] for a, b in zip(left, right, strict=True)] == same == [True] * per + [False] * per
        people.append({WHO[id] for id in left + right})
    assert sum(map(len, people)) == len(set.union(*people)), "a person is in two folds"


def test_the_seed_decides() -> None:
    first, again, other = (pairs_text(draw_folds(IDS, PEOPLE, folds=3, per=9, seed=seed)) for seed in (0, 0, 1))
    assert first == again != other


def test_every_genuine_pair_comes_up() -> None:
    found = set()
    for seed in range(40):
        pairs = draw_folds(IDS, PEOPLE, folds=2, per=20, seed=seed)
        found |= {frozenset(pair) for pair in zip(pairs.left[pairs.same], pairs.right[pairs.same], strict=True)}
    assert len(found) == 12 * 10


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(InputError, match="7 folds take 14 people or more; got 12"):
        draw_folds(IDS, PEOPLE, folds=7)
    with pytest.raises(InputError, match="the 4 people of fold 0 give 40 and 150; ask for 40 pairs"):
        draw_folds(IDS, PEOPLE, folds=3, per=41)
    many = np.repeat(np.arange(6).astype(str), [9, 9, 9, 3, 3, 3])
    ids = np.array([str(row) for row in range(len(many))])
    with pytest.raises(InputError, match=r"ask for \d+ pairs, or for fewer folds") as refused:
        draw_folds(ids, many, folds=3, per=100)
    most = int(str(refused.value).split("ask for ")[1].split()[0])
    assert len(draw_folds(ids, many, folds=3, per=most).left) == 3 * 2 * most  # no fold refuses the number named
    with pytest.raises(InputError, match="folds must be runs of as many genuine, then impostor pairs"):
        pairs_text(
            PairList(np.array(list("abcd")), np.array(list("efgh")), np.array([0, 0, 1, 1]) > 0, np.arange(4) // 2)
        )


def test_the_command_writes_a_list_that_is_read_back(tmp_path: Path) -> None:
    write_records(tmp_path / "records", [Row(id, png(place), WHO[id]) for place, id in enumerate(IDS.tolist())])
    out = tmp_path / "lists" / "pairs.txt"
    arguments = ["data", "pairs", str(tmp_path / "records"), str(out), "--folds", "3", "--pairs", "10", "--seed", "5"]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0 and "60 pairs in 3 folds" in shown.output
    read, drawn = read_pairs(out), draw_folds(IDS, PEOPLE, folds=3, per=10, seed=5)
    for name in ("left", "right", "same", "folds", "left_identity", "right_identity"):
        assert getattr(read, name).tolist() == getattr(drawn, name).tolist()
