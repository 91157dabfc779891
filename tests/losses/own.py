"""The pieces that docs/add-a-loss.md adds, as its code defines them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from angulus.losses import Objective, margins

PAGE = Path(__file__).parents[2] / "docs/add-a-loss.md"


def names() -> dict[str, Any]:
    """Everything that the page defines; what it puts into a table is taken out again."""
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.S))
    found: dict[str, Any] = {}
    try:
        exec(compile(code, PAGE.name, "exec", dont_inherit=True), found)
    finally:
        margins.TABLE.pop("linear_angle", None)
    return found


def objectives() -> dict[str, Objective]:
    """Those of the page, by what is of one's own in them."""
    page = names()
    own = {"margin": "objective", "radius": "rooted", "negatives": "squared", "weighting": "doubting"}
    own |= {"penalty": "crowded", "kept figure": "curricular", "classifier": "of_squares"}
    return {role: page[name] for role, name in own.items()}
