"""The commands of the docs' console blocks run in their order in an empty folder, and print what the pages show."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime", reason="needs the extra onnx, since a block exports a model")
pytest.importorskip("lancedb", reason="needs the extra search, since a block fills a gallery")
DOCS = Path(__file__).parents[1] / "docs"
# how unequal groups are: other lines and words where the rate of a group is 0, which it may be on one machine alone, as
# its interval may be missing
UNEQUAL = re.compile(r"max/min|max/geometric mean|Gini|^FN?MR at FAR=|^no interval of")


def shape(text: str) -> list[str]:
    """The lines without their numbers, which differ a little between machines, and without the widths of columns."""
    text = re.sub(r"\b[0-9a-f]{16,}\b|(?:[<>] ?)?[-+]?\d[\d.,]*(e[-+]?\d+)?", "0", text)
    lines = [re.sub(r"[━─]+", "━", re.sub(r" +", " ", line)) for line in text.splitlines()]
    lines = [re.sub(r"│ (\[0 0\]|none) │$", "│ │", line.replace("0 [0 0]", "0")) for line in lines]
    return [line for line in lines if not UNEQUAL.search(line)]


def test_the_check_sees_another_sentence() -> None:
    assert shape("a 0.25 │  12") == shape("a > 99.9 │ 3") != shape("b 0.25 │ 12")


def test_console_blocks_print_what_they_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DOCS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    console = importlib.import_module("console")
    count = 0
    for page, text in console.run_pages():
        stored = page.read_text(encoding="utf-8")
        blocks = console.BLOCK.findall(stored)
        assert blocks, f"{page.name} has no console block"
        for old, new in zip(blocks, console.BLOCK.findall(text), strict=True):
            assert shape(old) == shape(new), page.name
            count += len(console.commands(old))
    assert count >= 12
