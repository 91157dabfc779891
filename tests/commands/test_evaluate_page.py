"""The page on evaluation names every protocol; test_base_install.py runs its lines on small files of each form."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import benchmark_files as files
from angulus.evaluation.registry import COMMANDS

PAGE = Path(__file__).parents[2] / "docs" / "evaluate.md"
TEXT = PAGE.read_text(encoding="utf-8")
LINES = [line for block in re.findall(r"```sh\n(.*?)```", TEXT, flags=re.S) for line in block.splitlines()]
PREPARE = (
    *(files.people, files.cfp, files.bin_set, files.rfw, files.blufr, files.ytf, files.templates, files.megaface),
    *(files.trillion_pairs, files.retrieval, files.reid, files.froc, files.luna16, files.luna16_candidates),
    *(files.classification, files.degraded),
)


def run_python_blocks() -> None:
    """Run the page's Python, which writes what its commands read, in the working folder."""
    for block in re.findall(r"```python\n(.*?)```", TEXT, flags=re.S):
        names: dict[str, Any] = {}
        exec(compile(block, PAGE.name, "exec", dont_inherit=True), names)


def test_the_page_has_a_command_and_a_row_for_each_protocol() -> None:
    shown = {line.split()[2] for line in LINES if line.startswith("angulus evaluate")}
    names = set(COMMANDS)
    assert names <= shown
    rows = set(re.findall(r"`([\w-]+)`", " ".join(re.findall(r"^\| (`[^|]*) \|", TEXT, flags=re.M))))
    assert names - {"luna16-candidates"} <= rows
