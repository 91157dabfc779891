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
from angulus.evaluation.protocols.result import MOST_POINTS, Curve, Number, Result

RESULT = Result(
    "tea",
    (
        Number("accuracy", 1 / 3, Interval(0.1, 0.7, 0.9), spread=0.0123456),
        Number("TAR@FAR=1e-3", 0.5, None, threshold=-2.5e-7),
        Number("ratio [bold]", math.nan),
        Number("CPM", 1.0, no_interval="all resamples agree"),
    ),
    {"flip": "none", "fars": [0.1, 0.01], "sorted": True},
    {"pairs": 6000, "folds": 10},
    curves=(Curve("roc", "tea", np.array([0.0, 0.5, 1.0]), np.array([0.2, 0.9, 1.0])),),
    notes=("the ratio is undefined",),
    samples={"scores": np.array([0.1, 0.2 + 0.1]), "left": np.array(["a/1", "ü/2"]), "same": np.array([True, False])},
    about={"embeddings": "mine.npz"},
)


BACKWARDS = {"low": 0.9, "high": 0.1, "level": 0.95}


def words(result: Result, digits: int = 4) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(result.table(digits))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_saved_result_is_read_as_it_was(tmp_path: Path) -> None:
    RESULT.save(tmp_path / "tea.json")
    again = Result.read(tmp_path / "tea.json")
    assert repr(again.numbers) == repr(RESULT.numbers)  # NaN is unequal to itself
    for name in ("protocol", "notes", "about"):
        assert getattr(again, name) == getattr(RESULT, name)
    assert (dict(again.choices), dict(again.counts)) == (dict(RESULT.choices), dict(RESULT.counts))
    for name, values in RESULT.samples.items():
        assert np.array_equal(again.samples[name], values)
        assert again.samples[name].dtype == values.dtype
    assert np.array_equal(again.curves[0].x, RESULT.curves[0].x)
    assert "NaN" not in (tmp_path / "tea.json").read_text()


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
        ({"format": 2}, "is not a saved result .its format is 2 and not 1"),
        ({"protocol": 5}, "5 stands where a str is due"),
        ({"numbers": None}, "None stands where a list is due"),
        ({"numbers": [5]}, "5 stands where a dict is due"),
        ({"numbers": [{"name": "a", "value": 1}]}, "it lacks 'threshold'"),
        (
            {"numbers": [{"name": "a", "value": 1, "threshold": None, "spread": None, "interval": BACKWARDS}]},
            "an interval must go from low to high at a level in .0, 1.; got 0.9 to 0.1 at 0.95",
        ),
        (
            {"numbers": [{"name": "a", "value": 10**400, "interval": None, "threshold": None, "spread": None}]},
            "too large",
        ),
        ({"choices": "none"}, "'none' stands where a dict is due"),
        ({"counts": {"pairs": "many"}}, "'many' stands where a int is due"),
        ({"notes": [None]}, "None stands where a str is due"),
        ({"environment": []}, r"\[\] stands where a dict is due"),
        ({"curves": [{"kind": "rock", "name": "", "x": [1], "y": [1]}]}, "kind must be one of 'roc'"),
        ({"samples": "tea.npz"}, "'tea.npz' stands where a dict is due"),
        ({"samples": {"file": "../tea.npz", "sha256": ""}}, "Invalid name"),
        ({"samples": {"file": "gone.npz", "sha256": ""}}, r"gone\.npz cannot be read .*; keep them next to the \.json"),
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
