"""LUNA16's lists: the real ones whole, with the challenge's counts, and malformed lines by their numbers."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from angulus.core.checks import InputError
from angulus.evaluation.lists.luna16_csv import read_excluded, read_findings, read_marks, read_scans

FINDINGS = "seriesuid,coordX,coordY,coordZ,diameter_mm\n"
MARKS = "seriesuid,coordX,coordY,coordZ,probability\n"


def rows_of(path: Path) -> list[list[str]]:
    data = path.read_bytes()
    return list(csv.reader((gzip.decompress(data) if path.suffix == ".gz" else data).decode().splitlines()))


def test_the_real_lists(data_folder: Path) -> None:
    folder = data_folder / "luna16"
    nodules, excluded = read_findings(folder / "annotations.csv"), read_excluded(folder / "annotations_excluded.csv.gz")
    scans, marks = read_scans(folder / "seriesuids.csv"), read_marks(folder / "dpn26_submission.csv.gz")
    assert (len(nodules), len(scans), len(marks), len(excluded)) == (1_186, 888, 55_677, 35_192)
    assert set(nodules.cases.tolist()) | set(marks.cases.tolist()) <= set(scans.tolist())
    for name, found, last in (
        ("annotations.csv", nodules, nodules.diameters),
        ("annotations_excluded.csv.gz", excluded, np.nan_to_num(excluded.diameters, nan=-1)),
        ("dpn26_submission.csv.gz", marks, marks.scores),
    ):
        rows = rows_of(folder / name)[1:]
        assert found.cases.tolist() == [row[0] for row in rows]
        assert np.column_stack([found.centres, last]).tolist() == [[float(cell) for cell in row[1:]] for row in rows]
    assert int(np.isnan(excluded.diameters).sum()) == 30_513
    assert nodules.diameters.min() > 3  # the challenge has nodules of 3 mm and more


@pytest.mark.parametrize(
    ("read", "text", "sentence"),
    [
        (read_findings, "", "list.csv must hold lines; it is empty"),
        (read_findings, FINDINGS, "list.csv must hold lines after its heading; got none"),
        (
            read_findings,
            MARKS + "a,1,2,3,4\n",
            "list.csv line 1 must be the heading seriesuid,.*diameter_mm; got 'seriesuid,",
        ),
        (
            read_marks,
            FINDINGS + "a,1,2,3,4\n",
            "list.csv line 1 must be the heading seriesuid,.*probability; got 'seriesuid,",
        ),
        (read_marks, "a,1,2,3,4\n", "list.csv line 1 must be the heading"),
        (
            read_findings,
            FINDINGS + "a,1,2,3,4\nb,1,2,3\n",
            "line 3 must be .*: a scan and four finite numbers; got 'b,1,2,3'",
        ),
        (read_findings, FINDINGS + "a,1,2,3,4,5\n", "line 2 must be .*: a scan and four finite numbers"),
        (read_findings, FINDINGS + "a,1,2,x,4\n", "line 2 must be .*: a scan and four finite numbers"),
        (read_findings, FINDINGS + ",1,2,3,4\n", "line 2 must be .*: a scan and four finite numbers"),
        (read_findings, FINDINGS + "a,1,2,3,4\n\nb,1,2,3,4\n", "line 3 must be .*: a scan and four finite numbers"),
        (read_marks, MARKS + "a,1,2,3,nan\n", "line 2 must be .*: a scan and four finite numbers"),
        (read_marks, MARKS + "a,inf,2,3,0.5\n", "line 2 must be .*: a scan and four finite numbers"),
        (read_findings, FINDINGS + "a,1,2,3,4\na,1,2,3,0\n", "line 3 must be a finding with a diameter > 0; got 0"),
        (read_findings, FINDINGS + "a,1,2,3,-1\n", "line 2 must be a finding with a diameter > 0; got -1"),
        (
            read_excluded,
            FINDINGS + "a,1,2,3,-1\na,1,2,3,-2\n",
            "line 3 must be a finding with a diameter > 0, or -1; got -2",
        ),
        (read_scans, "a\nb\na\n", "line 3 must be one scan that is not listed before; got 'a'"),
        (read_scans, "a\n\nb\n", "line 2 must be one scan that is not listed before; got ''"),
        (read_scans, "seriesuid\n", "list.csv must hold lines after its heading; got none"),
        (read_scans, "a\nb,1\n", "line 2 must be one scan that is not listed before; got 'b,1'"),
    ],
)
def test_malformed_lists(tmp_path: Path, read: Any, text: str, sentence: str) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(InputError, match=sentence):
        read(tmp_path / "list.csv")


def test_a_heading_is_no_scan(tmp_path: Path) -> None:
    """One scan too many would lower the false positives a scan."""
    for text in ("seriesuid\na\nb\n", "a\nb\n"):
        (tmp_path / "scans.csv").write_text(text)
        assert read_scans(tmp_path / "scans.csv").tolist() == ["a", "b"]


def test_small_lists(tmp_path: Path) -> None:
    path = tmp_path / "list.csv.gz"
    path.write_bytes(gzip.compress((FINDINGS + "a,1,2,3,4.5\r\nb,-1,-2,-3,-1\r\n").encode()))
    found = read_excluded(path)
    assert (found.cases.tolist(), found.centres.tolist()) == (["a", "b"], [[1, 2, 3], [-1, -2, -3]])
    assert found.diameters[0] == 4.5
    assert np.isnan(found.diameters[1])
    path.write_bytes(gzip.compress((MARKS + "a,1,2,3,-7.5\n").encode()))
    marks = read_marks(path)
    assert (len(marks), marks.centres.tolist(), marks.scores.tolist()) == (1, [[1, 2, 3]], [-7.5])
