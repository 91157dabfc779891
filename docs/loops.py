"""Writes the scripts of examples/loops and the table of what they found into your-loop.md: `python docs/loops.py`."""

from __future__ import annotations

import json
import re
from pathlib import Path

DOCS = Path(__file__).parent
PAGE = DOCS / "your-loop.md"
SCRIPTS = DOCS.parent / "examples" / "loops"
SCRIPT = re.compile(r"(<!-- script: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
TABLE = re.compile(r"(<!-- table: written by docs/loops.py -->\n).*?(<!-- end -->)", re.DOTALL)


def page() -> str:
    """The page with its scripts and its table as examples/loops and docs/results have them."""
    text = PAGE.read_text(encoding="utf-8")
    text = SCRIPT.sub(lambda found: f"{found[1]}\n```python\n{script(found[2])}```\n\n{found[3]}", text)
    return TABLE.sub(lambda found: f"{found[1]}\n{table()}\n{found[2]}", text)


def script(name: str) -> str:
    return (SCRIPTS / f"{name}.py").read_text(encoding="utf-8")


def table() -> str:
    lines = [json.loads(line) for line in (DOCS / "results" / "loops.jsonl").read_text(encoding="utf-8").splitlines()]
    about = lines[0]["environment"]
    rows = [
        f"| {line['loop']} | {line['processes']} | {100 * line['accuracy']:.1f} % | "
        f"{line['steps_counted_by_head']} of {line['steps']} | {_gap(line['difference_after_resume'])} |"
        for line in lines
    ]
    head = "| loop | processes | test accuracy | steps the head counted | after resume |\n|---|---:|---:|---:|---|"
    names = {"torch": "PyTorch", "lightning": "Lightning", "accelerate": "Accelerate", "transformers": "Transformers"}
    versions = ", ".join(f"{title} {about[name].partition('+')[0]}" for name, title in names.items())
    where = f"{versions}; {about['device']}, {about['date']}."
    return "\n".join([head, *rows, "", where, ""])


def _gap(difference: float) -> str:
    return "equal bit for bit" if difference == 0 else f"largest difference {difference:.1e}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
