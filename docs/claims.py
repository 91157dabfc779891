"""Writes the first section of docs/results.md, claim by claim, from the recipes and docs/results."""

from __future__ import annotations

import re
from pathlib import Path

from angulus.core import files
from angulus.experiments.reproduce import read_results_folder
from angulus.report import claims_table

DOCS = Path(__file__).parent
PAGE = DOCS / "results.md"
SECTION = re.compile(r"(<!-- claims: written by make docs -->\n).*?(<!-- end of claims -->)", re.DOTALL)


def page() -> str:
    """The page with its section on the claims as recipes and results have them."""
    text = PAGE.read_text(encoding="utf-8")
    section = claims_table.to_markdown(read_results_folder(DOCS / "results"))
    return SECTION.sub(lambda found: f"{found[1]}\n{section}\n{found[2]}", text)


if __name__ == "__main__":
    files.write_text(PAGE, page())
