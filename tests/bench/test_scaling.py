"""The bytes of benchmarks/scaling.py against those of real steps, and its table in the docs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from processes import run_ranks

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("count", [2, 3])
def test_the_formula_counts_what_is_sent(tmp_path: Path, count: int) -> None:
    run_ranks(Path(__file__).with_name("traffic.py"), count, str(tmp_path / "rendezvous"))


def test_the_docs_have_the_tables_of_the_script() -> None:
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    for classes in (1_000_000, 10_000_000):
        command = [sys.executable, str(ROOT / "benchmarks" / "scaling.py"), "--classes", str(classes)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        *table, last = done.stdout.splitlines()
        assert "\n".join(table) in page
        assert last.removeprefix("exchange = products at ") in page
