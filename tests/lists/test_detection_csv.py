"""Marks, lesions and cases from one's own CSV files: names of columns, separators, sizes, and what is refused."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from angulus.cli.main import app
from angulus.core.checks import InputError
from angulus.evaluation.lists.detection_csv import (
    Cases,
    complete,
    read_cases,
    read_lesions,
    read_marks,
)
from angulus.evaluation.lists.named_columns import check_columns

MARKS = "case,x,y,score\na,1,2,0.5\nb,-3,4.5,-7\n"
LESIONS = "case,x,y,diameter\na,1,2,10\nb,3,4,6\n"


def written(folder: Path, text: str, name: str = "f.csv") -> Path:
    (folder / name).write_text(text)
    return folder / name


@pytest.mark.parametrize("separator", [",", ";", "\t", " ; "])
def test_separators_line_ends_and_quotes(tmp_path: Path, separator: str) -> None:
    text = MARKS.replace(",", separator).replace("\n", "\r\n").replace("a", '"a"', 1)
    marks = read_marks(written(tmp_path, "\ufeff" + text.replace('c"a"se', "case")))
    assert marks.cases.tolist() == ["a", "b"]
    assert marks.centres.tolist() == [[1, 2], [-3, 4.5]]
    assert marks.scores.tolist() == [0.5, -7]
    assert marks.patients is None


def test_columns_have_many_names_and_what_was_read_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    path = written(tmp_path, "probability,seriesuid,coordX,coordY,coordZ,note\n0.9,1.2.3,5,6,7,?\n")
    marks = read_marks(path, report=said.append)
    assert (marks.cases.tolist(), marks.centres.tolist(), marks.scores.tolist()) == (["1.2.3"], [[5, 6, 7]], [0.9])
    assert said == [
        f"{path}: case is seriesuid, x is coordX, y is coordY, score is probability, z is coordZ; not read: note"
    ]
    read_marks(written(tmp_path, "Patient,Scan,x,y,score\np,s,1,2,3\n"), report=said.append)
    assert said[1] == f"{path}: case is Scan, patient is Patient"
    assert read_marks(path).patients.tolist() == ["p"]  # type: ignore[union-attr]
    alone = read_marks(written(tmp_path, "patient,x,y,score\np,1,2,3\n"))
    assert (alone.cases.tolist(), alone.patients) == (["p"], None)
    other = written(tmp_path, "slide no,where,y,score\nq,1,2,3\n")
    assert read_marks(other, {"case": "slide no", "x": "where"}).cases.tolist() == ["q"]


def test_a_heading_alone_is_a_detector_that_marks_nothing(tmp_path: Path) -> None:
    marks = read_marks(written(tmp_path, "case,x,y,score\n"))
    assert (len(marks), marks.centres.shape) == (0, (0, 2))


def test_sizes_and_flags(tmp_path: Path) -> None:
    text = "case,x,y,radius_mm,ignore\na,1,2,2.5,\na,3,4,,1\nb,5,6,-1,no\nb,5,6,1,Yes\n"
    lesions = read_lesions(written(tmp_path, text))
    np.testing.assert_array_equal(lesions.diameters, [5, math.nan, math.nan, 2])
    assert lesions.ignore.tolist() == [False, True, False, True]
    both = written(tmp_path, "case,x,y,diameter_long,diameter_short\na,1,2,9,4\n")
    assert read_lesions(both, {"diameter": "diameter_short"}).diameters.tolist() == [4]
    either = written(tmp_path, "case,x,y,diameter,radius\na,1,2,9,4\n")
    assert read_lesions(either, {"radius": "radius"}).diameters.tolist() == [8]
    assert np.isnan(read_lesions(written(tmp_path, "case,x,y\na,1,2\n"), sized=False).diameters).all()


@pytest.mark.parametrize("text", ["a\nb\n", "case\na\nb\n", "Scan_ID\na\nb\n", "slide,patient\na,p\nb,\n"])
def test_lists_of_cases(tmp_path: Path, text: str) -> None:
    cases = read_cases(written(tmp_path, text))
    assert cases.names.tolist() == ["a", "b"]
    assert (cases.patients is None) == ("patient" not in text)
    assert cases.patients is None or cases.patients.tolist() == ["p", ""]


@pytest.mark.parametrize(
    ("read", "text", "sentence"),
    [
        (read_marks, "", "f.csv must hold lines; it is empty"),
        (read_marks, MARKS.replace("score", "scor"), r"column of the score, such as score, .*add --column score=scor$"),
        (read_marks, MARKS.replace("case", "who"), r"column of the case, .*got 'who, x, y, score'; if it has another"),
        (read_marks, MARKS.replace(",", "|"), r"between commas, tabs or semicolons; got 'case\|x\|y\|score'"),
        (read_marks, MARKS.replace("y", "x", 1), "must name each column once; got 'x' twice"),
        (read_marks, MARKS + "b,1,2\n", "line 4 must be 4 cells, as the first line has; got 3"),
        (read_marks, MARKS + "b,1,2,nan\n", "line 4 must be a row with a finite number under score; got 'nan'"),
        (read_marks, MARKS + "b,1e999,2,1\n", "line 4 must be a row with a finite number under x; got '1e999'"),
        (read_marks, MARKS.replace(",", ";") + "b;1,5;2;1\n", r"under x \(with a decimal point\); got '1,5'"),
        (read_marks, MARKS + " ,1,2,3\n", "line 4 must be a row with a case under case; got ''"),
        (read_marks, MARKS + '"b,1,2,3\n', "line 4 must be cells whose quotes are closed"),
        (read_lesions, "case,x,y,diameter\n", "must hold lesions after its heading; got none"),
        (
            read_lesions,
            LESIONS.replace("diameter", "size"),
            "of the diameter or radius.*or give one --distance for all",
        ),
        (read_lesions, LESIONS.replace("diameter", "diamter"), "if it is 'diamter', add --column diameter=diamter"),
        (read_lesions, LESIONS + "c,1,2,0\n", "line 4 must be a lesion with a diameter > 0, or empty or -1 .*; got 0"),
        (read_lesions, LESIONS + "a,1.0,2,9\n", "line 4 must be a lesion that is not listed before; line 2 has the"),
        (read_lesions, "case,x,y,radius,diameter\na,1,2,3,4\n", "has a diameter and a radius, .*--column diameter=dia"),
        (
            read_lesions,
            "case,x,y,radius,radius_mm\na,1,2,3,4\n",
            "several columns of a radius: radius, radius_mm; name",
        ),
        (read_lesions, "case,x,y,radius,ignore\na,1,2,3,perhaps\n", "line 2 must be a row with 1 or 0 under ignore"),
        (read_cases, "case\n", "must hold cases after its heading; got none"),
        (read_cases, "a\nb\na\n", "line 3 must be a case that is not listed before, as in line 1; got 'a'"),
        (read_cases, "x,y\n1,2\n", "must name a column of the case"),
    ],
)
def test_what_is_refused(tmp_path: Path, read: object, text: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        read(written(tmp_path, text))  # type: ignore[operator]


def test_a_misspelt_optional_column_is_named(tmp_path: Path) -> None:
    said: list[str] = []
    read_lesions(written(tmp_path, "case,x,y,diameter,ingore\na,1,2,3,1\n"), report=said.append)
    assert said[0].endswith("not read: ingore; did you mean 'ignore'?")


def test_a_column_of_another_meaning_is_no_misspelt_one(tmp_path: Path) -> None:
    said: list[str] = []
    read_lesions(written(tmp_path, "case,x,y,diameter,note,diagnose\na,1,2,3,?,?\n"), report=said.append)
    assert said[0].endswith("not read: note, diagnose")


def test_options_that_name_columns_are_checked(tmp_path: Path) -> None:
    marks, lesions = written(tmp_path, "slide;x;y;score\n"), written(tmp_path, "slide,x,y,size_mm,Ignore\n", "g.csv")
    files = [(marks, ("case", "score")), (lesions, ("case", "diameter", "ignore"))]
    check_columns({"case": "slide", "diameter": "size_mm"}, files)
    with pytest.raises(InputError, match=r"must name one of case, x, .*; got 'cases'; did you mean 'case'"):
        check_columns({"cases": "slide"}, files)
    with pytest.raises(InputError, match=r"must name a column of .*f.csv, .*g.csv; got 'slid'; did you mean 'slide'"):
        check_columns({"case": "slid"}, files)
    with pytest.raises(InputError, match=r"--column ignore names a column of a file that is not given; got 'x'"):
        check_columns({"ignore": "x"}, files[:1])


@pytest.mark.parametrize(
    ("typo", "near"),
    [("typo", ""), ("ignored", ""), ("score", ""), ("size", "; did you mean 'size_mm'[?]")],
)
def test_a_name_that_the_file_lacks_is_answered_with_columns_that_can_be_meant(
    tmp_path: Path, typo: str, near: str
) -> None:
    marks, lesions = written(tmp_path, MARKS, "m.csv"), written(tmp_path, "case,x,y,size_mm,ignore\na,1,2,3,0\n")
    result = CliRunner().invoke(
        app, ["evaluate", "froc", str(marks), "--lesions", str(lesions), "--column", f"diameter={typo}"]
    )
    listed = f"{re.escape(str(lesions))} has case, x, y, size_mm, ignore"
    rule = f"--column diameter must name a column of {re.escape(str(lesions))}; got '{typo}'{near}; {listed}"
    assert re.fullmatch(rule, str(result.exception))


def test_patients_come_from_any_file(tmp_path: Path) -> None:
    marks = read_marks(written(tmp_path, "case,patient,x,y,score\nn,q,1,2,0.5\n"))
    lesions = read_lesions(written(tmp_path, "case,patient,x,y,radius\na,p,1,2,3\nb,p,1,2,3\n"))
    found = complete(marks, lesions, None)
    assert (found.names.tolist(), found.listed) == (["a", "b", "n"], False)
    assert found.patients is not None and found.patients.tolist() == ["p", "p", "q"]
    listed = complete(marks, lesions, Cases(np.array(["a", "z"])))
    assert listed.patients is not None and (listed.patients.tolist(), listed.listed) == (["p", ""], True)
    own = Cases(np.array(["a"]), np.array(["other"]))
    assert complete(marks, lesions, own) is own
    twice = read_lesions(written(tmp_path, "case,patient,x,y,radius\na,p,1,2,3\na,q,5,2,3\n"))
    with pytest.raises(InputError, match="a case must be of one patient; 'a' is of 'p' and 'q'"):
        complete(marks, twice, None)
    deep = read_lesions(written(tmp_path, "case,x,y,z,radius\na,1,2,3,4\n"))
    with pytest.raises(InputError, match="marks and lesions must both have z or both have none; only the lesions have"):
        complete(marks, deep, None)
