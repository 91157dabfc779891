"""Writes docs/losses-tested.md, every loss on one page: `python docs/tested.py build/tests.xml`.

Formulas and sources come from the code, the rest from the tests' results and stored timings.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from pathlib import Path
from typing import Any

from angulus.core import files
from angulus.losses import ALIASES, build
from angulus.losses.objective import ROLES, Objective

PAGE = Path(__file__).parent / "losses-tested.md"
COSTS = Path(__file__).parents[1] / "benchmarks" / "results" / "loss_costs.jsonl"
SHAPE = {"batch": 256, "classes": 100_000, "size": 512}
OPENING = """\
# Every loss on one page

The formula of each loss with its defaults, its source, what differs between paper, authors' code and here, which
tests show it, and what it costs. [The losses](losses.md) explains how to choose. Made by `make docs` from the code, the
results of the tests and stored timings.

Sources: CM is contraction mapping of norms (CM-Softmax), NF NormFace, MV MV-Softmax, IAM the inter-class angular
margin, FI feature incay. θ is the angle to the own class weight, θ_j to another.

Tests: passed of run, over all cases of a loss in `tests/losses/aliases.py` (variants, margins, compositions).

* Scalar loop: loss and gradients against slow loops written from the equation, in float64 to 1e-9, in float32 to 2e-4.
* Gradcheck: gradients of autograd against finite differences, next to θ = 0 and π too.
* Edges: zero feature, θ = 0 and π, norms 1e-8 to 1e4, one sample, two classes, float32, bfloat16, float16: all finite.
* Recipe, words, formula: what is written and read back is the same loss.

Cost: the time of a training step, as a ratio to ArcFace's with B = 256, C = 100,000 and d = 512 on a CPU, the median of
rounds in turn ([loss_costs.py](../benchmarks/loss_costs.py)); "in CPU seconds" is processor time of one thread on a
machine that did other work too. K rows per class are compared with ArcFace of K · C
classes, and a penalty is added to NormFace.
"""
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


def cited(text: str, label: str) -> str:
    """What a docstring says after `label`: of "Source" the citation, of "Differs" all to the end of the paragraph."""
    end = r"\.(?:\s|$)(?!\d)" if label == "Source" else "$"
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        found = re.search(f"{label}: (.*?){end}", " ".join(paragraph.split()))
        if found:
            return found.group(1)
    return ""


def chosen(objective: Objective) -> list[Any]:
    """The pieces that are not the usual ones."""
    usual = Objective()
    slots = [getattr(objective, slot) for slot in ROLES if getattr(objective, slot) != getattr(usual, slot)]
    return [*slots, *(term.penalty for term in objective.penalties), *objective.feature_terms]


def name(piece: Any) -> str:
    """The name of a piece in recipes."""
    return str(getattr(piece, "kind", None) or piece.name)


def costs() -> dict[str, str]:
    """The last measured time of a step by loss, as a ratio to ArcFace's, at the size that the page names."""
    lines = COSTS.read_text(encoding="utf-8").splitlines() if COSTS.exists() else []
    found = {"arcface": "1"}
    for row in map(json.loads, lines):
        if all(row[key] == value for key, value in SHAPE.items()):
            clock = " in CPU seconds" if row.get("clock") == "cpu_seconds" else ""
            found[row["loss"].removeprefix("normface + ")] = f"{row['ratio']:.2f}{clock}"
    return found


def signature(alias: str) -> inspect.Signature:
    """The arguments of a loss with their defaults."""
    full = inspect.signature(ALIASES[alias])
    arguments = [argument.replace(annotation=inspect.Parameter.empty) for argument in full.parameters.values()]
    return full.replace(parameters=arguments, return_annotation=inspect.Signature.empty)


def block(alias: str, found: dict[tuple[str, str], list[bool]], cost: str) -> list[str]:
    """All that the page says of a loss."""
    objective = build(alias)
    pieces = chosen(objective)
    texts = dict.fromkeys([ALIASES[alias].__doc__ or "", *(type(piece).__doc__ or "" for piece in pieces)])
    differs = [differs[0].upper() + differs[1:] for text in texts if (differs := cited(text, "Differs"))]
    tests = [f"{column} {sum(passed)} of {len(passed)}" for column in COLUMNS if (passed := found.get((alias, column)))]
    formula = re.sub(r", (?=(?:t|z_j|cos θ_j|s|f\(‖x‖\)) = )", "\n", objective.formula())
    return [
        f"## {alias}",
        "",
        "```text",
        f"{alias}{signature(alias)}",
        "",
        formula,
        "```",
        "",
        f"* Source: {cited(ALIASES[alias].__doc__ or '', 'Source') or '—'}. Pieces: {' + '.join(map(name, pieces))}.",
        f"* Differs: {' '.join(differs) or 'nothing known.'}",
        f"* Tests passed: {', '.join(tests) or 'none'}.",
        f"* Cost: {cost}.",
        "",
    ]


def page(xml: Path) -> str:
    """The page, the same for the same results, timings and docstrings."""
    found, ratios = outcomes(xml), costs()
    blocks = [line for alias in ALIASES for line in block(alias, found, ratios.get(alias, "not measured"))]
    return "\n".join([OPENING, *blocks]).rstrip() + "\n"


if __name__ == "__main__":
    files.write_text(PAGE, page(Path(sys.argv[1])))
