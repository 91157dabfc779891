"""`angulus results`: a sheet of another program, all that is wrong at once, the JSON Schema, and the page about it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from angulus.cli import calibrate, evaluate, report
from angulus.cli.results import results_app
from angulus.core.checks import InputError
from angulus.evaluation.protocols import score_sheet
from angulus.evaluation.protocols.result import Result as Saved
from benchmark_files import lfw, people

app = typer.Typer()
app.add_typer(results_app, name="results")
app.add_typer(evaluate.evaluate_app, name="evaluate")
app.command("compare-results")(calibrate.compare_results)
app.command("report")(report.report)

PAGE = Path(__file__).parents[2] / "docs" / "score-sheet.md"
SMALLEST = {"format": 2, "protocol": "pairs", "numbers": [{"name": "TAR@FAR=1e-3", "value": 0.9}]}


def run(*arguments: object, code: int = 0) -> Result:
    found = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert found.exit_code == code or found.exception is None, found.output
    return found


def test_what_angulus_saves_is_valid_and_a_changed_file_is_not(tmp_path: Path) -> None:
    people(tmp_path)
    saved = tmp_path / "lfw.json"
    run("evaluate", *lfw(tmp_path), "--json", saved)
    assert run("results", "validate", saved).output == f"{saved}: valid\n"
    assert len(Saved.read(saved).by_group[0].cells) == 3
    samples = saved.with_suffix(".samples.npz")
    samples.write_bytes(samples.read_bytes()[:-1])
    found = run("results", "validate", saved, code=1)
    assert found.exit_code == 1 and "lfw.samples.npz must be those saved with it" in found.output
    samples.unlink()
    assert "lfw.samples.npz cannot be read" in run("results", "validate", saved, code=1).output


def test_a_sheet_of_another_program_is_enough(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.json"
    theirs.write_text(json.dumps(SMALLEST))
    assert run("results", "validate", theirs).output == f"{theirs}: valid\n"
    assert Saved.read(theirs)["TAR@FAR=1e-3"] == 0.9
    run("report", theirs, "--out", tmp_path / "theirs.html")
    assert "TAR@FAR=1e-3" in (tmp_path / "theirs.html").read_text()


@pytest.mark.parametrize("name", ["rfw", "retrieval", "reid", "froc", "megaface", "trillion-pairs", "ijb-identify"])
def test_a_sheet_without_samples_has_a_report(name: str, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.json"
    theirs.write_text(json.dumps(SMALLEST | {"protocol": name, "environment": {"files": ["a.csv"]}}))
    run("report", theirs, "--out", tmp_path / "theirs.html")
    assert "a.csv" in (tmp_path / "theirs.html").read_text()


def test_all_that_is_wrong_is_listed_and_reading_names_three(tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps(SMALLEST | {"counts": {"a": -1, "b": 1.5}, "notes": 5, "number": [], "environment": 3}))
    found = run("results", "validate", bad, tmp_path / "absent.json", code=1)
    assert found.exit_code == 1
    assert found.output.splitlines() == [
        f"{bad}: 5 wrong",
        "  counts.a must be at least 0; got -1",
        "  counts.b must be a valid integer; got 1.5",
        "  notes must be a valid list; got 5",
        "  environment must be a mapping of names to values; got 3",
        "  the file must not have 'number', which the schema does not know; did you mean 'numbers'?",
        f"{tmp_path / 'absent.json'}: 1 wrong",
        "  there is no such file",
    ]
    for command in (["report", bad, "--out", tmp_path / "r.html"], ["compare-results", bad, bad]):
        error = run(*command, code=1).exception
        assert isinstance(error, InputError)
        assert "counts.a must be at least 0; got -1" in str(error)
    with pytest.raises(InputError, match="got 5; and 2 more, which angulus results validate lists"):
        Saved.read(bad)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"format": 2, "format": 2}', "it must hold each name once; got 'format' 2 times"),
        ('{"format": 2, "protocol": "a", "numbers": [{"name": "b", "value": -Infinity}]}', "it holds -Infinity; JSON"),
        ("[1]", "it must be a mapping of names to values; got [1]"),
        ('{"protocol": "pairs"}', "its format must be 2, the one that this Angulus reads; got none"),
        ("[" * 100_000, "at most 64 deep"),
        ("{", "it must be JSON text, as --json of angulus evaluate writes it; got Expecting property name"),
        ("\x89PNG\0", "writes it; got bytes that are no text\n"),
    ],
)
def test_other_files(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_bytes(text.encode("latin-1"))
    assert sentence in run("results", "validate", tmp_path / "other.json", code=1).output


def test_many_numbers_and_cells_are_checked_in_one_pass(tmp_path: Path) -> None:
    """20,000 numbers took 15 s and 10,000 cells 10 s when each was looked for among all."""
    numbers = [{"name": f"n{place}", "value": 1.0} for place in range(20_000)]
    point = {"at": "x", "kind": "verification", "cells": [{"groups": [f"g{place}"]} for place in range(10_000)]}
    sheet = tmp_path / "many.json"
    sheet.write_text(json.dumps(SMALLEST | {"numbers": numbers, "by_group": [point]}))
    start = time.process_time()
    assert len(Saved.read(sheet).numbers) == 20_000
    assert time.process_time() - start < 5
    sheet.write_text(json.dumps(SMALLEST | {"numbers": [*numbers, numbers[7]]}))
    with pytest.raises(InputError, match="must have each number once; got 'n7' 2 times"):
        Saved.read(sheet)


def test_the_schema_is_that_of_the_page() -> None:
    schema = json.loads(run("results", "schema").output)
    assert schema == score_sheet.schema() and schema["required"] == ["format", "protocol", "numbers"]
    page = PAGE.read_text()
    for part in score_sheet.PARTS:
        fields = part.model_fields
        rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
        for name, field in fields.items():
            described = " ".join((field.description or "").split()).replace("|", "&#124;")
            assert any(row[0] == f"| `{name}`" and described in row[-1] for row in rows), (part, name)


def test_the_page_s_smallest_sheet_is_valid(tmp_path: Path) -> None:
    blocks = PAGE.read_text().split("```json\n")[1:]
    for number, block in enumerate(blocks):
        path = tmp_path / f"{number}.json"
        path.write_text(block.partition("```")[0])
        assert score_sheet.find_errors(path) == []
    assert len(blocks) == 2
