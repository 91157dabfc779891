"""YouTube Faces' splits: the published list whole, and malformed lines by their numbers."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path

import pytest

from angulus.core.checks import InputError
from angulus.evaluation.lists.lfw import read_ytf_pairs

LINES = ["1, 1, A_B/0, A_B/1, 1", "1, 2, A_B/0, C/3, 0", "2, 1, C/3, C/4, 1", "2, 2, D/1, E/1, 0"]


def test_five_thousand_pairs_in_ten_splits(data_folder: Path) -> None:
    path = data_folder / "protocols" / "ytf_splits.txt.gz"
    pairs = read_ytf_pairs(path)
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    rows = [[cell.strip() for cell in line.split(",")] for line in lines]
    assert (len(pairs), pairs.fold_count) == (5000, 10)
    assert pairs.folds is not None and pairs.left_identity is not None and pairs.right_identity is not None
    counts = Counter(zip(pairs.folds.tolist(), pairs.same.tolist(), strict=True))
    assert counts == {(fold, same): 250 for fold in range(10) for same in (True, False)}
    assert [[str(fold + 1)] for fold in pairs.folds.tolist()] == [row[:1] for row in rows]
    assert pairs.left.tolist() == [row[2] for row in rows]
    assert pairs.right.tolist() == [row[3] for row in rows]
    assert pairs.same.tolist() == [row[4] == "1" for row in rows]
    assert ((pairs.left_identity == pairs.right_identity) == pairs.same).all()


def test_a_heading_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "splits.txt"
    path.write_text("\n".join(["split number, pair number, first name, second name, is same:", *LINES]))
    pairs = read_ytf_pairs(path)
    assert pairs.left.tolist() == ["A_B/0", "A_B/0", "C/3", "D/1"]
    assert pairs.right_identity is not None and pairs.right_identity.tolist() == ["A_B", "C", "C", "E"]
    path.write_text("split number, pair number, first name, second name, is same:\n")
    with pytest.raises(InputError, match=r"splits.txt must have splits of equal size; got \[\]; it is cut short"):
        read_ytf_pairs(path)


@pytest.mark.parametrize(
    ("line", "replacement", "sentence"),
    [
        (2, "1, 2, A_B/0, C/3", "line 2 must be `split, pair, Name/0, Other/1, 0|1`; got '1, 2, A_B/0, C/3'"),
        (2, "1, 2, A_B/0, C/3, 0, 0", "line 2 must be `split, pair,"),
        (2, "1, 2, A_B/0, C/3, 2", "line 2 must be `split, pair,"),
        (2, "x, 2, A_B/0, C/3, 0", "line 2 must be `split, pair,"),
        (2, "", "line 2 must be `split, pair,"),
        (1, "2, 1, A_B/0, A_B/1, 1", "line 1 must be of split 1 or the next"),
        (3, "4, 1, C/3, C/4, 1", "line 3 must be of split 1 or the next"),
        (4, "1, 2, D/1, E/1, 0", "line 4 must be of split 2 or the next"),
        (
            2,
            "1, 2, A_B/0, A_B/3, 0",
            "line 2 must be two videos `Name/number`, of one person exactly where the flag is 1",
        ),
        (1, "1, 1, A_B/0, C/1, 1", "line 1 must be two videos"),
        (1, "1, 1, A_B, A_B/1, 1", "line 1 must be two videos"),
        (4, None, r"must have splits of equal size; got \[2, 1\]; it is cut short"),
    ],
)
def test_malformed_splits(tmp_path: Path, line: int, replacement: str | None, sentence: str) -> None:
    lines = [replacement if number == line else text for number, text in enumerate(LINES, 1)]
    (tmp_path / "splits.txt").write_text("\n".join(text for text in lines if text is not None))
    with pytest.raises(InputError, match=sentence.replace("|", r"\|")):
        read_ytf_pairs(tmp_path / "splits.txt")
