"""Loops of other libraries: the page shows the scripts. Plain PyTorch runs here, DDP in training/test_torchrun.py.

`examples/loops/run.py` runs all of them with the real libraries and stores what they found.
"""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
LOOPS = ROOT / "examples" / "loops"


@pytest.fixture
def digits(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(LOOPS)
    monkeypatch.setenv("EPOCHS", "2")
    import digits

    yield digits
    del sys.modules["digits"]


def found(printed: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(next(line for line in printed.splitlines() if line.startswith('{"loop"')))
    return result


def test_plain_pytorch(digits: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    names = runpy.run_path(str(LOOPS / "plain.py"))
    result = found(capsys.readouterr().out)
    assert result["difference_after_resume"] == 0
    assert result["steps_counted_by_head"] == result["steps"] == 48
    assert result["accuracy"] > 0.8
    runs = [names["train"](epochs, tmp_path / "state.pt") for epochs in (0, 1)]
    assert digits._difference(*runs) > 0  # which the check would see


def test_the_page_shows_the_scripts_and_what_they_found() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "loops.py"))
    assert page["page"]() == page["PAGE"].read_text(encoding="utf-8"), "python docs/loops.py, and commit it"


def test_every_stored_loop_resumed_to_the_same_weights() -> None:
    lines = [json.loads(line) for line in (ROOT / "docs/results/loops.jsonl").read_text(encoding="utf-8").splitlines()]
    run = runpy.run_path(str(LOOPS / "run.py"))["LOOPS"]
    assert [(line["script"], line["processes"]) for line in lines] == [(s, n) for s, ns in run.items() for n in ns]
    for line in lines:
        assert line["difference_after_resume"] == 0 and line["steps_counted_by_head"] == line["steps"], line
