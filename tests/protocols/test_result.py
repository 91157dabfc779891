"""Results: saved and read with all digits, undefined figures, thinned curves, the table's words, and refusals."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from angulus.core.checks import InputError
from angulus.evaluation.metrics.intervals import Interval
from angulus.evaluation.protocols.group_rates import ByGroup, Cell, GroupRate
from angulus.evaluation.protocols.result import MOST_POINTS, Curve, Number, Result

RESULT = Result(
    "tea",
    (
        Number("accuracy", 1 / 3, Interval(0.1, 0.7, 0.9), spread=0.0123456),
        Number("TAR@FAR=1e-3", 0.5, None, threshold=-2.5e-7),
        Number("ratio [bold]", math.nan),
        Number("CPM", 1.0, no_interval="all resamples agree"),
        Number("worst over best", math.inf),
    ),
    {"flip": "none", "fars": [0.1, 0.01], "sorted": True},
    {"pairs": 6000, "folds": 10},
    curves=(Curve("roc", "tea", np.array([0.0, 0.5, 1.0]), np.array([0.2, 0.9, 1.0])),),
    notes=("the ratio is undefined",),
    samples={"scores": np.array([0.1, 0.2 + 0.1]), "left": np.array(["a/1", "ü/2"]), "same": np.array([True, False])},
    about={"embeddings": "mine.npz"},
    by_group=(
        ByGroup(
            "FAR=1e-1",
            "verification",
            0.25,
            (
                Cell(("a",), GroupRate(10, 1, 0.1, Interval(0.0, 0.2)), None),
                Cell(("b",), GroupRate(9, 0, math.nan, note="undefined: 9 trials"), GroupRate(4, 2, 0.5)),
                Cell(("a", "b"), GroupRate(20, 3, 0.15), None),
            ),
            (Number("FMR max/min", math.inf, no_interval="infinite: a group has no error"),),
        ),
    ),
)


def cells(*groups: tuple[str, ...], **rate: float) -> dict[str, object]:
    """An operating point in JSON."""
    made = {"trials": 4, "errors": 1, "value": None, **rate}
    return {
        "at": "FAR=1e-1",
        "kind": "verification",
        "cells": [{"groups": list(names), "false_match": made} for names in groups],
    }


BACKWARDS = {"low": 0.9, "high": 0.1, "level": 0.95}


def words(result: Result, digits: int = 4) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(result.table(digits))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_saved_result_is_read_as_it_was(tmp_path: Path) -> None:
    RESULT.save(tmp_path / "tea.json")
    again = Result.read(tmp_path / "tea.json")
    assert repr(again.numbers) == repr(RESULT.numbers)  # NaN is unequal to itself
    assert repr(again.by_group) == repr(RESULT.by_group)
    for name in ("protocol", "notes", "about"):
        assert getattr(again, name) == getattr(RESULT, name)
    assert (dict(again.choices), dict(again.counts)) == (dict(RESULT.choices), dict(RESULT.counts))
    for name, values in RESULT.samples.items():
        assert np.array_equal(again.samples[name], values)
        assert again.samples[name].dtype == values.dtype
    assert np.array_equal(again.curves[0].x, RESULT.curves[0].x)
    text = (tmp_path / "tea.json").read_text()
    assert "NaN" not in text and text.count('"value": "Infinity"') == 2


def test_a_result_without_samples_has_no_second_file(tmp_path: Path) -> None:
    replace(RESULT, samples={}).save(tmp_path / "tea.json")
    assert [path.name for path in tmp_path.iterdir()] == ["tea.json"]
    assert Result.read(tmp_path / "tea.json").samples == {}


def test_the_table_says_everything() -> None:
    said = words(RESULT)
    for part in (
        *(
            "0.3333",
            "[0.1000, 0.7000]",
            "0.01235",
            "-2.500e-07",
            "ratio [bold]",
            "90 % interval",
        ),
        *("by group at FAR=1e-1, threshold 0.2500", "0.1000 [0.000, 0.2000]", "1 / 10", "a × b", "3 / 20", "infinite"),
        *("6,000 pairs, 10 folds", "flip: none\nfars: [0.1, 0.01]\nsorted: true", "the ratio is undefined"),
    ):
        assert part in said, part
    assert "0.33333333333" in words(RESULT, 11)
    assert next(line for line in said.splitlines() if "ratio [bold]" in line).count("undefined") == 1  # no interval
    assert next(line for line in said.splitlines() if "CPM" in line).split("│")[3].strip() == "none"
    near = words(Result("tea", (Number("a", 0.99997, Interval(0.99996, 0.99998)),), {}, {}))
    assert "[0.99996, 0.99998]" in near  # and not [1.000, 1.000]
    loud = words(replace(RESULT, notes=("a note", "warning: nothing is separated")))
    assert loud.startswith("warning: nothing is separated\n") and loud.count("warning") == 1
    plain = words(Result("tea", (Number("a", 1.0),), {}, {}))
    assert "interval" not in plain
    assert "threshold" not in plain


def test_numbers_by_name() -> None:
    assert RESULT["accuracy"] == 1 / 3
    with pytest.raises(InputError, match="tea has no number 'acuracy'; did you mean 'accuracy'"):
        RESULT["acuracy"]


@pytest.mark.parametrize("count", [MOST_POINTS, MOST_POINTS + 1, 10**5])
def test_a_thinned_curve_keeps_its_ends_and_order(count: int) -> None:
    x = np.linspace(0, 1, count)
    thin = Curve("roc", "long", x, x**2).thinned()
    assert len(thin.x) <= MOST_POINTS
    assert (thin.x[0], thin.x[-1]) == (0.0, 1.0)
    assert (np.diff(thin.x) > 0).all()
    assert np.array_equal(thin.y, thin.x**2)
    assert (thin.x < 100 / count).sum() >= 90  # the first points, where a log axis looks, all but stay


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"format": 1},
            "is not a saved result .its format must be 2, the one that this Angulus reads; got 1; evaluate",
        ),
        ({"format": None}, "its format must be 2, the one that this Angulus reads; got None"),
        ({"protocol": 5}, "protocol must be a valid string; got 5"),
        ({"numbers": None}, "numbers must be a valid list; got None"),
        ({"numbers": [5]}, r"numbers\[0\] must be a mapping of names to values; got 5"),
        ({"numbers": [{"name": "a"}]}, r"numbers\[0\] must have 'value'"),
        ({"numbers": [{"name": "a", "value": 1}, {"name": "a", "value": 2}]}, "each number once; got 'a' 2 times"),
        (
            {"numbers": [{"name": "a", "value": 1, "interval": BACKWARDS}]},
            r"numbers\[0\].interval must go from low to high; got 0.9 to 0.1",
        ),
        ({"numbers": [{"name": "a", "value": 10**400}]}, r"numbers\[0\].value must be a finite number, null, "),
        ({"numbers": [{"name": "a", "value": math.nan}]}, "it holds NaN; JSON has no NaN and no infinity: write null"),
        ({"numbers": [{"name": "a", "value": "1"}]}, r"numbers\[0\].value must be a finite number, null, .*; got '1'"),
        ({"choices": "none"}, "choices must be a mapping of names to values; got 'none'"),
        ({"counts": {"pairs": "many"}}, "counts.pairs must be a valid integer; got 'many'"),
        ({"notes": [None]}, r"notes\[0\] must be a valid string; got None"),
        ({"environment": []}, r"environment must be a mapping of names to values; got \[\]"),
        ({"curves": [{"kind": "rock", "name": "", "x": [1], "y": [1]}]}, r"curves\[0\].kind must be 'roc', 'det'"),
        ({"curves": [{"kind": "roc", "name": "", "x": [1], "y": [1, 2]}]}, "as many x as y; got 1 and 2"),
        ({"chioces": {}}, "the file must not have 'chioces', which the schema does not know; did you mean 'choices'?"),
        ({"samples": "tea.npz"}, "samples must be a mapping of names to values; got 'tea.npz'"),
        (
            {"samples": {"file": "../tea.npz", "sha256": "0" * 64}},
            r"samples.file must match pattern .*; got '../tea.npz'",
        ),
        ({"by_group": [{"at": "FAR=1", "kind": "verification", "cells": []}]}, r"cells must have at least 1 item"),
        ({"by_group": [cells(("a",), ("a", "b"))]}, "must have a cell of group 'b' alone; got it only with another"),
        ({"by_group": [cells(("a",), ("b",), ("a", "b"), ("b", "a"))]}, "must have one cell for a and b; got 2"),
        ({"by_group": [cells(("a",), trials=2, errors=3)]}, "at most as many errors as trials; got 3 of 2"),
        ({"by_group": [cells(("a",), trials=4, errors=2, value=0.1)]}, "the value errors / trials; got 0.1 for 2 of 4"),
        (
            {"samples": {"file": "gone.npz", "sha256": "0" * 64}},
            r"gone\.npz cannot be read .*; keep them next to the \.json",
        ),
    ],
)
def test_a_damaged_file_is_refused(change: dict[str, object], sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "tea.json"
    RESULT.save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=sentence):
        Result.read(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    for text in ("", "[]", "{}", "\udcff", "[" * 10**5):
        (tmp_path / "other.json").write_text(text, errors="surrogateescape")
        with pytest.raises(InputError, match=r"other\.json is not a saved result .*; give the \.json that angulus"):
            Result.read(tmp_path / "other.json")
    with pytest.raises(InputError, match="is not a saved result"):
        Result.read(tmp_path / "absent.json")
    with pytest.raises(InputError, match=r"a result is saved as \.json; got"):
        RESULT.save(tmp_path / "tea.yaml")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and then", None], ids=["empty", "other", "of another run"])
def test_samples_that_were_not_saved_with_the_result_are_refused(content: bytes | None, tmp_path: Path) -> None:
    """A second run that replaced the samples and could not write its JSON, on a full disk, leaves such a pair."""
    RESULT.save(tmp_path / "tea.json")
    samples = tmp_path / "tea.samples.npz"
    if content is None:
        replace(RESULT, samples={"scores": np.zeros(3)}).save(tmp_path / "other.json")
        content = (tmp_path / "other.samples.npz").read_bytes()
    samples.write_bytes(content)
    with pytest.raises(InputError, match=r"tea\.samples\.npz must be those saved with it; they have changed"):
        Result.read(tmp_path / "tea.json")


def test_saving_spares_embeddings_of_the_same_name(tmp_path: Path) -> None:
    (tmp_path / "tea.npz").write_bytes(b"embeddings")
    RESULT.save(tmp_path / "tea.json")
    assert (tmp_path / "tea.npz").read_bytes() == b"embeddings"
    assert set(Result.read(tmp_path / "tea.json").samples) == set(RESULT.samples)


@pytest.mark.parametrize(("x", "y"), [([1.0], [1.0, 2.0]), ([], []), ([[1.0]], [[1.0]])])
def test_curves_refuse(x: list[float], y: list[float]) -> None:
    with pytest.raises(InputError, match=r"a curve has x and y of one shape \[K\]; got"):
        Curve("roc", "bad", np.array(x), np.array(y))
