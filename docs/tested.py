"""Writes docs/losses-tested.md from the tests' own results: `python docs/tested.py build/tests.xml`."""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from pathlib import Path

from angulus.core import files
from angulus.losses import ALIASES

PAGE = Path(__file__).parent / "losses-tested.md"
# column -> the test files whose parametrised cases fill it; a case's name begins with its alias
COLUMNS = {
    "scalar loop": "test_against_scalar",
    "gradcheck": "test_gradcheck",
    "edges": "test_edges",
    "recipe, words, formula": "test_pieces",
}


def outcomes(xml: Path) -> dict[tuple[str, str], list[bool]]:
    """(alias, column) -> whether each of its tests passed, from a JUnit file."""
    found = defaultdict(list)
    for case in ElementTree.parse(xml).iter("testcase"):
        module = case.get("classname", "").rsplit(".", 1)[-1]
        # a[b] or a[b-c]; pytest orders the parameters of stacked decorators from the lowest up
        parameters = re.search(r"\[(.*)\]$", case.get("name", ""))
        column = next((name for name, file in COLUMNS.items() if file == module), None)
        if column is None or parameters is None or case.find("skipped") is not None:
            continue
        alias = re.split(r"[-+ ]", parameters.group(1))[0]
        if alias in ALIASES:
            passed = case.find("failure") is None and case.find("error") is None
            found[alias, column].append(passed)
    return found


def source(alias: str) -> str:
    """The citation in the alias's docstring."""
    text = " ".join((ALIASES[alias].__doc__ or "").split())
    cited = re.search(r"Source: (.*?)\.(?:\s|$)(?!\d)", text)
    return cited.group(1) if cited else "—"


def page(xml: Path) -> str:
    found = outcomes(xml)
    lines = [
        "# What is tested of each loss",
        "",
        "Made from the results of the tests by `make docs`: passed of run, over all cases of an alias in",
        "`tests/losses/aliases.py` (variants, margins, compositions). Scalar loop: loss and gradients against slow",
        "loops written from the equation, in float64 to 1e-9 and float32 to 2e-4. Gradcheck: gradients of autograd",
        "against finite differences, next to θ = 0 and π too. Edges: zero feature, θ = 0 and π, norms 1e-8 to 1e4,",
        "one sample, two classes, float32, bfloat16 and float16: all finite.",
        "",
        "| alias | equation | " + " | ".join(COLUMNS) + " |",
        "|---|---|" + "---:|" * len(COLUMNS),
    ]
    for alias in ALIASES:
        cells = []
        for column in COLUMNS:
            results = found.get((alias, column), [])
            cells.append(f"{sum(results)} of {len(results)}" if results else "none")
        lines.append(f"| `{alias}` | {source(alias)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    files.write_text(PAGE, page(Path(sys.argv[1])))
