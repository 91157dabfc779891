"""Writes docs/losses-tested.md from the tests' results and stored timings: `python docs/tested.py build/tests.xml`."""

from __future__ import annotations

import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from pathlib import Path

from angulus.core import files
from angulus.losses import ALIASES, build
from angulus.losses.objective import ROLES, Objective

PAGE = Path(__file__).parent / "losses-tested.md"
COSTS = Path(__file__).parents[1] / "benchmarks" / "results" / "loss_costs.jsonl"
COST_WORDS = (
    "Cost: the time of a training step, as a ratio to ArcFace's with B = 256, C = 100,000 and d = 512 on a CPU, the",
    "median of rounds in turn ([loss_costs.py](../benchmarks/loss_costs.py)); K rows per class are compared with",
    "ArcFace of K · C classes.",
)
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


def pieces(alias: str) -> str:
    """The pieces that an alias chooses, by their names in recipes."""
    objective = build(alias)
    usual = Objective()
    chosen = [getattr(objective, slot) for slot in ROLES if getattr(objective, slot) != getattr(usual, slot)]
    kinds = [piece.kind for piece in chosen]
    kinds += [term.penalty.name for term in objective.penalties]
    return " + ".join([*kinds, *(["center_loss"] if objective.center_loss else [])])


def costs() -> dict[str, str]:
    """The last measured time of a step by loss, as a ratio to ArcFace's."""
    lines = COSTS.read_text(encoding="utf-8").splitlines() if COSTS.exists() else []
    rows = [json.loads(line) for line in lines]
    return {row["loss"].removeprefix("normface + "): f"{row['ratio']:.2f}" for row in rows}


def page(xml: Path) -> str:
    found, ratios = outcomes(xml), costs()
    lines = [
        "# What is tested of each loss",
        "",
        "Made from the results of the tests by `make docs`: passed of run, over all cases of an alias in",
        "`tests/losses/aliases.py` (variants, margins, compositions). Scalar loop: loss and gradients against slow",
        "loops written from the equation, in float64 to 1e-9 and float32 to 2e-4. Gradcheck: gradients of autograd",
        "against finite differences, next to θ = 0 and π too. Edges: zero feature, θ = 0 and π, norms 1e-8 to 1e4,",
        "one sample, two classes, float32, bfloat16 and float16: all finite.",
        *(COST_WORDS if ratios else ()),
        "",
        "| alias | pieces | equation | " + " | ".join([*COLUMNS, *(["cost"] if ratios else [])]) + " |",
        "|---|---|---|" + "---:|" * (len(COLUMNS) + bool(ratios)),
    ]
    for alias in ALIASES:
        cells = []
        for column in COLUMNS:
            results = found.get((alias, column), [])
            cells.append(f"{sum(results)} of {len(results)}" if results else "none")
        if ratios:
            cells.append("1" if alias == "arcface" else ratios.get(alias, "—"))
        lines.append(f"| `{alias}` | {pieces(alias)} | {source(alias)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    files.write_text(PAGE, page(Path(sys.argv[1])))
