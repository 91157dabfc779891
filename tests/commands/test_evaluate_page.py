"""The page on evaluation is true: every command line of it runs on small files of each form."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import benchmark_files as files
from angulus.cli.main import app
from angulus.evaluation.registry import COMMANDS

PAGE = Path(__file__).parents[2] / "docs" / "evaluate.md"
TEXT = PAGE.read_text(encoding="utf-8")
LINES = [line for block in re.findall(r"```sh\n(.*?)```", TEXT, flags=re.S) for line in block.splitlines()]
PREPARE = (
    *(files.people, files.cfp, files.bin_set, files.rfw, files.blufr, files.ytf, files.templates, files.megaface),
    *(files.trillion_pairs, files.retrieval, files.reid, files.froc, files.luna16, files.luna16_candidates),
    *(files.classification, files.degraded),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the page's commands read, in one folder that they all run in, in the order of the page."""
    folder = tmp_path_factory.mktemp("page")
    for prepare in PREPARE:
        prepare(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_python_blocks()
    return folder


def run_python_blocks() -> None:
    """Run the page's Python, which writes what its commands read, in the working folder."""
    for block in re.findall(r"```python\n(.*?)```", TEXT, flags=re.S):
        names: dict[str, Any] = {}
        exec(compile(block, PAGE.name, "exec", dont_inherit=True), names)


@pytest.mark.parametrize("line", LINES)
def test_every_command_of_the_page_runs(line: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    program, *arguments = shlex.split(line)
    assert program == "angulus"
    found = CliRunner().invoke(app, arguments)
    if found.exception is not None:
        raise found.exception
    for option in ("--json", "--out", "--report"):
        if option in arguments:
            assert Path(arguments[arguments.index(option) + 1]).stat().st_size > 0


def test_the_page_has_a_command_and_a_row_for_each_protocol() -> None:
    shown = {line.split()[2] for line in LINES if line.startswith("angulus evaluate")}
    names = set(COMMANDS)
    assert names <= shown
    rows = set(re.findall(r"`([\w-]+)`", " ".join(re.findall(r"^\| (`[^|]*) \|", TEXT, flags=re.M))))
    assert names - {"luna16-candidates"} <= rows
